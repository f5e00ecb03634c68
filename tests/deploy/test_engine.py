"""The engine: needs, failures, and what is told."""

from __future__ import annotations

import threading

import pytest

from axon_tasks.deploy.engine import Report, Step, execute
from axon_tasks.deploy.servers import AbortedError, ServersFailedError, flatten
from axon_tasks.errors import AxonError


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, step: str) -> None:
        self.told.append(f"+{step}")

    def finished(self, step: str, seconds: float, report: Report) -> None:
        self.told.append(f"-{step}")

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        self.told.append(f"!{step}")

    def message(self, server: str, text: str) -> None:
        self.told.append(text)


def fine() -> Report:
    """A step that ends well."""
    return Report()


def test_a_step_runs_after_what_it_needs() -> None:
    """Steps run in the order of their needs, not of the list."""
    notes = Notes()
    plan = [Step("c", ("b",), fine), Step("b", ("a",), fine), Step("a", (), fine)]
    assert [] == execute(plan, notes, lambda: None)
    assert ["+a", "-a", "+b", "-b", "+c", "-c"] == notes.told


def test_independent_steps_run_at_the_same_time() -> None:
    """Two steps that need nothing of each other overlap: each waits here for the other."""
    meeting = threading.Barrier(2, timeout=20)

    def meet() -> Report:
        meeting.wait()
        return Report()

    assert [] == execute([Step("a", (), meet), Step("b", (), meet)], Notes(), lambda: None)


def test_a_need_that_is_not_in_the_plan_is_ignored() -> None:
    """A step that is run alone does not wait for steps that are not there."""
    assert [] == execute([Step("b", ("a",), fine)], Notes(), lambda: None)


def test_after_a_failure_nothing_starts_and_everything_is_reported() -> None:
    """Every failure is told, not only the first; what runs is ended once; what needs them never starts."""
    aborted = threading.Event()
    calls = []

    def abort() -> None:
        calls.append(1)
        aborted.set()

    def first() -> Report:
        raise AxonError("first")

    def second() -> Report:
        assert aborted.wait(20)
        raise AxonError("second")

    notes = Notes()
    plan = [Step("a", (), first), Step("b", (), second), Step("c", ("a", "b"), fine)]
    assert ["first", "second"] == [str(error) for error in execute(plan, notes, abort)]
    assert [1] == calls
    assert "+c" not in notes.told


def test_a_defect_of_ours_is_raised_as_it_is() -> None:
    """An error that is none of ours is not dressed up as a failed deploy."""

    def broken() -> Report:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        execute([Step("a", (), broken)], Notes(), lambda: None)


def test_flatten_tells_causes_and_not_consequences() -> None:
    """Failures of several servers are told one by one, without those that were ended because of them."""
    error = ServersFailedError([AxonError("app1: full"), AbortedError("app2: ended early")])
    assert ["app1: full"] == [str(one) for one in flatten([error, AbortedError("pull")])]

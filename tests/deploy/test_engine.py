"""The engine: needs, resources, failures, interruptions, and what is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.deploy.engine import Engine, Interruptible, Report, Result, Step
from axon_tasks.deploy.servers import AbortedError, ServersFailedError, flatten
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Notes:
    """A listener and a performer that keep what they are told; each step does what is named for it."""

    work: dict[str, Callable[[], None]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    aborts: int = 0
    aborted: threading.Event = field(default_factory=threading.Event)

    def perform(self, step: Step) -> Report:
        self.work.get(step.name, lambda: None)()
        return Report()

    def abort(self) -> None:
        self.aborts += 1
        self.aborted.set()

    def started(self, step: str, servers: object = ()) -> None:
        self.told.append(f"+{step}")

    def finished(self, step: str, seconds: float, report: Report) -> None:
        self.told.append(f"-{step}")

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        self.told.append(f"!{step}")

    def server(self, step: str, server: str, state: str) -> None:
        self.told.append(f"{step}@{server}")

    def message(self, server: str, text: str) -> None:
        self.told.append(text)

    def progress(self, step: str, server: str, text: str) -> None:
        self.told.append(text)


def step(name: str, *needs: str, **more: object) -> Step:
    return Step(name, name, needs, **more)  # type: ignore[arg-type]


def run(notes: Notes, *steps: Step, sequential: bool = False) -> Result:
    return Engine(steps, notes, notes, sequential=sequential).run()


def fail(message: str) -> Callable[[], None]:
    def failing() -> None:
        raise AxonError(message)

    return failing


def test_a_step_runs_after_what_it_needs() -> None:
    """Steps run in the order of their needs, not of the list."""
    notes = Notes()
    assert [] == run(notes, step("c", "b"), step("b", "a"), step("a")).errors
    assert ["+a", "-a", "+b", "-b", "+c", "-c"] == notes.told


def test_independent_steps_run_at_the_same_time() -> None:
    """Two steps that need nothing of each other overlap: each waits here for the other."""
    meeting = threading.Barrier(2, timeout=20)
    notes = Notes({"a": meeting.wait, "b": meeting.wait})  # type: ignore[dict-item]
    assert [] == run(notes, step("a"), step("b")).errors


@pytest.mark.parametrize(
    ("one", "other"),
    [({"changes": {"x"}}, {"changes": {"x"}}), ({"changes": {"x"}}, {"reads": {"x"}}), ({"reads": {"x"}}, {"changes": {"x"}})],
)  # fmt: skip
def test_who_changes_a_thing_has_it_alone(one: dict[str, set[str]], other: dict[str, set[str]]) -> None:
    """Steps without a common need run one after the other if one changes what the other reads or changes."""
    notes = Notes()
    frozen = [{key: frozenset(value) for key, value in kind.items()} for kind in (one, other)]
    run(notes, step("a", **frozen[0]), step("b", **frozen[1]))
    assert ["+a", "-a", "+b", "-b"] == notes.told


def test_readers_share() -> None:
    """Two steps that only read the same thing overlap."""
    meeting = threading.Barrier(2, timeout=20)
    notes = Notes({"a": meeting.wait, "b": meeting.wait})  # type: ignore[dict-item]
    shared = frozenset({"x"})
    assert [] == run(notes, step("a", reads=shared), step("b", reads=shared)).errors


def test_a_need_that_is_not_in_the_plan_is_met() -> None:
    """A step that is run alone does not wait for steps that are not there."""
    assert {"b"} == run(Notes(), step("b", "a")).done


def test_sequential_runs_one_step_at_a_time() -> None:
    """With `sequential` no two steps overlap, and they run in the order of the plan."""
    notes = Notes()
    run(notes, step("a"), step("b"), step("c"), sequential=True)
    assert ["+a", "-a", "+b", "-b", "+c", "-c"] == notes.told


def test_after_a_failure_nothing_starts_and_everything_is_reported() -> None:
    """Every failure is told, not only the first; what runs is ended; what needs them never starts."""
    notes = Notes()

    def second() -> None:
        assert notes.aborted.wait(20)
        raise AxonError("second")

    notes.work = {"a": fail("first"), "b": second}
    result = run(notes, step("a"), step("b"), step("c", "a", "b"))
    assert ["first", "second"] == [str(error) for error in result.errors]
    assert "+c" not in notes.told
    assert (False, ["a", "b"]) == (result.committed, [one.name for one in result.begun])


def test_after_the_commit_nothing_is_ended_and_the_rest_runs() -> None:
    """A step that fails after the commit ends none of the others, and those that must finish still start."""
    notes = Notes({"b": fail("record")})
    after = {"otherwise": "finish"}
    result = run(
        notes,
        step("a", commits=True),
        step("b", "a", **after),
        step("c", "a", **after),
        step("d", "c", **after),
    )
    assert (0, True, {"a", "c", "d"}) == (notes.aborts, result.committed, result.done)
    assert ["record"] == [str(error) for error in result.errors]


def test_interrupted_before_the_commit_nothing_more_starts() -> None:
    """An interruption ends what runs, and the steps that wait are never begun."""
    notes = Notes()
    engine = Engine([step("a"), step("b", "a", commits=True)], notes, notes)

    def interrupted() -> None:
        engine.interrupt()
        assert notes.aborted.wait(20)
        raise AbortedError("ended early")

    notes.work = {"a": interrupted}
    result = engine.run()
    assert (True, False, set()) == (result.interrupted, result.committed, result.done)
    assert "+b" not in notes.told


def test_interrupted_during_the_commit_the_run_is_finished() -> None:
    """An interruption while the commit runs is no reason to leave out what belongs to it."""
    notes = Notes()
    plan = [step("a", commits=True, otherwise="finish"), step("b", "a", otherwise="finish"), step("c", "a")]
    engine = Engine(plan, notes, notes)
    notes.work = {"a": engine.interrupt}
    result = engine.run()
    assert (True, True) == (result.interrupted, result.committed)
    assert {"a", "b"} == result.done


def test_interrupted_after_the_commit_who_only_waits_is_let_go() -> None:
    """After the commit an interruption ends the steps that may be ended, and those that must finish still run."""
    notes = Notes()
    plan = [
        step("a", commits=True, otherwise="finish"),
        step("wait", "a"),
        step("b", "wait", otherwise="finish"),
    ]
    engine = Engine(plan, notes, notes)

    def waiting() -> None:
        engine.interrupt()
        assert notes.aborted.wait(20)

    notes.work = {"wait": waiting}
    assert {"a", "wait", "b"} == engine.run().done


def test_a_defect_of_ours_is_raised_as_it_is() -> None:
    """An error that is none of ours is not dressed up as a failed deploy, and ends what runs."""
    notes = Notes()

    def broken() -> None:
        raise ZeroDivisionError

    def other() -> None:
        assert notes.aborted.wait(20)

    notes.work = {"a": broken, "b": other}
    with pytest.raises(ZeroDivisionError):
        run(notes, step("a"), step("b"), step("c", "b"))
    assert "+c" not in notes.told


@given(st.data())
def test_any_graph_runs_in_an_order_that_its_needs_allow(data: st.DataObject) -> None:
    """Whatever the graph and whatever the steps change, each step starts after its needs, and conflicts never overlap."""
    count = data.draw(st.integers(1, 7))
    plan = []
    for number in range(count):
        needs = data.draw(st.sets(st.sampled_from([f"s{one}" for one in range(number)]))) if number else set()
        changes = data.draw(st.frozensets(st.sampled_from("xyz")))
        reads = data.draw(st.frozensets(st.sampled_from("xyz")))
        plan.append(step(f"s{number}", *sorted(needs), changes=changes, reads=reads))
    notes = Notes()
    shuffled = data.draw(st.permutations(plan))
    assert {one.name for one in plan} == run(notes, *shuffled).done
    known = {one.name: one for one in plan}
    active: set[str] = set()
    ended: set[str] = set()
    for event in notes.told:
        name = event[1:]
        if event[0] == "-":
            active.remove(name)
            ended.add(name)
            continue
        assert ended.issuperset(known[name].needs)
        assert not any(known[name].conflicts(known[other]) for other in active)
        active.add(name)


def test_the_second_ctrl_c_ends_it_at_once() -> None:
    """The first interruption asks to stop and waits; the second one kills and is raised."""
    told: list[str] = []
    work = Interruptible(lambda: told.append("stop"), lambda: told.append("kill"))
    strikes = iter([KeyboardInterrupt, KeyboardInterrupt])

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None:
                raise next(strikes)
            return super().wait(timeout)

    with pytest.raises(KeyboardInterrupt):
        work._wait(Impatient())
    assert ["stop", "kill"] == told


def test_an_error_of_the_work_is_raised_where_it_is_waited_for() -> None:
    """What the work raises in its thread reaches whoever started it."""
    with pytest.raises(AxonError, match="failed"):
        Interruptible(lambda: None, lambda: None).run(fail("failed"))


def test_flatten_tells_causes_and_not_consequences() -> None:
    """Failures of several servers are told one by one, without those that were ended because of them."""
    error = ServersFailedError([AxonError("app1: full"), AbortedError("app2: ended early")])
    assert ["app1: full"] == [str(one) for one in flatten([error, AbortedError("pull")])]

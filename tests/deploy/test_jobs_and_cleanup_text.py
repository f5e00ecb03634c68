"""What people see of background jobs and of a cleanup."""

from __future__ import annotations

import json

import pytest

from axon_tasks.deploy.background import Answer
from axon_tasks.deploy.cleaning import Failed, Outcome
from axon_tasks.deploy.leftovers import Item, Left
from axon_tasks.errors import AxonError, StepFailedError, UnreachableError
from axon_tasks.remote.jobs import Job
from axon_tasks.report import cleanup, jobs

ID = "a" * 64


def a_job(**changes: object) -> Job:
    values = {
        "id": "j1",
        "state": "done",
        "exit_code": 0,
        "started": 100,
        "log_tail": "",
        "now": 160,
        **changes,
    }
    return Job(**values)  # type: ignore[arg-type]


def test_the_list_is_aligned_and_short() -> None:
    """Each job is one line, old jobs without a title have a dash, and container ids are as short as docker's."""
    answer = Answer(
        "prod",
        {
            "app1": [a_job(title="retire v1", log_tail=f"x\n{ID}: removed\n\n")],
            "app2": [a_job(id="longer-id", state="running", exit_code=None, now=7400)],
        },
    )
    assert [
        "SERVER  JOB        WHAT       SINCE  STATE         LAST LINE",
        f"app1    j1         retire v1  60 s   done, exit 0  {ID[:12]}: removed",
        "app2    longer-id  -          2 h    running",
    ] == jobs.table(answer).splitlines()


@pytest.mark.parametrize(
    ("now", "age"),
    [(100, "0 s"), (99, "0 s"), (219, "119 s"), (220, "2 min"), (7300, "2 h"), (172900, "2 d"), (None, "-")],
)
def test_ages(now: int | None, age: str) -> None:
    """An age has one unit, by the clock of the server; a clock that went back makes it none."""
    assert age == jobs.age(a_job(now=now))


def test_a_date_beyond_all_dates_is_none() -> None:
    """A server that writes any number into its file does not break the answer."""
    shown = json.loads(jobs.as_json(Answer("prod", {"app1": [a_job(started=10**17)]})))
    assert (None, 0) == (shown["jobs"][0]["started"], shown["jobs"][0]["seconds_ago"])


def test_a_dead_server_decides_the_exit_code() -> None:
    """One that cannot be reached counts more than one that cannot answer, and both are told."""
    errors: dict[str, AxonError] = {
        "app1": StepFailedError("app1: no"),
        "app2": UnreachableError("app2: gone"),
    }
    with pytest.raises(AxonError, match="app1: no\napp2: gone") as caught:
        Answer("prod", errors=errors).check()
    assert 4 == caught.value.code


def test_how_a_job_stands() -> None:
    """Everything but an end with 0 is named."""
    answer = Answer(
        "prod",
        {"a": [a_job()], "b": [a_job(exit_code=3)], "c": [a_job(state="lost", exit_code=None)]},
    )
    assert ("b: ended with exit code 3", "c: was lost: it ended without an exit code") == answer.unsuccessful


def test_nothing_to_do_is_one_line() -> None:
    """A cleanup that finds nothing says so, and not that it failed; one that failed does not say that all is clean."""
    assert "Nothing to clean up." == cleanup.text(Outcome(dry_run=False, environments=("prod",)))
    failed = Outcome(dry_run=False, environments=("prod",), failed=[Failed("a", "job", "x", "busy")])
    assert "Nothing was removed." == cleanup.text(failed)


def test_a_cleanup_in_a_few_lines() -> None:
    """What was skipped, then a line per server and kind, what stays and why, and the total; nothing obeys a terminal."""
    outcome = Outcome(
        dry_run=False,
        environments=("prod", "staging"),
        skipped={"staging": "fab deploy by alice@laptop since 2026 runs"},
        items=[
            *(Item("app1", "", "image", f"i{number}", f"shop:v{number}", size=2**20) for number in range(6)),
            Item("app1", "prod", "container", "c", "shop-prod-1\x1b[2J"),
            Item("edge1", "prod", "record", "/r/1.json", "1"),
            Item("", "", "run", "20260101", "20260101"),
        ],
        left=[Left("app1", "prod", "shop-prod-2", "it is paused")],
        freed={"app1": 3 * 2**20, "edge1": 0},
    )
    assert [
        "staging: skipped, fab deploy by alice@laptop since 2026 runs",
        "app1  3.0 MiB freed",
        "  containers              1  shop-prod-1",
        "  images                  6  shop:v0, shop:v1, shop:v2, shop:v3 and 2 more",
        "edge1  0 B freed",
        "  release records         1  1",
        "here",
        "  old runs                1  20260101",
        "app1: shop-prod-2 stays: it is paused",
        "Removed 9 things; 3.0 MiB freed (free disk space after minus before, whatever else wrote there meanwhile).",
    ] == cleanup.text(outcome).splitlines()
    outcome.dry_run = True
    assert cleanup.text(outcome).splitlines()[-1].startswith("Would remove 9 things, images of up to 6.0 MiB")
    shape = json.loads(cleanup.as_json(outcome))
    assert ["dry_run", "environments", "items", "left", "failed", "freed_bytes", "errors"] == list(shape)


def test_a_reason_is_told_once() -> None:
    """A dead server that several environments share is one line."""
    gone = [UnreachableError("edge1 refused"), UnreachableError("edge1 refused")]
    with pytest.raises(AxonError) as caught:
        Outcome(dry_run=False, environments=(), errors=[*gone]).check()
    assert (4, "edge1 refused") == (caught.value.code, str(caught.value))

"""Which release a rollback goes back to, and what is told of releases whose records may say anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from axon_tasks.commands import docker
from axon_tasks.commands.shell import Var
from axon_tasks.deploy import history
from axon_tasks.deploy.history import Past, State
from axon_tasks.deploy.release import FAILED, ROLLED_BACK
from axon_tasks.report import history as report

DIGEST = "sha256:" + "ab" * 32


def state(current: str, **records: dict[str, Any]) -> State:
    """A state with records, by release ids that begin with an r, which a keyword may."""
    return State("a", current, {name[1:]: record for name, record in records.items()})


GOOD: dict[str, Any] = {}
BAD = {"outcome": FAILED}
BACK = {"outcome": ROLLED_BACK}


@pytest.mark.parametrize(
    ("known", "previous"),
    [
        (state("2", r1=GOOD, r2=GOOD), "1"),
        (state("1", r1=GOOD), ""),
        (state("3", r1=GOOD, r2=BAD, r3=GOOD), "1"),
        (state("1", r1=GOOD, r2=BACK), ""),
        (state("1", r0=GOOD, r1=GOOD, r2=BACK), "0"),
        (state("3", r1=GOOD, r2=BACK, r3={"of": "1"}), ""),
        (state("4", r1=GOOD, r2=BACK, r3={"of": "1"}, r4=GOOD), "3"),
        (state("5", r0=GOOD, r1=GOOD, r2=BACK, r3={"of": "1"}, r4=BACK, r5={"of": "3"}), "0"),
        (state("2", r1=GOOD, r2=GOOD, r10=BACK), "1"),
        (state("5", r1=GOOD, r2=GOOD, r3={"of": "2", **BACK}, r5={"of": "1"}), ""),
        (state("3", r1=GOOD, r2=GOOD, r3={"of": "2"}), "1"),
        (state("", r1=GOOD, r2=GOOD), "2"),
        (state("2", r1={"outcome": ["failed"]}, r2={"of": {"x": 1}}), "1"),
        (state("2", r1=GOOD, r2={"of": "3"}, r3={"of": "2"}), "3"),
    ],
)
def test_a_rollback_goes_to_the_newest_release_that_was_good(known: State, previous: str) -> None:
    """Neither one that failed, nor one that was taken back, nor one that only repeats what serves."""
    assert previous == known.previous
    assert previous in {*known.kept, ""}


def test_what_failed_is_no_reason_to_keep_an_image() -> None:
    """Failed deploys between two good ones do not push the good one out of what stays."""
    known = state("9", r1=GOOD, r7=BAD, r8=BAD, r9=GOOD)
    assert {"1", "9"} == known.kept


def test_the_table_marks_what_serves_and_what_a_rollback_takes() -> None:
    """One line each, the newest first; a failed deploy with its reason."""
    record = {
        "image": "r.test/shop:v1", "digest": DIGEST, "git_commit": "c" * 40, "deployed_by": "me@here",
        "deployed_at": "2026-11-28T20:00:00Z", "seconds": 1.234,
    }  # fmt: skip
    known = state(
        "3", r1=record, r2={**record, "outcome": FAILED, "error": "app1: no"}, r3={**record, "of": "1"}
    )
    past = Past("prod", "edge1", known, ())
    lines = report.table(past, history.entries(known, 20)).splitlines()
    assert [">", "3", "shop:v1"] == lines[1].split()[:3]
    assert lines[1].endswith("1.2 s  ok, as release 1 ran")
    assert lines[2].endswith("failed: app1: no")
    assert ["1", "shop:v1", "abababababab"] == lines[3].split()[:3]


@pytest.mark.parametrize(
    "value", [None, [], {}, True, -1, 1e400, "x" * 10_000, "\x1b[31m", "\ud800", [[]] * 9]
)
@pytest.mark.parametrize(
    "key",
    [
        "image",
        "digest",
        "action",
        "of",
        "outcome",
        "error",
        "git_commit",
        "deployed_by",
        "deployed_at",
        "seconds",
    ],
)
def test_a_record_may_say_anything(key: str, value: object) -> None:
    """Whatever stands in a record, the table and the JSON are made, and nothing in them controls a terminal."""
    known = state("1", r1={key: value})
    past = Past("prod", "edge1", known, ())
    found = history.entries(known, 20)
    text = report.table(past, found)
    assert "\x1b" not in text
    assert text.encode()
    assert ["1"] == [one["id"] for one in json.loads(report.as_json(past, found))["releases"]]


KEPT = {
    "digest": DIGEST,
    "image": "r.test/shop:v1",
    "restart": "always",
    "run": ["--name", ["s-", {"var": "release"}]],
}


def test_what_was_kept_of_a_start_is_read_back() -> None:
    """Arguments come back as they were given, with variables where releases differ."""
    read = docker.parse_started("7", json.dumps(KEPT))
    assert docker.Started("7", "r.test/shop:v1", DIGEST, "always", ("--name", ("s-", Var("release")))) == read


@pytest.mark.parametrize(
    "changed",
    [
        {"digest": "sha256:1"}, {"digest": None}, {"image": "NO IMAGE"}, {"image": 7}, {"restart": []}, {"run": []},
        {"run": "--name"}, {"run": [7]}, {"run": [[{"var": "PATH"}]]}, {"run": [[{"var": ["x"]}]]}, {"run": [[7]]},
        {"run": [["a\0b"]]}, {"run": [[{}]]}, {"run": None},
    ],
)  # fmt: skip
def test_what_was_not_kept_by_us_is_not_run(changed: dict[str, Any]) -> None:
    """A file that says anything else than what is written there counts as none."""
    assert docker.parse_started("7", json.dumps(KEPT | changed)) is None


@pytest.mark.parametrize("line", ["", "[]", "7", "{", "[" * 100_000, '{"run": 1}'])
def test_what_is_no_record_of_a_start_is_none(line: str) -> None:
    """Nonsense counts as nothing kept."""
    assert docker.parse_started("7", line) is None

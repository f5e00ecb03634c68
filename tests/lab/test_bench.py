"""The benchmark: its arithmetic, what it prints, and that each of its measurements works."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from invoke.context import Context

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import bench
from axon_tasks.lab.bench import Budget, Figure, Options, Payload
from axon_tasks.tasks import bench as bench_task

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.lab import Lab

FASTER = Budget(5, at_least=True, required=True)
SLOWER = Budget(2, at_least=False, required=True)
OPTIONAL = Budget(1.3, at_least=False, required=False)


def figure(*ratios: float, budget: Budget | None = None, rtt: float | None = 0.0) -> Figure:
    return Figure("one", "other", rtt, tuple((ratio, 1.0) for ratio in ratios), budget)


@pytest.mark.parametrize(
    ("budget", "ratio", "expected"),
    [
        (FASTER, 5.0, True),
        (FASTER, 4.99, False),
        (SLOWER, 2.0, True),
        (SLOWER, 2.01, False),
    ],
)
def test_budget(budget: Budget, ratio: float, expected: bool) -> None:
    """A budget is met at its limit and on the right side of it."""
    assert expected == budget.met(ratio)


def test_median_decides() -> None:
    """One spoilt round does not change the verdict, and its ratio is divided within the round."""
    spoilt = Figure("one", "other", 0.0, ((6.0, 1.0), (12.0, 2.0), (1.0, 1.0)), FASTER)

    assert [6.0, 6.0, 1.0] == spoilt.ratios
    assert spoilt.ratio == 6.0
    assert spoilt.verdict == "PASS"
    assert not spoilt.missed


@pytest.mark.parametrize(
    ("one", "verdict", "missed"),
    [
        (figure(3.0, budget=SLOWER), "over budget", True),
        (figure(3.0, budget=OPTIONAL), "over budget", False),
        (figure(3.0, budget=None), "", False),
    ],
)
def test_only_required_budgets_fail(one: Figure, verdict: str, missed: bool) -> None:
    """A missed budget is always told, and is a failure only where it is required."""
    assert verdict == one.verdict
    assert missed == one.missed


def test_take_turns() -> None:
    """Contenders alternate, the first round does not count, and checking what they returned is not measured."""
    ticks = itertools.count()
    events: list[str] = []

    def contender(name: str, ticking: int) -> str:
        events.append(name)
        for _ in range(ticking):
            next(ticks)
        return f"{name} checked"

    def check(returned: str) -> None:
        events.append(returned)
        next(ticks)

    seconds = bench.take_turns(
        {"a": lambda: contender("a", 1), "b": lambda: contender("b", 4)}, 2, check, lambda: float(next(ticks))
    )

    assert ["b", "a", "a", "b", "b", "a"] == [event for event in events if "checked" not in event]
    assert len(events) == 12
    assert {"a": [2.0, 2.0], "b": [5.0, 5.0]} == seconds


def test_table() -> None:
    """The table shows the median, the spread, the budget beside them, and a verdict in words."""
    text = bench.table([figure(6, 4, 9, budget=FASTER), figure(3, budget=SLOWER), figure(2, rtt=None)])

    assert [
        "RTT   WHAT  DIVIDED BY  RATIO  SPREAD     BUDGET  VERDICT      MEDIANS",
        "0 ms  one   other       6.00   4.00-9.00  >= 5    PASS         6000 / 1000 ms",
        "0 ms  one   other       3.00   3.00-3.00  <= 2    over budget  3000 / 1000 ms",
        "      one   other       2.00   2.00-2.00                       2000 / 1000 ms",
    ] == text.splitlines()


def test_document() -> None:
    """The JSON holds the facts, how much was measured, and every round with its ratio and budget."""
    text = bench.document([figure(6, 4, budget=FASTER, rtt=50.0)], Options(repeat=2), {"cores": 2})
    content = json.loads(text)

    assert content["cores"] == 2
    assert content["options"] == {"repeat": 2, "rtts": [50.0], "size": 100_000_000}
    assert content["figures"] == [
        {
            "what": "one",
            "by": "other",
            "rtt": 50.0,
            "rounds": [[6.0, 1.0], [4.0, 1.0]],
            "budget": {"limit": 5, "at_least": True, "required": True},
            "ratio": {"median": 5.0, "min": 4.0, "max": 6.0},
            "verdict": "PASS",
        }
    ]


@pytest.mark.parametrize("data", [b"1234", b"123456", b"12346"])
def test_payload_that_did_not_arrive(data: bytes) -> None:
    """A section that is cut, too long or changed is an error, however fast it was."""
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"  # of 12345
    payload = Payload("/tmp/some", 5, digest)

    payload.check(b"12345")
    with pytest.raises(AxonError):
        payload.check(data)


def test_listed() -> None:
    """A task counts once, also when its summary goes on in the next line."""
    assert bench._listed("Available tasks:\n\n  deploy    One\n            line.\n  lab.up    Two.\n\n") == 2


class FakeLab:
    """Remembers the round-trip times that the lab was brought up with."""

    history: list[float]

    def __init__(self, apps: int = 2, rtt: float = 0.0, root: Path | None = None) -> None:
        self.apps, self.rtt, self.root = apps, rtt, root

    def up(self, _say: object) -> None:
        self.history.append(self.rtt)


@pytest.mark.parametrize(("rtt", "expected"), [(50.0, [50.0, 0.0]), (0.0, [])])
def test_round_trip_is_put_back(monkeypatch: pytest.MonkeyPatch, rtt: float, expected: list[float]) -> None:
    """The lab gets its round-trip time back also when a measurement fails, and is left alone if it has it already."""
    FakeLab.history = []
    monkeypatch.setattr(bench, "Lab", FakeLab)

    with pytest.raises(ZeroDivisionError), bench.round_trip(FakeLab(), rtt, print):  # type: ignore[arg-type]
        _ = 1 / 0

    assert expected == FakeLab.history


@pytest.mark.parametrize(
    "flags",
    [
        {"repeat": "0"},
        {"repeat": "51"},
        {"repeat": "many"},
        {"rtt": "-1"},
        {"rtt": "0,x"},
        {"rtt": "1,2,3,4,5,6"},
    ],
)
def test_wrong_flags(monkeypatch: pytest.MonkeyPatch, flags: dict[str, str]) -> None:
    """A flag that makes no sense is told before anything is started."""
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("measured"))

    with pytest.raises(UsageError):
        bench_task.bench(Context(), **flags)


def test_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Results that could not be kept are refused before minutes are spent on them."""
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("measured"))

    with pytest.raises(UsageError, match=r"^--out="):
        bench_task.bench(Context(), out=str(tmp_path))


def test_missed_budget_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missed budget ends with exit code 1, after the results were written."""
    monkeypatch.setattr(bench, "run", lambda *_: [figure(3, budget=SLOWER), figure(9, budget=FASTER)])
    out = tmp_path / "new" / "results.json"

    with pytest.raises(AxonError, match=r"^Over budget: one / other: 3\.00\.") as failed:
        bench_task.bench(Context(), out=str(out))

    assert failed.value.exit_code == 1
    assert ["over budget", "PASS"] == [one["verdict"] for one in json.loads(out.read_text())["figures"]]


@pytest.mark.lab
def test_measurements(lab: Lab) -> None:
    """Each measurement works from end to end, and gives one pair of times per round."""
    figures = bench.run(lab, Options(repeat=1, size=1_000_000), print)

    whats = [one.what for one in figures if one.budget is not None]
    assert ["10 calls of `true`", "a section of 1 MB, login included", "fab --list"] == whats
    assert all(len(one.rounds) == 1 and min(one.rounds[0]) > 0 for one in figures)
    facts = bench.facts(lab.root, "invoke bench")
    assert json.loads(bench.document(figures, Options(), facts))["command"] == "invoke bench"


@pytest.mark.lab
def test_payload_is_removed(lab: Lab) -> None:
    """The file that is sent is as large as asked, and nothing of it stays on the server."""
    with bench._payload(lab, 4321) as payload:
        assert lab.exec(bench.HOST, ["stat", "-c", "%s", payload.path]).stdout == "4321\n"

    assert lab.exec(bench.HOST, ["test", "-e", payload.path], check=False).returncode == 1

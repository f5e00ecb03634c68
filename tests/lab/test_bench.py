"""The benchmark: its arithmetic, its options, and what the task does with the results."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from invoke.context import Context

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import bench
from axon_tasks.lab.bench import (
    Budget,
    Contender,
    Count,
    Figure,
    Options,
    Ratio,
    Results,
    Spread,
    local,
    suite,
    target,
)
from axon_tasks.lab.bench.figures import figure_from
from axon_tasks.lab.bench.listing import bare_fabfile, listed
from axon_tasks.lab.bench.output import Payload
from axon_tasks.tasks import bench as bench_task

if TYPE_CHECKING:
    from pathlib import Path

FASTER = Budget(5, at_least=True)
SLOWER = Budget(2, at_least=False)
OPTIONAL = Budget(1.3, at_least=False, required=False)


def ratio(
    *ratios: float, budget: Budget | None = None, rtt: float | None = 0.0, group: str = "batch"
) -> Ratio:
    return Ratio(group, "it", rtt, budget, "one", "other", tuple((one, 1.0) for one in ratios))


def count(*counted: float, budget: Budget | None = None) -> Count:
    return Count("counts", "a deploy", 50.0, budget, "at the proxies", "round trips", counted)


def results(*figures: Figure) -> Results:
    return bench.results(figures, Options(repeat=2), {"cores": 2})


@pytest.mark.parametrize(
    ("budget", "value", "expected"),
    [(FASTER, 5.0, True), (FASTER, 4.99, False), (SLOWER, 2.0, True), (SLOWER, 2.01, False)],
)
def test_budget(budget: Budget, value: float, expected: bool) -> None:
    """A budget is met at its limit and on the right side of it."""
    assert expected == budget.met(value)


def test_median_decides() -> None:
    """One spoilt round does not change the verdict, and its ratio is divided within the round."""
    spoilt = Ratio("batch", "it", 0.0, FASTER, "one", "other", ((6.0, 1.0), (12.0, 2.0), (1.0, 1.0)))

    assert [6.0, 6.0, 1.0] == spoilt.values
    assert (6.0, "PASS", False) == (spoilt.value, spoilt.verdict, spoilt.missed)
    assert (6.0, 1.0) == tuple(side.median for side in spoilt.seconds)


def test_spread() -> None:
    """Extremes and quartiles are told, also of a single round."""
    assert Spread(3.0, 1.0, 2.0, 4.0, 5.0) == Spread.of([5, 1, 3, 2, 4])
    assert Spread(7.0, 7.0, 7.0, 7.0, 7.0) == Spread.of([7.0])


@pytest.mark.parametrize(
    ("one", "verdict", "missed"),
    [
        (ratio(3.0, budget=SLOWER), "over budget", True),
        (count(3.0, budget=SLOWER), "over budget", True),
        (ratio(3.0, budget=OPTIONAL), "over budget", False),
        (ratio(3.0), "", False),
    ],
)
def test_only_required_budgets_fail(one: Figure, verdict: str, missed: bool) -> None:
    """A missed budget is always told, and is a failure only where it is required."""
    assert (verdict, missed) == (one.verdict, one.missed)


def test_take_turns() -> None:
    """Contenders alternate, the first round does not count, and neither preparing nor checking is measured."""
    ticks = itertools.count()
    events: list[str] = []

    def contender(name: str, ticking: int) -> Contender[str]:
        def run() -> str:
            events.append(name)
            for _ in range(ticking):
                next(ticks)
            return f"{name} checked"

        def check(returned: str) -> None:
            events.append(returned)
            next(ticks)

        def prepare() -> None:
            events.append(f"{name} prepared")
            next(ticks)

        return Contender(run, check, prepare)

    seconds = bench.take_turns(
        {"a": contender("a", 1), "b": contender("b", 4)}, 2, clock=lambda: float(next(ticks))
    )

    turns = ["b", "a", "a", "b", "b", "a"]
    expected = [event for name in turns for event in (f"{name} prepared", name, f"{name} checked")]
    assert expected == events
    assert {"a": [2.0, 2.0], "b": [5.0, 5.0]} == seconds


def test_contender_with_a_clock_of_its_own() -> None:
    """What knows its own seconds is believed, and a round that is not to be a warm-up counts."""
    timed: Contender[float] = Contender(lambda: 0.25, lambda _: None, timed=lambda returned: returned * 2)

    assert {"a": [0.5, 0.5]} == bench.take_turns({"a": timed}, 2, warm_up=0)


@pytest.mark.parametrize(
    "one", [ratio(6, 4, budget=FASTER, rtt=50.0), ratio(2, rtt=None), count(4, 5, budget=SLOWER)]
)
def test_figures_are_read_back(one: Figure) -> None:
    """What is written as JSON is read back as the same figure."""
    assert one == figure_from(json.loads(json.dumps(one.as_dict())))


def test_results_are_read_back() -> None:
    """The file holds the facts, how much was measured, and every round; the page can be made from it again."""
    made = results(ratio(6, 4, budget=FASTER), count(4))
    content = json.loads(made.as_json())

    assert (2, 2) == (content["cores"], content["options"]["repeat"])
    assert [[6, 1.0], [4, 1.0]] == content["figures"][0]["rounds"]
    assert made.as_json() == Results.from_json(made.as_json()).as_json()
    assert bench.page(made) == bench.page(Results.from_json(made.as_json()))


@pytest.mark.parametrize("data", [b"1234", b"123456", b"12346"])
def test_payload_that_did_not_arrive(data: bytes) -> None:
    """A section that is cut, too long or changed is an error, however fast it was."""
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"  # of 12345
    payload = Payload("/tmp/some", 5, digest)

    payload.check(b"12345")
    payload.check(None)
    with pytest.raises(AxonError):
        payload.check(data)


def test_listed() -> None:
    """A task counts once, also when its summary goes on in the next line."""
    assert listed("Available tasks:\n\n  deploy    One\n            line.\n  lab.up    Two.\n\n") == 2


def test_bare_fabfile(tmp_path: Path) -> None:
    """The fabfile that ours is compared with has as many tasks as it is asked for."""
    (tmp_path / "fabfile.py").write_text(bare_fabfile(7))

    assert listed(local.run([*local.fab(), "--list"], cwd=tmp_path)) == 7


def test_programs_run_as_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measured program may keep its compiled modules, whatever this machine says."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    assert local.run(["sh", "-c", 'echo "${PYTHONDONTWRITEBYTECODE-unset}"']) == "unset\n"


def test_program_that_fails_is_told() -> None:
    """A contender that fails is an error that says what it said; its time counts for nothing."""
    with pytest.raises(AxonError, match=r"exit code 3: to stdout\nto stderr"):
        local.run(["sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"])


def test_memory_that_grows_is_seen() -> None:
    """The most that a program has had in memory grows with what it keeps, and not with what others keep."""
    code = (
        "from axon_tasks.lab.bench.programs import memory\n"
        "before = memory('VmRSS'); idle = memory('VmHWM'); kept = b'x' * 50_000_000\n"
        "print(idle - before < 20 and memory('VmHWM') - before > 45)"
    )
    ours = b"x" * 200_000_000

    assert local.run([sys.executable, "-c", code]) == "True\n"
    assert ours


# --- the run ---------------------------------------------------------------------------------------------------


class FakeLab:
    """Remembers the round-trip times that the lab was brought up with."""

    history: list[float]

    def __init__(self, apps: int = 2, rtt: float = 0.0, root: Path | None = None) -> None:
        self.apps, self.rtt, self.root = apps, rtt, root

    def up(self, _say: object) -> None:
        self.history.append(self.rtt)


@pytest.fixture
def fake_lab(monkeypatch: pytest.MonkeyPatch) -> Any:
    FakeLab.history = []
    monkeypatch.setattr(target, "Lab", FakeLab)
    return FakeLab


@pytest.mark.parametrize(("rtt", "expected"), [(50.0, [50.0, 0.0]), (0.0, [])])
def test_round_trip_is_put_back(fake_lab: Any, rtt: float, expected: list[float]) -> None:
    """The lab gets its round-trip time back also when a measurement fails, and is left alone if it has it already."""
    with pytest.raises(ZeroDivisionError), target.round_trip(fake_lab(), rtt, print):
        _ = 1 / 0

    assert expected == fake_lab.history


class FakePart:
    """A part that gives the round-trip time at which it was measured."""

    def __init__(self, *rtts: float) -> None:
        self.rtts = rtts

    def measure(self, lab: Any, _say: object) -> list[Figure]:
        return [ratio(lab.rtt + 1)]


def test_each_part_at_its_round_trip_times(fake_lab: Any) -> None:
    """Each round-trip time is set once for all parts that want it, and figures come back in the order of the parts."""
    wanted = {"a": FakePart(0, 50), "b": FakePart(), "c": FakePart(10, 50)}

    figures = suite.run(fake_lab(), Options(), print, wanted)

    assert [1.0, 51.0, 1.0, 11.0, 51.0] == [one.value for one in figures]
    assert [0.0, 10, 0.0, 50, 0.0] == fake_lab.history


def test_all_parts_are_there() -> None:
    """Every part can be chosen, alone and with the others."""
    assert list(bench.GROUPS) == list(suite.parts(Options()))
    assert ["floor", "batch"] == list(suite.parts(Options(only=("batch", "floor"))))


def test_round_trip_times_of_the_command_line() -> None:
    """--rtt goes to all parts that care, and each has its own without it."""
    chosen = suite.parts(Options(rtts=(7.0,)))
    usual = suite.parts(Options())

    assert {"deploy", "floor", "counts", "batch", "output"} == {
        n for n, part in chosen.items() if part.rtts == (7.0,)
    }
    assert (0.0, 10.0, 50.0, 100.0) == usual["batch"].rtts
    assert {"fanout", "listing"} == {name for name, part in usual.items() if not part.rtts}


# --- the task --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        {"repeat": "0"},
        {"repeat": "51"},
        {"repeat": "many"},
        {"rtt": "-1"},
        {"rtt": "0,x"},
        {"rtt": "5000"},
        {"rtt": "1,2,3,4,5,6"},
        {"only": "deploy,everything"},
        {"only": ","},
        {"quick": True, "repeat": "3"},
        {"quick": True, "rtt": "50"},
    ],
)
def test_wrong_flags(monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any]) -> None:
    """A flag that makes no sense is told before anything is started."""
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("measured"))

    with pytest.raises(UsageError):
        bench_task.bench(Context(), **flags)


def test_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Results that could not be kept are refused before minutes are spent on them."""
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=r"^--out="):
        bench_task.bench(Context(), out=str(tmp_path / "file"))


def test_missed_budget_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missed budget ends with exit code 1, after the results were written in all three forms."""
    monkeypatch.setattr(bench, "run", lambda *_: [ratio(3, budget=SLOWER), ratio(9, budget=FASTER)])
    out = tmp_path / "new" / "results"

    with pytest.raises(AxonError, match=r"^Over budget: it: one / other: 3\.00 \(<= 2\)\.") as failed:
        bench_task.bench(Context(), out=str(out))

    assert failed.value.exit_code == 1
    assert ["over budget", "PASS"] == [
        one["verdict"] for one in json.loads((out / "results.json").read_text())["figures"]
    ]
    assert ["index.html", "results.json", "tables.md"] == sorted(path.name for path in out.iterdir())


def test_quick_run_judges_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A smoke test with a missed budget succeeds: one round of a little says nothing about speed."""
    monkeypatch.setattr(bench, "run", lambda *_: [ratio(3, budget=SLOWER)])

    bench_task.bench(Context(), quick=True, out=str(tmp_path))

    assert json.loads((tmp_path / "results.json").read_text())["options"]["quick"] is True


def test_facts_know_the_commit(tmp_path: Path) -> None:
    """The facts name the commit and whether files differ from it, and say so outside of a repository, too."""
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    )

    assert head.stdout.strip() == bench.facts(tmp_path, "invoke bench")["commit"]
    assert bench.facts(tmp_path.parent, "invoke bench")["commit"] is None

"""The proof: what it counts as a failure, and what the task does with the results. Nothing here needs the lab."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from invoke.context import Context

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import Lab, hostile, leaks, prove
from axon_tasks.lab.load import Answer as Response
from axon_tasks.lab.load import Settings
from axon_tasks.lab.machine import Dropped
from axon_tasks.lab.prove import commands, inputs, kills, races, secrets, stage, state, suite, switches
from axon_tasks.lab.prove.boundaries import Watched
from axon_tasks.lab.prove.claims import MAX_TOLD, Claim, claim_from, told
from axon_tasks.lab.prove.commands import Ended, Line
from axon_tasks.lab.prove.cuts import Cut, Cuts, planned
from axon_tasks.lab.prove.options import PARTS, Options
from axon_tasks.lab.prove.stage import Case, Loads
from axon_tasks.lab.prove.state import Answer, Container, Expected, HostState
from axon_tasks.lab.prove.switches import Switch
from axon_tasks.lab.prove.traffic import Fault, Served, Tally, Traffic, percentiles
from axon_tasks.tasks import prove as prove_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# --- options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"only": ("switch",)},
        {"only": ()},
        {"seed": -1},
        {"switches": 0},
        {"requests": 10_000_000},
        {"races": 0},
        {"inputs": 1},
        {"at": ("switch",)},
        {"at": ("switch:middle",)},
        {"at": ("$(id):begin",)},
        {"at": ("1.5",)},
    ],
)
def test_senseless_options_are_refused(change: dict[str, Any]) -> None:
    """A part that does not exist, a number out of bounds, and what is neither a boundary nor a time are refused."""
    with pytest.raises(UsageError):
        Options(**change)


def test_kills_are_named_by_boundary_or_time() -> None:
    """What is killed can be a boundary of a step, or of its part on one server, or a time."""
    options = Options(at=("switch:begin", "start@app1:end", "1.25s"))

    assert (1.25,) == options.times


def test_every_part_is_registered() -> None:
    """Each part that can be asked for can be made, and has a claim to prove."""
    assert set(PARTS) == set(suite.REGISTRY)
    assert all(callable(suite.part(name, Options()).prove) for name in PARTS)


# --- claims ----------------------------------------------------------------------------------------------------


def claim(cases: int = 5, failed: int = 0, least: int = 5, *failures: str, part: str = "kills") -> Claim:
    return Claim(part, "It holds", "times", cases, failed, least, failures)


@pytest.mark.parametrize(
    ("tried", "holds", "verdict"),
    [
        (claim(), True, "holds"),
        (claim(cases=4), False, "too few cases"),
        (claim(cases=9, failed=1), False, "FAILED"),
        (claim(cases=1, failed=1), False, "FAILED"),
        (claim(cases=0, least=1), False, "too few cases"),
    ],
)
def test_a_claim_holds_if_it_was_tried_enough_and_never_failed(
    tried: Claim, holds: bool, verdict: str
) -> None:
    """One failure is enough against a claim, and so are too few cases."""
    assert (holds, verdict) == (tried.holds, tried.verdict)


def test_the_first_failures_are_told() -> None:
    """Of many failures the first ones are told one by one, and how many more there are."""
    many = [f"failure {number}" for number in range(30)]
    one = claim(30, 30, 30, *told(many))

    assert MAX_TOLD == len(one.failures)
    assert "    - and 10 more" in prove.table([one]).splitlines()


def test_results_are_read_back() -> None:
    """What is written as JSON can be read again, with each claim's command beside it."""
    found = prove.results([claim(5, 1, 5, "why")], Options(), {"commit": "abc"}, {"kills": 3.0})
    written = json.loads(found.as_json())

    assert found.claims == suite.Results.from_json(found.as_json()).claims
    assert "invoke prove --only=kills --seed=1" == written["claims"][0]["command"]
    assert claim_from(claim().as_dict()) == claim()


def test_the_command_repeats_the_run() -> None:
    """The command that is told has the seed and every number that is not the usual one."""
    options = prove.results([], Options(("kills",), 7, kills=3, at=("switch:begin", "1s")), {}, {}).options

    assert "invoke prove --only=kills --seed=7 --kills=3 --at=switch:begin,1s" == suite.command(
        "kills", options
    )
    assert "invoke prove --only=switches --seed=7" == suite.command("switches", options)
    assert "invoke prove --only=inputs --seed=7" == suite.command("inputs", options)
    options = prove.results([], Options(inputs=30), {}, {}).options
    assert "invoke prove --only=inputs --seed=1 --inputs=30" == suite.command("inputs", options)
    assert "invoke prove --only=secrets --seed=1" == suite.command("secrets", options)


def test_tables() -> None:
    """The table for people has the failed cases below their claim, and the one for the README what to type."""
    claims = [claim(part="races"), claim(1234567, 2, 1, "it broke | here"), claim(1, 0, 9)]
    found = prove.results(claims, Options(), {"commit": "a" * 40, "cores": 2, "date": "today"}, {"kills": 90})

    assert [
        "PART   CASES            FAILED  VERDICT        CLAIM",
        "races  5 times          0       holds          It holds",
        "kills  1\N{NO-BREAK SPACE}234\N{NO-BREAK SPACE}567 times  2       FAILED         It holds",
        "    - it broke | here",
        "    - and 1 more",
        "kills  1 times          0       too few cases  It holds",
        "    - 9 times were wanted",
    ] == prove.table(claims).splitlines()
    lines = prove.markdown(found).splitlines()
    assert "| It holds | 5 times | **0** | `invoke prove --only=races --seed=1` |" == lines[2]
    assert "does not hold" in lines[3]
    assert "kills: it broke | here" == lines[-1]


# --- traffic ---------------------------------------------------------------------------------------------------


def test_traffic_keeps_one_row_per_container() -> None:
    """However many answers a container gives, there is one row, with its first and its last request."""
    made = Traffic(Settings("127.0.0.1"))
    for begun, by in ((5.0, "a"), (3.0, "a"), (9.0, "b"), (4.0, "a")):
        made._note(Response("v1", stays_open=True, served_by=by), begun, begun + 1, slow=False)

    rows = [
        (one.container, one.answers, one.first_begun, one.last_begun) for one in made.tally.served.values()
    ]
    assert [("a", 3, 3.0, 5.0), ("b", 1, 9.0, 9.0)] == rows
    assert {1000.0: 4} == made.histogram
    assert ([], []) == (made.latencies, made._sent_versions)


def test_sorts_of_requests_are_counted() -> None:
    """How many requests were GET and POST, and how many slow, is known of what was sent."""
    made = Traffic(Settings("127.0.0.1", post=0.5))
    for slow in [True] * 3 + [False] * 40:
        made._choose(slow=slow, keep=True)
    sorts = made.tally.sorts

    assert ({"GET", "POST", "slow"}, 3, 43) == (set(sorts), sorts["slow"], sorts["GET"] + sorts["POST"])


def test_two_versions_of_one_container_are_told_apart() -> None:
    """A container that answers as two versions has two rows, so that the wrong one is found."""
    made = Traffic(Settings("127.0.0.1"))
    for version in ("v1", "v2"):
        made._note(Response(version, stays_open=True, served_by="a"), 1.0, 2.0, slow=True)

    assert ["v1", "v2"] == [one.version for one in made.tally.served.values()]


def test_a_tally_is_read_back() -> None:
    """What the generator writes is what its starter reads."""
    tally = Tally(origin=4.0, sorts={"GET": 3}, served={"a v1": Served("a", "v1", 2, 1.0, 2.0, 3.0, 4.0)})
    tally.faults.append(Fault(1.0, 1.5, "status 502", "GET / HTTP/1.1", used=True))
    tally.kinds["keep-alive"].sent = 3

    assert tally == Tally.from_json(json.loads(json.dumps(tally.as_json())))
    assert "GET / HTTP/1.1: status 502 on a used connection after 500 ms" == str(tally.faults[0])


def test_percentiles() -> None:
    """They are those of all values, however these are counted."""
    assert {"p50": 500.0, "p99": 990.0, "max": 999.0} == percentiles(Counter(float(n) for n in range(1000)))
    assert {"p50": 1.0, "p99": 1.0, "max": 7.0} == percentiles(Counter({1.0: 199, 7.0: 1}))
    assert {} == percentiles(Counter())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    body = "v1\n" if head.split()[1] == "/version" else "shop v1 at x\n"
    fields = f"X-Version: v1\r\nX-Served-By: abc\r\nContent-Length: {len(body)}\r\nConnection: close"
    writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}".encode())
    writer.close()


def test_traffic_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """The generator ends when its standard input does, as it does when its starter is killed, with a whole tally."""
    output = tmp_path / "tally.json"

    async def main() -> int:
        listening = await asyncio.start_server(_answer, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        flags = [f"--port={port}", "--address=127.0.0.1", "--post=0", "--slow=0", "--seconds=100"]
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "axon_tasks.lab.prove.traffic", *flags, f"--output={output}",
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not output.exists() and time.monotonic() < deadline:  # noqa: ASYNC110  (another process makes it)
            await asyncio.sleep(0.05)
        assert program.stdin is not None
        program.stdin.close()
        return await program.wait()

    assert 0 == asyncio.run(main())
    tally = Tally.from_json(json.loads(output.read_text()))
    assert (True, 0, ["abc"]) == (
        tally.finished,
        tally.failed,
        [one.container for one in tally.served.values()],
    )
    assert tally.ok == sum(one.answers for one in tally.served.values())


# --- switches --------------------------------------------------------------------------------------------------

RELEASES = [
    Switch(0, "v1", frozenset({"a1", "a2"})),
    Switch(1, "v2", frozenset({"b1", "b2"}), confirmed=100.0, seconds=2.0),
    Switch(2, "v1", frozenset({"c1", "c2"}), confirmed=200.0, seconds=3.0),
]


def tally_of(**last_begun: float) -> Tally:
    """A tally with fifty answers per container, the last of which was begun then."""
    versions = {"a": "v1", "b": "v2", "c": "v1"}
    last = {"a1": 99.9, "a2": 99.8, "b1": 199.0, "b2": 150.0, "c1": 300.0, "c2": 300.0, **last_begun}
    tally = Tally(seconds=300.0)
    for container, begun in last.items():
        version = versions.get(container[0], "v9")
        tally.served[container] = Served(container, version, 50, begun - 9, begun, begun - 8, begun + 1)
    tally.kinds["one-shot"].sent = tally.kinds["one-shot"].ok = 50 * len(last)
    return tally


def judged(tally: Tally, *failures: str) -> list[Claim]:
    return switches.judge(tally, RELEASES, failures, Options(switches=2, requests=300))


def test_a_clean_run_holds() -> None:
    """Where each release answers between its own switch and the next, everything holds."""
    claims = judged(tally_of())

    assert [] == [one for one in claims if one.verdict == "FAILED"]
    assert [300, 300, 2, 2] == [one.cases for one in claims]
    assert {"least": 100.0, "median": 550.0} == claims[0].facts["quiet_ms"]


def test_an_answer_of_the_old_release_after_the_confirmation_is_found() -> None:
    """A request begun after the confirmed switch and answered by the old release is a violation; one before is none."""
    assert 0 == judged(tally_of(a2=100.0))[2].failed
    late = judged(tally_of(a2=100.25))[2]

    assert (1, False) == (late.failed, late.holds)
    assert "switch 1 to v2: v1 still answered a request that was begun 250 ms after" in late.failures[0]


def test_a_release_that_comes_back_is_found() -> None:
    """An answer of a release that was retired long ago is a violation, too."""
    assert 1 == judged(tally_of(a1=250.0))[2].failed


def test_a_stranger_is_found() -> None:
    """An answer of a container that was never deployed, or that says it is another version, is a violation."""
    stranger = judged(tally_of(x1=50.0))[1]
    assert (50, False) == (stranger.failed, stranger.holds)
    assert "container x1, which says that it is v9" in stranger.failures[0]

    liar = tally_of()
    liar.served["b1 as v1"] = Served("b1", "v1", 1, 1.0, 1.0, 1.0, 1.0)
    assert 1 == judged(liar)[1].failed


def test_a_switch_that_no_client_saw_does_not_count() -> None:
    """A release one of whose containers never answered is no case of a switch under load."""
    tally = tally_of()
    del tally.served["c2"]

    assert ("too few cases", 1) == (judged(tally)[2].verdict, judged(tally)[2].cases)


def test_failed_requests_and_deploys_are_found() -> None:
    """A failed request is told with the switch that it stands next to, a failed deploy as it ended."""
    tally = tally_of()
    tally.kinds["one-shot"].failed = 1
    tally.faults.append(Fault(199.5, 200.5, "status 502", "POST /echo HTTP/1.1", used=False))
    requests, _, _, deploys = judged(tally, "deploy 3 (of v2): exit code 1: no")

    assert (
        "POST /echo HTTP/1.1: status 502 after 1000 ms; begun -0.500 s from switch 2 to v1",
    ) == requests.failures
    assert (3, 1, "FAILED") == (deploys.cases, deploys.failed, deploys.verdict)
    assert "FAILED" == requests.verdict


# --- commands --------------------------------------------------------------------------------------------------


def ended(*steps: tuple[float, str], code: int = 0, began: float = 0.0, errors: str = "") -> Ended:
    """A deploy that told these steps, each then."""
    lines = [Line(at, f"12:39:01Z   {name:<8}   0.22 s  edge1 · told") for at, name in steps]
    return Ended(code, began, 99.0, tuple(lines), errors)


def test_steps_are_read_from_the_lines() -> None:
    """The moment of a step is that of the line that tells its good end; a failed one has none."""
    done = ended((1.0, "lock"), (2.0, "switch"))
    failed = Ended(1, 0.0, 3.0, (Line(1.0, "12:39:01Z   switch     0.38 s  failed"),), "no")

    assert {"lock": 1.0, "switch": 2.0} == done.steps
    assert 2.0 == switches.confirmed_at(done)
    with pytest.raises(AxonError, match="tells no switch: exit code 1: no"):
        switches.confirmed_at(failed)


def test_the_format_of_the_lines_is_that_of_the_program() -> None:
    """The lines that are read are those that `fab` writes where there is no terminal."""
    import io

    from axon_tasks.deploy.engine import Report
    from axon_tasks.report import live

    stream = io.StringIO()
    with live.screen(stream, ["prod"]) as screen:
        listener = screen.listener("prod")
        for step, report in (("lock", Report()), ("switch", Report("slot b serves", {"edge1": 0.3}))):
            listener.started(step)
            listener.finished(step, 0.38, report)
        listener.started("record")
        listener.failed("record", 0.1, AxonError("no"))
    lines = tuple(Line(float(n), text) for n, text in enumerate(stream.getvalue().splitlines()))

    assert {"lock": 0.0, "switch": 1.0} == Ended(0, 0.0, 1.0, lines, "").steps


def test_commands_are_watched(tmp_path: Path) -> None:
    """A command's exit code, both of its streams and the time of each line are known afterwards."""
    done = commands.run(["sh", "-c", "echo one; echo two >&2; sleep 0.2; echo three; exit 3"], tmp_path)

    assert (3, ["one", "three"], "two") == (done.code, [line.text for line in done.lines], done.errors)
    assert done.began <= done.lines[0].at < done.lines[1].at <= done.ended
    assert "exit code 3: two" == str(done)


def test_killed_commands_are_told_apart(tmp_path: Path) -> None:
    """A command that was killed is known as such, and one that is left running is over at the end of the block."""
    with commands.running(["sleep", "60"], tmp_path) as sleeping:
        sleeping.kill()
        assert sleeping.wait().killed
    with commands.running(["sleep", "60"], tmp_path) as left:
        process = left.process
    assert process.poll() is not None
    assert not commands.run(["true"], tmp_path).killed


# --- kills -----------------------------------------------------------------------------------------------------


class Recording:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_args: self.told.append(name)


def test_boundaries_are_told_before_they_are_passed_on() -> None:
    """Each begin and end of a step, and of its part on a server, is a boundary, known before anybody else hears of it."""
    from axon_tasks.deploy.engine import Report

    listener = Recording()
    reached: list[tuple[str, int]] = []
    watched = Watched(listener, lambda name: reached.append((name, len(listener.told))))
    watched.started("start", ("app1",))
    watched.server("start", "app1", "running")
    watched.progress("start", "app1", "half")
    watched.message("app1", "wait")
    watched.server("start", "app1", "ok")
    watched.finished("start", 1.0, Report())

    assert ["started", "server", "progress", "message", "server", "finished"] == listener.told
    assert [("start:begin", 0), ("start@app1:begin", 1), ("start@app1:end", 4), ("start:end", 5)] == reached


def test_all_boundaries_are_chosen_unless_fewer_are_wanted() -> None:
    """By default every boundary; else so many of different places, others with another seed; or those that are named."""
    names = [f"step{letter}{end}:begin" for letter in "abcdefghij" for end in ("", "x", "y", "z")]
    some = [kills.chosen(names, Options(seed=seed), 4) for seed in range(40)]

    assert tuple(names) == kills.chosen(names, Options(), None)
    assert {4} == {len(set(few)) for few in some}
    assert set(names) == set(itertools.chain.from_iterable(some))
    assert ("stepb:begin",) == kills.chosen(names, Options(at=("stepb:begin", "1s", "other:end")), None)


def test_every_server_is_cut_off() -> None:
    """A boundary of a server's own part cuts that one off; at the others, the servers take turns."""
    names = ["lock:begin", "lock@edge1:begin", "start@app2:end", "start:end", "switch:begin"]
    cuts = planned([*names, "pull@app1:begin"], names)

    assert ["app1", "edge1", "app2", "app1", "app2"] == [one.server for one in cuts]
    assert names == [one.boundary for one in cuts]


def test_a_deploy_that_was_cut_off_may_fail_but_not_crash() -> None:
    """The exit codes of a deploy that lost a server are none of a usage error, a lock or a crash, and there is no traceback."""
    found = []
    for code, errors in (
        (4, "gone"),
        (0, ""),
        (2, "wrong"),
        (3, "locked"),
        (1, "Traceback (most recent call last)"),
    ):
        ended = Ended(code, 0.0, 1.0, (), errors)
        found.append(bool(Cuts(Options()).lost(Cut("start:end", "app1"), ended, Dropped(2, 7))))

    assert [False, False, True, True, True] == found


@pytest.mark.parametrize("dropped", [Dropped(), Dropped(1, 7), Dropped(2, 0)])
def test_a_deploy_that_was_not_cut_off_proves_nothing(dropped: Dropped) -> None:
    """Without both rules and packets that they have dropped, a case fails, however well its deploy ends."""
    part = Cuts(Options())
    assert 1 == len(part.lost(Cut("start:end", "app1"), Ended(0, 0.0, 1.0, (), ""), dropped))
    assert ["app1 at start:end"] == part.ended_well


def test_a_deploy_cannot_end_well_without_an_answer_that_it_needs() -> None:
    """Cut off before the release is started there, it fails; where only the old release is to be retired, it may end well."""
    found = []
    for boundary, server in (
        ("start@app1:begin", "app1"),
        ("start@app1:end", "app1"),
        ("start@app1:begin", "edge1"),
        ("retire@app1:begin", "app1"),
        ("start:begin", "app1"),
    ):
        part, ended = Cuts(Options()), Ended(0, 0.0, 1.0, (), "")
        found.append(bool(part.lost(Cut(boundary, server), ended, Dropped(2, 7))))

    assert [True, False, False, False, False] == found


def test_cuts_that_cannot_be_tried_are_told_as_failed_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy that hangs in each case is a claim that does not hold, and no crash."""

    def hung(_opening: object, cases: list[Case], *_: object) -> Loads:
        for case in cases:
            case.failures.append("it hung")
        return Loads()

    monkeypatch.setattr(
        "axon_tasks.lab.prove.cuts.dry_pass", lambda *_: kills.DryPass(("end@app1:end",), 1.0)
    )
    monkeypatch.setattr(stage, "tried", hung)
    cut = Cuts(Options(only=("cuts",))).prove(Lab(), print)[0]

    assert (1, 1, {}, 0) == (
        cut.cases, cut.failed, cut.facts["seconds_until_the_end"], cut.facts["least_packets_dropped"],
    )  # fmt: skip


def test_nothing_to_cut_is_a_failure_only_where_nothing_else_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kill that was named by its time, or no cuts at all, is no reason for the cuts to fail."""
    monkeypatch.setattr("axon_tasks.lab.prove.cuts.dry_pass", lambda *_: kills.DryPass(("start:end",), 1.0))
    for options in (Options(at=("1.25s",)), Options(cuts=0)):
        assert [] == Cuts(options).prove(Lab(), print)
    for options in (
        Options(only=("cuts",), at=("1.25s",)),
        Options(only=("cuts",), cuts=0),
        Options(only=("cuts", "secrets"), at=("strat:end",)),
    ):
        with pytest.raises(AxonError, match="No server was cut off"):
            Cuts(options).prove(Lab(), print)


def test_random_times_are_those_of_the_seed() -> None:
    """The same seed kills at the same times, and another one at others."""
    drawn = [
        [kill.after for kill in (kills.Kills(Options(seed=seed))._drawn(n, 3.0) for n in range(5))]
        for seed in (1, 1, 2)
    ]

    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0 <= after <= 3 for after in drawn[0])


def test_failed_requests_are_put_down_to_their_case() -> None:
    """A request that failed during a case makes that case fail, and no other one."""
    cases = [Case("one", "kind", 10.0, 20.0), Case("two", "kind", 20.5, 30.0)]
    tally = Tally()
    tally.kinds["one-shot"].sent, tally.kinds["one-shot"].failed = 9, 2
    tally.faults = [Fault(begun, begun + 0.1, "status 502", "GET /", used=False) for begun in (12.0, 13.0)]
    loads = Loads()
    loads.add(tally, cases)

    assert (1, 0) == (len(cases[0].failures), len(cases[1].failures))
    assert "2.00 s after its begin: GET /: status 502" in cases[0].failures[0]
    assert (9, 2, False) == (loads.sent, loads.failed, stage.judge("kills", loads).holds)


def test_after_a_case_that_left_something_the_next_has_a_new_site() -> None:
    """A fault does not spoil the cases after it, and no case is left out."""
    import contextlib

    opened: list[int] = []

    class Generator:
        def finish(self) -> Tally:
            return Tally()

    @contextlib.contextmanager
    def opening() -> Iterator[stage.Stage]:
        opened.append(len(opened))
        yield stage.Stage(None, "v1", Generator(), time.monotonic())  # type: ignore[arg-type]  # stand-ins

    def one(where: stage.Stage, case: Case) -> None:
        seen[case.name] = opened[-1]
        if case.name == "b":
            raise AxonError("broken")

    seen: dict[str, int] = {}
    cases = [Case(name, "kind") for name in "abcd"]
    stage.tried(opening, cases, one, lambda _text: None)

    assert {"a": 0, "b": 0, "c": 1, "d": 1} == seen
    assert [[], ["broken"], [], []] == [case.failures for case in cases]


# --- races -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (ended((1, "lock"), (2, "switch"), (3, "record")), ended(code=3), []),
        (ended((1, "lock"), (2, "switch"), (3, "record")), ended((3, "lock"), (5, "switch")), []),
        (ended((4, "lock"), (6, "switch")), ended((1, "lock"), (2, "switch")), []),
        (
            ended((1, "lock"), (2, "switch"), (3, "record")),
            ended((2.5, "lock"), (5, "switch")),
            ["both held the lock at the same time, for 0.500 s"],
        ),
        (
            ended((1, "lock"), (2, "switch")),
            ended(code=1, errors="no"),
            ["the deploy of v2: exit code 1: no"],
        ),
        (
            ended(code=3, errors="a"),
            ended(code=3, errors="b"),
            ["the deploy of v1: exit code 3: a", "the deploy of v2: exit code 3: b"],
        ),
    ],
)
def test_one_of_two_wins(one: Ended, two: Ended, expected: list[str]) -> None:
    """One deploy wins and the other is refused, or both have their turn; anything else is a fault."""
    assert expected == races.faults({"v1": one, "v2": two})


def test_who_switched_last_is_the_winner() -> None:
    """The version that should serve is that of the deploy which switched last."""
    one, two = ended((1, "lock"), (2, "switch")), ended((3, "lock"), (4, "switch"))

    assert "v2" == races.winner({"v1": one, "v2": two})
    assert "v1" == races.winner({"v1": one, "v2": ended(code=3)})
    assert "" == races.winner({"v1": ended(code=1), "v2": ended(code=3)})


# --- inputs and secrets ----------------------------------------------------------------------------------------


def tried_inputs(**changes: int) -> hostile.Outcome:
    return hostile.Outcome({**dict.fromkeys([*inputs.HERE, *inputs.THERE], 400), **changes})


def test_every_way_in_is_tried_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed and the number of inputs go to the corpus, and what it counts becomes two claims that hold."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(hostile, "run", lambda _lab, _say, **how: asked.append(how) or tried_inputs())
    lab: Any = NoLab()
    claims = suite.part("inputs", Options(seed=7, inputs=20)).prove(lab, lambda _: None)

    assert [{"seed": 7, "most": 20, "things": 100}] == asked
    assert [(2400, True), (400, True)] == [(one.cases, one.holds) for one in claims]
    assert {"inputs": {"state": 400}} == claims[1].facts


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["holds", "holds"]),
        ({"files": 0}, ["FAILED", "holds"]),
        ({"config": 1, "outputs": 1}, ["too few cases", "holds"]),
        ({"state": 0}, ["holds", "FAILED"]),
        ({"state": 90}, ["holds", "too few cases"]),
    ],
)
def test_a_way_in_that_is_not_tried_any_more_is_found(changes: dict[str, int], expected: list[str]) -> None:
    """Two thousand inputs are needed, and some through each way in."""
    assert expected == [one.verdict for one in inputs.judge(tried_inputs(**changes), Options())]


def test_a_little_hostility_is_enough_for_a_little_proof() -> None:
    """Where fewer things were to be spoilt on servers, fewer are needed."""
    assert [True, True] == [one.holds for one in inputs.judge(tried_inputs(state=10), Options.quickly())]


def test_an_input_that_was_obeyed_is_told() -> None:
    """A violation breaks the claim about the way that it came in, and says where to look."""
    found = tried_inputs()
    found.violate("config", "product shell 0", "a traceback: x")
    here, there = inputs.judge(found, Options())

    assert ("FAILED", ("config: product shell 0: a traceback: x",)) == (here.verdict, here.failures)
    assert there.holds


def watch(*found: str, code: int = 0) -> leaks.Watch:
    spilt = tuple(leaks.sampler.Leak(name, "raw", "the output") for name in found)
    return leaks.Watch(code, "said", spilt, frozenset(), rounds=3, processes=20)


def findings(*watched: leaks.Watch) -> leaks.Findings:
    found = leaks.Findings({leaks.ARRIVED: 3, leaks.PLANTED: 6}, least=15)
    for one in watched:
        leaks.judge(found, "a deploy", one, 0, lambda _: None)
    return found


def test_commands_that_keep_their_secrets_are_counted() -> None:
    """Each command is a case, and how closely it was looked at is a fact."""
    claims = secrets.judge(findings(*[watch()] * 15))

    assert [(15, "commands"), (3, "variables"), (6, "places")] == [(one.cases, one.unit) for one in claims]
    assert [True] * 3 == [one.holds for one in claims]
    assert {"processes": 300, "rounds": 45} == claims[0].facts


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (watch("a password"), "commands: a deploy: a password (raw) in the output"),
        (watch(code=1), "commands: a deploy: exit code 1 and not 0: said"),
    ],
)
def test_a_secret_that_leaks_is_told(last: leaks.Watch, expected: str) -> None:
    """A leak breaks the claim, and so does a command that did not come to what it was watched for."""
    claims = secrets.judge(findings(*[watch()] * 14, last))

    assert (("FAILED", (expected,)), [True, True]) == (
        (claims[0].verdict, claims[0].failures), [one.holds for one in claims[1:]],
    )  # fmt: skip


def test_a_control_that_fails_is_told() -> None:
    """If a planted secret is not found, or the application has none, then nothing was proven."""
    found = findings(*[watch()] * 15)
    found.violate(leaks.PLANTED, "/tmp/planted", "it was not found there")
    found.violate(leaks.ARRIVED, "a variable", "the application does not have it")

    assert ["holds", "FAILED", "FAILED"] == [one.verdict for one in secrets.judge(found)]


# --- state -----------------------------------------------------------------------------------------------------

STATE = "/var/lib/axon/shop/prod"
DIGEST = "sha256:1"


def container(server: str, *, status: str = "running", release: str = "17", port: int = 30000) -> Container:
    labels = {"axon.release": release, "axon.slot": "a", "axon.image": "shop:v1", "axon.digest": DIGEST}
    return Container(f"{server}id4567890", f"shop-prod-{release}", status, "unless-stopped", (port,), labels)


def record(**changes: Any) -> str:
    servers = {name: {"container": "shop-prod-17", "port": 30000} for name in ("app1", "app2")}
    return json.dumps({"digest": DIGEST, "servers": servers, **changes})


@pytest.fixture
def hosts() -> dict[str, HostState]:
    """What is there after an ordinary deploy, when nothing goes on any more."""
    apps = {
        server: HostState(
            containers=[container(server)],
            files=dict.fromkeys([f"{STATE}/ports", f"{STATE}/jobs", f"{STATE}/jobs/retire-1", f"{STATE}/jobs/retire-1/rc"], "f"),
            ports="30000 30001",
            listening={30000, 22},
        )
        for server in ("app1", "app2")
    }  # fmt: skip
    upstream = {f"{address}:{port}" for address in ("10.0.0.1", "10.0.0.2") for port in (30000, 30001)}
    edge = HostState(
        files=dict.fromkeys([f"{STATE}/lock", f"{STATE}/current", f"{STATE}/releases/17.json"], "f"),
        shared={"f /var/lib/axon/.somebody"},
        shells={"7 sh -s "},
        lock="free",
        slot="a",
        current="17",
        record=record(),
        upstream=upstream,
        nginx="valid",
    )
    return {"edge1": edge, **apps}


ANSWERS = [Answer(200, "v1", f"{server}id4567890"[:12]) for server in ("app1", "app2")]
BEFORE = {"edge1": HostState(shared={"f /var/lib/axon/.somebody"}, shells={"7 sh -s "})}
EXPECTED = Expected("v1", {"app1": "10.0.0.1", "app2": "10.0.0.2"}, ("edge1",), BEFORE)


def test_what_a_deploy_leaves_is_no_problem(hosts: dict[str, HostState]) -> None:
    """One release, its record, its ports, a free lock and ended jobs are what should be there."""
    assert [] == state.problems(hosts, ANSWERS, EXPECTED)


@pytest.mark.parametrize(
    ("host", "change", "expected"),
    [
        ("app1", {"containers": []}, "app1: 0 releases run: none"),
        ("app1", {"containers": [container("app1"), container("app1", release="18", port=30001)]}, "app1: 2 releases run"),
        ("app2", {"containers": [container("app2"), container("x", status="created")]}, "app2: orphaned container shop-prod-17 (created"),
        ("app2", {"containers": [container("app2", release="18")]}, "the app servers run different releases: 17, 18"),
        ("app2", {"containers": [container("app2", port=30001)]}, "app2: container shop-prod-17 (running, slot a) publishes (30001,)"),
        ("app1", {"ports": ""}, "app1: the reserved ports are missing"),
        ("app1", {"ports": "30000 30000"}, "app1: the reserved ports are 30000 30000"),
        ("app1", {"ports": "30000 30005"}, "edge1: nginx's upstreams are"),
        ("app1", {"listening": {30000, 30001}}, "app1: somebody listens on port 30001 of the slot that is free"),
        ("app1", {"networks": ["shop"]}, "app1: network of ours: shop"),
        ("app1", {"files": {f"{STATE}/jobs/retire-2": "d"}}, f"app1: job not finished: {STATE}/jobs/retire-2"),
        ("app1", {"files": {f"{STATE}/jobs/r/rc": "f", f"{STATE}/jobs/r/rc.tmp": "f"}}, "rc.tmp"),
        ("app1", {"shared": {"d /tmp/axon-login.abcdefgh"}}, "app1: left behind: /tmp/axon-login.abcdefgh"),
        ("app1", {"shells": {"99 sh -s "}}, "app1: a shell still runs: process 99"),
        ("edge1", {"lock": "held"}, "edge1: the lock is held"),
        ("edge1", {"files": {f"{STATE}/lock.owner": "f"}}, f"edge1: left behind: {STATE}/lock.owner"),
        ("edge1", {"files": {f"{STATE}/.current.123": "f"}}, f"edge1: left behind: {STATE}/.current.123"),
        ("edge1", {"files": {f"{STATE}/nginx-before": "d"}}, f"edge1: left behind: {STATE}/nginx-before"),
        ("edge1", {"files": {f"{STATE}/journal": "f"}}, f"edge1: left behind: {STATE}/journal"),
        ("edge1", {"shared": {"d /tmp/axon-stage.abcdefgh"}}, "edge1: left behind: /tmp/axon-stage.abcdefgh"),
        ("edge1", {"slot": "b"}, "edge1: slot b serves, and app1 runs container"),
        ("edge1", {"current": "16"}, "edge1: the current release is 16, and app1 runs"),
        ("edge1", {"record": ""}, "edge1: the record of release 17 is missing"),
        ("edge1", {"record": record(digest="sha256:2")}, "edge1: the record of release 17 notes"),
        ("edge1", {"record": record(servers={})}, "edge1: the record of release 17 notes None"),
        ("edge1", {"upstream": set()}, "edge1: nginx's upstreams are []"),
        ("edge1", {"nginx": "[emerg] no"}, "edge1: nginx -t: [emerg] no"),
    ],
)  # fmt: skip
def test_what_should_not_be_there_is_found(
    hosts: dict[str, HostState], host: str, change: dict[str, Any], expected: str
) -> None:
    """Each thing that a broken deploy can leave is told, with the host and what it is."""
    for name, value in change.items():
        setattr(hosts[host], name, value)

    assert [] != [one for one in state.problems(hosts, ANSWERS, EXPECTED) if expected in one]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], "no client gets an answer from app1"),
        (ANSWERS[:1], "no client gets an answer from app2"),
        ([*ANSWERS, Answer(200, "v2", "gone")], "clients get 200 v2, not v1"),
        ([*ANSWERS, Answer(502, "", "")], "clients get 502 nothing, not v1"),
        ([*ANSWERS, Answer(200, "v1", "gone")], "clients get answers from container gone"),
    ],
)
def test_what_clients_get_is_judged(
    hosts: dict[str, HostState], answers: list[Answer], expected: str
) -> None:
    """Every answer must be the version's, from the containers that run, and each of them must answer."""
    assert expected in state.problems(hosts, answers, EXPECTED)


def test_facts_are_read() -> None:
    """What the script on a host prints is read line by line, and what nobody understands is an error."""
    told = {"id": "1" * 64, "name": "/shop-prod-1", "status": "exited", "restart": "no", "labels": None}
    bindings = {"3000/tcp": [{"HostIp": "10.0.0.1", "HostPort": "30000"}]}
    text = "\n".join(
        [
            "file f /var/lib/axon/shop/prod/a b", "shared d /tmp/axon-stage.x", "ports 30000 30001", "lock free",
            "shell 12 sh -s ", "listen 22", "slot b", "current 17", "record {}", "upstream 10.0.0.1:30000",
            "nginx valid", "network shop", f"container {json.dumps({**told, 'bindings': bindings})}",
            f"container {json.dumps({**told, 'bindings': None})}",
        ]
    )  # fmt: skip
    found = state.read(text)

    assert {"/var/lib/axon/shop/prod/a b": "f"} == found.files
    assert ("30000 30001", "free", "b", "17", "{}", "valid") == (
        found.ports, found.lock, found.slot, found.current, found.record, found.nginx,
    )  # fmt: skip
    assert [(30000,), ()] == [one.ports for one in found.containers]
    assert ({"12 sh -s "}, {22}, ["shop"]) == (found.shells, found.listening, found.networks)
    with pytest.raises(AxonError, match="nobody understands: surprise"):
        state.read("surprise")


# --- the task --------------------------------------------------------------------------------------------------


class Part:
    """A part that gives a claim, or an error."""

    def __init__(self, outcome: Claim | AxonError) -> None:
        self.outcome = outcome

    def prove(self, lab: Any, say: Any) -> list[Claim]:
        if isinstance(self.outcome, AxonError):
            raise self.outcome
        return [self.outcome]


class NoLab:
    root: Path

    def up(self, _say: Any) -> None:
        """Nothing."""


def test_a_part_that_cannot_be_carried_out_is_a_claim_that_does_not_hold() -> None:
    """Its error is told in the results, and the other parts are tried all the same."""
    outcomes: dict[str, Claim | AxonError] = {
        "switches": claim(part="switches"), "kills": AxonError("no", hint="never"), "races": claim(part="races"),
    }  # fmt: skip
    clock = itertools.count()
    lab: Any = NoLab()
    tried = list(
        suite.run(
            lab,
            Options(tuple(outcomes)),
            lambda _: None,
            lambda: next(clock),
            lambda name, _: Part(outcomes[name]),
        )
    )

    assert ["switches", "kills", "races"] == [name for name, _, _ in tried]
    assert [True, False, True] == [one.holds for _, claims, _ in tried for one in claims]
    assert ("no never",) == tried[1][1][0].failures


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Claim | AxonError]:
    """`invoke prove` without a lab, with these outcomes."""
    outcomes: dict[str, Claim | AxonError] = {name: claim(part=name) for name in PARTS}
    NoLab.root = tmp_path
    monkeypatch.setattr("axon_tasks.lab.Lab", NoLab)
    monkeypatch.setattr(suite, "part", lambda name, _options: Part(outcomes[name]))
    return outcomes


def test_the_task_writes_the_results(
    pretended: dict[str, Claim | AxonError], tmp_path: Path, capsys: Any
) -> None:
    """The claims go into the file and, as a table, beside it; without a failure the task succeeds."""
    prove_task.prove(Context(), only="kills,races", seed="7")

    written = json.loads((tmp_path / "benchmarks/reliability.json").read_text())
    assert (["kills", "races"], 7) == ([one["part"] for one in written["claims"]], written["options"]["seed"])
    assert "invoke prove --only=kills --seed=7" in (tmp_path / "benchmarks/reliability.md").read_text()
    assert "kills  5 times  0       holds" in capsys.readouterr().out


def test_the_task_fails_if_a_claim_does(pretended: dict[str, Claim | AxonError], tmp_path: Path) -> None:
    """One claim that does not hold is exit code 1, with the results written all the same."""
    pretended["kills"] = claim(5, 2, 5, "this", part="kills")
    out = tmp_path / "mine.json"
    with pytest.raises(AxonError, match="Not proven: kills: It holds \\(FAILED\\)") as failed:
        prove_task.prove(Context(), out=str(out))

    assert 1 == failed.value.code
    assert list(PARTS) == [one["part"] for one in json.loads(out.read_text())["claims"]]


@pytest.mark.parametrize(
    "flags",
    [
        {"only": "nothing"},
        {"seed": "many"},
        {"quick": True, "kills": "7"},
        {"quick": True, "inputs": "7"},
        {"inputs": "all"},
        {"quick": True, "at": "switch:begin"},
        {"at": "never"},
        {"out": "table.md"},
        {"out": "/proc/none/results.json"},
    ],
)
def test_wrong_flags_are_told_before_anything_runs(flags: dict[str, Any], pretended: object) -> None:
    """A part, a number, a boundary or a file that cannot be meant is exit code 2."""
    with pytest.raises(UsageError):
        prove_task.prove(Context(), **flags)

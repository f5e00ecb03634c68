"""The timeline of a run: recorded, kept, read again, and what it says."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axon_tasks.deploy import analysis
from axon_tasks.deploy import timeline as runs
from axon_tasks.deploy.timeline import Recorder, RunInfo, Span, Timeline, TimelineError
from axon_tasks.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Goes where a test wants it."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


def recorded(folder: Path | None = None) -> Recorder:
    """A small run: a connect, then a step with one batch that has one section."""
    clock = Clock()
    made = Recorder(command="fab deploy --env=prod", folder=folder, clock=clock)
    run = made.begin("run", "deploy")
    whole = made.begin("environment", "prod", parent=run, environment="prod")
    made.add("connect", "app1", 0.0, 0.25, parent=whole, environment="prod", server="app1", round_trips=6)
    step = made.begin("step", "pull", parent=whole, environment="prod", needs=("lock", "inspect"))
    batch = made.add(
        "batch", "pull", 0.25, 1.0, parent=step, environment="prod", server="app1",
        round_trips=1, sent=200, received=100,
    )  # fmt: skip
    made.add("section", "pull", 0.3, 0.9, parent=batch, environment="prod", server="app1")
    clock.now = 501.0
    made.end(step, note="v2 is sha256:0123…")
    clock.now = 501.5
    return made


def timeline(*spans: Span, seconds: float = 0.0, environments: tuple[str, ...] = ("prod",)) -> Timeline:
    """A timeline of these spans, numbered in their order."""
    for number, one in enumerate(spans, start=1):
        one.id = number
    end = seconds or max((one.ended or 0.0 for one in spans), default=0.0)
    return Timeline(RunInfo("20260101-000000-1", path=None, environments=environments, seconds=end), spans)  # type: ignore[arg-type]


def step(name: str, started: float, ended: float, *needs: str, environment: str = "prod") -> Span:
    return Span(0, "step", name, None, environment, "", started, ended, "ok", needs=needs)


def part(  # one that says its kind, name, server, beginning and end
    parent: int | None, kind: str, name: str, server: str, started: float, ended: float
) -> Span:
    return Span(
        0, kind, name, parent, "prod", server, started, ended, "ok", round_trips=1, sent=10, received=5
    )


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    """The file holds the whole timeline: reading it gives what the recorder knew."""
    made = recorded(tmp_path)
    path = made.finish(outcome="ok", exit_code=0)
    assert path is not None
    assert made.timeline() == runs.load(path)
    info = runs.load(path).info
    assert ("ok", 0, 1.5, ("prod",)) == (info.outcome, info.exit_code, info.seconds, info.environments)


def test_only_the_owner_can_read_it_and_git_does_not_see_it(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask, and `.axon` ignores itself."""
    before = os.umask(0)
    try:
        path = recorded(tmp_path).finish(outcome="ok", exit_code=0)
    finally:
        os.umask(before)
    assert path is not None
    home = tmp_path / ".axon"
    modes = [
        stat.S_IMODE(one.stat().st_mode)
        for one in (home, home / "runs", path.parent, path, home / ".gitignore")
    ]
    assert [0o700, 0o700, 0o700, 0o600, 0o600] == modes
    assert "*\n" == (home / ".gitignore").read_text()
    assert ["timeline.json"] == [one.name for one in path.parent.iterdir()]


def test_two_runs_never_share_a_file(tmp_path: Path) -> None:
    """Runs that one process begins in the same second get ids of their own."""
    ids = {Recorder(command="x", folder=tmp_path).run_id for _ in range(5)}
    assert 5 == len(ids)


def test_any_number_of_threads_may_record() -> None:
    """Spans of several threads get different numbers, and none is lost."""
    made, numbers = Recorder(command="x"), []

    def work(name: str) -> None:
        for _ in range(200):
            number = made.begin("batch", name)
            made.end(number)
            numbers.append(number)

    threads = [threading.Thread(target=work, args=(f"t{index}",)) for index in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert list(range(1, 1601)) == sorted(numbers)
    assert {"ok"} == {one.outcome for one in made.timeline().spans}


def test_finishing_ends_what_is_open() -> None:
    """The run and its environments take the outcome of the whole; what else is open was ended early."""
    made = Recorder(command="x")
    for kind in ("run", "environment", "step"):
        made.begin(kind, kind)
    made.finish(outcome="failed", exit_code=1)
    assert ["failed", "failed", "ended early"] == [one.outcome for one in made.timeline().spans]
    assert all(one.ended is not None for one in made.timeline().spans)


def test_the_first_end_counts() -> None:
    """A second end changes nothing, so that cleaning up may end what it finds."""
    made = Recorder(command="x")
    number = made.begin("step", "pull")
    made.end(number, outcome="failed", at=3.0)
    made.end(number, outcome="ok", at=9.0)
    made.finish(outcome="failed", exit_code=1)
    made.finish(outcome="ok", exit_code=0)
    assert ("failed", 3.0) == (made.timeline().spans[0].outcome, made.timeline().spans[0].ended)
    assert ("failed", 1) == (made.timeline().info.outcome, made.timeline().info.exit_code)


def test_times_never_run_backwards() -> None:
    """Times that a server's clock gives in a wrong order do not make an unreadable file."""
    made = Recorder(command="x")
    made.add("section", "one", -0.5, -1.0)
    assert (0.0, 0.0) == (made.timeline().spans[0].started, made.timeline().spans[0].ended)


def test_a_run_that_is_killed_leaves_what_was_saved(tmp_path: Path) -> None:
    """After SIGKILL the file tells what had ended and what was still running."""
    program = (
        "import sys, time, pathlib\n"
        "from axon_tasks.deploy.timeline import Recorder\n"
        "made = Recorder(command='fab deploy', folder=pathlib.Path(sys.argv[1]))\n"
        "made.end(made.begin('step', 'inspect')); made.begin('step', 'pull'); made.save_soon()\n"
        "while not made.path.exists(): time.sleep(0.01)\n"
        "print('saved', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "saved\n" == process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    [info] = runs.runs(tmp_path)
    assert ("running", None, "") == (info.outcome, info.exit_code, info.broken)
    spans = runs.load(info.path).spans
    assert [("inspect", "ok"), ("pull", "running")] == [(one.name, one.outcome) for one in spans]


def test_what_is_saved_beside_the_run_is_complete_at_its_end(tmp_path: Path) -> None:
    """Saving in the background never puts older content over the last one."""
    made = recorded(tmp_path)
    for number in range(50):
        made.end(made.begin("step", f"step {number}"))
        made.save_soon()
    path = made.finish(outcome="ok", exit_code=0)
    assert path is not None
    assert (56, "ok") == (len(runs.load(path).spans), runs.load(path).info.outcome)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_cannot_be_written_fails_no_deploy(tmp_path: Path, when: str) -> None:
    """A folder that cannot be written to costs the file and nothing else."""
    folder = tmp_path / "project"
    folder.mkdir()
    if when == "before":
        (folder / ".axon").write_text("a file where a directory should be")
    made = recorded(folder)
    if when == "meanwhile":
        (folder / ".axon").rename(tmp_path / "moved")
    made.save_soon()
    assert made.finish(outcome="ok", exit_code=0) is None
    assert 6 == len(made.timeline().spans)


def document(**changes: Any) -> dict[str, Any]:
    """A valid file, changed."""
    made = recorded()
    made.finish(outcome="ok", exit_code=0)
    return {**runs.as_document(made.timeline()), **changes}


def file_with(folder: Path, text: str, run: str = "20260101-000000-1") -> Path:
    path = runs.runs_folder(folder) / run / runs.FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def with_span(**changes: Any) -> dict[str, Any]:
    spans = document()["spans"]
    return document(spans=[*spans[:-1], {**spans[-1], **changes}])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ("\udcff", "is no JSON"),
        (json.dumps(document(seconds=float("nan"))), "is no JSON"),
        (json.dumps(document(seconds=1e300)), "has no seconds as 'seconds'"),
        (json.dumps(document(seconds=True)), "has no seconds as 'seconds'"),
        (json.dumps(document(format=None)), "has no whole number as 'format'"),
        (json.dumps(document(command=1)), "has no text as 'command'"),
        (json.dumps(document(who="x" * 5000)), "has no text as 'who'"),
        (json.dumps(document(environments="prod")), "has no list of names as 'environments'"),
        (json.dumps(document(spans={})), "has no list of spans"),
        (json.dumps(document(spans=[1])), "has a span that is no JSON object"),
        (json.dumps(document(format=2, version="9.0")), "was written by a newer axon-tasks (9.0)"),
        (json.dumps(with_span(kind="<b>")), "has a span of the unknown kind '<b>'"),
        (json.dumps(with_span(id=1)), "has span 1 in the wrong place"),
        (json.dumps(with_span(parent=6)), "has span 6 in the wrong place"),
        (json.dumps(with_span(ended=0.1)), "has span 6 end before it begins"),
        (json.dumps(with_span(sent=-1)), "has no whole number as 'sent'"),
        (json.dumps(with_span(needs=[1])), "has no list of names as 'needs'"),
    ],
    ids=[str(number) for number in range(20)],  # the texts differ from process to process
)
def test_a_damaged_file_is_told_and_not_trusted(tmp_path: Path, text: str, expected: str) -> None:
    """Each kind of damage has a message that names it, and the list of runs marks the file as broken."""
    path = file_with(tmp_path, "")
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TimelineError) as caught:
        runs.load(path)
    assert expected in caught.value.summary
    assert expected in runs.runs(tmp_path)[0].broken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(sorted(document())), span=st.sampled_from(sorted(document()["spans"][0])), value=JSON
)
def test_no_value_in_a_file_breaks_the_reader(tmp_path: Path, key: str, span: str, value: Any) -> None:
    """Whatever stands in place of a value, the file is read or refused, never a traceback."""
    for made in (document(**{key: value}), with_span(**{span: value})):
        path = file_with(tmp_path, json.dumps(made))
        try:
            read = runs.load(path)
        except TimelineError:
            continue
        analysis.critical_ids(read)
        analysis.idle_gaps(read)


def many(folder: Path, count: int) -> list[str]:
    """So many finished runs, a second apart, the newest first."""
    names = [f"20260101-0000{second:02d}-{1000 - second}" for second in range(count)]
    for name in names:
        file_with(folder, json.dumps(document()), name)
    return names[::-1]


def test_runs_are_listed_from_the_newest(tmp_path: Path) -> None:
    """Time decides, not the process id; what is no run of ours is not listed."""
    names = many(tmp_path, 12)
    (runs.runs_folder(tmp_path) / "notes").mkdir()
    (runs.runs_folder(tmp_path) / "20260101-000099-1").symlink_to(tmp_path)
    assert names == [one.run for one in runs.runs(tmp_path)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("", 0), ("-1", 0), ("-2", 1), ("-12", 11), ("20260101-000003", 8), ("20260101-000003-997", 8)],
)
def test_a_run_is_picked_by_its_place_or_its_beginning(tmp_path: Path, wanted: str, expected: int) -> None:
    """The last run, the Nth last, or the only one that begins so."""
    names = many(tmp_path, 12)
    assert names[expected] == runs.pick(tmp_path, wanted).parent.name


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("-13", "only 12 runs"),
        ("2026", "12 runs begin with 2026"),
        ("../..", "No run begins with"),
        ("-0", "No run begins with"),
    ],
)
def test_a_run_that_cannot_be_meant_is_refused(tmp_path: Path, wanted: str, expected: str) -> None:
    """Nothing is guessed, and nothing outside of the folder of runs is opened."""
    many(tmp_path, 12)
    with pytest.raises(UsageError, match=expected):
        runs.pick(tmp_path, wanted)


def test_without_runs_the_message_says_what_records_one(tmp_path: Path) -> None:
    """A newcomer learns which command makes a timeline."""
    with pytest.raises(UsageError, match="fab deploy --env=NAME"):
        runs.pick(tmp_path)
    assert [] == runs.runs(tmp_path)


def test_pruning_keeps_the_newest_and_what_may_still_run(tmp_path: Path) -> None:
    """The oldest runs go, except one without an end that was heard of lately; other files stay."""
    names = many(tmp_path, 6)
    file_with(tmp_path, json.dumps(document(outcome="running", exit_code=None)), names[-1])
    file_with(tmp_path, "{", names[-2])
    os.utime(runs.runs_folder(tmp_path) / names[-2], (0, 0))
    (runs.runs_folder(tmp_path) / "notes").mkdir()
    assert names[2:5] == runs.prune_runs(tmp_path, keep=2)
    assert {*names[:2], names[-1], "notes"} == {one.name for one in runs.runs_folder(tmp_path).iterdir()}
    assert [] == runs.prune_runs(tmp_path, keep=100)


def named(path: list[Span]) -> list[str]:
    return [f"{one.name} {one.server}".strip() for one in path]


def test_the_critical_path_is_what_everything_waited_for() -> None:
    """From the last step back: the need that ended last, in it the server that took longest, and its connect."""
    made = timeline(
        step("inspect", 0.0, 0.3),
        step("pull", 0.0, 0.8),
        step("start", 0.8, 1.2, "inspect", "pull"),
        step("record", 1.2, 1.25, "start"),
        step("retire", 1.2, 1.4, "start"),
        part(None, "connect", "app1", "app1", 0.0, 0.1),
        part(None, "connect", "app2", "app2", 0.0, 0.2),
        part(1, "batch", "inspect", "app1", 0.1, 0.3),
        part(2, "batch", "pull", "app1", 0.1, 0.4),
        part(2, "batch", "pull", "app2", 0.2, 0.8),
        part(3, "batch", "start", "app1", 0.8, 1.2),
        part(3, "batch", "start", "app2", 0.8, 1.0),
        part(5, "batch", "retire", "app1", 1.2, 1.4),
    )
    path = analysis.critical_path(made, "prod")
    assert ["app2 app2", "pull app2", "start app1", "retire app1"] == named(path)
    assert pytest.approx(1.4) == sum((one.ended or 0) - one.started for one in path)
    marked = {made.spans[number - 1].name for number in analysis.critical_ids(made)}
    assert {"app2", "pull", "start", "retire"} == marked


def test_several_batches_of_one_server_are_a_chain() -> None:
    """Within a step, a batch follows the one before it of the same server, even if another server's ended later."""
    made = timeline(
        step("start", 0.0, 1.0),
        part(1, "batch", "start", "app1", 0.0, 0.5),
        part(1, "batch", "start", "app2", 0.0, 0.505),
        part(1, "batch", "diagnose", "app1", 0.506, 1.0),
    )
    assert ["start app1", "diagnose app1"] == named(analysis.critical_path(made, "prod"))


def test_steps_without_batches_and_waits_count_as_a_whole() -> None:
    """What decides locally, and what an environment waited for before it began, are members as well."""
    waiting = part(None, "wait", "staging", "", 0.0, 0.5)
    made = timeline(waiting, step("plan", 0.5, 0.7), step("stage", 0.7, 0.9, "plan"))
    assert ["staging", "plan", "stage"] == named(analysis.critical_path(made, "prod"))


def test_steps_that_change_the_same_thing_wait_for_each_other() -> None:
    """A step that began the moment another one ended was waiting for that one, declared need or not."""
    made = timeline(step("login", 0.0, 0.1), step("pull", 0.1, 0.6), step("prune", 0.6, 0.9, "login"))
    assert ["pull", "prune"] == named(analysis.critical_path(made, "prod"))[-2:]


def test_needs_that_go_in_a_circle_end_the_path() -> None:
    """A file that claims the impossible does not hang its reader."""
    made = timeline(step("a", 1.0, 1.0, "b"), step("b", 1.0, 1.0, "a"))
    assert {"a", "b"} == set(named(analysis.critical_path(made, "prod")))
    assert [] == analysis.critical_path(made, "nowhere")


def test_what_the_same_work_would_take_without_overlap() -> None:
    """Connects and batches count once each, their sections and steps do not."""
    made = timeline(
        step("pull", 0.0, 1.0),
        part(None, "connect", "app1", "app1", 0.0, 0.5),
        part(1, "batch", "pull", "app1", 0.5, 1.0),
        part(1, "batch", "pull", "app2", 0.5, 1.0),
        part(3, "section", "pull", "app1", 0.6, 0.9),
    )
    assert 1.5 == analysis.one_after_the_other(made)
    assert 1.5 == analysis.overlap(made)
    assert 0.0 == analysis.overlap(timeline())
    assert [("app1", 1, 2, 20, 10, 1.0), ("app2", 0, 1, 10, 5, 0.5)] == [
        (one.server, one.connections, one.round_trips, one.sent, one.received, one.busy)
        for one in analysis.totals(made)
    ]


def test_the_times_in_which_no_server_worked() -> None:
    """Gaps are told with what ended before them; work that overlaps leaves none."""
    made = timeline(
        part(None, "connect", "app1", "app1", 0.2, 0.5),
        part(None, "batch", "pull", "app1", 0.4, 1.0),
        part(None, "batch", "start", "app1", 1.5, 2.0),
        seconds=2.25,
    )
    gaps = [(gap.started, gap.ended, gap.after) for gap in analysis.idle_gaps(made)]
    assert [(0.0, 0.2, ""), (1.0, 1.5, "pull"), (2.0, 2.25, "start")] == gaps

"""What is known of a lock's owner, what people are told, and when a lock counts as lost."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axon_tasks.commands import lock
from axon_tasks.deploy import hold as holding
from axon_tasks.deploy import locking, owner, unlocking
from axon_tasks.deploy.hold import Hold, Times
from axon_tasks.deploy.owner import Owner
from axon_tasks.deploy.run import Options
from axon_tasks.errors import AxonError, LockedError, StepFailedError
from axon_tasks.remote import BatchResult, Section
from axon_tasks.report import lock as report

if TYPE_CHECKING:
    from collections.abc import Callable

NOTE = {
    "who": "alice@desk",
    "host": "desk",
    "pid": 4711,
    "command": "fab deploy --env=prod --tag=v2",
    "since": "2026-11-25T14:00:00Z",
    "run": "20261125-140000-4711",
    "token": "3f9a1c2e",
    "fence": 7,
    "holder": "12 34 5-6",
}
ALICE = owner.parse(f"240 {json.dumps(NOTE)}")


# --- the note ------------------------------------------------------------------------------------------------------


def test_a_note_comes_back_as_it_was_written() -> None:
    """What a run writes beside its lock is what others read there, with the age that the server tells."""
    made = owner.note("fab deploy --env=prod", run="r1", token="0a1b2c3d")
    read = owner.parse(f"5 {json.dumps(made)}")
    assert (made["who"], made["host"], os.getpid()) == (read.who, read.host, read.pid)
    assert ("fab deploy --env=prod", made["since"], "r1", "0a1b2c3d", 5) == (
        read.command,
        read.since,
        read.run,
        read.token,
        read.seconds,
    )


def test_a_note_of_an_older_version_is_read() -> None:
    """A note with who, since and command only says that much, and cannot be broken by a token."""
    old = {"who": "bob@ci", "since": "2026-11-25T14:00:00Z", "command": "cleanup"}
    read = owner.parse(f"60 {json.dumps(old)}")
    assert "bob@ci since 2026-11-25T14:00:00Z (60 s): cleanup" == read.sentence()
    assert ("", None) == (read.token, read.fence)


def test_older_versions_read_our_note() -> None:
    """Who, since and command stand where they always stood."""
    assert {"who", "since", "command"} <= owner.note("x", run="", token="0a1b2c3d").keys()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0 ",
        "x {}",
        "5 null",
        "5 []",
        '5 "text"',
        "5 {",
        "5 " + "[" * 4000,
        "5 " + '{"who":' * 600,
        "5 " + "9" * 4500,
        "9" * 4000 + " {}",
        '5 {"who": 1, "host": [], "pid": "1", "command": {}, "since": null, "run": true, "token": 5, "fence": []}',
        '5 {"pid": -1, "fence": true}',
        '5 {"pid": 1e999, "fence": NaN}',
        '5 {"pid": ' + "9" * 3000 + "}",
    ],
)
def test_what_makes_no_sense_is_unknown(text: str) -> None:
    """A damaged note names nobody, and never ends a run with a traceback."""
    read = owner.parse(text)
    assert (None, None, "", "somebody who left no name") == (read.pid, read.fence, read.token, read.name)


@pytest.mark.parametrize(
    "token", ["3F9A1C2E", "3f9a1c2", "3f9a1c2e1", "3f9a1c2e\n", "$(id)", "\uff11f9a1c2e"]
)
def test_a_token_that_is_none_stands_in_no_command(token: str) -> None:
    """What people are told to type holds eight hexadecimal digits and nothing else."""
    assert "" == owner.parse(f"0 {json.dumps({**NOTE, 'token': token})}").token


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(NOTE)), st.text() | st.integers() | st.floats() | st.none()))
def test_any_note_is_one_plain_line(note: dict[str, Any]) -> None:
    """Whatever stands in a note, what is shown of it is one line that no terminal obeys and every stream can write."""
    line = owner.parse(f"1 {json.dumps(note)}").sentence()
    assert [] == [char for char in line if ord(char) < 32 or 0x7F <= ord(char) < 0xA0]
    assert line == line.encode().decode()
    assert 1 == len(line.splitlines())


def test_what_is_long_is_cut() -> None:
    """A name of any length leaves the message readable."""
    assert 200 == len(owner.parse(f"0 {json.dumps({'who': 'x' * 3000})}").who)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_a_time_has_one_unit(seconds: int, words: str) -> None:
    """A time is told in the unit that people would use."""
    assert words == owner.in_one_unit(seconds)


def test_a_clock_that_went_back_makes_no_age() -> None:
    """A lock that was taken in the future, by the server's clock, was taken just now."""
    assert 0 == owner.parse(f"-30 {json.dumps(NOTE)}").seconds


# --- what people are told ------------------------------------------------------------------------------------------


@dataclass
class Told:
    """A listener that keeps messages."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def message(self, server: str, text: str) -> None:
        self.messages.append((server, text))


@dataclass
class Place:
    name: str = "prod"
    system: tuple[str, ...] = ("edge1",)
    product: str = "shop"


@dataclass
class Held:
    held: list[Any] = field(default_factory=list)


@dataclass
class System:
    flag_slot: str = "a"
    current: str = "5"


@dataclass
class Run:
    """As much of a run as the lock needs."""

    options: Options = field(default_factory=Options)
    environment: Place = field(default_factory=Place)
    listener: Told = field(default_factory=Told)
    servers: Held = field(default_factory=Held)
    under_lock: dict[str, str] = field(default_factory=dict)
    system: dict[str, System] = field(default_factory=lambda: {"edge1": System()})


def a_run(**more: Any) -> Any:
    return Run(**more)


def refused(run: Any, note: str) -> LockedError:
    """The error of a lock step whose script said that somebody else has the lock."""
    section = Section("lock", stdout_bytes=f"waited=yes\n\nowner={note}\n".encode(), exit_code=lock.TAKEN)
    with pytest.raises(LockedError) as caught:
        locking.lock_step(run).check(
            "edge1", BatchResult("lock", "edge1", [section], duration=0, bytes_received=0)
        )
    return caught.value


def test_a_locked_environment_says_who_and_what_to_type() -> None:
    """The message has who, since when, for how long, what, from where, and the exact command that breaks the lock."""
    error = refused(a_run(), f"240 {json.dumps(NOTE)}")
    assert 3 == error.code
    who = "alice@desk since 2026-11-25T14:00:00Z (4 min)"
    what = "fab deploy --env=prod --tag=v2 (process 4711 on desk)"
    command = "fab lock.break --env=prod --token=3f9a1c2e"
    assert [
        f"prod is locked by {who}: {what}, on edge1",
        f"  Wait for it: add --wait-lock=10m. If that run is dead, take the lock from it: {command}",
    ] == str(error).splitlines()


def test_the_command_names_the_file_that_was_named() -> None:
    """Whoever names a configuration file gets a command that names it too, quoted for a shell."""
    error = refused(a_run(options=Options(hosts_file="my hosts.yml")), f"240 {json.dumps(NOTE)}")
    assert str(error).endswith("fab lock.break --env=prod --token=3f9a1c2e --hosts-file='my hosts.yml'")


def test_who_has_waited_is_not_told_to_wait() -> None:
    """After --wait-lock the message says for how long, and does not propose the flag."""
    text = str(refused(a_run(options=Options(wait_lock=300)), f"240 {json.dumps(NOTE)}"))
    assert text.splitlines()[0].endswith(", on edge1; 5 min of waiting are over")
    assert "--wait-lock" not in text


def test_an_owner_without_a_token_cannot_be_broken() -> None:
    """Where the note cannot be read, no command is printed that cannot work."""
    text = str(refused(a_run(), "240 garbage"))
    assert ("prod is locked by somebody who left no name (4 min), on edge1", False) == (
        text.splitlines()[0],
        "lock.break" in text,
    )


def test_other_failures_of_the_lock_are_explained() -> None:
    """A lock that cannot be kept is no lock of somebody else."""
    section = Section("lock", stderr_bytes=b"cannot write /var/lib/axon/shop/prod/lock", exit_code=30)
    with pytest.raises(StepFailedError, match="no permission to write there"):
        locking.lock_step(a_run()).check(
            "edge1", BatchResult("lock", "edge1", [section], duration=0, bytes_received=0)
        )


def test_who_waits_is_told_for_whom() -> None:
    """The owner that is waited for, and the limit, are told in one line; so is an owner who has not finished."""
    run = a_run(options=Options(wait_lock=600))
    listen = locking.lock_step(run).listen
    assert listen is not None
    for line in ("waited=yes", f"waiting=240 {json.dumps(NOTE)}", f"stale=7200 {json.dumps(NOTE)}", "slot=a"):
        listen("edge1", line)
    who = "alice@desk since 2026-11-25T14:00:00Z"
    what = "fab deploy --env=prod --tag=v2 (process 4711 on desk)"
    then = "The next steps start from what is really there."
    assert [
        ("edge1", f"waiting for the lock, for at most 10 min: {who} (4 min): {what}"),
        ("edge1", f"warning: the last run has not finished: {who} (2 h): {what}. {then}"),
    ] == run.listener.messages


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("locked", ["prod: locked, on edge1", "  since    2026-11-25T14:00:00Z (4 min ago)",
                    "If that run is dead, take the lock from it: fab lock.break --env=prod --token=3f9a1c2e"]),
        ("unfinished", ["prod: nobody has the lock, on edge1; its last owner has not finished",
                        "The next deploy starts from what is really there."]),
    ],
)  # fmt: skip
def test_the_status_for_people(state: Any, words: list[str]) -> None:
    """The status says who, since when, what and from where, and how to break a lock that is held."""
    lines = report.text(unlocking.Standing("prod", "edge1", state, ALICE)).splitlines()
    assert set(words) <= set(lines)
    assert {"  who      alice@desk", "  command  fab deploy --env=prod --tag=v2"} <= set(lines)


def test_the_status_of_a_free_lock() -> None:
    """Where nobody works, one line says so."""
    found = unlocking.Standing("prod", "edge1")
    assert "prod: nobody has the lock, on edge1" == report.text(found)
    assert {
        "environment": "prod",
        "server": "edge1",
        "state": "free",
        "owner": None,
        "hold": None,
    } == json.loads(report.as_json(found))


def test_the_status_as_data() -> None:
    """JSON has every field of the owner, with numbers as numbers."""
    shown = json.loads(report.as_json(unlocking.Standing("prod", "edge1", "locked", ALICE)))
    expected = {key: value for key, value in NOTE.items() if key != "holder"} | {"seconds": 240}
    assert ("locked", expected) == (shown["state"], shown["owner"])


# --- looking, breaking ---------------------------------------------------------------------------------------------


class Answering:
    """A connection on which each batch gets the answer that was prepared."""

    destination = "root@edge1"
    name = "edge1"

    def __init__(self, **section: Any) -> None:
        self.section = section


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Give a fleet whose server answers so."""

    def run(batch: Any, connection: Answering, **_more: object) -> BatchResult:
        section = Section(batch.labels[0], **connection.section)
        return BatchResult(batch.name, "edge1", [section], duration=0, bytes_received=0)

    monkeypatch.setattr("axon_tasks.remote.batch.Batch.run", run)
    return lambda **section: {"edge1": Answering(**section)}


def environment() -> Any:
    return Place()


def test_a_broken_lock_says_what_was_done(answers: Callable[..., Any]) -> None:
    """After a breaking one reads from whom the lock was taken and which process was ended."""
    said = f"owner=240 {json.dumps(NOTE)}\nended=815\n".encode()
    done = unlocking.take_away(answers(stdout_bytes=said, exit_code=0), environment(), "3f9a1c2e")
    assert done is not None
    text = report.broken(done)
    assert ("alice@desk", "815") == (done.owner.who, done.ended)
    assert text.startswith("prod: the lock was taken from alice@desk since 2026-11-25T14:00:00Z")
    assert "process 815" in text


def test_a_note_that_was_left_is_no_process_that_was_ended(answers: Callable[..., Any]) -> None:
    """Where nobody held the lock any more, the message says so."""
    said = f"owner=240 {json.dumps(NOTE)}\n".encode()
    done = unlocking.take_away(answers(stdout_bytes=said, exit_code=0), environment(), "3f9a1c2e")
    assert done is not None
    assert "nobody held the lock any more" in report.broken(done)


def test_the_lock_of_another_owner_is_not_broken(answers: Callable[..., Any]) -> None:
    """Whoever names another token is told who has the lock now, with exit code 3 and the command for that one."""
    said = f"locked=240 {json.dumps(NOTE)}\n".encode()
    with pytest.raises(LockedError) as caught:
        unlocking.take_away(
            answers(stdout_bytes=said, exit_code=lock.NOT_THE_OWNER), environment(), "00000000", "h.yml"
        )
    assert 3 == caught.value.code
    for words in ("00000000 is not the token", "alice@desk", "--token=3f9a1c2e --hosts-file=h.yml"):
        assert words in str(caught.value)


def test_where_nobody_has_the_lock_nothing_is_broken(answers: Callable[..., Any]) -> None:
    """A lock that is free is no failure: that is what was wanted."""
    assert unlocking.take_away(answers(exit_code=lock.NOT_THE_OWNER), environment(), "00000000") is None


def test_a_holder_that_is_not_known_is_not_ended(answers: Callable[..., Any]) -> None:
    """If the process that holds the lock is not the one in the note, the message says how to find it."""
    fleet = answers(stderr_bytes=b"held by another\n", exit_code=lock.UNKNOWN_HOLDER)
    with pytest.raises(AxonError, match="held by another") as caught:
        unlocking.take_away(fleet, environment(), "3f9a1c2e")
    assert "ssh root@edge1 sudo fuser -v /var/lib/axon/shop/prod/lock" in str(caught.value)


@pytest.mark.parametrize(
    "stdout", [b"", b"\xff\xfe", b"locked=\n", b"stale=x\n", b"locked=1 {}\nlocked=2 {}\n"]
)
def test_any_answer_to_a_look_is_read(answers: Callable[..., Any], stdout: bytes) -> None:
    """What a server says of its lock never ends the look with a traceback."""
    found = unlocking.look(answers(stdout_bytes=stdout, exit_code=0), environment())
    assert report.text(found).startswith("prod: ")
    assert "prod" == json.loads(report.as_json(found))["environment"]


# --- held, or lost -------------------------------------------------------------------------------------------------


class Pending:
    """A batch that runs on until a test ends it."""

    def __init__(self) -> None:
        self.outcome: BatchResult | AxonError | None = None
        self.sent: list[bytes] = []
        self.cancelled = False
        self.on_output: Callable[[str, str, bytes], None] = lambda *_: None

    def done(self) -> bool:
        return self.outcome is not None

    def result(self) -> BatchResult:
        if isinstance(self.outcome, AxonError):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    def send(self, data: bytes) -> bool:
        self.sent.append(data)
        return True

    def cancel(self, *, confirmed: bool) -> None:
        self.cancelled = True

    def start(self, _connection: object, *, on_output: Callable[[str, str, bytes], None]) -> Pending:
        self.on_output = on_output
        return self

    def says(self, text: str, stream: str = "stdout") -> None:
        self.on_output("lock", stream, text.encode())

    def ends(self, code: int) -> None:
        section = Section("lock", exit_code=code)
        self.outcome = BatchResult("lock", "edge1", [section], duration=0, bytes_received=0)


@dataclass
class Moment:
    now: float = 1000.0


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    """A clock that goes where the test wants it; no sign of life is sent meanwhile."""
    made = Moment()
    monkeypatch.setattr(holding, "clock", lambda: made.now)
    monkeypatch.setattr(holding, "TIMES", Times(beat=3600))
    return made


@pytest.fixture
def pending() -> Pending:
    return Pending()


def a_hold(pending: Pending, heard: list[str] | None = None) -> Hold:
    listen = heard.append if heard is not None else (lambda _line: None)
    return Hold(pending, Answering(), lock.HELD, listen)  # type: ignore[arg-type]


def test_it_holds_when_a_whole_line_says_so(moment: Moment, pending: Pending) -> None:
    """A line that only contains the word, or stands on the other stream, is not it; lines before it are handed on."""
    heard: list[str] = []
    hold = a_hold(pending, heard)
    pending.says("locked=yes\n", "stderr")
    pending.says("stale=1 {locked=yes}\nlocked=yes")
    assert ["stale=1 {locked=yes}"] == heard
    pending.says("\n")
    assert (True, ["stale=1 {locked=yes}"]) == (hold.wait(), heard)
    assert b"stale=1 {locked=yes}\nlocked=yes\n" == hold.said
    hold.close()


def test_it_does_not_hold_if_it_has_ended(moment: Moment, pending: Pending) -> None:
    """A script that ends before it holds was refused."""
    hold = a_hold(pending)
    pending.ends(lock.TAKEN)
    assert (False, lock.TAKEN) == (hold.wait(), hold.code)


def test_letting_go_says_so_first(moment: Moment, pending: Pending) -> None:
    """The word that the lock is given back goes out before the input ends."""
    with a_hold(pending):
        pending.says("locked=yes\n")
    assert ([b"bye\n"], True) == (pending.sent, pending.cancelled)


def test_a_sign_of_life_counts_from_when_it_was_sent(moment: Moment, pending: Pending) -> None:
    """An answer that took long proves only that the server knew of us when it was asked."""
    hold = a_hold(pending)
    pending.says("locked=yes\n")
    moment.now = 1018
    pending.says("alive=1005.00\n")
    assert 13 == hold.silent


@pytest.mark.parametrize(
    "line", ["alive=999999.00", "alive=", "alive=x", "alive=1e9", "alive=-5.00", "alive=900.00"]
)
def test_a_forged_sign_of_life_makes_nothing_younger_than_now(
    moment: Moment, pending: Pending, line: str
) -> None:
    """What was never sent does not make the lock hold longer than a sign that comes this moment would."""
    hold = a_hold(pending)
    pending.says("locked=yes\n")
    moment.now = 1018
    pending.says(f"{line}\n")
    assert (0 if "999999" in line else 18) == hold.silent
    moment.now = 1039
    assert locking.lost(hold)


def test_much_output_is_not_kept(moment: Moment, pending: Pending) -> None:
    """A script that floods its output before it holds, or after, costs no memory."""
    hold = a_hold(pending)
    for _ in range(20):
        pending.says("x" * 10_000)
    pending.says("\nlocked=yes\n")
    assert (64 * 1024, True) == (len(hold.said), hold.wait())
    for _ in range(20):
        pending.says("y" * 10_000)
    assert 64 * 1024 >= len(hold._ear.rest)
    hold.close()


def held_run(pending: Pending) -> tuple[Any, Hold]:
    hold = a_hold(pending)
    pending.says("locked=yes\n")
    return a_run(servers=Held([hold])), hold


def test_a_lock_that_is_held_is_no_reason_to_stop(moment: Moment, pending: Pending) -> None:
    """While signs of life come back, a run goes on; so does one that needs no lock."""
    run, _ = held_run(pending)
    moment.now = 1019
    locking.must_hold(run)
    locking.must_hold(a_run())


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda pending, _: pending.ends(lock.EXPIRED), "edge1 heard nothing from here for 30 s"),
        (lambda pending, _: pending.ends(137), "it was taken away on edge1"),
        (lambda pending, _: setattr(pending, "outcome", AxonError("reset")), "its connection to edge1 broke"),
        (lambda _, moment: setattr(moment, "now", 1023), "edge1 has not answered for 23 s"),
    ],
)
def test_without_its_lock_a_run_stops(
    moment: Moment, pending: Pending, end: Callable[[Pending, Moment], None], words: str
) -> None:
    """However the lock was lost, or if nobody can tell, the run stops with exit code 1 and the reason."""
    run, _ = held_run(pending)
    end(pending, moment)
    with pytest.raises(StepFailedError, match=words) as caught:
        locking.must_hold(run)
    assert (1, True) == (caught.value.code, "fab lock.status --env=prod" in str(caught.value))


def test_this_side_gives_up_first() -> None:
    """Nobody acts on a lock that the server has let go: this side trusts it for less time, even if a sign is late."""
    assert Times().trust + Times().beat < Times().expiry


@pytest.mark.parametrize(
    ("under_lock", "expected"),
    [
        ({"slot": "a", "current": "5"}, False),
        ({"slot": "b", "current": "5"}, True),
        ({"slot": "a", "current": "6"}, True),
        ({"slot": "a", "current": "5", "waited": "yes"}, True),
        ({"slot": "a", "current": "5", "stale": "5 {}"}, True),
    ],
)
def test_what_was_seen_before_the_lock_may_be_outdated(under_lock: dict[str, str], expected: bool) -> None:
    """Who had to wait, or got the lock of one who has not finished, looks again; so does who sees another release serve."""
    assert expected is locking.outdated(a_run(under_lock=under_lock))


def test_each_run_has_a_token_of_its_own() -> None:
    """Two runs are told apart by eight hexadecimal digits."""
    one, other = Options().token, Options().token
    assert (8, True) == (len(one), one != other)
    assert one == owner.parse(f"0 {json.dumps(owner.note('x', run='', token=one))}").token


def test_nobody_is_empty() -> None:
    """An owner of whom nothing is known has a sentence all the same."""
    assert "somebody who left no name" == Owner().sentence()

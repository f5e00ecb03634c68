"""What people see while a run goes on, on a terminal and in a log."""

from __future__ import annotations

import fcntl
import importlib.abc
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies

from axon_tasks.deploy.engine import Report
from axon_tasks.deploy.servers import AbortedError
from axon_tasks.errors import AxonError
from axon_tasks.report import live
from axon_tasks.report.live import Screen, TerminalScreen, screen
from axon_tasks.report.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from axon_tasks.deploy.engine import Listener

PULLED = "  pull       2.00 s  app1 1.50, app2 2.00 · v2 is sha256:0123…"


class Emulator(io.StringIO):
    """As much of a terminal as the live view uses; anything else is an error.

    Args:
        columns: Its width; longer lines go on in the next row, as terminals do it.
    """

    encoding = "utf-8"

    def __init__(self, columns: int = 80) -> None:
        super().__init__()
        self.columns, self.rows, self.row, self.column, self.writes = columns, [""], 0, 0, 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += 1
        for found in re.finditer("\x1b\\[(\\d*)([A-Za-z])|\x1b\\[[0-9;]*m|(\r)|(\n)|([^\x1b\r\n])", text):
            count, command, back, down, sign = found.groups()
            if command == "A":
                assert self.row >= int(count), "above the first row"
                self.row -= int(count)
            elif command == "K":
                assert "2" == count, repr(found[0])
                self.rows[self.row] = ""
            elif back:
                self.column = 0
            elif down:
                self.down()
            elif sign:
                if self.column >= self.columns:
                    self.down()
                line = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = line[: self.column] + sign + line[self.column + 1 :]
                self.column += 1
            else:
                assert found[0].endswith("m"), repr(found[0])
        return len(text)

    def down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append("")

    def narrow(self, columns: int) -> None:
        """Break its rows, as terminals do it when their window becomes narrower; the cursor stays at the end."""
        rows, self.rows, self.row, self.column, self.columns = self.rows, [""], 0, 0, columns
        self.write("\n".join(rows))

    def lines(self) -> list[str]:
        return [row.rstrip() for row in self.rows if row.strip()]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """A terminal of 80 columns and 24 rows."""
    monkeypatch.setenv("TERM", "xterm")
    resize(monkeypatch, 80, 24)
    return Emulator()


def resize(monkeypatch: pytest.MonkeyPatch, columns: int, rows: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))


def still(terminal: Emulator, *names: str, clock: Callable[[], float] | None = None) -> TerminalScreen:
    """A screen that draws only when it is told to, with all that it needs for that."""
    made = TerminalScreen(terminal, names or ("prod",), clock=clock or Clock())
    made.interval = 3600.0
    made.load()
    return made


def pull(one: Listener) -> None:
    one.started("pull", ["app1", "app2"])
    one.server("pull", "app1", "running")
    one.server("pull", "app2", "running")
    one.progress("pull", "app1", "3 of 7 layers")


def pulled(one: Listener) -> None:
    one.finished("pull", 2.0, Report("v2 is sha256:0123…", {"app1": 1.5, "app2": 2.0}))


def test_a_terminal_shows_what_is_running_below_what_has_ended(terminal: Emulator) -> None:
    """Step, seconds, and each server with how far it is; its line takes the place of that when it has ended."""
    clock = Clock()
    shown = still(terminal, clock=clock)
    one = shown.listener("prod")
    shown.line("Deploying v2")
    pull(one)
    clock.now += 1.25
    shown.tick()
    assert ["Deploying v2", "⠋ pull        1.2 s  app1 3 of 7 layers, app2"] == terminal.lines()
    one.server("pull", "app1", "ok")
    one.server("pull", "app2", "failed")
    clock.now += 0.25
    shown.tick()
    assert "⠸ pull        1.5 s  app1 ✓, app2 ✗" == terminal.lines()[-1]
    pulled(one)
    assert ["Deploying v2", PULLED] == terminal.lines()
    shown.close()


def everything(one: Listener, wait: Callable[[], None] = lambda: None) -> None:
    """A run with all that a listener can be told."""
    pull(one)
    one.started("inspect", ["edge1"])
    wait()
    one.message("app1", "not healthy after 3 s: HTTP 500")
    one.finished("inspect", 0.2, Report("", {"edge1": 0.2}))
    wait()
    pulled(one)
    one.started("start", ["app1", "app2"])
    wait()
    parts = {"health": Report("HTTP 200", {"app1": 0.1, "app2": 0.3})}
    one.finished("start", 0.9, Report("release 1", {"app1": 0.5, "app2": 0.6}, parts))
    one.started("switch", ["edge1"])
    one.started("record")
    wait()
    one.failed("switch", 0.1, AxonError("edge1: nginx is not running"))
    one.failed("record", 0.1, AbortedError("record"))


LINES = [
    "  app1: not healthy after 3 s: HTTP 500",
    "  inspect    0.20 s  edge1",
    PULLED,
    "  start      0.60 s  app1 0.50, app2 0.60 · release 1",
    "  health     0.30 s  app1 0.10, app2 0.30 · HTTP 200",
    "  switch     0.10 s  failed",
    "  record     0.10 s  ended early",
]


def test_at_the_end_a_terminal_and_a_log_hold_the_same_lines(terminal: Emulator) -> None:
    """What showed that something runs is gone; a log's lines differ by the time in UTC before them."""
    with screen(terminal, ["prod"]) as shown:
        everything(shown.listener("prod"), lambda: time.sleep(0.12))
    log = io.StringIO()
    with screen(log, ["prod"]) as told:
        everything(told.listener("prod"))
    assert LINES == terminal.lines()
    assert [True] * len(LINES) == [
        bool(re.match(r"\d\d:\d\d:\d\dZ ", line)) for line in log.getvalue().splitlines()
    ]
    assert LINES == [line[10:] for line in log.getvalue().splitlines()]


def test_several_environments_are_told_apart(terminal: Emulator) -> None:
    """With more than one environment each line begins with its name, of equal width; with one there is none."""
    shown = still(terminal, "prod", "staging")
    first, second = shown.listener("prod"), shown.listener("staging")
    pull(first)
    pull(second)
    first.message("app1", "draining")
    pulled(first)
    shown.tick()
    assert [
        "  prod     app1: draining",
        PULLED.replace("  pull", "  prod     pull", 1),
        "⠋ staging  pull        0.0 s  app1 3 of 7 layers, app2",
    ] == terminal.lines()
    shown.close()


def test_a_step_of_one_environment_does_not_end_another_ones(terminal: Emulator) -> None:
    """Two environments may run the same step at the same time."""
    shown = still(terminal, "a", "b")
    for name in ("a", "b"):
        shown.listener(name).started("pull")
    shown.listener("a").failed("pull", 1.0, AxonError("x"))
    shown.tick()
    assert ["  a  pull       1.00 s  failed", "⠋ b  pull        0.0 s"] == terminal.lines()
    shown.close()


def test_no_line_of_any_thread_is_lost(terminal: Emulator) -> None:
    """Lines that several threads write while the picture changes all appear, once, and nothing else is left."""
    names = [f"env{index}" for index in range(4)]

    def work(one: Listener) -> None:
        for number in range(40):
            one.started(f"s{number}", ["app1"])
            one.message("app1", f"message {number}")
            one.finished(f"s{number}", 0.1, Report())

    with screen(terminal, names) as shown:
        threads = [threading.Thread(target=work, args=(shown.listener(name),)) for name in names]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    expected = [f"  {name}  app1: message {number}" for name in names for number in range(40)]
    expected += [f"  {name}  {f's{number}':<8}   0.10 s" for name in names for number in range(40)]
    assert sorted(expected) == sorted(terminal.lines())


def test_a_narrower_terminal_is_cleaned_up(terminal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that a terminal broke when it became narrower are taken away, too, and new ones fit."""
    shown = still(terminal)
    one = shown.listener("prod")
    shown.line("first")
    one.started("pull", ["a-server-with-a-long-name", "another-one-with-a-long-name"])
    shown.tick()
    resize(monkeypatch, 30, 24)
    terminal.narrow(30)
    assert 4 == len(terminal.lines())
    shown.tick()
    assert ["first", "⠋ pull        0.0 s  a-serve…"] == terminal.lines()
    shown.close()
    assert ["first"] == terminal.lines()


@pytest.mark.parametrize("columns", [1, 5, 20, 40])
def test_what_is_running_never_breaks_a_line(
    terminal: Emulator, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """However narrow the terminal, and however wide the characters, one step is one row."""
    resize(monkeypatch, columns, 24)
    terminal.columns = columns
    shown = still(terminal)
    shown.listener("prod").started("pull", ["app1", "app2"])
    shown.listener("prod").progress("pull", "app1", "層層層層層層層層層層層層")
    shown.tick()
    assert 1 >= len(terminal.lines())
    shown.close()
    assert [] == terminal.lines()


def test_more_steps_than_rows(terminal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture never takes more rows than the terminal has; the rest is told as a number."""
    resize(monkeypatch, 80, 6)
    shown = still(terminal)
    for number in range(10):
        shown.listener("prod").started(f"s{number}")
    shown.tick()
    assert (4, "⠋ and 7 more steps") == (len(terminal.lines()), terminal.lines()[-1])
    shown.close()


def test_many_servers_are_counted(terminal: Emulator) -> None:
    """Of many servers those that are still running are named, after the number of those that have ended."""
    shown = still(terminal)
    one = shown.listener("prod")
    names = [f"app{index}" for index in range(50)]
    one.started("pull", names)
    for name in names:
        one.server("pull", name, "running")
    for name in names[:48]:
        one.server("pull", name, "ok")
    shown.tick()
    assert "⠋ pull        0.0 s  48 of 50 servers, app48, app49" == terminal.lines()[-1]
    one.finished("pull", 3.0, Report("", {name: 1.0 + number for number, name in enumerate(names)}))
    assert ["  pull       3.00 s  50 servers 1.00 to 50.00 (app49)"] == terminal.lines()
    shown.close()


def test_what_a_server_says_is_no_command_for_the_terminal(terminal: Emulator) -> None:
    """Escape sequences and line breaks in progress, messages and notes are taken out."""
    shown = still(terminal)
    one = shown.listener("prod")
    one.started("pull", ["app1"])
    one.progress("pull", "app1", "\x1b[2J\x1b]0;x\x07one\ntwo\r")
    one.message("app1", "\x1b[Hthree\nfour")
    shown.tick()
    assert ["  app1: three four", "⠋ pull        0.0 s  app1 one two\\x0d"] == terminal.lines()
    one.finished("pull", 1.0, Report("\x1b[2Jfive\nsix"))
    assert "  pull       1.00 s  five six" == terminal.lines()[-1]
    shown.close()


HOSTILE = "[red]x[/red] [link=http://x]y[/link] [/] :smile: \\[z] 10.0.0.1 'q' {e}"


def test_what_a_server_says_is_no_markup(terminal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets, emoji names, addresses and quotes appear as they are, and get no colours of their own."""
    written: list[str] = []
    shown = still(terminal)
    one = shown.listener("prod")
    one.started("pull", ["app1"])
    one.progress("pull", "app1", HOSTILE)
    one.message("app1", HOSTILE)
    shown.tick()
    assert [f"  app1: {HOSTILE}", f"⠋ pull        0.0 s  app1 {HOSTILE}"[:78] + "…"] == terminal.lines()
    monkeypatch.setattr(Emulator, "write", lambda _self, text: written.append(text))
    one.finished("pull", 1.0, Report(HOSTILE))
    shown.close()
    colours = re.findall("\x1b\\[[0-9;]*m", "".join(written))
    assert (["\x1b[32m", "\x1b[0m"], True) == (colours, HOSTILE in "".join(written))


@given(strategies.text())
def test_a_line_is_the_same_on_a_terminal_and_in_a_log(text: str) -> None:
    """Whatever a server says, and however long it is, what draws hands it on unchanged."""
    terminal, log = Emulator(10**6), io.StringIO()
    shown, told = still(terminal), Screen(log, ["prod"])
    for one in (shown.listener("prod"), told.listener("prod")):
        one.started("pull", ["app1"])
        one.message("app1", text)
        one.finished("pull", 1.0, Report(text))
    shown.close()
    told.close()
    assert [line.rstrip() for line in log.getvalue().splitlines()] == terminal.lines()


def test_a_picture_is_one_write(terminal: Emulator) -> None:
    """A line and what is running below it reach the terminal together, so that no half picture is seen."""
    shown = still(terminal)
    one = shown.listener("prod")
    one.started("pull", ["app1"])
    one.started("inspect", ["edge1"])
    before = terminal.writes
    shown.tick()
    one.message("app1", "draining")
    assert (2, 3) == (terminal.writes - before, len(terminal.lines()))
    shown.close()


def test_nothing_is_written_while_nothing_runs(terminal: Emulator) -> None:
    """While no step runs, nothing is drawn."""
    shown = still(terminal)
    shown.line("one")
    before = terminal.writes
    shown.tick()
    shown.tick()
    assert before == terminal.writes
    shown.close()


def test_a_listener_may_talk_after_the_end(terminal: Emulator) -> None:
    """What undoing tells after the screen was closed appears as lines, and leaves no picture behind."""
    with screen(terminal, ["prod"]) as shown:
        one = shown.listener("prod")
    one.started("undo", ["app1"])
    one.message("app1", "removed")
    assert ["  app1: removed"] == terminal.lines()


def test_a_log_hears_of_what_takes_long() -> None:
    """After five seconds, and then every ten, each step that still runs gives a sign with its servers' states."""
    log, clock = io.StringIO(), Clock()
    told = Screen(log, ["prod"], clock=clock)
    told.interval = 3600.0
    one = told.listener("prod")
    pull(one)
    one.server("pull", "app2", "ok")
    for _ in range(26):
        clock.now += 1.0
        told.tick()
    line = "  pull     still running after {} s: app1 3 of 7 layers, app2 done"
    assert [line.format(seconds) for seconds in (5, 15, 25)] == log.getvalue().splitlines()
    pulled(one)
    clock.now += 100.0
    told.tick()
    assert 4 == len(log.getvalue().splitlines())
    told.close()


def test_lines_that_belong_together_stay_together_in_a_log() -> None:
    """A text of several lines has one time stamp, and its lines stay below each other."""
    log = io.StringIO()
    with screen(log, ["prod"]) as told:
        told.line("one\ntwo")
    assert re.fullmatch(r"\d\d:\d\d:\d\dZ one\n {10}two\n", log.getvalue())


@pytest.mark.parametrize(
    ("term", "expected"), [("dumb", Screen), ("unknown", Screen), ("", Screen), ("xterm", TerminalScreen)]
)
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch, term: str, expected: type
) -> None:
    """Without a cursor there are plain lines, without time stamps, because somebody is watching."""
    monkeypatch.setenv("TERM", term)
    terminal = Emulator()
    with screen(terminal, ["prod"]) as shown:
        assert expected is type(shown)
        shown.line("one")
    assert ["one"] == terminal.lines()


def test_no_color_is_obeyed(terminal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR nothing is coloured, and what is running is shown all the same."""
    monkeypatch.setenv("NO_COLOR", "1")
    written: list[str] = []
    monkeypatch.setattr(Emulator, "write", lambda _self, text: written.append(text))
    shown = still(terminal)
    pull(shown.listener("prod"))
    shown.tick()
    pulled(shown.listener("prod"))
    shown.close()
    assert "3 of 7 layers" in "".join(written)
    assert not re.search("\x1b\\[[0-9;]*m", "".join(written))


class Gone(Emulator):
    """A terminal, or a pipe, whose other end has gone."""

    def __init__(self, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("tty", [True, False])
def test_a_reader_that_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch, tty: bool) -> None:
    """`| head` and a closed terminal window do not end a deploy half-way."""
    monkeypatch.setenv("TERM", "xterm")
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with screen(Gone(tty), ["prod"]) as shown:
        everything(shown.listener("prod"), lambda: time.sleep(0.15))
    assert [] == failures


def test_characters_that_a_terminal_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only ASCII can be shown, signs and spinner are ASCII."""
    monkeypatch.setattr(Emulator, "encoding", "ascii")
    terminal = Emulator()
    shown = still(terminal)
    pull(shown.listener("prod"))
    shown.listener("prod").server("pull", "app2", "ok")
    shown.tick()
    assert ["- pull        0.0 s  app1 3 of 7 layers, app2 ok"] == terminal.lines()
    shown.close()


LONG = """
import time
from axon_tasks.report.live import screen
with screen(None, ["prod"]) as shown:
    shown.listener("prod").started("pull", ["a-server-with-a-long-name", "another-one-with-a-long-name", "a-third"])
    time.sleep(60)
"""


def set_columns(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def test_a_resized_terminal_is_noticed_at_once() -> None:
    """What is running is cut at the width that the terminal has now, whatever the environment says."""
    ours, theirs = pty.openpty()
    set_columns(theirs, 60)
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "24"}
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environ
    ) as process:
        read_until(ours, "a-server-with-a-long-name, another-on…".encode())
        set_columns(theirs, 30)
        read_until(ours, "a-serve…".encode())
        process.kill()
    os.close(theirs)
    os.close(ours)


PROGRAM = """
import sys, time
from axon_tasks.report.live import screen
with screen(None, ["prod"]) as shown:
    one = shown.listener("prod")
    shown.line("ready")
    one.started("pull", ["app1"])
    time.sleep(60)
"""


def test_ctrl_c_on_a_real_terminal_leaves_lines_only() -> None:
    """After Ctrl-C what was running is gone from the screen, the cursor was never hidden, and nothing hangs."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environ
    ) as process:
        os.close(theirs)
        said = read_until(ours, b"pull")
        process.send_signal(signal.SIGINT)
        said += read_until(ours, None)
        assert 0 != process.wait(30)
    os.close(ours)
    terminal = Emulator()
    terminal.write(said.decode().replace("\r\n", "\n"))
    assert ["ready"] == terminal.lines()
    assert b"\x1b[?" not in said


def read_until(handle: int, wanted: bytes | None) -> bytes:
    """What a terminal shows until it holds something, or until its program has ended."""
    said = b""
    while wanted is None or wanted not in said:
        assert select.select([handle], [], [], 30)[0], said
        try:
            chunk = os.read(handle, 65536)
        except OSError:  # EIO: the last program that had it open has ended
            break
        if not chunk:
            break
        said += chunk
    return said


@pytest.fixture
def slow_import(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """What draws is imported when the second event is set; the first one tells that somebody waits for that."""
    asked, there = threading.Event(), threading.Event()

    class Slow(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == PICTURE:
                asked.set()
                assert there.wait(30)

    monkeypatch.delitem(sys.modules, PICTURE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    yield asked, there
    there.set()


PICTURE = "axon_tasks.report.picture"


def test_nothing_waits_for_the_library(
    terminal: Emulator, slow_import: tuple[threading.Event, threading.Event]
) -> None:
    """While it is imported lines appear at once; what has begun meanwhile is shown as soon as it is there."""
    asked, there = slow_import
    with screen(terminal, ["prod"]) as shown:
        assert asked.wait(30)
        one = shown.listener("prod")
        pull(one)
        one.message("app1", "draining")
        assert ["  app1: draining"] == terminal.lines()
        there.set()
        wait_for(lambda: len(terminal.lines()) == 2)
        assert "app1 3 of 7 layers, app2" in terminal.lines()[-1]
        pulled(one)
    assert ["  app1: draining", PULLED] == terminal.lines()


def test_the_end_does_not_wait_for_the_library(
    terminal: Emulator, slow_import: tuple[threading.Event, threading.Event]
) -> None:
    """A run that ends before it is there just ends, and nothing is drawn afterwards."""
    asked, there = slow_import
    with screen(terminal, ["prod"]) as shown:
        assert asked.wait(30)
        pull(shown.listener("prod"))
        shown.line("one")
    assert not there.is_set()
    before = terminal.writes
    there.set()
    assert shown._thread is not None
    shown._thread.join(30)
    assert not shown._thread.is_alive()
    assert (["one"], before) == (terminal.lines(), terminal.writes)


def wait_for(what: Callable[[], bool]) -> None:
    """Until it is so; a test that waits in vain fails."""
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_fault_of_the_library_ends_nothing(terminal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """When drawing fails, all lines appear all the same."""
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    monkeypatch.setattr(Picture, "__rich_console__", lambda *_: 1 / 0)
    with screen(terminal, ["prod"]) as shown:
        everything(shown.listener("prod"), lambda: time.sleep(0.12))
    assert (LINES, []) == (terminal.lines(), failures)


def test_a_missing_library_ends_nothing(terminal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be imported, there are lines."""
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    monkeypatch.setitem(sys.modules, PICTURE, None)
    with screen(terminal, ["prod"]) as shown:
        everything(shown.listener("prod"), lambda: time.sleep(0.02))
    assert (LINES, []) == (terminal.lines(), failures)


IMPORTS = """
import io, sys, time
from axon_tasks.report.live import screen
class Stream(io.StringIO):
    def isatty(self): return sys.argv[1] == "terminal"
with screen(Stream(), ["prod"]) as shown:
    one = shown.listener("prod")
    one.started("pull", ["app1"])
    until = time.monotonic() + float(sys.argv[2])
    while "rich.live" not in sys.modules and time.monotonic() < until:
        time.sleep(0.01)
print(sorted({name.split(".")[0] for name in sys.modules} & {"rich", "jinja2", "pydantic"}))
"""


@pytest.mark.parametrize(
    ("stream", "term", "seconds", "expected"),
    [("log", "xterm", 2, []), ("terminal", "dumb", 2, []), ("terminal", "xterm", 30, ["rich"])],
)
def test_only_what_can_show_it_imports_the_library(
    stream: str, term: str, seconds: int, expected: list[str]
) -> None:
    """Into a log or onto a terminal without a cursor rich is never imported; templates and models nowhere."""
    said = subprocess.run(
        [sys.executable, "-c", IMPORTS, stream, str(seconds)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TERM": term},
    )
    assert (f"{expected}\n", "") == (said.stdout, said.stderr)


def test_showing_needs_no_library_to_begin() -> None:
    """Importing the module imports neither a terminal library nor templates: nothing of a deploy waits for that."""
    program = f"import sys, {live.__name__}; print([name for name in ('rich', 'jinja2', 'pydantic') if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]\n" == said.stdout

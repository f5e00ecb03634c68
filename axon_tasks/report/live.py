"""What people see while a run goes on: what is running now, below the lines of what has ended.

Nothing of a program's start or of a deploy waits for this module: it needs no library, writes from a thread of its
own, and never raises. The cursor stays visible, so that nothing has to be restored whatever ends the program.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from axon_tasks.report.console import Progress, fitting, one_line, style, write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from axon_tasks.deploy.engine import Report

#: Seconds between two pictures.
_REFRESH = 0.1
#: Seconds after which a log hears of a step that still runs, and how often then.
_FIRST_SIGN, _NEXT_SIGN = 5.0, 10.0
#: Servers that are named one by one; of more, those that still run are named after their number.
_MOST_SERVERS = 6
_SPINNER, _PLAIN_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"


@dataclass
class _Running:
    """A step that has begun and not ended.

    Attributes:
        environment: Its environment.
        step: Its name.
        since: When it began.
        states: Per server `waiting`, `running`, `ok` or `failed`.
        told: Per server how far it is.
        sign: When a log hears of it next.
    """

    environment: str
    step: str
    since: float
    states: dict[str, str]
    told: dict[str, str] = field(default_factory=dict)
    sign: float = 0.0

    def line(self, ok: str, failed: str) -> str:
        """The servers, each with its state."""
        if len(self.states) > _MOST_SERVERS:
            ended = sum(state in {"ok", "failed"} for state in self.states.values())
            busy = [name for name, state in self.states.items() if state in {"running", "failed"}]
            return ", ".join(
                [f"{ended} of {len(self.states)} servers", *(self._server(name, ok, failed) for name in busy)]
            )
        return ", ".join(self._server(name, ok, failed) for name in self.states)

    def _server(self, name: str, ok: str, failed: str) -> str:
        state = self.states[name]
        if state in {"ok", "failed"}:
            return f"{name} {ok if state == 'ok' else failed}"
        told = self.told.get(name, "")
        return f"{name} {told}" if told else name


class Screen:
    """Lines for one stream from any number of threads; one listener per environment.

    This one writes lines only: for logs, pipes, and terminals that cannot move the cursor. In a log each line begins
    with the time in UTC, and a step that takes long gives a sign now and then, so that nobody takes it for dead.

    Args:
        stream: Where to write.
        names: The environments; with more than one, each line names its own.
        stamped: Whether lines begin with the time.
        clock: Gives seconds, and never goes back.
    """

    #: Seconds between two calls of `tick`.
    interval = 1.0

    def __init__(
        self,
        stream: TextIO,
        names: Sequence[str],
        *,
        stamped: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream
        self._width = max(map(len, names), default=0) if len(names) > 1 else 0
        self._stamped = stamped
        self._clock = clock
        self._running: dict[tuple[str, str], _Running] = {}
        # Reentrant, because a signal may interrupt its holder and have something to say.
        self._guard = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def listener(self, environment: str) -> EnvironmentListener:
        """Whoever is told about the progress of one environment."""
        return EnvironmentListener(self, environment)

    def prefix(self, environment: str) -> str:
        """What a line of an environment begins with: nothing if there is only one."""
        return f"{environment:<{self._width}}  " if self._width else ""

    def line(self, text: str) -> None:
        """One line, or several that belong together; nothing of another thread comes between them."""
        stamp = time.strftime("%H:%M:%SZ ", time.gmtime()) if self._stamped else ""
        with self._guard:
            self.put(stamp + text.replace("\n", "\n" + " " * len(stamp)))

    def put(self, text: str) -> None:
        """Write a finished line; the guard is held."""
        write_line(self.stream, text)

    def tick(self) -> None:
        """Give a sign of what takes long."""
        with self._guard:
            now = self._clock()
            for one in list(self._running.values()):
                if now >= one.sign:
                    one.sign = now + _NEXT_SIGN
                    told = f": {servers}" if (servers := one.line("done", "failed")) else ""
                    self.line(
                        f"  {self.prefix(one.environment)}{one.step:<8} still running after {now - one.since:.0f} s{told}"
                    )

    def close(self) -> None:
        """Take away what shows what is running; what has ended stays."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def begun(self, environment: str, step: str, servers: Sequence[str]) -> None:
        """A step runs from now on."""
        now = self._clock()
        with self._guard:
            states = dict.fromkeys(servers, "waiting")
            self._running[environment, step] = _Running(
                environment, step, now, states, sign=now + _FIRST_SIGN
            )
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._loop, name="screen", daemon=True)
                self._thread.start()

    def changed(
        self, environment: str, step: str, server: str, *, state: str = "", told: str | None = None
    ) -> None:
        """One server's part of a step has begun, is further, or has ended."""
        with self._guard:
            one = self._running.get((environment, step))
            if one is None:
                return
            one.states[server] = state or one.states.get(server, "running")
            if told is not None:
                one.told[server] = one_line(told)

    def over(self, environment: str, step: str, tell: Callable[[], None]) -> None:
        """A step has ended; its line appears at the moment at which it goes from what is running."""
        with self._guard:
            self._running.pop((environment, step), None)
            tell()

    def _loop(self) -> None:
        while not self._ended.wait(self.interval):
            self.tick()


class TerminalScreen(Screen):
    """Shows what is running now below the lines, and replaces it as it goes on."""

    interval = _REFRESH

    def __init__(
        self, stream: TextIO, names: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream, names, clock=clock)
        unicode = fitting(stream, _SPINNER) == _SPINNER and fitting(stream, "✓✗…") == "✓✗…"
        self._spinner = _SPINNER if unicode else _PLAIN_SPINNER
        self._signs = ("✓", "✗") if unicode else ("ok", "failed")
        self._more = "…" if unicode else "~"
        self._shown: list[str] = []
        self._turn = 0

    def put(self, text: str) -> None:
        """Write a line above what is running."""
        self._paint(text + "\n")

    def tick(self) -> None:
        """Draw what is running as it is now."""
        with self._guard:
            self._turn += 1
            self._paint("")

    def close(self) -> None:
        """Leave the lines only."""
        try:
            super().close()
        finally:
            with self._guard:
                self._paint("")

    def _paint(self, above: str) -> None:
        """One write for everything, so that no half picture is seen; the cursor ends below it."""
        columns, rows = self._size()
        picture = self._picture(columns, rows)
        if not above and picture == self._shown:
            return
        text = self._away(columns) + above + "".join(style(self.stream, line, "2") + "\n" for line in picture)
        self._shown = picture
        # A terminal that has gone must not end a deploy half-way.
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(fitting(self.stream, text))
            self.stream.flush()

    def _size(self) -> tuple[int, int]:
        """Columns and rows as they are now: an exported COLUMNS would not know of a change."""
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(self.stream.fileno())
            if size.columns > 0 and size.lines > 0:
                return size
        return shutil.get_terminal_size((80, 24))

    def _away(self, columns: int) -> str:
        """Go back to the first line of the picture and erase from there (ECMA-48: CUU, ED).

        A terminal that became narrower has broken the lines, so that they take more rows now.
        """
        up = sum(1 + max(0, _columns(line) - 1) // max(1, columns) for line in self._shown)
        return f"\r\x1b[{up}A\x1b[J" if up else ""

    def _picture(self, columns: int, rows: int) -> list[str]:
        now, turn = self._clock(), self._spinner[self._turn % len(self._spinner)]
        lines: list[str] = []
        for one in () if self._ended.is_set() else self._running.values():
            head = f"{turn} {self.prefix(one.environment)}{one.step:<8} {now - one.since:6.1f} s  "
            lines.append(self._cropped(head + one.line(*self._signs), columns - 1))
        room = max(1, rows - 2)
        if len(lines) > room:
            lines[room - 1 :] = [self._cropped(f"{turn} and {len(lines) - room + 1} more steps", columns - 1)]
        return lines

    def _cropped(self, text: str, columns: int) -> str:
        if _columns(text) <= columns:
            return text
        while text and _columns(text) >= columns:
            text = text[:-1]
        return text + self._more


def _columns(text: str) -> int:
    """How many columns a terminal takes for it (UAX #11); combining characters take none."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


class EnvironmentListener(Progress):
    """Passes on what one environment's run tells.

    Args:
        screen: Where it is shown.
        environment: Its name.
    """

    def __init__(self, screen: Screen, environment: str) -> None:
        super().__init__(screen.stream)
        self.prefix = screen.prefix(environment)
        self._screen, self._environment = screen, environment

    def line(self, text: str) -> None:
        """One line among those of the others."""
        self._screen.line(text)

    def started(self, step: str, servers: Sequence[str] = ()) -> None:
        """It runs from now on."""
        self._screen.begun(self._environment, step, servers)

    def server(self, step: str, server: str, state: str) -> None:
        """One server's part has begun or ended."""
        self._screen.changed(self._environment, step, server, state=state)

    def progress(self, step: str, server: str, text: str) -> None:
        """How far one server is."""
        self._screen.changed(self._environment, step, server, told=text)

    def finished(self, step: str, seconds: float, report: Report) -> None:
        """The step's lines take the place of what showed that it runs."""
        self._screen.over(
            self._environment, step, lambda: super(EnvironmentListener, self).finished(step, seconds, report)
        )

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        """Same, for a step that did not end well."""
        self._screen.over(
            self._environment, step, lambda: super(EnvironmentListener, self).failed(step, seconds, error)
        )


@contextmanager
def screen(stream: TextIO | None, names: Sequence[str]) -> Iterator[Screen]:
    """What fits a stream: a live view on a terminal, lines with time stamps in a log.

    Args:
        stream: Where to write; default: standard output.
        names: The environments of the run.
    """
    where = sys.stdout if stream is None else stream
    made = _for(where, names)
    try:
        yield made
    finally:
        made.close()


def _for(stream: TextIO, names: Sequence[str]) -> Screen:
    if not stream.isatty():
        return Screen(stream, names, stamped=True)
    if (os.environ.get("TERM") or "dumb") == "dumb":
        return Screen(stream, names)
    return TerminalScreen(stream, names)

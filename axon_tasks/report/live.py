"""What people see while a run goes on: what is running now, below the lines of what has ended.

Nothing of a program's start or of a deploy waits for this module: what draws (`picture`, with rich) is imported and
called in a thread of its own, until it is there lines appear as in a log, and nothing here raises.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from axon_tasks.report.console import Progress, fitting, one_line, write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from axon_tasks.deploy.engine import Report
    from axon_tasks.report.picture import Picture

#: Seconds between two pictures.
_REFRESH = 0.1
#: Seconds after which a log hears of a step that still runs, and how often then.
_FIRST_SIGN, _NEXT_SIGN = 5.0, 10.0
#: Servers that are named one by one; of more, those that still run are named after their number.
_MOST_SERVERS = 6
#: What a terminal must be able to show beside ASCII, or gets words instead of signs: those of a step and of a spinner.
_SIGNS = "✓✗…⠋"


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

    def start(self) -> None:
        """Look at what is running now and then, from a thread of its own, until the end."""
        with self._guard:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._loop, name="screen", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Take away what shows what is running; what has ended stays.

        Whoever is writing ends its line first. Nobody waits for the thread, which may be busy with an import.
        """
        self._ended.set()
        with self._guard:
            self.erase()

    def erase(self) -> None:
        """Lines only: there is nothing to take away."""

    def begun(self, environment: str, step: str, servers: Sequence[str]) -> None:
        """A step runs from now on."""
        now = self._clock()
        with self._guard:
            states = dict.fromkeys(servers, "waiting")
            self._running[environment, step] = _Running(
                environment, step, now, states, sign=now + _FIRST_SIGN
            )
            self.start()

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
            with self._guard:
                if not self._ended.is_set():
                    self.tick()


class TerminalScreen(Screen):
    """Shows what is running now below the lines, and replaces it as it goes on."""

    interval = _REFRESH

    def __init__(
        self, stream: TextIO, names: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream, names, clock=clock)
        self._unicode = fitting(stream, _SIGNS) == _SIGNS
        self._signs = ("✓", "✗") if self._unicode else ("ok", "failed")
        self._picture: Picture | None = None

    def load(self) -> None:
        """Import what draws, and show what has begun meanwhile; lines go on to appear while this takes its time."""
        from axon_tasks.report.picture import Picture

        with self._guard:
            if self._picture is None and not self._ended.is_set():
                colour = not os.environ.get("NO_COLOR")
                self._picture = Picture(self.stream, unicode=self._unicode, colour=colour, clock=self._clock)
                self.tick()

    def put(self, text: str) -> None:
        """Write a line above what is running."""
        if not self._draw(text):
            super().put(text)

    def tick(self) -> None:
        """Draw what is running as it is now."""
        with self._guard:
            if self._running:
                self._draw()

    def erase(self) -> None:
        """Leave the lines only."""
        if self._picture is not None:
            self._safely(self._picture.close)
            self._picture = None

    def _draw(self, above: str | None = None) -> bool:
        """Whether there is something that draws, and it did."""
        picture, size = self._picture, self._size()
        if picture is not None:
            self._safely(lambda: picture.draw(self._told(size.lines - 2), size, above))
        return self._picture is not None

    def _safely(self, paint: Callable[[], None]) -> None:
        """A fault in what draws must not end a deploy, which goes on with lines."""
        try:
            paint()
        except Exception:  # noqa: BLE001  (whatever it is: it is about the picture, and the run must go on)
            self._picture = None

    def _size(self) -> os.terminal_size:
        """Columns and rows as they are now: an exported COLUMNS would not know of a change."""
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(self.stream.fileno())
            if size.columns > 0 and size.lines > 0:
                return size
        return shutil.get_terminal_size((80, 24))

    def _told(self, rows: int) -> list[str]:
        """What is running, a line for each step; those for which there is no room as a number."""
        now, room = self._clock(), max(1, rows)
        lines = [
            f"{self.prefix(one.environment)}{one.step:<8} {now - one.since:6.1f} s  {one.line(*self._signs)}"
            for one in self._running.values()
        ]
        if len(lines) > room:
            lines[room - 1 :] = [f"and {len(lines) - room + 1} more steps"]
        return lines

    def _loop(self) -> None:
        # Without what draws, lines are all that there is.
        with contextlib.suppress(ImportError):
            self.load()
            super()._loop()


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
    if (os.environ.get("TERM") or "dumb") in {"dumb", "unknown"}:
        return Screen(stream, names)
    made = TerminalScreen(stream, names)
    made.start()
    return made

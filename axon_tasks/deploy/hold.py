"""A script that holds something on a server until it is let go, and only as long as whoever started it lives.

Both sides must notice when the other one has gone, also where the network only swallows what is sent. So a line with the
time goes to the script now and then, and comes back. The script lets go when none has come for `expiry` seconds; this side
trusts it no longer when the last one that came back was sent `trust` seconds ago. `trust` is shorter, so that nobody acts on
a lock that is somebody else's by now.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import lock
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from axon_tasks.remote import Batch, BatchResult, Connection, PendingBatch

#: Also counts while this machine sleeps, as a laptop with its lid closed does; time.monotonic does not (clock_gettime(2);
#: on macOS, which knows no CLOCK_BOOTTIME, CLOCK_MONOTONIC does).
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_ALIVE = re.compile(rf"{lock.ALIVE}(\d{{1,12}}\.\d\d)", re.ASCII)
#: Bytes that are kept of what a script says before it holds: more than it has to say.
_MOST = 64 * 1024


class Times(NamedTuple):
    """How long both sides believe in each other.

    Attributes:
        beat: Seconds between two signs of life.
        trust: Seconds after which this side believes no longer that it holds anything.
        expiry: Seconds after which the server lets go; whole ones.
    """

    beat: float = 5
    trust: float = 20
    expiry: float = 30


#: What every lock of this program is held with.
TIMES = Times()


def clock() -> float:
    """Seconds of a clock that never goes back and never stops."""
    return time.clock_gettime(_CLOCK)


@dataclass
class _Ear:
    """Hears what the script says. It does not know the handle, which would never be dropped then."""

    line: str
    listen: Callable[[str], None]
    holds: threading.Event = field(default_factory=threading.Event)
    said: bytearray = field(default_factory=bytearray)
    rest: bytearray = field(default_factory=bytearray)
    alive: float = 0.0

    def take(self, _label: str, stream: str, chunk: bytes) -> None:
        """Take a piece of output; lines count when they are whole."""
        if stream != "stdout":
            return
        if not self.holds.is_set():
            self.said += chunk[: _MOST - len(self.said)]
        self.rest += chunk
        *lines, last = self.rest.split(b"\n")
        self.rest[:] = last[-_MOST:]
        for line in lines:
            self._line(line.decode(errors="replace"))

    def _line(self, line: str) -> None:
        if not self.holds.is_set():
            if line == self.line:
                self.alive = clock()
                self.holds.set()
            elif line:
                self.listen(line)
        elif found := _ALIVE.fullmatch(line):
            # When it was sent, and not when it came back: that is when the server counts from at the earliest.
            self.alive = max(self.alive, min(clock(), float(found[1])))


class Hold:
    """A batch of one section that listens; leaving the `with` block lets go.

    Args:
        batch: What to run.
        connection: Where.
        line: What it says when it holds.
        listen: Is given each line that it says before it holds, from another thread.
    """

    def __init__(
        self,
        batch: Batch,
        connection: Connection,
        line: str,
        listen: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.server = connection.name
        self._ear = _Ear(line, listen)
        self._over = threading.Event()
        self.pending: PendingBatch = batch.start(connection, on_output=self._ear.take)

    @property
    def said(self) -> bytes:
        """What it said before it held, and with that."""
        return bytes(self._ear.said)

    def wait(self) -> bool:
        """Wait until it holds, which may take as long as the script waits; False if it has ended instead."""
        while not self._ear.holds.wait(0.02):
            if self.pending.done():
                return False
        threading.Thread(
            target=_beat,
            args=(weakref.ref(self.pending), self._over, TIMES.beat),
            name="axon-beat",
            daemon=True,
        ).start()
        return True

    @property
    def silent(self) -> float:
        """Seconds since the last moment at which the server is known to have heard of this side."""
        return clock() - self._ear.alive

    @property
    def ended(self) -> bool:
        """Whether the script has ended or the connection is gone."""
        return self.pending.done()

    @property
    def code(self) -> int | None:
        """The exit code of a script that has ended; None where there is none, because the connection is gone."""
        try:
            result: BatchResult = self.pending.result()
        except AxonError:
            return None
        return next(iter(result.values())).exit_code

    def close(self) -> None:
        """Let go. Word of it is on its way when this returns; nothing that the prompt should wait for."""
        self._over.set()
        self.pending.send(f"{lock.GIVE_BACK}\n".encode())
        self.pending.cancel(confirmed=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _beat(handle: weakref.ref[PendingBatch], over: threading.Event, every: float) -> None:
    """Give signs of life; a handle that nobody holds any more is not held here either."""
    while not over.wait(every):
        pending = handle()
        if pending is None or pending.done():
            return
        pending.send(f"{clock():.2f}\n".encode())
        del pending

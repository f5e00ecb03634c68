"""What people see of building, pushing and sending an image."""

from __future__ import annotations

import shlex
import threading
import time
from typing import TYPE_CHECKING, TextIO

from axon_tasks.report import console

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from axon_tasks.deploy.sending import Sent

#: Seconds between two signs of life of something long.
_PAUSE = 5.0
_KILO = 1000


def command(words: Sequence[str], secrets: Iterable[str] = ()) -> str:
    """A command of this machine as people would type it.

    Args:
        words: The command.
        secrets: Names of the variables that it is given, whose values are not shown.
    """
    return " ".join([*(f"{name}='********'" for name in secrets), shlex.join(words)])


def size(count: float) -> str:
    """Bytes as people say it, in units of 1000 (SI)."""
    for unit in ("B", "kB", "MB"):
        if count < _KILO:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KILO
    return f"{count:.1f} GB"


class Sending:
    """Tells how far each server is, now and then: what is sent at once is told once, at its end.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[str, float] = {}
        self._guard = threading.Lock()

    def __call__(self, server: str, sent: int, total: int) -> None:
        """Take note of how much a server was sent; several threads may."""
        now = time.monotonic()
        with self._guard:
            if now - self._told.setdefault(server, now) < _PAUSE or sent == total:
                return
            self._told[server] = now
        console.write_line(self._stream, f"  {server}: {size(sent)} of {size(total)}")


def sent(reference: str, servers: Mapping[str, Sent]) -> str:
    """What was sent where."""
    lines = [f"Sent {reference} over SSH:"]
    for server, one in servers.items():
        if not one.bytes:
            told = "has it already"
        else:
            again = "; its missing layers alone were not enough" if one.again else ""
            told = f"{one.layers} of {one.of} layers, {size(one.bytes)} in {one.seconds:.2f} s{again}"
        lines.append(f"  {server}: {told}")
    return "\n".join(lines)

"""Find the sections in what a script prints, byte by byte, as it arrives.

A marker is `0x1e NONCE KIND FIELDS TIME 0x0a`, anywhere in the stream: output need not
end with a newline, and may hold any byte. Only the marker that is due is taken for one;
everything else is output, also text that imitates markers. Kinds, in the order of the
script: `H PID SESSION` once, then `B INDEX` and `E INDEX CODE` per section, then `F`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axon_tasks.remote.script import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Callable

#: Longest marker after its nonce, in bytes: more than any index, exit code and uptime need.
_LONGEST = 96
#: Bytes kept of what is printed outside of sections; a banner or an error explains a failure.
_NOISE = 4096


@dataclass
class Slot:
    """What one stream holds of one section.

    Args:
        chunks: The output, in pieces as they arrived.
        began: Uptime of the server in seconds at the begin marker.
        ended: Uptime of the server in seconds at the end marker.
        code: The exit code, once the end marker has arrived.
    """

    chunks: list[bytes] = field(default_factory=list)
    began: float | None = None
    ended: float | None = None
    code: int | None = None


class StreamParser:
    """The parser of one stream (stdout or stderr) of one script.

    Args:
        nonce: The nonce of the script.
        count: How many sections the script has.
        keep: Keep the chunks in the slots. Without it, memory stays flat.
    """

    def __init__(self, nonce: str, count: int, *, keep: bool = True) -> None:
        #: Called with the index of the section and a chunk of its output, as soon as it is known to be output.
        self.emit: Callable[[int, bytes], None] | None = None
        self.slots = [Slot() for _ in range(count)]
        self.finished = False
        #: Uptime of the server in seconds when the script began.
        self.greeted: float | None = None
        self.process: int | None = None
        self.session: int | None = None
        self.noise = b""
        self._prefix = SEPARATOR + nonce.encode("ascii") + b" "
        self._keep = keep
        self._tail = b""
        self._greeted = False
        self._next = 0
        self._current: int | None = None

    @property
    def running(self) -> int | None:
        """The index of the section that has begun and not ended."""
        return self._current

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        data = self._tail + data
        self._tail = b""
        start = 0
        while not self.finished:
            found = data.find(self._prefix, start)
            if found < 0:
                held = self._held_back(data, start)
                self._output(data[start : len(data) - held])
                self._tail = data[len(data) - held :] if held else b""
                return
            begin = found + len(self._prefix)
            end = data.find(b"\n", begin, begin + _LONGEST)
            if end < 0 and len(data) - begin < _LONGEST:
                self._output(data[start:found])
                self._tail = data[found:]
                return
            if end >= 0 and self._is_due(data[begin:end]):
                self._output(data[start:found])
                self._take(data[begin:end].split(b" "))
                start = end + 1
            else:
                self._output(data[start : found + 1])
                start = found + 1

    def close(self) -> None:
        """The stream has ended: what was held back as a possible marker is output."""
        tail, self._tail = self._tail, b""
        self._output(tail)

    def _held_back(self, data: bytes, start: int) -> int:
        """Count the last bytes that may be the beginning of a marker."""
        at = data.rfind(SEPARATOR, max(start, len(data) - len(self._prefix) + 1))
        while at >= 0:
            if self._prefix.startswith(data[at:]):
                return len(data) - at
            at = data.rfind(SEPARATOR, max(start, len(data) - len(self._prefix) + 1), at)
        return 0

    def _output(self, chunk: bytes) -> None:
        if not chunk:
            return
        if self._current is None:
            self.noise = (self.noise + chunk)[:_NOISE]
            return
        if self._keep:
            self.slots[self._current].chunks.append(chunk)
        if self.emit is not None:
            self.emit(self._current, chunk)

    def _is_due(self, marker: bytes) -> bool:
        fields = marker.split(b" ")
        if not all(_is_number(one) for one in fields[1:]):
            return False
        match fields:
            case [b"H", _, _, _]:
                return not self._greeted
            case [b"B", index, _]:
                return (
                    self._greeted
                    and self._current is None
                    and index == b"%d" % self._next
                    and self._next < len(self.slots)
                )
            case [b"E", index, code, _]:
                return self._current is not None and index == b"%d" % self._current and code.isdigit()
            case [b"F", _]:
                return self._greeted and self._current is None
        return False

    def _take(self, fields: list[bytes]) -> None:
        time = _number(fields[-1])
        match fields[0]:
            case b"H":
                self._greeted = True
                self.greeted = time
                process, session = _number(fields[1]), _number(fields[2])
                self.process = None if process is None else int(process)
                self.session = None if session is None else int(session)
            case b"B":
                self._current = self._next
                self.slots[self._next].began = time
                self._next += 1
            case b"E" if self._current is not None:
                slot = self.slots[self._current]
                slot.ended, slot.code = time, int(fields[2])
                self._current = None
            case _:
                self.finished = True


def _is_number(field_: bytes) -> bool:
    return field_ == b"-" or field_.replace(b".", b"", 1).isdigit()


def _number(field_: bytes) -> float | None:
    return None if field_ == b"-" else float(field_)

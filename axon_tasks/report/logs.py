"""Lines of logs, for people and as JSON."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, TextIO

from axon_tasks.report import console

if TYPE_CHECKING:
    from axon_tasks.deploy.logs import Line, Source

#: One per server, in turn: cyan, yellow, magenta, green, blue, red (ECMA-48, SGR).
COLOURS = ("36", "33", "35", "32", "34", "31")


class Lines:
    """Writes lines, each with where it comes from before it; in colour on a terminal.

    Args:
        stream: Where to.
        timestamps: Whether the time is written as well.
        as_json: Whether each line is a JSON object instead.
    """

    def __init__(self, stream: TextIO, *, timestamps: bool = False, as_json: bool = False) -> None:
        self._stream = stream
        self._timestamps = timestamps
        self._as_json = as_json
        self._colours: dict[str, str] = {}
        self._width = 0

    def write(self, line: Line) -> bool:
        """One line; whether somebody may have read it."""
        text = document(line) if self._as_json else self._text(line)
        is_heard = console.write_line(self._stream, text)
        if not is_heard:
            console.forget(self._stream)
        return is_heard

    def _text(self, line: Line) -> str:
        source = line.source
        colour = self._colours.setdefault(source.server, COLOURS[len(self._colours) % len(COLOURS)])
        where = _where(source)
        self._width = max(self._width, len(where))
        moment = f"{when(line)}  " if self._timestamps else ""
        return f"{console.style(self._stream, f'{where:<{self._width}} |', colour)} {moment}{line.text}"


def _where(source: Source) -> str:
    return f"{source.server} {source.release or source.service}"


def when(line: Line) -> str:
    """The time of a line (RFC 3339, UTC, milliseconds); empty if it is not known."""
    if not line.nanoseconds:
        return ""
    try:
        moment = dt.datetime.fromtimestamp(line.nanoseconds / 1e9, dt.timezone.utc)
    except (OverflowError, OSError, ValueError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document(line: Line) -> str:
    """One line as a JSON object; its shape is `schemas/logs.json`."""
    source = line.source
    return json.dumps(
        {
            "time": when(line) or None,
            "server": source.server,
            "service": source.service,
            "release": source.release,
            "text": line.text,
        }
    )

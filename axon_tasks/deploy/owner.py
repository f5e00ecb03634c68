"""Who has the lock of an environment, or had it: what stands beside the lock, and what it says to people.

It is read strictly: whatever stands in that file, the message that shows it is one line of plain text.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.deploy import facts
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What the scripts tell: seconds since the lock was taken, by the server's clock, and the note beside it.
_TOLD = re.compile(r"(-?\d{1,15}) (.*)", re.ASCII | re.DOTALL)
_TOKEN = re.compile(r"[0-9a-f]{8}", re.ASCII)
_LONGEST = 200
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def note(command: str, *, run: str, token: str) -> dict[str, Any]:
    """What whoever takes a lock leaves beside it; the server adds its fencing number and its own process.

    Args:
        command: The command line.
        run: The run's id; empty for what is none.
        token: Names this owner and no other.
    """
    return {
        "who": who(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": command,
        "since": utc_now(),
        "run": run,
        "token": token,
    }


class Owner(NamedTuple):
    """Who has a lock, as far as can be told; what cannot be is empty, or None.

    Attributes:
        who: `user@host` of the person.
        host: Where the command runs.
        pid: Its process there.
        command: The command line.
        since: When the lock was taken, by the clock of `host`: UTC, ISO 8601.
        run: The run's id.
        token: What breaks the lock.
        fence: The fencing number: each owner's is greater than that of the one before.
        seconds: For how long, by the clock of the server.
    """

    who: str = ""
    host: str = ""
    pid: int | None = None
    command: str = ""
    since: str = ""
    run: str = ""
    token: str = ""
    fence: int | None = None
    seconds: int | None = None

    @property
    def name(self) -> str:
        """The person, or that nobody knows."""
        return self.who or "somebody who left no name"

    @property
    def age(self) -> str:
        """For how long, in one unit; empty if unknown."""
        return "" if self.seconds is None else in_one_unit(self.seconds)

    @property
    def place(self) -> str:
        """The process and its machine, as far as known."""
        parts = [f"process {self.pid}" if self.pid else "", f"on {self.host}" if self.host else ""]
        return " ".join(filter(None, parts))

    def sentence(self) -> str:
        """Who, since when, what, and from where, in one line."""
        since = f" since {self.since}" if self.since else ""
        age = f" ({self.age})" if self.age else ""
        command = f": {self.command}" if self.command else ""
        place = f" ({self.place})" if self.place else ""
        return f"{self.name}{since}{age}{command}{place}"

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return self._asdict()


def parse(told: str) -> Owner:
    """Read what a script tells of an owner; what makes no sense counts as unknown.

    Args:
        told: Seconds, a space, and the note.
    """
    found = _TOLD.fullmatch(told)
    seconds, text = (max(0, int(found[1])), found[2]) if found else (None, told)
    values = facts.json_object(text)
    token = values.get("token")
    return Owner(
        who=text_of(values, "who"),
        host=text_of(values, "host"),
        pid=_number(values, "pid"),
        command=text_of(values, "command"),
        since=text_of(values, "since"),
        run=text_of(values, "run"),
        token=token if isinstance(token, str) and _TOKEN.fullmatch(token) else "",
        fence=_number(values, "fence"),
        seconds=seconds,
    )


def in_one_unit(seconds: int) -> str:
    """A time in the unit that people would use."""
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def text_of(values: Mapping[str, Any], key: str, longest: int = _LONGEST) -> str:
    """A text that somebody else wrote, safe to print, on one line and not endless; empty if it is none.

    Args:
        values: Where it stands.
        key: Under which name.
        longest: The most characters of it.
    """
    value = values.get(key)
    if not isinstance(value, str):
        return ""
    # JSON can spell halves of characters, which no stream can show.
    whole = value.encode("utf-8", errors="replace").decode()
    return " ".join(sanitize(whole).split())[:longest]


def _number(values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    known = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53
    return value if known else None

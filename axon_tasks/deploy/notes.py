"""What somebody has left on a server for others to read: who, since when, and why.

It is read strictly: whatever stands in that file, what is shown of it is one line of plain text.
"""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.deploy import facts
from axon_tasks.deploy.owner import in_one_unit, text_of
from axon_tasks.deploy.release import utc_now, who

if TYPE_CHECKING:
    from axon_tasks.commands.shell import Learnt

#: Characters of a message: in JSON that is less than what a script reads of a note (sh/base.sh).
LONGEST = 300
_TOLD = re.compile(r"(-?\d{1,15}) (.*)", re.ASCII | re.DOTALL)


class Note(NamedTuple):
    """What was left; what is not known is empty, or None.

    Attributes:
        who: `user@host` of the person.
        host: Where the command ran.
        since: When it was left, by the clock of `host`: UTC, ISO 8601.
        message: Why.
        seconds: For how long it has been there, by the clock of the server.
    """

    who: str = ""
    host: str = ""
    since: str = ""
    message: str = ""
    seconds: int | None = None

    @property
    def sentence(self) -> str:
        """Who, since when and why, in one line."""
        since = f" since {self.since}" if self.since else ""
        age = "" if self.seconds is None else f" ({in_one_unit(self.seconds)})"
        message = f": {self.message}" if self.message else ""
        return f"{self.who or 'somebody who left no name'}{since}{age}{message}"

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return self._asdict()


def now(message: str) -> Note:
    """What whoever runs this program leaves now."""
    return Note(who(), socket.gethostname(), utc_now(), message)


def text(note: Note) -> str:
    """A note as it is kept: one line of ASCII."""
    return json.dumps({key: value for key, value in note._asdict().items() if key != "seconds"})


def parse(told: str | Learnt) -> Note | None:
    """Read what a script tells of a note; what makes no sense counts as unknown.

    Args:
        told: Seconds, a space, and the note; empty if there is none.

    Returns:
        The note, or None if there is none.
    """
    if not told:
        return None
    found = _TOLD.fullmatch(told)
    seconds, written = (max(0, int(found[1])), found[2]) if found else (None, told)
    values = facts.json_object(written)
    return Note(
        text_of(values, "who"),
        text_of(values, "host"),
        text_of(values, "since"),
        text_of(values, "message", LONGEST),
        seconds,
    )

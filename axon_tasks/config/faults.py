"""What can be wrong in `hosts.yml`, and how it is told: every fault at once, with line, path and remedy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A report of more faults than this is cut: nobody reads it, and a hostile file must not flood a log.
MOST_SHOWN = 50

#: Longer texts are not compared, because the comparison is quadratic in their length.
_LONGEST_COMPARED = 64

#: More names are not listed in one message.
_MOST_LISTED = 30

#: Longer values are cut where a message shows them.
_LONGEST_SHOWN = 60


class Place(NamedTuple):
    """Where something stands in the file: line and column from 1, and the path of keys that leads there."""

    line: int
    column: int
    path: tuple[str | int, ...] = ()


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Find what was probably meant by a mistyped name, or None if nothing is close.

    Args:
        name: What was written.
        candidates: What would have been valid.
    """
    if len(name) > _LONGEST_COMPARED:
        return None
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return by_lower_case[close[0]] if close else None


def shown(text: str) -> str:
    """Render a text from outside for a message: quoted, short, and without terminal control sequences."""
    return ascii(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")


def listed(names: Iterable[str]) -> str:
    """Render what would have been valid: `one of: app1, app2`, cut where nobody reads on."""
    shown_names = [dotted((name,)) for name in names]
    more = ", ..." if len(shown_names) > _MOST_LISTED else ""
    return f"one of: {', '.join(shown_names[:_MOST_LISTED])}{more}" if shown_names else "a name that there is"


def dotted(path: Iterable[str | int]) -> str:
    """Render a path of keys and list positions as `environments.prod.app[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isascii() and part.isprintable() else ascii(part))
    return text


class ValueFault(ValueError):  # noqa: N818  (a fault of the file, collected and reported; never seen as an exception)
    """A value is not what its place asks for.

    Args:
        message: What is wrong, phrased to follow the value: "is no port".
        expected: What would be right.
        nearest: The valid value that was probably meant.
        secret: Whether the value must not be shown in the report.
    """

    def __init__(
        self, message: str, *, expected: str | None = None, nearest: str | None = None, secret: bool = False
    ) -> None:
        super().__init__(f"{message}; expected {expected}" if expected else message)
        self.message = message
        self.expected = expected
        self.nearest = nearest
        self.secret = secret


class Fault(NamedTuple):
    """One thing that is wrong in the file.

    Attributes:
        file: The file as people would type it.
        line: Line, from 1; 0 when the fault concerns the file as a whole.
        column: Column, from 1.
        path: The key's path, as in `environments.prod.app[0]`; empty when there is none.
        message: What is wrong.
        expected: What would be right.
        nearest: The valid name that was probably meant.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    expected: str | None = None
    nearest: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (where, self.path, self.message) if part)
        if self.expected:
            text += f"; expected {self.expected}"
        if self.nearest:
            text += f"; did you mean {shown(self.nearest)}?"
        return text


class ConfigurationFaults(ConfigurationError):  # noqa: N818  (it is named for what it carries)
    """`hosts.yml` is wrong: carries all its faults, sorted by line.

    Args:
        faults: What is wrong; not empty.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.column, fault.path))
        lines = [str(fault) for fault in self.faults[:MOST_SHOWN]]
        hidden = len(self.faults) - len(lines)
        if hidden:
            lines.append(f"and {hidden} more.")
        super().__init__(
            "\n".join(lines),
            hint="Nothing was contacted. After a correction, `invoke config.validate` checks the file again.",
        )


@dataclass
class Report:
    """The faults that were found so far in one file.

    Attributes:
        file: The file as people would type it.
        faults: By place, because a fault under `defaults` shows up again in each environment; the first one is kept.
    """

    file: str
    faults: dict[Place, Fault] = field(default_factory=dict)

    def add(
        self, place: Place, message: str, *, expected: str | None = None, nearest: str | None = None
    ) -> None:
        """Note a fault, unless there is one for the same place."""
        fault = Fault(self.file, place.line, place.column, dotted(place.path), message, expected, nearest)
        self.faults.setdefault(place, fault)

    def stop(self, place: Place, message: str, *, expected: str | None = None) -> ConfigurationFaults:
        """Note a fault that makes reading on pointless, and return the error to raise."""
        self.add(place, message, expected=expected)
        return ConfigurationFaults(self.faults.values())

"""What a run over hostile inputs found."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec

from axon_tasks.errors import AxonError
from axon_tasks.lab.hostile.values import is_printable

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")

#: The exit codes that a failure may have, by the way that the input came in; 1 where nothing is said. What servers
#: answer can be that somebody has the lock (3), or that a switch is broken (5).
CODES = {"config": (2,), "outputs": (1, 3, 5)}

#: A report of more is cut: one fault shows in many cases.
_MOST_SHOWN = 40


@dataclass(frozen=True)
class Violation:
    """One input that was not dealt with as it must be.

    Attributes:
        channel: The way that it came in.
        case: Which one.
        what: What happened.
    """

    channel: str
    case: str
    what: str

    def __str__(self) -> str:
        return ascii(f"{self.channel}: {self.case}: {self.what}"[:600])[1:-1]


@dataclass
class Outcome:
    """What was tried, and what went wrong.

    Attributes:
        counts: Cases by channel.
        violations: What was not dealt with as it must be; empty if all is well.
    """

    counts: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many inputs there were."""
        return sum(self.counts.values())

    def count(self, channel: str) -> None:
        """Note one more input."""
        self.counts[channel] = self.counts.get(channel, 0) + 1

    def violate(self, channel: str, case: str, what: str) -> None:
        """Note what went wrong."""
        self.violations.append(Violation(channel, case, what))

    def __str__(self) -> str:
        lines = [f"  {channel:<10} {count:>6} inputs" for channel, count in self.counts.items()]
        lines.append(f"  {'together':<10} {self.cases:>6} inputs, {len(self.violations)} violations")
        lines += [f"  {one}" for one in self.violations[:_MOST_SHOWN]]
        return "\n".join(lines)


def attempt(
    outcome: Outcome,
    channel: str,
    case: str,
    work: Callable[P, object],
    *arguments: P.args,
    **more: P.kwargs,
) -> bool:
    """Do something with one hostile input: it must succeed, or fail as people are told.

    Args:
        outcome: Where it is noted.
        channel: The way that the input came in; CODES has the exit codes that a failure may have there.
        case: Which input.
        work: What to do with it.
        arguments: Its arguments.
        more: And those that have a name.

    Returns:
        Whether it succeeded.
    """
    outcome.count(channel)
    try:
        work(*arguments, **more)
    except AxonError as error:
        heed_ctrl_c(error)
        told = str(error)
        if error.code not in CODES.get(channel, (1,)):
            outcome.violate(channel, case, f"exit code {error.code}: {told}")
        if not told.strip() or not is_printable(told):
            outcome.violate(channel, case, f"a message that a terminal obeys: {told!r}")
        return False
    except AssertionError as error:
        outcome.violate(channel, case, str(error))
        return False
    except Exception as error:  # noqa: BLE001  (anything else is a traceback to the user, which is what is looked for)
        outcome.violate(channel, case, f"a traceback: {_place(error)}{type(error).__name__}: {error}")
        return False
    return True


def heed_ctrl_c(error: BaseException) -> None:
    """Go on with Ctrl-C where what was tried has made an error of it: no further input may be tried then.

    Args:
        error: What it ended with.

    Raises:
        KeyboardInterrupt: It was pressed.
    """
    if isinstance(error.__context__, KeyboardInterrupt):
        raise KeyboardInterrupt from None


def _place(error: BaseException) -> str:
    """Where an exception was raised, as far as it is our code."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "axon_tasks" in one.filename]
    ours = [one for one in frames if "hostile" not in one.filename] or frames
    return f"{ours[-1].filename.rpartition('axon_tasks/')[2]}:{ours[-1].lineno}: " if ours else ""

"""Hostile input through every way in (`axon_tasks.lab.hostile`): what is typed, read and answered, and what servers keep.

The same seed gives the same inputs. A failure names its input by the way that it came in, the place and the number of
the text there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.lab import hostile
from axon_tasks.lab.prove.claims import Claim, told

if TYPE_CHECKING:
    from collections.abc import Collection

    from axon_tasks.lab.hostile import Outcome
    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.options import Options
    from axon_tasks.lab.prove.site import Say

PART = "inputs"

#: What is counted for itself: settings and what is made of them, answers, files, and command lines in this process and in
#: some of their own; and the state that servers keep.
HERE = ("config", "rendered", "outputs", "files", "flags", "programs")
THERE = ("state",)

#: Things that are spoilt on servers, per input that a place is given: each is one, and takes a command.
THINGS = 5

#: Fewer would not be worth saying. Also with the fewest per place there are so many.
_LEAST_HERE = 2000
#: Of all the things that can be spoilt on servers.
_LEAST_THERE = 300


class Inputs:
    """The part of the proof that is about those who mean harm.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Try every input.

        Raises:
            AxonError: The product whose state is spoilt cannot be deployed.
        """
        found = hostile.run(
            lab, say, seed=self.options.seed, most=self.options.inputs, things=self.options.inputs * THINGS
        )
        return judge(found, self.options)


def judge(found: Outcome, options: Options) -> list[Claim]:
    """The claims about what was found."""
    here = "Hostile input of every kind ends without a traceback, with the right exit code and with nothing executed"
    there = "Spoilt state on the servers ends no command with a traceback, and the site goes on serving"
    least = min(options.inputs * THINGS, _LEAST_THERE)
    return [_claim(found, here, HERE, _LEAST_HERE), _claim(found, there, THERE, least)]


def _claim(found: Outcome, text: str, channels: Collection[str], least: int) -> Claim:
    """A claim about some channels; one through which nothing came is a failure of its own."""
    counts = {channel: found.counts.get(channel, 0) for channel in channels}
    failures = [str(one) for one in found.violations if one.channel in channels]
    failures += [f"{channel}: no input was tried" for channel, count in counts.items() if not count]
    return Claim(
        PART, text, "inputs", sum(counts.values()), len(failures), least, told(failures), {"inputs": counts}
    )

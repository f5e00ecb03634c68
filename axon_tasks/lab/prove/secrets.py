"""Secrets of every kind, looked for in every process, file and output while commands do their work or fail.

What is looked for, and where, is told in `axon_tasks.lab.leaks` and `axon_tasks.lab.sampler`. Two controls go with it:
a secret that is planted is found, and what the application is given arrives there, so that there was something to leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.lab import leaks
from axon_tasks.lab.prove.claims import Claim, told

if TYPE_CHECKING:
    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.leaks import Findings
    from axon_tasks.lab.prove.options import Options
    from axon_tasks.lab.prove.site import Say

PART = "secrets"

#: What is claimed of each of the things that are counted, and how many of them there are.
_CLAIMS = {
    leaks.COMMANDS: (
        "No secret in a process, file, log or output, while deploys succeed, fail and are killed",
        0,  # that of what was found: a smoke test has fewer
    ),
    leaks.ARRIVED: ("The application gets its secrets", 3),
    leaks.PLANTED: ("A secret that is planted in a process or a file is found", 6),
}
_UNITS = {leaks.COMMANDS: "commands", leaks.ARRIVED: "variables", leaks.PLANTED: "places"}


class Secrets:
    """The part of the proof that is about those who look.

    Args:
        options: Whether all commands are watched.
    """

    def __init__(self, options: Options) -> None:
        self._whole = options.whole

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Deploy with secrets, and look for them.

        Raises:
            AxonError: A command did not come to the moment in which it was to be killed.
        """
        return judge(leaks.run(lab, say, whole=self._whole))


def judge(found: Findings) -> list[Claim]:
    """The claims about what was found."""
    facts = {"processes": found.processes, "rounds": found.rounds}
    return [_claim(found, channel, **(facts if channel == leaks.COMMANDS else {})) for channel in _CLAIMS]


def _claim(found: Findings, channel: str, **facts: int) -> Claim:
    text, least = _CLAIMS[channel]
    least = least or found.least
    failures = [str(one) for one in found.violations if one.channel == channel]
    cases = found.counts.get(channel, 0)
    return Claim(PART, text, _UNITS[channel], cases, len(failures), least, told(failures), facts)

"""Thousands of hostile inputs through every way in: none may be obeyed, none may end in a traceback.

Configuration, command lines, answers of servers, local files, what nginx and a shell are given, and, with a lab, the
state that real servers keep. For each input: no traceback, the exit code of its kind, a message that a terminal only
shows, and no canary, the file that a command hidden in the input would create.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.lab.hostile.outcome import Outcome, Violation
from axon_tasks.lab.hostile.values import Canaries

if TYPE_CHECKING:
    from collections.abc import Callable

    from axon_tasks.lab.lab import Lab

__all__ = ["LOCAL", "Outcome", "Violation", "run", "run_channel"]

#: The channels that need no lab.
LOCAL = ("config", "outputs", "files", "flags")


def run(
    lab: Lab | None,
    say: Callable[[str], None],
    *,
    seed: int = 0,
    most: int | None = None,
    things: int | None = None,
) -> Outcome:
    """Try every channel.

    Args:
        lab: A lab that is up, for the state that servers keep; None leaves that out.
        say: Is told about the progress.
        seed: The same seed gives the same inputs.
        most: Inputs per place; None for all.
        things: Things that are spoilt on servers; None for all.

    Returns:
        What was tried, and what was not dealt with as it must be.
    """
    outcome = Outcome()
    for name in LOCAL:
        say(f"Hostile inputs: {name}")
        _add(outcome, run_channel(name, seed=seed, most=most))
    if lab is not None:
        from axon_tasks.lab.hostile.state import run as run_state

        say("Hostile inputs: the state on servers")
        _add(outcome, run_state(lab, seed=seed, most=things))
    say(str(outcome))
    return outcome


def run_channel(name: str, *, seed: int = 0, most: int | None = None, programs: int = 24) -> Outcome:
    """Try one of the channels that need no lab.

    Args:
        name: One of LOCAL.
        seed: The same seed gives the same inputs.
        most: Inputs per place; None for all.
        programs: Command lines that are typed into a process of their own; the others into this one.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="axon-h-") as directory:
        folder, project, alive = (Path(directory, one) for one in ("f", "p", "c"))
        for one in (folder, project, alive):
            one.mkdir()
        canaries = Canaries(alive, seed, most)
        if name == "config":
            _config(outcome, canaries, folder)
        elif name == "outputs":
            from axon_tasks.lab.hostile.looks import Looks
            from axon_tasks.lab.hostile.outputs import Outputs

            Outputs(outcome, canaries, folder, most).all()
            Looks(outcome, canaries, folder, most).all()
        elif name == "files":
            from axon_tasks.lab.hostile.files import Files

            Files(outcome, canaries, folder).all()
        else:
            from axon_tasks.lab.hostile.flags import Flags

            typed = Flags(outcome, canaries, project)
            typed.all()
            typed.programs(programs)
        for path in canaries.alive():
            outcome.violate(name, path, "a command was executed")
    return outcome


def _config(outcome: Outcome, canaries: Canaries, folder: Path) -> None:
    from axon_tasks.lab.hostile.config import Configuration
    from axon_tasks.lab.hostile.rendered import Rendered

    configuration = Configuration(outcome, canaries, folder, Rendered(outcome, folder).check)
    configuration.values()
    configuration.keys()
    configuration.documents()
    configuration.places()


def _add(outcome: Outcome, more: Outcome) -> None:
    for channel, count in more.counts.items():
        outcome.counts[channel] = outcome.counts.get(channel, 0) + count
    outcome.violations += more.violations

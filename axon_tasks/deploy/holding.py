"""Holds an environment against every run for longer than a command lives: a freeze, or while something is looked into.

The lock of an environment lives as long as whoever holds it. This is a file beside it, written and removed under the lock,
which every run that takes the lock finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import lock
from axon_tasks.deploy import facts, locking, notes, owner, problems
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.errors import LockedError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from axon_tasks.config import Environment
    from axon_tasks.deploy.notes import Note
    from axon_tasks.deploy.owner import Owner
    from axon_tasks.remote import Fleet, Section

#: Seconds for what takes a moment, and for a switch that goes on without its deployer.
_SHORT = 120.0


def acquire_batch(environment: Environment, note: Note) -> Batch:
    """What has an environment held.

    Args:
        environment: Which one.
        note: Who does it, and why.
    """
    line = f"{utc_now()} {who()} lock.acquire {note.message}"
    text = lock.acquire(environment, notes.text(note), line)
    return Batch("acquire", sudo=True).add(text, label="acquire")


def acquire(fleet: Fleet, environment: Environment, note: Note, hosts_file: str = "") -> Owner | None:
    """Hold an environment.

    Args:
        fleet: The servers.
        environment: Which one.
        note: Who does it, and why.
        hosts_file: As it was named on the command line, for the command that people are told to type.

    Returns:
        Whose run has not finished there; None if every one has.

    Raises:
        LockedError: A run is at work, or somebody holds it already.
        AxonError: It cannot be written, or the server cannot be reached.
    """
    server = environment.system[0]
    section = acquire_batch(environment, note).run(fleet[server], timeout=_SHORT, last=True)["acquire"]
    _must_be_free(environment, section)
    held = locking.held_by(section)
    if held is not None:
        raise locking.on_hold(environment, held, hosts_file)
    problems.must(server, f"holding {environment.name}", section)
    told = facts.pairs(section.stdout)
    return owner.parse(told["stale"]) if "stale" in told else None


def release_batch(environment: Environment) -> Batch:
    """What has an environment held no longer."""
    text = lock.release(environment, f"{utc_now()} {who()} lock.release")
    return Batch("release", sudo=True).add(text, label="release")


def release(fleet: Fleet, environment: Environment) -> Note | None:
    """Hold an environment no longer.

    Returns:
        Who held it; None if nobody did.

    Raises:
        LockedError: Somebody is at it just now.
        AxonError: It cannot be removed, or the server cannot be reached.
    """
    server = environment.system[0]
    section = release_batch(environment).run(fleet[server], timeout=_SHORT, last=True)["release"]
    if section.exit_code == lock.NOT_ON_HOLD:
        return None
    _must_be_free(environment, section)
    problems.must(server, f"releasing {environment.name}", section)
    return notes.parse(facts.pairs(section.stdout).get("held", "")) or notes.Note()


def _must_be_free(environment: Environment, section: Section) -> None:
    """Refuse where a run is at work.

    Raises:
        LockedError: One is.
    """
    taken = locking.taken_by(section)
    if taken is not None:
        raise LockedError(
            f"{environment.name} is locked by {taken.sentence()}, on {environment.system[0]}",
            hint=f"Wait until it has ended: fab lock.status --env={environment.name}",
        )

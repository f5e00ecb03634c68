"""Looks at the lock of an environment, and takes it from an owner who does not give it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from axon_tasks.commands import lock, naming
from axon_tasks.deploy import facts, notes, owner, problems
from axon_tasks.deploy.locking import break_command
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.errors import AxonError, LockedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from axon_tasks.config import Environment
    from axon_tasks.deploy.notes import Note
    from axon_tasks.deploy.owner import Owner
    from axon_tasks.remote import Fleet, Section

#: Seconds for a look, and for what a breaking waits for.
_SHORT = 60.0


@dataclass(frozen=True)
class Standing:
    """How it is about a lock.

    Attributes:
        environment: The environment's name.
        server: Where the lock is.
        state: `free`; `locked`, by the owner; `unfinished`: free, but the owner has not given it back.
        owner: Who has it, or had it.
        hold: Who holds the environment, whoever has the lock; None if nobody does.
    """

    environment: str
    server: str
    state: Literal["free", "locked", "unfinished"] = "free"
    owner: Owner | None = None
    hold: Note | None = None


@dataclass(frozen=True)
class Broken:
    """A lock that was taken from its owner.

    Attributes:
        environment: The environment's name.
        server: Where the lock is.
        owner: Who had it.
        ended: The process on the server that held it and was ended; empty if nobody held it any more.
    """

    environment: str
    server: str
    owner: Owner
    ended: str = ""


def look_batch(environment: Environment) -> Batch:
    """What asks who has the lock."""
    return Batch("lock", sudo=True).add(lock.look(environment), label="lock")


def look(fleet: Fleet, environment: Environment) -> Standing:
    """Ask who has the lock.

    Raises:
        StepFailedError: The server cannot say.
        UnreachableError: It cannot be reached.
    """
    server = environment.system[0]
    section = look_batch(environment).run(fleet[server], timeout=_SHORT, last=True)["lock"]
    problems.must(server, "looking at the lock", section)
    return standing(environment, section)


def standing(environment: Environment, section: Section) -> Standing:
    """Read what a look at the lock has said."""
    server, told = environment.system[0], facts.pairs(section.stdout)
    hold = notes.parse(told.get("held", ""))
    if "locked" in told:
        return Standing(environment.name, server, "locked", owner.parse(told["locked"]), hold)
    if "stale" in told:
        return Standing(environment.name, server, "unfinished", owner.parse(told["stale"]), hold)
    return Standing(environment.name, server, hold=hold)


def break_batch(environment: Environment, token: str) -> Batch:
    """What takes the lock from the owner with this token."""
    text = lock.take_away(environment, token, f"{utc_now()} {who()} lock.break")
    return Batch("break", sudo=True, uninterruptible=True).add(text, label="break")


def take_away(fleet: Fleet, environment: Environment, token: str, hosts_file: str = "") -> Broken | None:
    """Take the lock from the owner with this token; None if nobody has it.

    Args:
        fleet: The servers.
        environment: Whose lock.
        token: Eight hexadecimal digits.
        hosts_file: As it was named on the command line, for the command that people are told to type.

    Raises:
        LockedError: Somebody else has it.
        AxonError: It could not be taken away, or the server cannot be reached.
    """
    server = environment.system[0]
    section = break_batch(environment, token).run(fleet[server], timeout=_SHORT, last=True)["break"]
    if section.exit_code == lock.NOT_THE_OWNER:
        found = standing(environment, section)
        if found.owner is None:
            return None
        raise _other(found, token, hosts_file)
    if section.exit_code == lock.UNKNOWN_HOLDER:
        path = f"{naming.state_directory(environment.product, environment.name)}/lock"
        raise AxonError(
            f"{server}: the lock was not taken away: {sanitize(section.stderr.strip()[-300:])}",
            hint=f"See who has the file open: ssh {fleet[server].destination} sudo fuser -v {path}",
        )
    problems.must(server, "taking the lock away", section)
    told = facts.pairs(section.stdout)
    ended = told.get("ended", "")
    return Broken(
        environment.name, server, owner.parse(told.get("owner", "")), ended if ended.isdecimal() else ""
    )


def _other(found: Standing, token: str, hosts_file: str) -> LockedError:
    assert found.owner is not None  # noqa: S101  (asked by the caller)
    has = "has the lock" if found.state == "locked" else "had the lock last"
    hint = "Nothing was changed."
    if found.owner.token:
        hint += f" If you mean that one: {break_command(found.environment, found.owner.token, hosts_file)}"
    return LockedError(
        f"{found.environment}: {token} is not the token of the owner. On {found.server}, this one {has}: {found.owner.sentence()}",
        hint=hint,
    )

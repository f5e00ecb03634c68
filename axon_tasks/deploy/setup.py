"""Making servers ready for deploys: what each of them lacks is found first, shown, and mended only then.

Every question may be asked and every answer given again at any time: whatever interrupts a setup, the next one goes on
from there, and one that finds nothing to do changes nothing.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import setup
from axon_tasks.commands.setup import Part, Who
from axon_tasks.deploy import facts, problems
from axon_tasks.errors import AxonError, StepFailedError, UsageError
from axon_tasks.remote import Batch, Fleet, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.remote import BatchResult, Connection

#: Seconds for an answer, and for a change: packages are fetched, and apt may have to wait for itself.
_ASK, _CHANGE = 60.0, 1800.0
#: What useradd(8) takes on Debian. Nothing else may stand in a line for sudo, where `ALL` and `%` have a meaning.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_KEY = re.compile(r"(ssh|ecdsa|sk)-\S{1,60} [A-Za-z0-9+/=]{16,}( [ -~]*)?", re.ASCII)


class Lack(NamedTuple):
    """Something that is to be done on a server.

    Attributes:
        part: For what.
        todo: What, in words.
    """

    part: Part
    todo: tuple[str, ...]


class Found(NamedTuple):
    """What was found on one server.

    Attributes:
        server: Its name.
        login: As whom it was reached.
        user: Who is to deploy there.
        system: What it calls itself; empty if it did not say.
        lacks: What is to be done.
        error: Why that is not known.
    """

    server: str
    login: str
    user: str
    system: str = ""
    lacks: tuple[Lack, ...] = ()
    error: AxonError | None = None


class Done(NamedTuple):
    """A change that was made, or not.

    Attributes:
        server: Where.
        lack: What.
        seconds: How long it took; None as long as it runs.
        error: Why it could not be made.
    """

    server: str
    lack: Lack
    seconds: float | None = None
    error: AxonError | None = None


def whom(project: Project, names: Sequence[str], login: str = "", keys: str = "") -> dict[str, Who]:
    """For whom servers are made ready: whoever logs in when they are deployed to.

    Args:
        project: The settings.
        names: The servers.
        login: As whom they are made ready; empty for the same user.
        keys: Public keys for that user, one a line; empty for none.

    Raises:
        UsageError: A user has a name that Debian would not take.
    """
    with Fleet(project) as fleet:
        users = {name: fleet.connection(name).user for name in names}
    for name, user in users.items():
        if not _USER.fullmatch(user):
            raise UsageError(
                f"{name}: no user can be called {user!a} there.",
                hint="Up to 32 of a-z, 0-9, - and _ are needed: set `user:` in hosts.yml.",
            )
    return {name: Who(user, login or user, keys) for name, user in users.items()}


def public_keys(text: str, where: str) -> str:
    """The public keys of a file, one a line, without comments.

    Args:
        text: The file.
        where: How it is called in messages.

    Raises:
        UsageError: A line is none, or there is none.
    """
    if "PRIVATE KEY" in text:
        raise UsageError(f"{where}: this is a private key.", hint="Its public half ends in .pub.")
    lines = [one.strip() for one in text.splitlines()]
    for number, one in enumerate(lines, 1):
        if one and not one.startswith("#") and not _KEY.fullmatch(one):
            raise UsageError(
                f"{where}, line {number}: this is no public key such as `ssh-ed25519 AAAA… name`."
            )
    keys = [one for one in lines if one and not one.startswith("#")]
    if not keys:
        raise UsageError(f"{where}: there is no public key in it.")
    return "\n".join(keys)


def look(fleet: Fleet, environments: Sequence[Environment], whose: Mapping[str, Who]) -> list[Found]:
    """Find what servers lack, all at the same time; nothing is changed.

    Args:
        fleet: The connections, as whoever may become root.
        environments: For what they are to be ready.
        whose: For whom, by server.
    """
    parts = {server: setup.parts(environments, server, who) for server, who in whose.items()}

    def work(connection: Connection) -> BatchResult:
        return question_batch(parts[connection.name]).run(connection, timeout=_ASK)

    outcomes = fleet.gather(dict.fromkeys(whose, work))
    found = []
    for server, outcome in outcomes.items():
        who = whose[server]
        empty = Found(server, who.login, who.user)
        try:
            found.append(_read(empty, parts[server], outcome.value))
        except AxonError as error:
            found.append(empty._replace(error=error))
    return found


def question_batch(parts: Sequence[Part]) -> Batch:
    """What asks a server what it lacks."""
    batch = Batch("setup", sudo=True).add(setup.system(), label="system")
    for number, one in enumerate(parts):
        batch.add(one.question, label=f"{number} {one.name}")
    return batch


def answer_batch(lack: Lack) -> Batch:
    """What makes one change. It is completed whatever becomes of this program: dpkg is not to be ended half-way."""
    return Batch("setup", sudo=True, uninterruptible=True).add(lack.part.answer, label=lack.part.name)


def _read(empty: Found, parts: Sequence[Part], told: BatchResult) -> Found:
    server = empty.server
    problems.must(server, "looking at the server", told["system"])
    system = facts.pairs(told["system"].stdout)
    name = sanitize(system.get("name") or system.get("id") or "an unknown system")
    kinds = {*system.get("id", "").split(), *system.get("like", "").split()}
    if not kinds & {"debian", "ubuntu"} or system.get("apt") != "yes":
        raise StepFailedError(
            f"{server}: this is {name}, and only Debian and Ubuntu are set up by this",
            hint="By hand: README, 'Your own servers' and 'Privileges'; fab doctor says what is still missing.",
        )
    lacks = []
    for number, one in enumerate(parts):
        section = told[f"{number} {one.name}"]
        problems.must(server, f"looking at {one.name}", section)
        todo = [
            sanitize(line.partition("=")[2])
            for line in section.stdout.splitlines()
            if line.startswith("todo=")
        ]
        if todo:
            lacks.append(Lack(one, tuple(todo)))
    return empty._replace(system=name, lacks=tuple(lacks))


def mend(fleet: Fleet, found: Sequence[Found], listener: Callable[[Done], None]) -> None:
    """Make the changes: on all servers at the same time, on each of them one after the other.

    Args:
        fleet: The connections.
        found: What is to be done.
        listener: Is told of each change as it begins and as it ends; from several threads.

    Raises:
        AxonError: Something could not be done; what was done stays.
    """
    wanted = {one.server: one for one in found if one.lacks}

    def work(connection: Connection) -> None:
        for lack in wanted[connection.name].lacks:
            _change(connection, lack, listener)

    outcomes = fleet.gather(dict.fromkeys(wanted, work))
    errors = [one.error for one in outcomes.values() if isinstance(one.error, AxonError)]
    problems.raise_all(errors)
    problems.raise_defects(outcomes.values())


def _change(connection: Connection, lack: Lack, listener: Callable[[Done], None]) -> None:
    server, began = connection.name, time.monotonic()
    listener(Done(server, lack))
    try:
        told = answer_batch(lack).run(connection, timeout=_CHANGE)
        problems.must(server, f"{lack.part.name}: {', '.join(lack.todo)}", told[lack.part.name])
    except AxonError as error:
        listener(Done(server, lack, time.monotonic() - began, error))
        raise
    listener(Done(server, lack, time.monotonic() - began))


def must_be_ready(found: Sequence[Found]) -> None:
    """Check after a setup that nothing is left to be done.

    Raises:
        AxonError: Something is, which is a failure of what was to do it.
    """
    problems.raise_all(
        one.error
        or StepFailedError(
            f"{one.server}: done, and still missing: {'; '.join(todo for lack in one.lacks for todo in lack.todo)}"
        )
        for one in found
        if one.error or one.lacks
    )

"""A command in the containers that serve, or on the servers themselves."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import docker
from axon_tasks.deploy import looking
from axon_tasks.deploy.problems import raise_all
from axon_tasks.errors import AxonError, StepFailedError, UsageError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.looking import Look, Running
    from axon_tasks.remote import BatchResult, Connection, Fleet


class Place(NamedTuple):
    """Where a command runs.

    Attributes:
        server: On which server.
        command: What runs there, as shell text.
        release: Of the container, its release; empty on the server itself.
    """

    server: str
    command: str
    release: str = ""


class Ended(NamedTuple):
    """How a command ended at one place.

    Attributes:
        place: Where.
        exit_code: Its exit code; None if it did not come to its end.
        error: Why not.
    """

    place: Place
    exit_code: int | None = None
    error: AxonError | None = None


def on_hosts(environment: Environment, words: Sequence[str], only: str = "") -> list[Place]:
    """The command on the servers themselves.

    Args:
        environment: Whose servers.
        words: The program and its arguments; a single word is a line for the shell.
        only: Only these servers, separated by commas.

    Raises:
        UsageError: `only` names a server that is none of them.
    """
    text = words[0] if len(words) == 1 else shlex.join(words)
    return [Place(name, text) for name in looking.only_of([environment], only)]


def app_servers(environment: Environment, only: str = "") -> tuple[str, ...]:
    """The app servers that are meant.

    Raises:
        UsageError: `only` names another server.
    """
    wanted = looking.only_of([environment], only) if only else environment.app
    for name in wanted:
        if name not in environment.app:
            raise UsageError(
                f"--only={name}: the application does not run there.",
                hint=f"It runs on: {', '.join(environment.app)}. On the server itself: --host.",
            )
    return tuple(wanted)


def in_containers(
    fleet: Fleet,
    project: Project,
    environment: Environment,
    words: Sequence[str],
    *,
    only: str = "",
    release: str = "",
    terminal: bool = False,
) -> list[Place]:
    """The command in the container of each app server that gets traffic, or in that of a release.

    Args:
        fleet: The connections.
        project: The settings of everything.
        environment: Whose containers.
        words: The program and its arguments; a single word is a line for the container's shell.
        only: Only these app servers, separated by commas.
        release: The release that is meant; empty for what gets traffic.
        terminal: Whether it is to have a terminal.

    Raises:
        UsageError: `only` names a server that is no app server of the environment.
        AxonError: A server does not answer, or has no such container.
    """
    servers = app_servers(environment, only)
    asked = dict.fromkeys((*environment.system, *servers))
    [seen] = looking.look(fleet, project, [environment], ",".join(asked), probes=False)
    raise_all(error for name, error in seen.errors.items() if name in servers)
    found = []
    for server in servers:
        one = _container(seen, server, release)
        found.append(
            Place(
                server,
                docker.execute(one.container.id, tuple(words), terminal=terminal),
                one.container.release,
            )
        )
    return found


def _container(seen: Look, server: str, release: str) -> Running:
    """The container of a server that is meant.

    Raises:
        StepFailedError: There is none.
    """
    name = seen.environment.name
    running = [one for one in seen.app[server].running if one.status == "running"]
    if release:
        fitting = [one for one in running if one.container.release == release]
        what = f"no container of release {release} runs"
    elif any(seen.gets_traffic(server, one.container) is None for one in running):
        # No system server answers: the operator has to know more than this program then.
        fitting = running if len(running) == 1 else []
        what = (
            f"no system server says which one of {len(running)} containers serves; name it with --release=ID"
        )
    else:
        fitting = [one for one in running if seen.gets_traffic(server, one.container)]
        what = "no container that gets traffic runs"
    if not fitting:
        raise StepFailedError(f"{server}: {what}", hint=f"See what runs: fab status --env={name}")
    return fitting[0]


def exec_batch(place: Place, *, sudo: bool = False) -> Batch:
    """What runs at one place."""
    return Batch("exec", sudo=sudo).add(place.command, label="exec")


def run(
    fleet: Fleet,
    places: Sequence[Place],
    hear: Callable[[Place, str, bytes], None],
    *,
    sudo: bool = False,
    timeout: float | None = None,
) -> list[Ended]:
    """Run the command at all places at the same time.

    Args:
        fleet: The connections.
        places: Where.
        hear: Is given the place, `stdout` or `stderr`, and what was said there, from several threads.
        sudo: Whether as root.
        timeout: Seconds that it may take at each place.

    Returns:
        How it ended, in the order of the places; a failure at one stops no other.
    """
    by_server: Mapping[str, Place] = {place.server: place for place in places}

    def work(connection: Connection) -> BatchResult:
        place = by_server[connection.name]
        return exec_batch(place, sudo=sudo).run(
            connection,
            timeout=timeout,
            on_output=lambda _label, stream, data: hear(place, stream, data),
            keep_output=False,
            last=True,
        )

    ended = []
    for server, outcome in fleet.gather(dict.fromkeys(by_server, work)).items():
        if isinstance(outcome.error, AxonError):
            ended.append(Ended(by_server[server], None, outcome.error))
        else:
            ended.append(Ended(by_server[server], outcome.value["exec"].exit_code))
    return ended

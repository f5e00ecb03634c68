"""What the containers of environments use: processor, memory, processes, network and disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import docker
from axon_tasks.deploy import facts, looking
from axon_tasks.deploy.owner import text_of
from axon_tasks.deploy.problems import must
from axon_tasks.errors import AxonError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.config import Environment
    from axon_tasks.remote import BatchResult, Connection, Fleet

#: Seconds for an answer: `docker stats` looks twice, some seconds apart.
LIMIT = 60.0

#: As Docker writes sizes: memory in powers of 1024, network and disk in powers of 1000 (docker/go-units).
_UNITS = {
    "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})", re.ASCII)


class Usage(NamedTuple):
    """What one container uses; what Docker does not tell is None.

    Attributes:
        server: Where it runs.
        container: Which one.
        cpu_percent: Of one processor.
        memory_bytes: What it has.
        limit_bytes: What it may have; the machine's memory if it is not limited.
        processes: How many it has, with threads.
        received_bytes: Over the network, since it was started.
        sent_bytes: Likewise.
        read_bytes: From disks, since it was started.
        written_bytes: Likewise.
        restarts: How often Docker has started it again.
    """

    server: str
    container: facts.Container
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    limit_bytes: int | None = None
    processes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    restarts: int | None = None


@dataclass
class Used:
    """What was found in one environment.

    Attributes:
        environment: Its name.
        usages: What each running container uses.
        errors: What went wrong, by server.
    """

    environment: str
    usages: list[Usage] = field(default_factory=list)
    errors: dict[str, AxonError] = field(default_factory=dict)


def look(fleet: Fleet, environments: Sequence[Environment], only: str = "") -> list[Used]:
    """Ask what the containers use, all app servers at the same time.

    Args:
        fleet: The connections.
        environments: Which ones.
        only: Only these servers, separated by commas.

    Raises:
        UsageError: `only` names a server that belongs to none of them.
    """

    def work(connection: Connection) -> BatchResult:
        return stats_batch(environments, connection.name).run(connection, timeout=LIMIT)

    wanted = looking.only_of(environments, only)
    names = [name for name in wanted if any(name in one.app for one in environments)]
    found = {one.name: Used(one.name) for one in environments}
    for server, outcome in fleet.gather(dict.fromkeys(names, work)).items():
        for one in environments:
            if server in one.app:
                try:
                    found[one.name].usages += read(one, server, outcome.value)
                except AxonError as error:
                    found[one.name].errors[server] = error
    return list(found.values())


def stats_batch(environments: Sequence[Environment], server: str) -> Batch:
    """What asks one app server."""
    batch = Batch("stats").add(docker.containers(), label="containers")
    for one in environments:
        if server in one.app:
            batch.add(docker.stats(one), label=one.name)
    return batch


def read(environment: Environment, server: str, told: BatchResult) -> list[Usage]:
    """What one server said about one environment.

    Raises:
        AxonError: It could not say.
    """
    must(server, "listing containers", told["containers"])
    must(server, "asking what containers use", told[environment.name])
    lines = [line.partition("=") for line in told[environment.name].stdout.splitlines()]
    stats = [facts.json_object(value) for key, _, value in lines if key == "stats"]
    by_id = {str(one.get("id")): one for one in stats}
    restarts = dict(value.split(" ", 1) for key, _, value in lines if key == "restarts" and " " in value)
    containers = facts.parse_containers(server, told["containers"].stdout, environment)
    return [
        _usage(server, one, by_id[one.id], facts.number(restarts.get(one.id, "")))
        for one in containers
        if one.id in by_id
    ]


def _usage(
    server: str, container: facts.Container, told: Mapping[str, object], restarts: int | None
) -> Usage:
    memory, limit = _pair(text_of(told, "memory"))
    received, sent = _pair(text_of(told, "network"))
    read_, written = _pair(text_of(told, "disk"))
    cpu = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)%", text_of(told, "cpu"), re.ASCII)
    return Usage(
        server=server,
        container=container,
        cpu_percent=float(cpu[1]) if cpu else None,
        memory_bytes=memory,
        limit_bytes=limit,
        processes=facts.number(text_of(told, "processes")),
        received_bytes=received,
        sent_bytes=sent,
        read_bytes=read_,
        written_bytes=written,
        restarts=restarts,
    )


def _pair(text: str) -> tuple[int | None, int | None]:
    """Both sizes of `1.5MiB / 2GiB`."""
    first, _, second = text.partition("/")
    return size(first.strip()), size(second.strip())


def size(text: str) -> int | None:
    """Bytes from what Docker writes; None if it is no size."""
    found = _SIZE.fullmatch(text)
    return round(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else None

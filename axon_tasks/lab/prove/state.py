"""What is really there of a product, seen past SSH and past our own code, and what of it should not be."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from axon_tasks.lab.lab import Lab

_SCRIPT = Path(__file__).with_name("observe.sh")

#: The two slots, in the order in which `ports` names their ports.
_SLOTS = "ab"
#: Names of files that exist only while something is under way.
_PASSING_PREFIXES = (".", "nginx-before", "journal", "lock.owner")
_PASSING_SUFFIXES = (".tmp", ".new", ".before-axon-tasks")


@dataclass(frozen=True)
class Container:
    """A container of the product.

    Args:
        id: Its full id.
        name: Its name.
        status: `running`, `created`, `exited` and so on.
        restart: Its restart policy.
        ports: The host ports that it publishes.
        labels: All of its labels.
    """

    id: str
    name: str
    status: str
    restart: str
    ports: tuple[int, ...]
    labels: Mapping[str, str]

    @property
    def release(self) -> str:
        """The release that it says it is of."""
        return self.labels.get("axon.release", "")

    @property
    def short_id(self) -> str:
        """How it names itself: Docker makes this its host name."""
        return self.id[:12]

    def __str__(self) -> str:
        """For a report."""
        return f"container {self.name} ({self.status}, slot {self.labels.get('axon.slot', '?')})"


@dataclass
class HostState:
    """What one host has of the product.

    Args:
        containers: On an app server, running or not.
        networks: With the product's label.
        files: Paths of the product, each after its kind as find(1) tells it: `f` or `d`.
        shared: Temporary things that belong to nobody in particular.
        ports: The two reserved ports, as they are kept.
        lock: `free` or `held`; empty if there is no lock file.
        shells: Process ids and words of shells that a deployer uses.
        listening: Ports on which somebody listens.
        slot: On a system server, the slot that serves.
        current: Same, the release that is noted as current.
        record: Same, that release's record.
        upstream: Same, `ADDRESS:PORT` of every server in the upstream file.
        nginx: Same, `valid`, or what `nginx -t` says.
    """

    containers: list[Container] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    ports: str = ""
    lock: str = ""
    shells: set[str] = field(default_factory=set)
    listening: set[int] = field(default_factory=set)
    slot: str = ""
    current: str = ""
    record: str = ""
    upstream: set[str] = field(default_factory=set)
    nginx: str = ""


@dataclass(frozen=True)
class Answer:
    """What a client got through nginx.

    Args:
        status: HTTP status; 0 without an answer.
        version: What answered.
        container: Its short id.
    """

    status: int
    version: str
    container: str


@dataclass(frozen=True)
class Expected:
    """What should be there.

    Args:
        tag: The version that serves.
        addresses: The address of each app server.
        system: The system servers.
        before: What the hosts had before the first deployment; what is shared is judged against it.
    """

    tag: str
    addresses: Mapping[str, str]
    system: tuple[str, ...]
    before: Mapping[str, HostState]


# --- looking ---------------------------------------------------------------------------------------------------


def look(lab: Lab, host: str, role: str, product: str, environment: str) -> HostState:
    """What one host has.

    Raises:
        AxonError: It could not be looked at.
    """
    words = ["sh", "-s", "--", role, product, environment]
    return read(lab.exec(host, words, stdin=_SCRIPT.read_bytes()).stdout)


def read(text: str) -> HostState:
    """Read what observe.sh prints.

    Raises:
        AxonError: It printed something else.
    """
    found = HostState()
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word in {"ports", "lock", "slot", "current", "record", "nginx"}:
            setattr(found, word, rest)
        elif word == "file":
            kind, _, path = rest.partition(" ")
            found.files[path] = kind
        elif word == "container":
            found.containers.append(_container(json.loads(rest)))
        elif word == "network":
            found.networks.append(rest)
        elif word in {"shared", "upstream"}:
            getattr(found, word).add(rest)
        elif word == "shell":
            found.shells.add(rest)
        elif word == "listen":
            found.listening.add(int(rest))
        else:
            raise AxonError(f"observe.sh says what nobody understands: {line[:200]}")
    return found


def _container(told: dict[str, Any]) -> Container:
    bindings = (told["bindings"] or {}).values()
    ports = tuple(int(one["HostPort"]) for several in bindings for one in several)
    return Container(
        told["id"], told["name"].lstrip("/"), told["status"], told["restart"], ports, told["labels"] or {}
    )


# --- judging ---------------------------------------------------------------------------------------------------


def problems(
    hosts: Mapping[str, HostState], answers: Sequence[Answer] | None, expected: Expected
) -> list[str]:
    """Everything that is not as it should be once nothing goes on any more; empty if all is well.

    Args:
        hosts: What was found, per host.
        answers: What clients got, over one connection; None if nobody asked.
        expected: What should be there.
    """
    found: list[str] = []
    for host, state in hosts.items():
        found += [f"{host}: {one}" for one in _leftovers(state, expected.before.get(host, HostState()))]
    for server in expected.addresses:
        found += [f"{server}: {one}" for one in _app(hosts[server], expected.tag)]
    releases = {one.release for server in expected.addresses for one in _running(hosts[server])}
    if len(releases) > 1:
        found.append(f"the app servers run different releases: {', '.join(sorted(releases))}")
    for server in expected.system:
        found += [f"{server}: {one}" for one in _system(hosts[server], hosts, expected)]
    return found + ([] if answers is None else _answers(answers, hosts, expected))


def _running(state: HostState) -> list[Container]:
    return [one for one in state.containers if one.status == "running"]


def _leftovers(state: HostState, before: HostState) -> list[str]:
    """What exists only while something is under way, and should be over."""
    found = [f"left behind: {path}" for path in sorted(state.files) if is_passing(path)]
    found += [f"left behind: {path.partition(' ')[2]}" for path in sorted(state.shared - before.shared)]
    found += [f"job not finished: {job}" for job in unfinished_jobs(state.files)]
    found += [f"network of ours: {name}" for name in state.networks]
    if state.lock == "held":
        found.append("the lock is held")
    found += [f"a shell still runs: process {shell}" for shell in sorted(state.shells - before.shells)]
    return found


def is_passing(path: str) -> bool:
    """Whether a file is one that exists only while something is under way."""
    name = PurePosixPath(path).name
    return name.startswith(_PASSING_PREFIXES) or name.endswith(_PASSING_SUFFIXES)


def unfinished_jobs(files: Iterable[str]) -> list[str]:
    """The background jobs that have not written their exit status: they run, or were lost."""
    paths = [PurePosixPath(path) for path in files]
    jobs = {path for path in paths if path.parent.name == "jobs"}
    finished = {path.parent for path in paths if path.name == "rc"}
    return sorted(str(job) for job in jobs - finished)


def _app(state: HostState, tag: str) -> list[str]:
    """One app server: one container, in its slot, on one of the two ports."""
    running, others = _running(state), [one for one in state.containers if one.status != "running"]
    found = [f"orphaned {one}" for one in others]
    if len(running) != 1:
        return [*found, f"{len(running)} releases run: {', '.join(map(str, running)) or 'none'}"]
    one = running[0]
    if not one.labels.get("axon.image", "").endswith(f":{tag}"):
        found.append(f"{one} runs {one.labels.get('axon.image', 'an unknown image')}, not {tag}")
    if one.restart == "no":
        found.append(f"{one} would not come back after a restart of the daemon")
    ports = _ports(state)
    if len(set(ports)) != len(_SLOTS):
        return [*found, f"the reserved ports are {state.ports or 'missing'}"]
    slot = one.labels.get("axon.slot", "")
    if slot not in _SLOTS or one.ports != (ports[_SLOTS.index(slot)],):
        found.append(f"{one} publishes {one.ports}, and the ports of the slots are {state.ports}")
    free = sorted(({*ports} - {*one.ports}) & state.listening)
    return found + [f"somebody listens on port {port} of the slot that is free" for port in free]


def _ports(state: HostState) -> tuple[int, ...]:
    return tuple(int(word) for word in state.ports.split() if word.isdecimal())


def _system(state: HostState, hosts: Mapping[str, HostState], expected: Expected) -> list[str]:
    """One system server: what it notes and what nginx is told is what runs."""
    found = [] if state.nginx == "valid" else [f"nginx -t: {state.nginx}"]
    for server in expected.addresses:
        for one in _running(hosts[server]):
            if one.release != state.current:
                found.append(f"the current release is {state.current or 'none'}, and {server} runs {one}")
            if one.labels.get("axon.slot") != state.slot:
                found.append(f"slot {state.slot} serves, and {server} runs {one}")
    wanted = {
        f"{address}:{port}"
        for server, address in expected.addresses.items()
        for port in _ports(hosts[server])
    }
    if state.upstream != wanted:
        found.append(f"nginx's upstreams are {sorted(state.upstream)}, not {sorted(wanted)}")
    return found + _record(state, hosts, expected)


def _record(state: HostState, hosts: Mapping[str, HostState], expected: Expected) -> list[str]:
    """The record of the current release says what runs."""
    try:
        record = json.loads(state.record)
        noted = {
            server: (one["container"], one["port"], record["digest"])
            for server, one in record["servers"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return [f"the record of release {state.current} is {state.record[:100] or 'missing'}"]
    found = []
    for server in expected.addresses:
        for one in _running(hosts[server]):
            seen = (one.name, *one.ports, one.labels.get("axon.digest", ""))
            if noted.get(server) != seen:
                found.append(f"the record of release {state.current} notes {noted.get(server)}, not {seen}")
    return found


def _answers(answers: Sequence[Answer], hosts: Mapping[str, HostState], expected: Expected) -> list[str]:
    """Clients get the version, from the containers that run, and from each of them."""
    wrong = {one for one in answers if (one.status, one.version) != (200, expected.tag)}
    found = [f"clients get {one.status} {one.version or 'nothing'}, not {expected.tag}" for one in wrong]
    answered = {one.container for one in answers}
    for server in expected.addresses:
        ids = {one.short_id for one in _running(hosts[server])}
        if not ids & answered:
            found.append(f"no client gets an answer from {server}")
        answered -= ids
    return found + [f"clients get answers from container {one or 'unknown'}" for one in sorted(answered)]

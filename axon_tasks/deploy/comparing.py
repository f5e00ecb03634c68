"""What a deploy would change: what serves, as it is recorded and configured, against what `hosts.yml` says today."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import docker, naming, nginx
from axon_tasks.config import Secret
from axon_tasks.deploy import facts, inspecting, repeating
from axon_tasks.deploy.owner import text_of
from axon_tasks.deploy.problems import must, raise_all
from axon_tasks.errors import AxonError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from axon_tasks.config import Environment, Project
    from axon_tasks.remote import BatchResult, Connection, Fleet

#: Seconds for an answer.
LIMIT = 60.0

#: What can change.
IMAGE, SETTINGS, VARIABLES, UPSTREAM, SITE, SERVERS = (
    "image", "settings", "variables", "upstream", "site", "servers",
)  # fmt: skip


class Change(NamedTuple):
    """One thing that a deploy would change.

    Attributes:
        what: Which kind of thing.
        servers: Where.
        diff: The lines that go, with a `-`, those that come, with a `+`, and what stands around them.
    """

    what: str
    servers: tuple[str, ...]
    diff: tuple[str, ...]


@dataclass
class Compared:
    """What was found.

    Attributes:
        environment: The environment's settings.
        release: The release that is recorded as the one that serves; empty if none is.
        changes: What a deploy would change.
        notes: What could not be compared, and why.
        errors: What went wrong, by server.
    """

    environment: Environment
    release: str = ""
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: dict[str, AxonError] = field(default_factory=dict)


class Known(NamedTuple):
    """What the servers said.

    Attributes:
        system: The system servers.
        app: The app servers.
        variables: SHA-256 of the variables with which each app server would start a release now.
    """

    system: dict[str, facts.SystemFacts]
    app: dict[str, facts.AppFacts]
    variables: dict[str, str]


def compare(fleet: Fleet, project: Project, environment: Environment, tag: str | None = None) -> Compared:
    """Ask the servers, and compare.

    Args:
        fleet: The connections.
        project: The settings of everything.
        environment: What would be deployed.
        tag: Which version; None for that of `hosts.yml`, or none.

    Raises:
        UsageError: The tag is none.
    """
    wanted = str(environment.image_reference(tag)) if tag or environment.tag else ""
    known = Known({}, {}, {})
    errors: dict[str, AxonError] = {}

    def work(connection: Connection) -> BatchResult:
        return diff_batch(project, environment, connection.name).run(connection, timeout=LIMIT, last=True)

    for server, outcome in fleet.gather(dict.fromkeys(environment.servers, work)).items():
        try:
            take(known, environment, server, outcome.value)
        except AxonError as error:
            errors[server] = error
    return conclude(project, environment, known, wanted, errors)


def conclude(
    project: Project,
    environment: Environment,
    known: Known,
    wanted: str,
    errors: Mapping[str, AxonError] | None = None,
) -> Compared:
    """Compare what the servers said with the settings.

    Args:
        project: The settings of everything.
        environment: What would be deployed.
        known: What they said.
        wanted: The image that would be deployed; empty if none was named.
        errors: What went wrong, by server.
    """
    found = Compared(environment, errors=dict(errors or {}))
    record = next((one.record for one in known.system.values() if one.record), {})
    found.release = text_of(record, "id")
    found.changes = [
        *_image(record, wanted),
        *_servers(record, environment),
        *_grouped(_settings(found, project, known, record, wanted or text_of(record, "image"))),
        *_grouped(_files(found, project, known)),
    ]
    return found


def diff_batch(project: Project, environment: Environment, server: str) -> Batch:
    """What one server is asked."""
    batch = Batch("diff")
    if server in environment.system:
        inspecting.ask_system(environment, batch, test=False)
    if server in environment.app:
        inspecting.ask_app(environment, batch)
        variables = docker.env_text(_candidate(project, environment, server, environment.image))
        batch.add(
            docker.environment(environment), label="variables", stdin=Secret(variables) if variables else None
        )
    return batch


def take(known: Known, environment: Environment, server: str, told: BatchResult) -> None:
    """Take over what one server said.

    Raises:
        AxonError: It could not say, or what it said makes no sense.
    """
    if server in environment.system:
        known.system[server] = inspecting.read_system(server, told)
    if server in environment.app:
        known.app[server] = inspecting.read_app(server, told, environment)
        must(server, "reading the variables", told["variables"])
        known.variables[server] = facts.parse_checksum(server, told["variables"].stdout)


def _image(record: Mapping[str, Any], wanted: str) -> Iterator[Change]:
    now = text_of(record, "image")
    if wanted and wanted != now:
        yield Change(IMAGE, (), (*((f"-{now}",) if now else ()), f"+{wanted}"))


def _servers(record: Mapping[str, Any], environment: Environment) -> Iterator[Change]:
    then = record.get("servers")
    known = then if isinstance(then, dict) else {}
    if record and set(known) != set(environment.app):
        gone, new = sorted(set(known) - set(environment.app)), sorted(set(environment.app) - set(known))
        yield Change(SERVERS, (), (*(f"-{name}" for name in gone), *(f"+{name}" for name in new)))


def _candidate(project: Project, environment: Environment, server: str, reference: str) -> docker.Candidate:
    """What would run on a server, of a release that has no id, slot, port or digest yet."""
    host = project.hosts[server]
    return docker.Candidate(
        environment=environment,
        release="",
        slot="",
        port="",
        address=host.upstream_address,
        reference=reference,
        bind=host.private_address or "0.0.0.0",  # noqa: S104  (as in a deploy, to be compared)
        digest="",
    )


def _settings(
    found: Compared, project: Project, known: Known, record: Mapping[str, Any], reference: str
) -> Iterator[Change]:
    """The arguments of `docker run`, and whether the variables are the same."""
    then = record.get("servers")
    servers = then if isinstance(then, dict) else {}
    for server in known.app:
        entry = servers.get(server)
        told = entry if isinstance(entry, dict) else {}
        ran = told.get("run")
        if not isinstance(ran, list) or not all(isinstance(one, str) for one in ran):
            if record:
                found.notes.append(f"{server}: it is not recorded how the release was started there")
            continue
        candidate = _candidate(project, found.environment, server, reference)
        try:
            now = docker.recorded_arguments(repeating.in_its_place(candidate, record, told))
        except ValueError:  # what is recorded as its image is none
            found.notes.append(f"{server}: it is not recorded which image the release runs")
            continue
        lines = _differing(_flags(ran), _flags(now))
        if lines:
            yield Change(SETTINGS, (server,), lines)
        if facts.checksum_of(told) not in {"", known.variables.get(server, "")}:
            yield Change(VARIABLES, (server,), ("they are not those that the release was started with",))


def _flags(arguments: Sequence[str]) -> list[str]:
    """The arguments with each flag on a line with its value; without what says which image it is."""
    lines: list[str] = []
    for one in arguments:
        if lines and lines[-1].startswith("--") and " " not in lines[-1] and not one.startswith("--"):
            lines[-1] += f" {one}"
        else:
            lines.append(one)
    return [line for line in lines if not line.startswith("--label axon.image=")]


def _files(found: Compared, project: Project, known: Known) -> Iterator[Change]:
    """The files of nginx, on each system server."""
    environment = found.environment
    ports = {server: told.ports for server, told in known.app.items()}
    lacking = [server for server in environment.app if not ports.get(server)]
    if lacking:
        found.notes.append(
            f"nginx's files are not compared: the ports on {', '.join(lacking)} are not known yet"
        )
        return
    backends = tuple(
        nginx.Backend(project.hosts[server].upstream_address, ports[server] or (0, 0))
        for server in environment.app
    )
    for server, told in known.system.items():
        slot = told.flag_slot if environment.switch == "slots" else _slot(told, backends)
        files = nginx.render(nginx.Wanted(environment, backends, told.version, slot))
        is_theirs = environment.switch == "reload" and told.site and not nginx.is_ours(told.site, environment)
        pairs = {UPSTREAM: (told.upstream, files.upstream), SITE: (told.site, files.site)}
        for kind, (now, then) in pairs.items():
            if not (kind == SITE and is_theirs):
                lines = _differing(_unsealed(now), _unsealed(then))
                if lines:
                    yield Change(kind, (server,), lines)


def _slot(told: facts.SystemFacts, backends: Sequence[nginx.Backend]) -> str:
    """With a single upstream, the slot whose ports stand in it."""
    present = nginx.upstream_targets(told.upstream)
    return next((one for one in naming.SLOTS if any(each.target(one) in present for each in backends)), "a")


def _unsealed(file: str) -> list[str]:
    """The lines of a file without the seal, which changes with anything else."""
    return re.sub(r"^# Sealed: .*\n", "", file, flags=re.MULTILINE).splitlines()


def _differing(before: Sequence[str], after: Sequence[str]) -> tuple[str, ...]:
    """The lines of a unified diff without its heading; nothing if they are the same."""
    return tuple(difflib.unified_diff(before, after, lineterm="", n=2))[2:]


def _grouped(changes: Iterator[Change]) -> list[Change]:
    """What changes in the same way on several servers is one change."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in changes:
        groups.setdefault((one.what, one.diff), []).extend(one.servers)
    return [Change(what, tuple(servers), diff) for (what, diff), servers in groups.items()]


def check(found: Compared) -> None:
    """Raise what went wrong, if anything did.

    Raises:
        AxonError: A server could not be asked.
    """
    raise_all(found.errors.values())

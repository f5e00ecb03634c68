"""A look at environments as they are: what is recorded, what runs, what nginx sends traffic to, and whether it answers.

Nothing is changed and no lock is taken. Each server is asked once about everything, all of them at the same time; what
one cannot say hides nothing of the others.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import docker, lock, nginx
from axon_tasks.deploy import facts, inspecting, notes, unlocking
from axon_tasks.deploy.owner import text_of
from axon_tasks.deploy.problems import must, raise_all
from axon_tasks.errors import AxonError, UsageError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.remote import BatchResult, Connection, Fleet

#: Seconds for a look, beside those in which servers are connected to.
LIMIT = 30.0
#: Containers of an environment on one server that may be silent: the one that serves, one that drains, one that starts.
_CONTAINERS = 3
#: Requests through nginx: enough to see each app server of a usual environment, and not a load.
_MOST_REQUESTS = 8


class Reply(NamedTuple):
    """What one health check came to.

    Attributes:
        status: The HTTP status; None without an answer.
        milliseconds: How long it took, in steps of ten.
        good: Whether it is what a healthy application answers.
        told: The answer in a few words, or why there was none.
        upstream: `ADDRESS:PORT` of who answered, as nginx says; empty if nobody says it.
        body: The beginning of the answer.
    """

    status: int | None
    milliseconds: int
    good: bool
    told: str
    upstream: str
    body: str


class Running(NamedTuple):
    """A container of an environment.

    Attributes:
        container: Whose it is and where.
        status: Docker's word for its state.
        seconds: For how long it has been running; None if it is not.
        restarts: How often Docker has started it again.
        exit_code: With what it ended.
        oom_killed: Whether it was killed for its memory.
        health: Docker's own health check, empty without one.
        reply: What it answered; None if it was not asked.
    """

    container: facts.Container
    status: str = ""
    seconds: int | None = None
    restarts: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    health: str = ""
    reply: Reply | None = None


class SystemLook(NamedTuple):
    """What a system server said.

    Attributes:
        facts: What is recorded and configured there.
        targets: To what nginx sends requests.
        replies: What requests through nginx came to.
    """

    facts: facts.SystemFacts
    targets: tuple[str, ...]
    replies: tuple[Reply, ...]

    @property
    def maintenance(self) -> notes.Note | None:
        """Who turned maintenance on; None while it is off."""
        return notes.parse(self.facts.maintenance)


class AppLook(NamedTuple):
    """What an app server said.

    Attributes:
        facts: What Docker says.
        running: The environment's containers.
    """

    facts: facts.AppFacts
    running: tuple[Running, ...]


@dataclass
class Look:
    """One environment as it is.

    Attributes:
        environment: Its settings.
        addresses: Where nginx reaches its app servers, by name.
        system: What the system servers said.
        app: What the app servers said.
        lock: Who has the lock; None where that is not known.
        errors: What went wrong, by server.
    """

    environment: Environment
    addresses: Mapping[str, str]
    system: dict[str, SystemLook] = field(default_factory=dict)
    app: dict[str, AppLook] = field(default_factory=dict)
    lock: unlocking.Standing | None = None
    errors: dict[str, AxonError] = field(default_factory=dict)

    def target(self, server: str, port: int) -> str:
        """A port of an app server as it stands in nginx's files."""
        return nginx.target(self.addresses[server], port)

    def server_of(self, target: str) -> str:
        """The app server that a target of nginx belongs to; empty if it is none of this environment."""
        return next((name for name in self.addresses if target.startswith(self.target(name, 0)[:-1])), "")

    def gets_traffic(self, server: str, container: facts.Container) -> bool | None:
        """Whether nginx sends requests to a container; None if no system server says so."""
        if not self.system:
            return None
        wanted = self.target(server, container.port)
        return any(wanted in seen.targets for seen in self.system.values())

    def serving(self) -> Iterator[tuple[str, Running]]:
        """The containers that get traffic, with their servers."""
        for server, seen in self.app.items():
            for one in seen.running:
                if self.gets_traffic(server, one.container):
                    yield server, one


def only_of(environments: Sequence[Environment], only: str) -> tuple[str, ...]:
    """The servers of `--only`, or all of them.

    Args:
        environments: Whose servers.
        only: Names, separated by commas; empty for all.

    Raises:
        UsageError: One of them belongs to none of these environments.
    """
    known = tuple(dict.fromkeys(name for one in environments for name in one.servers))
    wanted = [name for name in only.replace(",", " ").split() if name]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--only={name!a}: this is no server of {', '.join(one.name for one in environments)}.",
                hint=f"There are: {', '.join(known)}.",
            )
    return tuple(dict.fromkeys(wanted)) or known


def look_batch(
    project: Project, environments: Sequence[Environment], server: str, *, probes: bool = True
) -> Batch:
    """Everything that one server is asked about these environments, of which it may serve several.

    Args:
        project: The settings of everything.
        environments: Which ones.
        server: Which server.
        probes: Whether the application is asked for its health, too.
    """
    batch = Batch("look")
    for one in environments:
        if server in one.system:
            inspecting.ask_system(one, batch, place=_place(one), test=False)
            if probes:
                batch.add(nginx.look_through(one, _requests(one)), label=_place(one) + "through")
        if server == one.system[0]:
            batch.add(lock.look(one), label=_place(one) + "lock", sudo=True)
        if server in one.app:
            inspecting.ask_app(one, batch, place=_place(one))
            if probes:
                address = docker.probe_address(project.hosts[server].private_address)
                batch.add(docker.look(one, address), label=_place(one) + "look")
    return batch


def _place(environment: Environment) -> str:
    return f"{environment.name}: "


def look(
    fleet: Fleet,
    project: Project,
    environments: Sequence[Environment],
    only: str = "",
    *,
    probes: bool = True,
) -> list[Look]:
    """Look at environments, all servers at the same time.

    Args:
        fleet: The connections; they may be used again for the next look.
        project: The settings of everything.
        environments: Which ones.
        only: Only these servers, separated by commas; empty for all.
        probes: Whether the application is asked for its health, too: one that hangs keeps whoever asks.

    Returns:
        One look per environment that has one of these servers, in their order.

    Raises:
        UsageError: `only` names a server that belongs to none of them.
    """
    names = only_of(environments, only)

    def work(connection: Connection) -> BatchResult:
        batch = look_batch(project, environments, connection.name, probes=probes)
        return batch.run(connection, timeout=_limit(environments, connection.name))

    outcomes = fleet.gather(dict.fromkeys(names, work))
    looks = [unseen(project, one) for one in environments if not set(names).isdisjoint(one.servers)]
    for server, outcome in outcomes.items():
        for seen in looks:
            if server in seen.environment.servers:
                if isinstance(outcome.error, AxonError):
                    seen.errors[server] = outcome.error
                else:
                    take(seen, server, outcome.value)
    return looks


def _limit(environments: Sequence[Environment], server: str) -> float:
    """Seconds for one server: what hangs there is probed one after the other, and must hide nothing else."""
    probes = sum(
        one.health.probe_timeout
        * (_requests(one) * (server in one.system) + _CONTAINERS * (server in one.app))
        for one in environments
    )
    return LIMIT + probes


def _requests(environment: Environment) -> int:
    """How often nginx is asked: as often as there are app servers."""
    return min(max(1, len(environment.app)), _MOST_REQUESTS)


def unseen(project: Project, environment: Environment) -> Look:
    """A look that nobody has answered yet."""
    return Look(environment, {name: project.hosts[name].upstream_address for name in environment.app})


def take(seen: Look, server: str, told: BatchResult) -> None:
    """Take over what a server said about one environment; what makes no sense is noted as its failure."""
    environment, place = seen.environment, _place(seen.environment)

    def system() -> None:
        seen.system[server] = _read_system(environment, server, told, place)

    def lock() -> None:
        section = told[f"{place}lock"]
        must(server, "looking at the lock", section)
        seen.lock = unlocking.standing(environment, section)

    def app() -> None:
        seen.app[server] = _read_app(environment, server, told, place)

    parts = {
        system: server in environment.system,
        lock: server == environment.system[0],
        app: server in environment.app,
    }
    for part, concerns in parts.items():
        try:
            if concerns:
                part()
        except AxonError as error:
            seen.errors.setdefault(server, error)


def _read_system(environment: Environment, server: str, told: BatchResult, place: str) -> SystemLook:
    found = inspecting.read_system(server, told, place=place)
    targets = nginx.targets(environment, found.upstream, found.flag_slot)
    said = _probed(server, told, f"{place}through", "asking through nginx")
    return SystemLook(found, targets, tuple(reply for _, reply in replies(said)))


def _read_app(environment: Environment, server: str, told: BatchResult, place: str) -> AppLook:
    found = inspecting.read_app(server, told, environment, place=place)
    said = _probed(server, told, f"{place}look", "looking at the containers")
    return AppLook(found, tuple(running(found.containers, said)))


def _probed(server: str, told: BatchResult, label: str, doing: str) -> str:
    """What health checks came to; nothing if none were asked for."""
    if label not in told:
        return ""
    must(server, doing, told[label])
    return told[label].stdout


def replies(text: str) -> Iterator[tuple[str, Reply]]:
    """What `answered` of the scripts tells, with the name of who was asked; what makes no sense is left out."""
    for block in _blocks(text, "answer"):
        status, took = facts.number(block.get("status", "")), facts.number(block.get("took_ms", ""))
        yield (
            block["answer"],
            Reply(
                status=status if status is not None and status < 1000 else None,  # noqa: PLR2004  (three digits)
                milliseconds=took or 0,
                good=block.get("good") == "yes",
                told=text_of(block, "told"),
                upstream=text_of(block, "upstream"),
                body=sanitize(block.get("said", "")).strip(),
            ),
        )


def _blocks(text: str, first: str) -> Iterator[dict[str, str]]:
    """The `key=value` lines of a script in groups, each of which begins with one key."""
    block: dict[str, str] = {}
    # By nothing but line feeds, and the first value counts: what an application answers comes last, and says anything.
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        if key == first and equals:
            if block:
                yield block
            block = {}
        if key == first or block:
            block.setdefault(key, value)
    if block:
        yield block


def running(containers: Sequence[facts.Container], text: str) -> Iterator[Running]:
    """Put together what Docker lists, what it says in detail, and what was answered.

    Args:
        containers: The environment's containers as they are listed.
        text: What `look_containers` has told.
    """
    now = next((facts.number(line[4:]) for line in text.split("\n") if line.startswith("now=")), None)
    lines = (line.partition("=") for line in text.split("\n"))
    told = [facts.json_object(value) for key, _, value in lines if key == "container"]
    details = {str(one.get("id")): one for one in told}
    answers = dict(replies(text))
    for one in containers:
        found = details.get(one.id, {})
        status = text_of(found, "status") or ("running" if one.running else "")
        yield Running(
            container=one,
            status=status,
            seconds=_age(text_of(found, "started"), now) if status == "running" else None,
            restarts=_count(found, "restarts"),
            exit_code=_count(found, "exit_code"),
            oom_killed=found.get("oom_killed") is True,
            health=text_of(found, "health"),
            reply=answers.get(one.id),
        )


def _count(values: Mapping[str, object], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _age(started: str, now: int | None) -> int | None:
    """Seconds since a time as Docker writes it (RFC 3339, with nanoseconds), by the clock of the same server."""
    try:
        begun = dt.datetime.fromisoformat(started[:19]).replace(tzinfo=dt.timezone.utc)
    except ValueError:
        return None
    return None if now is None else max(0, now - round(begun.timestamp()))


def check(looks: Sequence[Look]) -> None:
    """Raise what went wrong with servers, if anything did.

    Raises:
        AxonError: Every failure is in the message.
    """
    raise_all(error for seen in looks for error in seen.errors.values())


#: Of a container that runs and has no labels of ours: AXON made it, and how it is to be asked is not known.
_NOT_ASKED = "not asked: it is not a container of this tool"


def _why_not(one: Running) -> str:
    """Why a container was not asked."""
    if one.status != "running":
        return one.status
    return "Docker tells nothing of it" if one.container.slot else _NOT_ASKED


class Check(NamedTuple):
    """One health check.

    Attributes:
        server: From where it was asked.
        through: Whether through nginx.
        traffic: Whether what was asked gets traffic; None if no system server says so.
        by: Who answers: the release, or `ADDRESS:PORT` as nginx says.
        reply: The answer; None if nobody was asked.
        why: Why nobody was asked.
    """

    server: str
    through: bool
    traffic: bool | None
    by: str
    reply: Reply | None
    why: str = ""


def checks(seen: Look) -> Iterator[Check]:
    """Each health check of a look: first through nginx, then directly."""
    for server, told in seen.system.items():
        if not nginx.is_ours(told.facts.site, seen.environment):
            theirs = "the site is not one of this tool" if told.facts.site else "there is no site yet"
            yield Check(server, True, True, "", None, theirs)
        else:
            for one in told.replies:
                yield Check(server, True, True, one.upstream, one)
    for server, found in seen.app.items():
        for each in found.running:
            traffic = seen.gets_traffic(server, each.container)
            why = "" if each.reply else _why_not(each)
            yield Check(server, False, traffic, f"release {each.container.release}", each.reply, why)


def unhealthy(seen: Look) -> list[str]:
    """What is not healthy of what gets traffic, a sentence each."""
    name = seen.environment.name
    told = []
    for one in checks(seen):
        if one.reply is None and (one.through or one.why == _NOT_ASKED):
            continue  # nobody was asked: that of somebody else, or of AXON
        # Where no system server says it, it may well get traffic.
        if one.traffic is not False and not (one.reply and one.reply.good):
            answer = one.reply.told if one.reply else one.why
            where = f"through nginx on {one.server}" if one.through else f"{one.by} on {one.server}"
            told.append(f"{name}: {where} is not healthy: {answer}")
    if seen.app and seen.system and not seen.errors and not any(True for _ in seen.serving()):
        told.append(f"{name}: nothing that runs gets traffic")
    return told

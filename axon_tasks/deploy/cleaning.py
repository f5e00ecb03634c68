"""`cleanup`: what is no longer needed is looked for on all servers at once, and removed there at once.

Three round trips: the locks, a look, the removal. Under its lock no environment is deployed, switched or retired, so
that what was seen is still so when it is acted on. An environment that somebody works on is skipped.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axon_tasks.commands import cleanup, docker, lock
from axon_tasks.deploy import background, facts, leftovers, locking, notes, owner
from axon_tasks.deploy.history import State, parse_states
from axon_tasks.deploy.hold import Hold
from axon_tasks.deploy.leftovers import Item, Left, Truth, plain
from axon_tasks.errors import AxonError, LockedError, UnreachableError
from axon_tasks.remote import Batch, Fleet, jobs, sanitize

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.notes import Note
    from axon_tasks.deploy.owner import Owner
    from axon_tasks.remote import BatchResult, Connection

#: Seconds for a look, and for a removal beside the drains.
LOOK, ACT = 120.0, 600.0
#: Runs that stay on this machine.
RUNS = 50
#: Locks that are held over one connection: fewer than its sessions (remote.transport.MAX_SESSIONS), because the look and
#: the removal go over the first one while the locks are held.
_LOCKS = 5

_TOLD = re.compile(
    r"(removed|found|failed)=(container|image|network|job|staging|record|start|audit) (\S+)(?: (.*))?"
)


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        keep: Images that stay per repository and server, beside those that are needed.
        days: Jobs that ended longer ago are removed.
        dry_run: Look only.
        command: The command line, for the lock's owner.
    """

    keep: int = 3
    days: float = 7
    dry_run: bool = False
    command: str = "cleanup"


@dataclass(frozen=True)
class Failed:
    """One thing that could not be removed."""

    server: str
    kind: str
    name: str
    why: str


@dataclass
class Outcome:
    """What a cleanup has done, or would do.

    Attributes:
        dry_run: Whether it only looked.
        environments: The environments that were asked for.
        skipped: Those that were left out, and why.
        items: What was removed, or would be.
        left: What looks unneeded and stays.
        failed: What could not be removed.
        freed: Bytes by server: free space after minus before.
        errors: What went wrong with a whole server or environment.
    """

    dry_run: bool
    environments: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    freed: dict[str, int] = field(default_factory=dict)
    errors: list[AxonError] = field(default_factory=list)

    def check(self) -> None:
        """Raise what went wrong; exit status 4 if a server could not be reached, 1 for anything else.

        Raises:
            AxonError: Every failure is in the message.
        """
        told = [str(error) for error in self.errors]
        told += [
            sanitize(f"{one.server}: {one.kind} {one.name} could not be removed: {one.why}")
            for one in self.failed
        ]
        if told:
            lost = any(isinstance(error, UnreachableError) for error in self.errors)
            # One dead system server is the reason for several environments.
            raise AxonError(
                "\n".join(dict.fromkeys(told)),
                code=UnreachableError.exit_code if lost else AxonError.exit_code,
            )


def clean(project: Project, environments: Sequence[Environment], options: Options) -> Outcome:
    """Clean up.

    Args:
        project: The settings of everything.
        environments: Whose servers to clean.
        options: What the command line says.

    Returns:
        What was done; nothing is raised for what failed on one server, so that the others are cleaned.
    """
    wanted = tuple(one.name for one in environments)
    outcome = Outcome(options.dry_run, wanted)
    # Which images may go depends on everybody who runs images of the same repository on the same server.
    involved = [
        one for one in project.environments.values() if one.name in wanted or _shares(one, environments)
    ]
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(project))
        busy: dict[str, str] = {}
        held: dict[str, Hold] = {}
        if not options.dry_run:
            busy, held = _lock_all(stack, project, fleet, involved, options, outcome)
        looks = _look_all(fleet, involved, options, outcome, locks=options.dry_run)
        if options.dry_run:
            busy = {one.name: why for one in involved if (why := _seen_busy(one, looks))}
        outcome.skipped = {name: why for name, why in busy.items() if name in wanted}
        decision = _Decision(project, involved, wanted, busy, looks, options)
        outcome.items, outcome.left = decision.all(outcome.errors)
        if not options.dry_run:
            lost = {name: why for name, hold in held.items() if (why := locking.lost(hold))}
            if lost:
                outcome.items = []
                outcome.errors.append(_lost(lost))
            else:
                _act_all(fleet, decision.free, outcome, options)
    outcome.items += _local_runs(project, dry_run=options.dry_run)
    return outcome


def _shares(one: Environment, others: Iterable[Environment]) -> bool:
    return any(plain(one.image) == plain(other.image) and set(one.app) & set(other.app) for other in others)


# --- the locks ---------------------------------------------------------------------------------------------------------


def _lock_all(
    stack: contextlib.ExitStack,
    project: Project,
    fleet: Fleet,
    environments: Sequence[Environment],
    options: Options,
    outcome: Outcome,
) -> tuple[dict[str, str], dict[str, Hold]]:
    """Take all locks at the same time: why some could not be had, and the others; the stack lets go of them."""
    fleets = [fleet]
    fleets += [stack.enter_context(Fleet(project)) for _ in range((len(environments) - 1) // _LOCKS)]
    busy: dict[str, str] = {}
    held: dict[str, Hold] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(environments))) as pool:
        taken = {
            one.name: pool.submit(_lock, fleets[index // _LOCKS], one, options)
            for index, one in enumerate(environments)
        }
    for name, future in taken.items():
        try:
            held[name] = stack.enter_context(future.result())
        except LockedError as locked:
            busy[name] = locked.summary
        except AxonError as error:
            busy[name] = error.summary
            outcome.errors.append(error)
    return busy, held


def _lock(fleet: Fleet, environment: Environment, options: Options) -> Hold:
    """Take one lock and hold it.

    Raises:
        LockedError: Somebody else has it; the message says who.
        AxonError: The server cannot be reached, or cannot keep a lock.
    """
    server = environment.system[0]
    note = owner.note(options.command, run="", token=secrets.token_hex(4))
    hold = Hold(locking.hold_batch(environment, note), fleet[server], lock.HELD)
    if hold.wait():
        return hold
    section = hold.pending.result()["lock"]
    taken, hold_note = locking.taken_by(section), locking.held_by(section)
    if taken is not None:
        raise LockedError(_busy(taken))
    if hold_note is not None:
        raise LockedError(_held(hold_note))
    told = sanitize((section.stderr or section.stdout).strip()[-300:])
    raise AxonError(f"{server}: cannot take the lock of {environment.name}: {told}")


def _lost(lost: Mapping[str, str]) -> AxonError:
    told = "; ".join(f"the lock of {name} was lost, because {why}" for name, why in lost.items())
    return UnreachableError(f"{told}; so nothing was removed", hint="Run it again.")


def _busy(taken: Owner) -> str:
    if not taken.command:
        return "somebody else works on it"
    return f"{taken.command} by {taken.name} since {taken.since or 'a time that is not known'} runs"


def _held(note: Note) -> str:
    return f"it is held by {note.sentence}"


def _seen_busy(environment: Environment, looks: Mapping[str, BatchResult]) -> str:
    result = looks.get(environment.system[0])
    told = facts.pairs(result[f"lock {environment.name}"].stdout) if result else {}
    note = notes.parse(told.get("held", ""))
    if note is not None:
        return _held(note)
    return _busy(owner.parse(told["locked"])) if "locked" in told else ""


# --- the look ----------------------------------------------------------------------------------------------------------


def look(server: str, environments: Sequence[Environment], options: Options, *, locks: bool = False) -> Batch:
    """One script that asks a server everything; it changes nothing.

    Args:
        server: The server.
        environments: All that count.
        options: What the command line says.
        locks: Whether to look for locks, because none is taken.
    """
    batch = Batch("look")
    system = [one for one in environments if server in one.system]
    app = [one for one in environments if server in one.app]
    if system:
        batch.add(cleanup.states(), label="states", sudo=True)
        batch.add(cleanup.sweep_abandoned(dry_run=True), label="abandoned by root", sudo=True)
    for one in system:
        batch.add(cleanup.upstream(one), label=f"upstream {one.name}", sudo=True)
        batch.add(cleanup.sweep_system(one, dry_run=True), label=f"system {one.name}", sudo=True)
        if locks and server == one.system[0]:
            batch.add(lock.look(one), label=f"lock {one.name}", sudo=True)
    if app:
        batch.add(docker.containers(), label="containers")
        batch.add(cleanup.containers(), label="details")
        batch.add(cleanup.images(), label="images")
        batch.add(cleanup.networks(app[0].product), label="networks")
        batch.add(cleanup.sweep_abandoned(dry_run=True), label="abandoned")
    for one in app:
        where = background.directory(one)
        batch.add(jobs.bodies_script(where), label=f"retiring {one.name}")
        batch.add(jobs.prune_script(where, options.days, dry_run=True), label=f"jobs {one.name}")
        batch.add(cleanup.sweep_app(one, dry_run=True), label=f"app {one.name}")
    return batch


def _look_all(
    fleet: Fleet, environments: Sequence[Environment], options: Options, outcome: Outcome, *, locks: bool
) -> dict[str, BatchResult]:
    def work(connection: Connection) -> BatchResult:
        return look(connection.name, environments, options, locks=locks).run(connection, timeout=LOOK)

    servers = dict.fromkeys(name for one in environments for name in one.servers)
    found = {}
    for server, one in fleet.gather(dict.fromkeys(servers, work)).items():
        if isinstance(one.error, AxonError):
            # The lock's attempt has told the same already.
            if str(one.error) not in map(str, outcome.errors):
                outcome.errors.append(one.error)
            continue
        found[server] = one.value
        outcome.errors += [
            AxonError(f"{server}: cannot look at {section.label}: {sanitize(section.stderr.strip()[-300:])}")
            for section in one.value.failed
        ]
    return found


# --- the decision ------------------------------------------------------------------------------------------------------


@dataclass
class _Decision:
    """Puts what all servers said together."""

    project: Project
    involved: Sequence[Environment]
    wanted: Sequence[str]
    busy: Mapping[str, str]
    looks: Mapping[str, BatchResult]
    options: Options

    def __post_init__(self) -> None:
        self.states = {
            server: parse_states(result["states"].stdout)
            for server, result in self.looks.items()
            if "states" in result and result["states"].ok
        }
        self.truths = {one.name: self._truth(one) for one in self.involved}

    def _state(self, server: str, environment: Environment) -> State:
        return self.states[server].get((environment.product, environment.name), State())

    def _truth(self, environment: Environment) -> Truth:
        answered = [server for server in environment.system if server in self.states]
        upstreams = {
            server: section.stdout
            for server in answered
            if (section := self.looks[server][f"upstream {environment.name}"]).ok
        }
        return leftovers.truth(
            environment, {server: self._state(server, environment) for server in answered}, upstreams
        )

    @property
    def free(self) -> list[Environment]:
        """The environments to clean that nobody works on."""
        return [one for one in self.involved if one.name in self.wanted and one.name not in self.busy]

    def all(self, errors: list[AxonError]) -> tuple[list[Item], list[Left]]:
        """Everything that may go, and what stays in doubt; a server that answers nonsense is an error of its own."""
        items: list[Item] = []
        left: list[Left] = []
        for server in self.looks:
            try:
                items += self._swept(server)
                if any(server in one.app for one in self.free):
                    gone, stays = self._docker(server)
                    items, left = items + gone, left + stays
            except AxonError as error:
                errors.append(error)
        return items, left

    def _swept(self, server: str) -> list[Item]:
        result = self.looks[server]
        items: list[Item] = []
        for label in ("abandoned by root", "abandoned"):
            if label in result:
                items += _told(server, "", result[label].stdout, "found")
        for one in self.free:
            for label in (f"system {one.name}", f"app {one.name}"):
                if label in result:
                    items += _told(server, one.name, result[label].stdout, "found")
            if f"jobs {one.name}" in result:
                items += _pruned(server, one.name, result[f"jobs {one.name}"].stdout)
            if server in one.system and server in self.states:
                items += leftovers.records(server, one, self._state(server, one), cleanup.RECORDS)
        return list({(one.kind, one.target): one for one in items}.values())

    def _docker(self, server: str) -> tuple[list[Item], list[Left]]:
        result = self.looks[server]
        if not all(result[label].ok for label in ("containers", "details", "images", "networks")):
            return [], []  # the failure of the section is told
        now, details = leftovers.parse_details(server, result["details"].stdout)
        present = leftovers.parse_networks(server, result["networks"].stdout)
        attached = frozenset[str]().union(*(one.networks for one in details.values()))
        configured = {one.container.network for one in self.project.environments.values()}
        items: list[Item] = []
        left: list[Left] = []
        for one in (one for one in self.free if server in one.app):
            ours = facts.parse_containers(server, result["containers"].stdout, one)
            bodies = result[f"retiring {one.name}"]
            retiring = (
                frozenset(re.findall(r"\b[0-9a-f]{64}\b", bodies.stdout))
                if bodies.ok
                else {c.id for c in ours}
            )
            gone, stays = leftovers.containers(
                server, one, ours, details, self.truths[one.name], retiring=retiring, now=now
            )
            items += gone + leftovers.networks(server, one, present, attached=attached, configured=configured)
            left += stays
        ending = {one.target for one in items}
        used = {detail.image for one, detail in details.items() if one not in ending}
        gone, stays = self._images(server, used)
        return items + gone, left + stays

    def _images(self, server: str, used: Collection[str]) -> tuple[list[Item], list[Left]]:
        """Images of a repository go only if everybody who runs it there is known and nobody is at work."""
        present = leftovers.parse_images(server, self.looks[server]["images"].stdout)
        states = [state for known in self.states.values() for state in known.values()]
        protected = {digest for state in states for digest in state.digests()}
        deployed = {
            str(record.get("digest")): int(release)
            for state in states
            for release, record in sorted(state.records.items(), key=lambda pair: int(pair[0]))
        }
        items: list[Item] = []
        left: list[Left] = []
        repositories = {plain(one.image): one for one in self.free if server in one.app}
        for repository, asked in repositories.items():
            sharing = [one for one in self.involved if server in one.app and plain(one.image) == repository]
            found = leftovers.images(
                server, asked.image, present,
                used=used, protected=protected, deployed=deployed, keep=self.options.keep,
            )  # fmt: skip
            why = [f"{one.name}: {self.busy[one.name]}" for one in sharing if one.name in self.busy]
            why += [
                f"{one.name}: {doubt}" for one in sharing if (doubt := self.truths[one.name].images_doubt)
            ]
            if found and why:
                left.append(Left(server, asked.name, f"{len(found)} images of {asked.image}", "; ".join(why)))
            else:
                # What has lost its name belongs to no repository, and is found with each.
                items += [one for one in found if one.target not in {known.target for known in items}]
        return items, left


def _told(server: str, environment: str, text: str, word: str) -> list[Item]:
    found = (_TOLD.fullmatch(line) for line in text.split("\n"))
    return [
        Item(server, environment, one[2], one[3], one[3].rpartition("/")[2])
        for one in found
        if one is not None and one[1] == word
    ]


def _pruned(server: str, environment: str, text: str) -> list[Item]:
    lines = (line.partition(" ") for line in text.split("\n"))
    return [Item(server, environment, "job", job, job) for word, _, job in lines if word == "pruned" and job]


# --- the removal -------------------------------------------------------------------------------------------------------


def removal(
    server: str, environments: Sequence[Environment], items: Sequence[Item], options: Options
) -> Batch:
    """One script that removes what was decided on, on one server.

    Args:
        server: The server.
        environments: Those that are cleaned.
        items: What to remove there.
        options: What the command line says.
    """
    batch = Batch("removal")
    app = [one for one in environments if server in one.app]
    batch.add(cleanup.free_space(with_docker=bool(app)), label="before")
    for one in environments:
        _remove_of(batch, server, one, [item for item in items if item.environment == one.name], options)
    images = {item.target: item.references for item in items if item.kind == "image"}
    if images:
        batch.add(cleanup.remove_images(images), label="images")
    if any((item.environment, item.kind) == ("", "staging") for item in items):
        if any(server in one.system for one in environments):
            batch.add(cleanup.sweep_abandoned(dry_run=False), label="abandoned by root", sudo=True)
        if app:
            batch.add(cleanup.sweep_abandoned(dry_run=False), label="abandoned")
    batch.add(cleanup.free_space(with_docker=bool(app)), label="after")
    return batch


def _remove_of(batch: Batch, server: str, one: Environment, mine: Sequence[Item], options: Options) -> None:
    """Add what removes the things of one environment."""
    kinds = {item.kind for item in mine}
    containers = [item for item in mine if item.kind == "container"]
    if containers:
        stopped = [item.target for item in containers if not item.running]
        running = [item.target for item in containers if item.running]
        batch.add(cleanup.remove_containers(one, stopped, running), label=f"containers {one.name}")
    networks = [item.target for item in mine if item.kind == "network"]
    if networks:
        batch.add(cleanup.remove_networks(networks), label=f"networks {one.name}")
    gone = [item.name for item in mine if item.kind == "record"]
    if gone:
        batch.add(cleanup.remove_records(one, gone), label=f"records {one.name}", sudo=True)
    if "job" in kinds:
        script = jobs.prune_script(background.directory(one), options.days)
        batch.add(script, label=f"jobs {one.name}")
    if server in one.app and {"staging", "start"} & kinds:
        batch.add(cleanup.sweep_app(one, dry_run=False), label=f"app {one.name}")
    if server in one.system and {"staging", "audit"} & kinds:
        batch.add(cleanup.sweep_system(one, dry_run=False), label=f"system {one.name}", sudo=True)


def _act_all(fleet: Fleet, environments: Sequence[Environment], outcome: Outcome, options: Options) -> None:
    """Remove everything, and keep of the items those that are really gone."""
    planned = {
        server: [one for one in outcome.items if one.server == server]
        for server in {one.server for one in outcome.items}
    }
    patience = ACT + sum(one.drain.timeout + one.container.stop_timeout for one in environments)

    def work(connection: Connection) -> BatchResult:
        batch = removal(connection.name, environments, planned[connection.name], options)
        return batch.run(connection, timeout=patience)

    done: list[Item] = []
    for server, one in fleet.gather(dict.fromkeys(planned, work)).items():
        if isinstance(one.error, AxonError):
            outcome.errors.append(one.error)
            continue
        done += _removed(planned[server], one.value)
        outcome.failed += _failures(server, one.value)
        before, after = (
            facts.number(facts.pairs(one.value[label].stdout).get("free", ""))
            for label in ("before", "after")
        )
        if before is not None and after is not None:
            outcome.freed[server] = max(0, after - before) * 1024
    outcome.items = done


def _removed(planned: Sequence[Item], result: BatchResult) -> list[Item]:
    """Those of the planned items that the server tells as removed."""
    told: set[tuple[str, str]] = set()
    for section in result.values():
        told |= {(one.kind, one.target) for one in _told("", "", section.stdout, "removed")}
        if section.label.startswith("jobs "):
            told |= {("job", one.target) for one in _pruned("", "", section.stdout)}
    return [one for one in planned if (one.kind, one.target) in told]


def _failures(server: str, result: BatchResult) -> list[Failed]:
    failed = [
        Failed(server, one[2], one[3], one[4] or "")
        for section in result.values()
        for line in section.stdout.split("\n")
        if (one := _TOLD.fullmatch(line)) is not None and one[1] == "failed"
    ]
    failed += [
        Failed(
            server,
            section.label.partition(" ")[0],
            "",
            section.stderr.strip()[-300:] or f"exit code {section.exit_code}",
        )
        for section in result.failed
    ]
    return failed


def _local_runs(project: Project, *, dry_run: bool) -> list[Item]:
    """Old run directories on this machine: their timelines, beyond the newest."""
    from axon_tasks.deploy import timeline

    if dry_run:
        names = [one.run for one in timeline.runs(project.root)[RUNS:]]
    else:
        names = timeline.prune_runs(project.root, RUNS)
    return [Item("", "", "run", name, name) for name in names]

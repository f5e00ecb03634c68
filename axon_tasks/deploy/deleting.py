"""An environment is taken away from its servers, in an order in which it can be begun again at any point.

First nginx's files, so that no request comes any more; then containers, networks and images; last the state, with the lock
in it, and of that the lock's own server at the very end. Of what belongs to others nothing is touched: labels and names
must be the same to the letter, and an image goes only if nobody else needs it there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import cleanup, delete, docker, naming, nginx
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy import background, facts, history, leftovers, noting, problems
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.locking import lock_step, must_hold
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.errors import AxonError, StepFailedError
from axon_tasks.remote import Batch, jobs, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.config import Environment
    from axon_tasks.deploy.facts import Container
    from axon_tasks.deploy.leftovers import Detail, Image
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult, Section

#: Seconds for a look that lists images, and for removing them.
_LOOK, _REMOVE = 120.0, 600.0
_TOLD = re.compile(r"(removed|failed)=(file|container|network|image|state) (\S+)(?: (.*))?")
_KINDS = {"upstreams": "upstream", "sites": "site"}


class Seen(NamedTuple):
    """What an app server has.

    Attributes:
        containers: The environment's.
        networks: Ids and names of its networks that nobody else uses.
        images: Ids and names of images of its repository that nobody else needs.
    """

    containers: tuple[Container, ...]
    networks: dict[str, str]
    images: dict[str, tuple[str, ...]]


@dataclass
class Deletion:
    """What is to go, what is gone, and what stays.

    Attributes:
        files: The files to go on each system server, by the names of their directories.
        seen: What is to go on each app server.
        removed: What is gone on each server, in words.
        stays: What stays and why, in words.
    """

    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    stays: list[str] = field(default_factory=list)


def steps(run: Deployment, what: Deletion) -> tuple[Step, ...]:
    """The plan.

    Args:
        run: The run.
        what: It learns what was done.
    """
    run.action = "delete"
    run.aftermath = lambda: _how_it_is(run)
    environment = run.environment
    others = tuple(name for name in environment.servers if name != environment.system[0])
    return (
        lock_step(run),
        _look_step(run, what),
        # Noted before it is done: whatever becomes of it, somebody has done it.
        noting.audit_step(run, ("inspect",), lambda: {"action": "delete"}, name="note"),
        _files_step(run, what),
        _docker_step(run, what),
        _state_step(run, what, "state", ("docker",), others),
        _state_step(run, what, "end", ("state",), environment.system[:1]),
    )


def _how_it_is(run: Deployment) -> str:
    name = run.environment.name
    if not run.switched:
        return f"{name}: nothing was removed."
    return f"{name}: it is removed in part, and serves no more. Do it again: fab delete --env={name}"


def full_name(environment: Environment) -> str:
    """What is to be typed to delete an environment."""
    return naming.config_name(environment.product, environment.name)


# --- the look --------------------------------------------------------------------------------------------------------


def _look_step(run: Deployment, what: Deletion) -> Step:
    environment = run.environment

    def batch(server: str) -> Batch:
        asked = Batch("inspect")
        if server in environment.system:
            for kind in _KINDS:
                asked.add(nginx.inspect_file(environment, kind), label=kind, sudo=True)
            asked.add(cleanup.states(), label="states", sudo=True)
        if server in environment.app:
            asked.add(docker.containers(), label="containers")
            asked.add(cleanup.containers(), label="details")
            asked.add(cleanup.images(), label="images")
            asked.add(cleanup.networks(environment.product), label="networks")
        return asked

    def check(server: str, result: BatchResult) -> None:
        for section in result.values():
            must(server, f"looking for {section.label}", section)

    def learn(results: Mapping[str, BatchResult]) -> Report:
        must_hold(run)
        needed = _needed(run, what, results)
        for server in environment.system:
            what.files[server] = _files_of(run, what, server, results[server])
        for server in environment.app:
            what.seen[server] = _seen_on(run, what, server, results[server], needed)
        return Report(_told(what), durations(results))

    return Step(
        "inspect",
        "ask every server what there is of the environment, and what others need",
        ("lock",),
        servers=environment.servers,
        batch=batch,
        timeout=lambda: _LOOK,
        check=check,
        learn=learn,
    )


def _told(what: Deletion) -> str:
    count = sum(len(one.containers) for one in what.seen.values())
    images = sum(len(one.images) for one in what.seen.values())
    files = sum(map(len, what.files.values()))
    return f"{files} nginx files, {count} containers, {images} images"


def _files_of(run: Deployment, what: Deletion, server: str, result: BatchResult) -> tuple[str, ...]:
    """The files to go on a system server: those that this tool has written for this environment.

    Raises:
        StepFailedError: They are another product's.
    """
    environment, mine = run.environment, []
    for kind in _KINDS:
        text, path = (
            result[kind].stdout,
            f"{environment.nginx.directory}/{kind}/{full_name(environment)}.conf",
        )
        if nginx.is_ours(text, environment):
            mine.append(kind)
        elif text.startswith("# axon-tasks:"):
            raise StepFailedError(
                f"{server}: {path} belongs to another product: {sanitize(text.splitlines()[0])}",
                hint="Nothing was removed. Both names together must be unique on a server.",
            )
        elif text.strip():
            what.stays.append(f"{server}: {path}, which this tool did not write")
    return tuple(mine)


def _sharing(run: Deployment) -> list[Environment]:
    """Other environments of hosts.yml that run images of the same repository on one of the app servers."""
    mine = run.environment
    return [
        one
        for one in run.project.environments.values()
        if one.name != mine.name
        and leftovers.plain(one.image) == leftovers.plain(mine.image)
        and set(one.app) & set(mine.app)
    ]


class Needed(NamedTuple):
    """What others need.

    Attributes:
        digests: What the releases of other environments run that they can go back to.
        doubt: Why that is not certain; empty if it is.
    """

    digests: frozenset[str]
    doubt: str


def _needed(run: Deployment, what: Deletion, results: Mapping[str, BatchResult]) -> Needed:
    """Put together what all system servers say of other environments; those of others are asked for that."""
    told = {server: results[server]["states"].stdout for server in run.environment.system}
    sharing, doubt = _sharing(run), ""
    batch = Batch("others").add(cleanup.states(), label="states", sudo=True)
    for server in dict.fromkeys(name for one in sharing for name in one.system if name not in told):
        try:
            section = run.servers.run(server, batch, timeout=SHORT)["states"]
            must(server, "looking for what other environments need", section)
            told[server] = section.stdout
        except AxonError as error:
            doubt = f"what other environments need is not known: {error.summary.splitlines()[0]}"
    mine = (run.environment.product, run.environment.name)
    states = [(place, state) for text in told.values() for place, state in history.parse_states(text).items()]
    unreadable = {
        f"{place[1]}: the record of release {one} cannot be read"
        for place, state in states
        if place in {(other.product, other.name) for other in sharing}
        for one in state.kept
        if not state.records.get(one)
    }
    if unreadable and not doubt:
        doubt = min(unreadable)
    if doubt:
        what.stays.append(f"images of {run.environment.image}: {doubt}")
    digests = frozenset(digest for place, state in states if place != mine for digest in state.digests())
    return Needed(digests, doubt)


def _seen_on(run: Deployment, what: Deletion, server: str, result: BatchResult, needed: Needed) -> Seen:
    environment = run.environment
    ours = facts.parse_containers(server, result["containers"].stdout, environment)
    _, details = leftovers.parse_details(server, result["details"].stdout)
    rest = {one: detail for one, detail in details.items() if one not in {mine.id for mine in ours}}
    images = leftovers.parse_images(server, result["images"].stdout)
    return Seen(
        ours,
        _networks(run, what, server, result["networks"], rest),
        {} if needed.doubt else _images(environment, server, images, rest, needed),
    )


def _networks(
    run: Deployment, what: Deletion, server: str, section: Section, rest: Mapping[str, Detail]
) -> dict[str, str]:
    """The networks that are labelled as this environment's, which no other container has and no other environment names."""
    mine = run.environment
    attached = frozenset[str]().union(*(one.networks for one in rest.values()))
    named = {one.container.network for one in run.project.environments.values() if one.name != mine.name}
    found = {}
    for one in leftovers.parse_networks(server, section.stdout):
        if (one.product, one.environment) != (mine.product, mine.name) or not facts.is_container(one.id):
            continue
        if one.id in attached or one.name in named:
            what.stays.append(f"{server}: the network {one.name}, which others use")
        else:
            found[one.id] = one.name
    return found


def _images(
    environment: Environment,
    server: str,
    present: list[Image],
    rest: Mapping[str, Detail],
    needed: Needed,
) -> dict[str, tuple[str, ...]]:
    used = {one.image for one in rest.values()}
    found = leftovers.images(
        server, environment.image, present, used=used, protected=needed.digests, deployed={}, keep=0
    )
    return {
        one.target: one.references
        for one in found
        if not any(re.search(r"\s", name) for name in one.references)
    }


# --- the removal -----------------------------------------------------------------------------------------------------


def _files_step(run: Deployment, what: Deletion) -> Step:
    environment = run.environment

    def batch(server: str) -> Batch | None:
        kinds: tuple[str, ...] | Learnt = Learnt("kinds", "inspect") if run.preview else what.files[server]
        if not kinds:
            return None
        made = Batch("nginx", sudo=True, uninterruptible=True)
        return made.add(delete.files(environment, kinds), label="files")

    def check(server: str, result: BatchResult) -> None:
        section = result["files"]
        if not section.ok:
            told = "\n    ".join(sanitize(line) for line in section.stderr.strip().splitlines()[-6:])
            raise StepFailedError(
                f"{server}: removing nginx's files failed\n    {told}",
                hint=f"Does another file there name the upstream of {environment.name}? Change that first.",
            )
        _take(what, server, section)

    def learn(results: Mapping[str, BatchResult]) -> Report:
        # From here on it serves no more.
        run.switched = True
        return Report("nginx reloaded" if results else "no file of this tool is there", durations(results))

    return Step(
        "nginx",
        "remove nginx's two files, test, reload, confirm, or put them back",
        ("note",),
        servers=environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        commits=True,
        prepare=lambda: must_hold(run),
        batch=batch,
        condition="where they are there",
        timeout=lambda: SHORT,
        check=check,
        learn=learn,
    )


def _docker_step(run: Deployment, what: Deletion) -> Step:
    environment = run.environment

    def batch(server: str) -> Batch:
        where = background.directory(environment)
        made = Batch("docker")
        made.add(jobs.cancel_all_script(where, background.RETIRE, grace=background.GRACE), label="jobs")
        if run.preview:
            made.add(delete.containers(environment, Learnt("containers", "inspect")), label="containers")
            made.add(delete.networks(Learnt("networks", "inspect")), label="networks")
            return made.add(delete.images(Learnt("images", "inspect")), label="images")
        seen = what.seen[server]
        made.add(delete.containers(environment, tuple(one.id for one in seen.containers)), label="containers")
        if seen.networks:
            made.add(delete.networks(tuple(seen.networks)), label="networks")
        if seen.images:
            made.add(delete.images(seen.images.items()), label="images")
        return made

    def check(server: str, result: BatchResult) -> None:
        told = [line for section in result.values() for line in _take(what, server, section)]
        told += [f"{one.label}: {one.stderr.strip()[-300:] or one.exit_code}" for one in result.failed]
        if told:
            raise problems.explain(server, f"removing {environment.name}", "\n".join(told))

    def limit() -> float:
        most = max((len(one.containers) for one in what.seen.values()), default=0)
        return _REMOVE + most * environment.container.stop_timeout

    return Step(
        "docker",
        "end its jobs; stop and remove its containers; remove its networks and images that nobody else uses",
        ("nginx",),
        servers=environment.app,
        changes=frozenset(
            f"{server}:{thing}"
            for server in environment.app
            for thing in (f"containers of {environment.name}", "images")
        ),
        otherwise="finish",
        prepare=lambda: must_hold(run),
        batch=batch,
        timeout=limit,
        check=check,
        learn=lambda results: Report(servers=durations(results)),
    )


def _state_step(
    run: Deployment, what: Deletion, name: str, needs: tuple[str, ...], servers: tuple[str, ...]
) -> Step:
    environment = run.environment

    def batch(server: str) -> Batch:
        # A machine may be system and app server: then part of it is root's.
        made = Batch(name, sudo=server in environment.system, uninterruptible=True)
        return made.add(delete.state(environment), label="state")

    def check(server: str, result: BatchResult) -> None:
        _take(what, server, result["state"])
        must(server, "removing the state", result["state"])

    return Step(
        name,
        "remove the state directory, with records and jobs" + (" and the lock" if name == "end" else ""),
        needs,
        servers=servers,
        changes=frozenset(f"{server}:state of {environment.name}" for server in servers),
        otherwise="finish",
        prepare=lambda: must_hold(run),
        batch=batch,
        timeout=lambda: SHORT,
        check=check,
        learn=lambda results: Report(servers=durations(results)),
    )


def _take(what: Deletion, server: str, section: Section) -> list[str]:
    """Note what a server tells as removed; gives what could not be."""
    failed = []
    for line in section.stdout.split("\n"):
        found = _TOLD.fullmatch(line)
        if found is None:
            continue
        word, kind, target, why = found.groups()
        if word == "failed":
            failed.append(f"{kind} {_name_of(what, server, target)}: {sanitize(why or '')}")
        else:
            what.removed.setdefault(server, []).append(f"{kind} {_name_of(what, server, target)}")
    return failed


def _name_of(what: Deletion, server: str, target: str) -> str:
    """How people know it."""
    seen = what.seen.get(server)
    if seen is None:
        return sanitize(target)
    names = {one.id: one.name for one in seen.containers} | seen.networks
    names |= {one: references[0] for one, references in seen.images.items()}
    return sanitize(names.get(target, target))


def kept(environment: Environment) -> list[str]:
    """What a delete never touches, in words."""
    told = []
    if environment.env_file:
        told.append(f"the env file {environment.env_file} on {', '.join(environment.app)}")
    name = full_name(environment)
    told.append(f"nginx's logs /var/log/nginx/{name}*.log on {', '.join(environment.system)}")
    if environment.container.volumes:
        told.append(f"what is mounted: {', '.join(environment.container.volumes)}")
    return told

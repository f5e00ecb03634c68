"""What may be removed from a server, decided from what the servers said. When in doubt it stays, and that is told."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import naming, nginx
from axon_tasks.deploy import facts
from axon_tasks.deploy.history import is_release
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from axon_tasks.config import Environment
    from axon_tasks.deploy.facts import Container
    from axon_tasks.deploy.history import State

_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
#: States of a container that has ended or never began (`docker ps`, filter status).
_STOPPED = frozenset({"created", "exited", "dead"})


@dataclass(frozen=True)
class Item:
    """One thing that is no longer needed.

    Attributes:
        server: The server it is on; empty for this machine.
        environment: Whose it is; empty for what several share.
        kind: `container`, `image`, `network`, `job`, `staging`, `record`, `start`, `audit` or `run`.
        target: What a command acts on: an id or a path.
        name: How people know it.
        size: Bytes, as far as they are known.
        references: Of an image: the names to take away.
        running: Of a container: whether it has to be stopped first.
    """

    server: str
    environment: str
    kind: str
    target: str
    name: str = ""
    size: int = 0
    references: tuple[str, ...] = ()
    running: bool = False


@dataclass(frozen=True)
class Left:
    """One thing that looks unneeded and stays, because it is not certain."""

    server: str
    environment: str
    name: str
    why: str


@dataclass(frozen=True)
class Truth:
    """What is certain of an environment after all of its system servers have been asked.

    Attributes:
        current: The release that serves.
        kept: The releases whose things stay.
        slots: The slots that serve.
        ports: The ports that serve, where one upstream has no slots.
        doubt: Why it is not certain; empty if it is.
        images_doubt: Why it is not certain which images must stay; empty if it is.
    """

    current: str = ""
    kept: frozenset[str] = frozenset()
    slots: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    doubt: str = ""
    images_doubt: str = ""


def truth(environment: Environment, states: Mapping[str, State], upstreams: Mapping[str, str]) -> Truth:
    """Put together what the system servers of an environment say.

    Args:
        environment: The environment.
        states: Its state by system server; a server that did not answer is missing.
        upstreams: The text of its upstream file by system server.
    """
    missing = [server for server in environment.system if server not in states or server not in upstreams]
    if missing:
        why = f"{', '.join(missing)} did not say what serves"
        return Truth(doubt=why, images_doubt=why)
    currents = {state.current for state in states.values()}
    kept = frozenset(release for state in states.values() for release in state.kept)
    slots, ports = set[str](), set[int]()
    for server, text in upstreams.items():
        if naming.upstream_name(environment.product, environment.name, "a") in text:
            slots.add(states[server].slot)
        else:
            told = (facts.number(one.rpartition(":")[2]) for one in nginx.upstream_targets(text))
            ports |= {port for port in told if port is not None}
    doubt = ""
    if len(currents) > 1 or len(slots) > 1:
        doubt = "the system servers do not agree on what serves"
    elif currents == {""} and any(text.strip() for text in upstreams.values()):
        doubt = "there is no record of what serves"
    unreadable = sorted(
        release for state in states.values() for release in state.kept if not state.records.get(release)
    )
    images_doubt = doubt or (f"the record of release {unreadable[0]} cannot be read" if unreadable else "")
    return Truth(max(currents), kept, frozenset(slots), frozenset(ports), doubt, images_doubt)


@dataclass(frozen=True)
class Detail:
    """What `docker inspect` says of any container of a server.

    Attributes:
        status: `running`, `exited` and so on.
        created: When it was made, in seconds since 1970 by the clock of the server.
        image: The id of its image.
        restart: Its restart policy.
        networks: The ids of its networks.
    """

    status: str
    created: float
    image: str
    restart: str
    networks: frozenset[str]


@dataclass(frozen=True)
class Image:
    """One image of a server.

    Attributes:
        id: Its id.
        tags: Its names with tags.
        digests: Its names with digests.
        since: When it was made or last tagged there, in seconds since 1970.
        size: Its bytes, with those that it shares with others.
    """

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    since: float
    size: int


@dataclass(frozen=True)
class Network:
    """One network of a server, with the labels that say whose it is and the number of running containers in it."""

    id: str
    name: str
    product: str
    environment: str
    containers: int


def _rows(server: str, what: str, text: str, width: int) -> Iterator[list[Any]]:
    for line in text.split("\n"):
        if not line.startswith("["):
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, list) or len(row) != width:
            raise AxonError(f"{server}: unexpected answer when asked for {what}: {line[:200]!r}")
        yield row


def parse_details(server: str, text: str) -> tuple[float, dict[str, Detail]]:
    """Read all containers: the time on the server, and the details by id."""
    clock = re.search(r"^now=(\d{1,18})$", text, re.MULTILINE | re.ASCII)
    found = {}
    for one, status, created, image, restart, attached in _rows(server, "its containers", text, 6):
        ids = frozenset(map(str, attached if isinstance(attached, list) else ())) - {""}
        found[str(one)] = Detail(str(status), _seconds(created), str(image), str(restart), ids)
    return float(clock.group(1)) if clock else 0.0, found


def parse_images(server: str, text: str) -> list[Image]:
    """Read all images."""
    found = []
    for one, tags, digests, created, tagged, size in _rows(server, "its images", text, 6):
        since = max(_seconds(created), _seconds(tagged))
        found.append(
            Image(str(one), _names(tags), _names(digests), since, size if isinstance(size, int) else 0)
        )
    return found


def _names(values: object) -> tuple[str, ...]:
    return tuple(map(str, values)) if isinstance(values, list) else ()


def parse_networks(server: str, text: str) -> list[Network]:
    """Read the labelled networks."""
    return [
        Network(str(one), str(name), str(product), str(environment), count if isinstance(count, int) else 1)
        for one, name, product, environment, count in _rows(server, "its networks", text, 5)
    ]


def _seconds(moment: object) -> float:
    """Docker's RFC 3339 in seconds since 1970; 0 for what it writes if something never happened."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", str(moment), re.ASCII)
    try:
        parsed = dt.datetime.fromisoformat(match[1] + match[2].replace("Z", "+00:00")) if match else None
    except ValueError:
        return 0.0
    return max(0.0, parsed.timestamp()) if parsed and parsed.year > 1 else 0.0


def containers(
    server: str,
    environment: Environment,
    ours: Iterable[Container],
    details: Mapping[str, Detail],
    known: Truth,
    *,
    retiring: Collection[str],
    now: float,
) -> tuple[list[Item], list[Left]]:
    """Decide on the containers of one environment on one app server.

    Args:
        server: The app server.
        environment: The environment.
        ours: Its containers, selected by exact labels or AXON's exact name.
        details: What `docker inspect` says of each, by id.
        known: What is certain of the environment.
        retiring: Ids of containers that a running job retires.
        now: The time on the server.
    """
    items, left = [], []
    for one in ours:
        detail = details.get(one.id)
        if one.id in retiring or not _ID.fullmatch(one.id):
            continue
        verdict = _verdict(environment, one, detail, known, now)
        if verdict == "remove":
            running = detail is not None and detail.status == "running"
            items.append(Item(server, environment.name, "container", one.id, one.name, running=running))
        elif verdict != "keep":
            left.append(Left(server, environment.name, one.name, verdict))
    return items, left


def _verdict(  # noqa: PLR0911  (one return per rule reads best)
    environment: Environment, one: Container, detail: Detail | None, known: Truth, now: float
) -> str:
    """`keep`, `remove`, or why it is left."""
    if one.release == known.current or one.slot in known.slots or one.port in known.ports:
        return "keep"
    if detail is None:
        return "it could not be inspected"
    if one.release in known.kept:
        retire = f"no job retires it: fab steps.retire --env={environment.name}"
        return f"the previous release still runs, and {retire}" if detail.status == "running" else "keep"
    if known.doubt:
        return known.doubt
    if not is_release(one.release):
        return f"its release {one.release!a} is none of this tool"
    if detail.status in _STOPPED:
        return "remove"
    if detail.status != "running":
        return f"it is {detail.status}"
    if int(one.release) > int(known.current or 0):
        return _never_switched(environment, detail, now)
    return "remove" if one.slot else f"AXON made it, and it still runs: docker rm -f {one.name}"


def _never_switched(environment: Environment, detail: Detail, now: float) -> str:
    """A release that runs and is newer than the current one: what a killed deploy left, or somebody's next step."""
    # Health gives a release its restart policy, so that one without has never been healthy.
    if detail.restart not in {"no", ""} or environment.container.restart == "no":
        return f"it was started and never switched to: fab steps.switch --env={environment.name}, or deploy"
    if now - detail.created <= environment.health.timeout:
        return "it was started a moment ago and is not healthy yet"
    return "remove"


def plain(repository: str) -> str:
    """A repository without what Docker leaves out when it writes one."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def _references(image: Image, repository: str, deployed: Collection[str]) -> tuple[str, ...]:
    """The names of an image that are ours; of one that was deployed and has lost its name to another one, its id."""
    if not image.tags and not image.digests and image.id in deployed:
        return (image.id,)
    tags = [one for one in image.tags if plain(one.rpartition(":")[0]) == plain(repository)]
    digests = [one for one in image.digests if plain(one.partition("@")[0]) == plain(repository)]
    return (*tags, *digests)


def images(
    server: str,
    repository: str,
    present: Iterable[Image],
    *,
    used: Collection[str],
    protected: Collection[str],
    deployed: Mapping[str, int],
    keep: int,
) -> list[Item]:
    """Decide on the images of one repository on one server.

    Args:
        server: The app server.
        repository: The image's name without a tag.
        present: All images there.
        used: Ids of images that any container uses, running or not.
        protected: Digests, and names, of what the current and previous releases of all environments run.
        deployed: When a digest was last deployed, in seconds since 1970.
        keep: How many of the newest to leave beside those.
    """
    references = {
        image.id: found
        for image in present
        if _IMAGE_ID.fullmatch(image.id) and (found := _references(image, repository, deployed))
    }
    ours = [image for image in present if image.id in references]
    # An image that no registry has is known by its id.
    bytes_of = {image.id: {image.id, *(one.partition("@")[2] for one in image.digests)} for image in ours}

    def age(image: Image) -> tuple[float, str]:
        return max([image.since, *(deployed.get(one, 0) for one in bytes_of[image.id])]), image.id

    newest = {image.id for image in sorted(ours, key=age, reverse=True)[:keep]}
    items = []
    for image in sorted(ours, key=age):
        names = {plain(one) for one in image.tags}
        stays = image.id in newest or image.id in used or bytes_of[image.id] & set(protected)
        if not stays and not names & {plain(one) for one in protected}:
            names_of = references[image.id]
            items.append(
                Item(server, "", "image", image.id, names_of[0], size=image.size, references=names_of)
            )
    return items


def networks(
    server: str,
    environment: Environment,
    present: Iterable[Network],
    *,
    attached: Collection[str],
    configured: Collection[str | None],
) -> list[Item]:
    """Decide on the networks that are labelled as one environment's.

    Args:
        server: The app server.
        environment: The environment.
        present: Labelled networks there.
        attached: Ids of networks that any container has, also one that does not run.
        configured: Names that `hosts.yml` has for containers: the next deploy needs them.
    """
    return [
        Item(server, environment.name, "network", one.id, one.name)
        for one in present
        if (one.product, one.environment) == (environment.product, environment.name)
        and not one.containers
        and one.id not in attached
        and one.name not in configured
        and _ID.fullmatch(one.id)
    ]


def records(server: str, environment: Environment, state: State, keep: int) -> list[Item]:
    """Decide on the release records of one environment on one system server: the newest stay, and the kept ones."""
    newest = sorted(state.records, key=int, reverse=True)[:keep]
    gone = sorted(set(state.records) - set(newest) - state.kept, key=int)
    folder = f"{naming.state_directory(environment.product, environment.name)}/releases"
    return [Item(server, environment.name, "record", f"{folder}/{one}.json", one) for one in gone]

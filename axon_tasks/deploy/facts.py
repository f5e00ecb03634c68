"""What an inspection learns about servers, parsed strictly: a server's answer is hostile until it has been checked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.commands import docker, naming
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.config import Environment


#: The highest TCP port (RFC 9293: 16 bits).
MAX_PORT = 65535

#: A full container id (`docker ps --no-trunc`).
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,9}", re.ASCII)


def _unexpected(server: str, what: str, text: str) -> AxonError:
    return AxonError(
        f"{server}: unexpected answer to {what}: {text[:200]!r}",
        hint="Does the login shell of this user print something, or is `docker` not Docker?",
    )


def pairs(text: str) -> dict[str, str]:
    """The `key=value` lines of a script; a `body` takes everything that follows it."""
    found: dict[str, str] = {}
    lines = text.splitlines()
    for index, line in enumerate(lines):
        key, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+", key):
            continue
        if key == "body":
            found[key] = "\n".join([value, *lines[index + 1 :]])
            break
        found[key] = value
    return found


def number(text: str) -> int | None:
    """The whole number that a server wrote; None if it is none, or larger than anything that is counted here.

    `isdecimal` would let digits of other scripts through, and `int` refuses more than 4300 digits with an error.
    """
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) else None


def load_json(text: str) -> Any:
    """What a server wrote as JSON; one that nests too deep to be read is none.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_object(text: str) -> dict[str, Any]:
    """The object that somebody wrote as JSON; one that cannot be read, or is none, counts as empty."""
    try:
        value = load_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class Container(NamedTuple):
    """One of our containers on an app server.

    Attributes:
        id: The full id.
        name: Its name.
        running: Whether it runs.
        release: The release's id; of AXON's containers the time in the name.
        slot: `a`, `b`, or empty for a container that AXON made.
        port: The published host port, 0 if unknown.
        reference: The image as people wrote it.
        digest: The image's digest, empty if unknown.
        by_id: Whether that is the image's id, because it was sent to the server and no registry has it.
    """

    id: str
    name: str
    running: bool
    release: str
    slot: str
    port: int
    reference: str
    digest: str
    by_id: bool = False


def is_container(text: str) -> bool:
    """Whether a text can be a container's full id."""
    return _ID.fullmatch(text) is not None


def parse_containers(server: str, text: str, environment: Environment) -> tuple[Container, ...]:
    """Select this environment's containers: by exact labels, or by AXON's exact name where there are none."""
    ours = []
    for line in filter(None, text.splitlines()):
        try:
            values = load_json(line)
        except ValueError:
            raise _unexpected(server, "docker ps", line) from None
        if not isinstance(values, list) or len(values) != len(docker.PS_FIELDS) + len(docker.PS_LABELS):
            raise _unexpected(server, "docker ps", line)
        row: dict[str, str] = dict(zip((*docker.PS_FIELDS, *docker.PS_LABELS), map(str, values), strict=True))
        container = _container(row, environment)
        if container is None:
            continue
        if not _ID.fullmatch(container.id):
            raise _unexpected(server, "docker ps", line)
        ours.append(container)
    return tuple(ours)


def _container(row: Mapping[str, str], environment: Environment) -> Container | None:
    name = row["Names"].split(",")[0].lstrip("/")
    labelled = (row["product"], row["environment"]) == (environment.product, environment.name)
    if not labelled and (
        row["product"] or not naming.is_axon_container(name, environment.product, environment.name)
    ):
        return None
    published = re.search(r":([0-9]{1,5})->", row["Ports"])
    port = number(row["port"])
    return Container(
        id=row["ID"],
        name=name,
        running=row["State"] == "running",
        release=row["release"] if labelled else name.rsplit("-", 1)[-1],
        slot=row["slot"] if row["slot"] in naming.SLOTS else "",
        port=port if port is not None else int(published.group(1)) if published else 0,
        reference=row["image"] or row["Image"],
        digest=row["digest"],
        # Docker tells with which words an image was run; an id is told as it is.
        by_id=row["digest"] != "" and row["Image"] == row["digest"],
    )


class AppFacts(NamedTuple):
    """What an app server said.

    Attributes:
        server: Its name in `hosts.yml`.
        docker: The daemon's version.
        free_bytes: Free space where Docker keeps its data.
        env_file: `ok`, `missing` or `unreadable`; `ok` when none is configured.
        ports: The environment's two ports there; None before they have been chosen.
        containers: The environment's containers.
    """

    server: str
    docker: str
    free_bytes: int
    env_file: str
    ports: tuple[int, int] | None
    containers: tuple[Container, ...]

    def in_slot(self, slot: str) -> tuple[Container, ...]:
        """The containers of a slot."""
        return tuple(one for one in self.containers if one.slot == slot)


def parse_ports(server: str, text: str) -> tuple[int, int] | None:
    """The two reserved ports; None if there are none yet."""
    if not text.strip():
        return None
    match = re.fullmatch(r"([0-9]{1,5})\s+([0-9]{1,5})", text.strip())
    ports = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if not all(0 < port <= MAX_PORT for port in ports):
        raise _unexpected(server, "the reserved ports", text)
    return ports


def parse_checksum(server: str, text: str) -> str:
    """The SHA-256 of the variables with which something was started."""
    told = checksum_of(pairs(text))
    if not told:
        raise _unexpected(server, "the start", text)
    return told


def checksum_of(values: object) -> str:
    """The SHA-256 of variables in what was told or recorded of a start; empty if there is none."""
    told = values.get("environment") if isinstance(values, dict) else None
    return told if isinstance(told, str) and re.fullmatch(r"[0-9a-f]{64}", told, re.ASCII) else ""


def parse_env_file(server: str, text: str) -> str:
    """How the environment file stands there: `ok`, `missing` or `unreadable`."""
    told = text.strip()
    if told not in {"ok", "missing", "unreadable"}:
        raise _unexpected(server, "the look at the env file", text)
    return told


def parse_journal(line: str) -> str:
    """The run that a journal's first line names; `?` if it makes no sense: whatever it is, a run did not come back."""
    match = re.fullmatch(r"([\w.-]{1,64}) [0-9]{1,19} [ab] [ab-]", line, re.ASCII)
    return match.group(1) if match else "?"


class SystemFacts(NamedTuple):
    """What a system server said.

    Attributes:
        server: Its name in `hosts.yml`.
        version: nginx's version.
        running: Whether its master runs.
        included: Whether its configuration includes `axon.d`.
        flag_slot: The slot that the flag file selects.
        current: The id of the release that was recorded last, or empty.
        record: That release's record, or empty.
        upstream: The content of the environment's upstream file, or empty.
        site: The content of the environment's site file, or empty.
        unfinished: Whether a run was killed while it changed nginx's files there.
        journal: The run that was switching there and did not come back; empty if there is none.
        broken: What nginx says about its configuration, with everybody's files; empty if it would load it.
        maintenance: What is kept of who turned maintenance on, and when; empty while it is off.
    """

    server: str
    version: tuple[int, ...]
    running: bool
    included: bool
    flag_slot: str
    current: str
    record: Mapping[str, Any]
    upstream: str
    site: str
    unfinished: bool = False
    journal: str = ""
    broken: str = ""
    maintenance: str = ""


def parse_system(server: str, nginx: str, state: str, upstream: str, site: str) -> SystemFacts:
    """Put a system server's sections together."""
    told, stated = pairs(nginx), pairs(state)
    version = told.get("version", "")
    if not _VERSION.fullmatch(version) or stated.get("slot") not in naming.SLOTS:
        raise _unexpected(server, "the inspection of nginx", nginx + state)
    current = stated.get("current", "")
    return SystemFacts(
        server=server,
        version=tuple(map(int, version.split("."))),
        running=told.get("running") == "yes",
        included=told.get("included") == "yes",
        flag_slot=stated["slot"],
        current=current if number(current) is not None else "",
        record=json_object(stated.get("record", "")),  # it only informs
        upstream=upstream,
        site=site,
        unfinished=stated.get("unfinished") == "yes",
        journal=parse_journal(stated["journal"]) if "journal" in stated else "",
        broken=told.get("broken", ""),
        maintenance=stated.get("maintenance", ""),
    )


def parse_image_id(server: str, text: str) -> str:
    """The id of an image, as Docker writes it on a line of its own, or at the end of one."""
    found = re.search(r"(sha256:[0-9a-f]{64})\s*\Z", text, re.ASCII)
    if found is None:
        raise _unexpected(server, "docker image inspect", text)
    return found[1]


class Images(NamedTuple):
    """The images of an app server.

    Attributes:
        takes_parts: Whether its Docker loads an archive without the layers that it has.
        layers: The layers of each image, by its id.
    """

    takes_parts: bool
    layers: Mapping[str, tuple[str, ...]]


def parse_layers(server: str, text: str) -> Images:
    """Read which images a server has, and of which layers they are made."""
    if pairs(text).get("store") not in {"classic", "containerd"}:
        raise _unexpected(server, "docker info", text)
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        identity, _, layers = line.partition(" ")
        if _DIGEST.fullmatch(identity):
            found[identity] = parse_layer_list(server, layers)
    return Images(pairs(text)["store"] == "classic", found)


def parse_layer_list(server: str, text: str) -> tuple[str, ...]:
    """Read the layers of one image, the lowest one first."""
    try:
        layers = load_json(text)
    except ValueError:
        raise _unexpected(server, "docker image inspect", text) from None
    # An image without a layer has null.
    if layers is not None and not isinstance(layers, list):
        raise _unexpected(server, "docker image inspect", text)
    return tuple(map(str, layers or ()))


def parse_digest(server: str, text: str, repository: str) -> str:
    """The digest under which the registry knows the pulled image (`docker image inspect`'s RepoDigests)."""
    line = next((line for line in reversed(text.splitlines()) if line.startswith("[")), "")
    try:
        digests, _ = json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        raise _unexpected(server, "docker image inspect", text) from None
    for entry in digests if isinstance(digests, list) else ():
        name, _, digest = str(entry).partition("@")
        if name.removeprefix("docker.io/").removeprefix("library/") == repository.removeprefix(
            "docker.io/"
        ).removeprefix("library/") and re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            return digest
    raise _unexpected(server, "docker image inspect", text)

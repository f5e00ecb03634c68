"""The settings of the last run, so that the next one need not wait for them to be checked.

Checking `hosts.yml` takes as long as connecting to the servers that it names: mostly, the import of what checks it. A file
that has not changed since it was found right is right. Its settings are kept without the secrets, for their owner alone
and in the user's own cache: what comes with the project, by a checkout or from whoever else may write there, must not
decide where a password goes. Where a variable decides about more than a secret, only what leads to the servers is kept:
they are connected to while the settings are checked. Whatever is doubtful is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks import __version__, config
from axon_tasks.config.kept import document_of, project_from, servers_depend_on_variables
from axon_tasks.deploy.timeline import replace_file
from axon_tasks.errors import AxonError
from axon_tasks.hosts_file import environment_names, find_hosts_file
from axon_tasks.remote.fleet import AdHocHost, copied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from axon_tasks.config import Loaded, Project
    from axon_tasks.remote.fleet import ProjectLike

#: So many projects are remembered.
MOST = 50

#: What checks the settings, and knows the defaults: another one may find something else right.
_CHECKS = Path(config.__file__).parent
#: More is no file of this program.
_MOST_BYTES = 4 * 2**20
_VARIABLE = re.compile(rb"\$\{([A-Za-z_][A-Za-z0-9_]*)")
#: A tag that is certainly one (the grammar of distribution/reference); another one is for the settings to judge, whose own
#: checks would have to be imported first.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


class Inventory(NamedTuple):
    """How to reach servers; a `ProjectLike`.

    Attributes:
        hosts: By name.
        known_hosts: The project's own file of host keys.
    """

    hosts: Mapping[str, AdHocHost]
    known_hosts: Path | None = None


class Recalled(NamedTuple):
    """What was kept.

    Attributes:
        inventory: All hosts.
        servers: Those of the environments that were asked for.
        project: All settings, if they were kept.
    """

    inventory: Inventory
    servers: tuple[str, ...]
    project: Project | None = None


#: Where nothing is known.
NOTHING = Recalled(Inventory({}), ())


def inventory_of(project: ProjectLike) -> Inventory:
    """What of a project leads to its servers."""
    return Inventory({name: copied(host) for name, host in project.hosts.items()}, project.known_hosts)


def recall(
    hosts_file: str, env: str, tag: str | None, environ: Mapping[str, str] | None = None
) -> Recalled | None:
    """The settings, or at least the servers, if the file is the one that was right the last time.

    Args:
        hosts_file: As named on the command line, or empty.
        env: The environments, as named on the command line.
        tag: The same of the version.
        environ: Default: the environment of the process.
    """
    environ = os.environ if environ is None else environ
    try:
        source = (Path(hosts_file) if hosts_file else find_hosts_file(environ=environ)).absolute()
        kept, content = _read(place_of(source)), _content(source)
        if kept["digest"] != _digest(source, content, environ):
            return None
        environments = [kept["environments"][name] for name in environment_names(env)]
        if not all(_TAG.fullmatch(tag) if tag is not None else one["tag"] for one in environments):
            return None
        servers = tuple(dict.fromkeys(server for one in environments for server in one["servers"]))
        project = None if kept["project"] is None else project_from(kept["project"], content, environ)
        inventory = _inventory(kept) if project is None else inventory_of(project)
    except (AxonError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return (
        Recalled(inventory, servers, project) if servers and set(servers) <= inventory.hosts.keys() else None
    )


def remember(loaded: Loaded, environ: Mapping[str, str] | None = None) -> None:
    """Keep the settings of a project, or how its servers are reached, for the next run; where that is not sure, nothing.

    Args:
        loaded: Settings that were found right, with the text that they were made of.
        environ: As they were read with; default: the environment of the process.
    """
    environ = os.environ if environ is None else environ
    project, content = loaded.project, loaded.content
    try:
        if not project.source.is_file():
            return  # what can be read once only is not there the next time
        place = place_of(project.source)
        document = _kept(loaded)
        if document is None:
            place.unlink(missing_ok=True)
            return
        document |= {
            "digest": _digest(project.source, content, environ),
            "environments": {
                one.name: {"servers": list(one.servers), "tag": one.tag is not None}
                for one in project.environments.values()
            },
        }
        for folder in (place.parent.parent, place.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        with _ours(place.parent) as handle:
            replace_file(Path(place.name), json.dumps(document, indent=1) + "\n", handle)
            _forget_oldest(handle)
    except (AxonError, OSError, ValueError):
        return  # the next run connects a little later, and that is all


def _kept(loaded: Loaded) -> dict[str, Any] | None:
    """All settings; else how the servers are reached; None if even that depends on the values of variables."""
    settings = document_of(loaded.project, loaded.values)
    if settings is not None:
        return {"project": settings}
    inventory = inventory_of(loaded.project)
    secret = any(host.passphrase is not None for host in inventory.hosts.values())
    if secret or servers_depend_on_variables(loaded.values):
        return None
    return {
        "project": None,
        "known_hosts": str(inventory.known_hosts) if inventory.known_hosts else None,
        "hosts": {name: _document(host) for name, host in inventory.hosts.items()},
    }


def _forget_oldest(folder: int) -> None:
    """Projects come and go, above all in tests and in CI."""
    names = os.listdir(folder)
    if len(names) > MOST:
        names.sort(key=lambda name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns)
        for name in names[:-MOST]:
            os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[int]:
    """Open a folder that is its user's alone: where its path leads later does not matter.

    Raises:
        ValueError: Others may enter it, or it is no folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _refuse_foreign(os.fstat(handle), stat.S_ISDIR)
        yield handle
    finally:
        os.close(handle)


def _inventory(kept: Mapping[str, Any]) -> Inventory:
    known = kept["known_hosts"]
    return Inventory(
        {name: _host(name, one) for name, one in kept["hosts"].items()}, Path(known) if known else None
    )


def place_of(source: Path) -> Path:
    """Where the settings of a project are kept: among the user's caches (XDG Base Directory Specification, 0.8).

    Args:
        source: Its `hosts.yml`, absolute.

    Raises:
        ValueError: The user has no place for that.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # "If an implementation encounters a relative path ... it should ... ignore it."
    if not cache.is_absolute():
        cache = Path(os.path.expanduser("~"), ".cache")  # noqa: PTH111  (Path.home raises where there is none)
    if not cache.is_absolute():
        raise ValueError(cache)
    name = hashlib.sha256(os.fsencode(source)).hexdigest()
    return cache / "axon-tasks" / f"{name}.json"


def _document(host: AdHocHost) -> dict[str, Any]:
    kept = {name: value for name, value in host._asdict().items() if name not in {"name", "passphrase"}}
    return {**kept, "key": str(host.key) if host.key else None}


def _host(name: str, kept: Mapping[str, Any]) -> AdHocHost:
    return AdHocHost(name=name, **{**kept, "key": Path(kept["key"]) if kept["key"] else None})


def _read(path: Path) -> dict[str, Any]:
    with _ours(path.parent) as folder:
        # A pipe without a writer would be waited for.
        handle = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        _refuse_foreign(os.fstat(file.fileno()), stat.S_ISREG)
        found = json.loads(file.read(_MOST_BYTES))
    if not isinstance(found, dict):
        raise TypeError(path)
    return found


def _refuse_foreign(status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """What others could have written is not what `remember` has left.

    Raises:
        ValueError: They could.
    """
    if not is_kind(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ValueError(status)


def _content(source: Path) -> bytes:
    """The settings' text; what can be read once only, such as a pipe, is left to whoever needs it."""
    if not source.is_file():
        raise ValueError(source)
    return source.read_bytes()


def _variables(content: bytes) -> list[str]:
    return sorted({name.decode() for name in _VARIABLE.findall(content)})


def _digest(source: Path, content: bytes, environ: Mapping[str, str]) -> str:
    """What must be the same for the file to be right again: itself, who checks it, and which variables there are."""
    known = [name for name in _variables(content) if name in environ]
    stats = {one.name: one.stat() for one in sorted(_CHECKS.glob("*.py"))}
    checks = [(name, status.st_size, status.st_mtime_ns) for name, status in stats.items()]
    told = json.dumps([__version__, checks, str(source), os.path.expanduser("~"), known]).encode()  # noqa: PTH111  (a missing home is no error here)
    return hashlib.sha256(told + b"\0" + content).hexdigest()

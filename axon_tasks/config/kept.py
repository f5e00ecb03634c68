"""Settings that were found right, in a form that can be kept and had again without what checks them.

No secret is kept: where one stands, the file is read again, and the text is looked up there. Settings that a variable went
into are kept only where that setting is a secret, because another value of the variable would have to be checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from axon_tasks.config import project as made
from axon_tasks.config.faults import Report
from axon_tasks.config.secret import Secret, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from axon_tasks.config.document import Block

T = TypeVar("T")
#: The keys that lead to a setting.
_Way = tuple[str, ...]

#: What stands in the place of a secret.
_SECRET = True


def document_of(project: made.Project, values: Block) -> dict[str, Any] | None:
    """What is kept of a project, fit for JSON.

    Args:
        project: Settings that were found right.
        values: What they were made of, as written, with what environments inherit.

    Returns:
        Everything but the secrets; None if a variable decides about something else.
    """
    secrets = {way for way, value in _leaves(project, ()) if isinstance(value, Secret)}
    written = dict(_with_variables(values, ()))
    for way, value in written.items():
        # Of the defaults, what no environment has inherited decides about nothing, and is checked all the same.
        ways = [("environments", name, *way[1:]) for name in project.environments]
        inherited = [one for one in ways if way[0] == "defaults" and written.get(one) is value]
        if not secrets.intersection(inherited or [way]):
            return None
    document: dict[str, Any] = _plain(project)
    return document


def servers_depend_on_variables(values: Block) -> bool:
    """Whether a variable went into how servers are reached, or into which servers an environment has.

    Args:
        values: As `document_of` takes them.
    """
    for way, _ in _with_variables(values, ()):
        if way[0] in {"hosts", "known_hosts"} or (
            way[0] == "environments" and way[2:3] in {("system",), ("app",)}
        ):
            return True
    return False


def project_from(document: Mapping[str, Any], content: bytes, environ: Mapping[str, str]) -> made.Project:
    """The project that was kept.

    Args:
        document: What `document_of` gave.
        content: The text of the file, the same as then.
        environ: Where the variables of its secrets are looked up.

    Raises:
        ValueError: It is not what was kept.
        ConfigurationError: A secret cannot be had any more, because its variable is not set, or has no fit value.
    """
    read: list[Any] = []

    def look_up(way: _Way) -> Secret:
        if not read:
            read.append(_values(content, environ))
        value = read[0]
        for key in way:
            value = value[key]
        return Secret.of(value)

    return _project(document, look_up)


# --- from the file ---------------------------------------------------------------------------------------------


def _values(content: bytes, environ: Mapping[str, str]) -> Any:
    """The values as written, with what environments inherit.

    Raises:
        ConfigurationFaults: Something is wrong with them after all.
    """
    from axon_tasks.config.document import read_document
    from axon_tasks.config.faults import ConfigurationFaults
    from axon_tasks.config.merging import inherit

    report = Report("hosts.yml")
    values = inherit(read_document(content, environ, report))
    if report.faults:
        raise ConfigurationFaults(report.faults.values())
    return values


def _with_variables(value: Any, way: _Way) -> Iterator[tuple[_Way, Any]]:
    """The values that a variable went into; what is inherited is there twice, and is the same object."""
    if isinstance(value, (dict, list)):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _with_variables(entry, (*way, str(key)))
    elif getattr(value, "expanded", False):
        yield way, value


def _leaves(value: Any, way: _Way) -> Iterator[tuple[_Way, Any]]:
    if isinstance(value, made.SETTINGS):
        for name, entry in zip(value._fields, value, strict=True):
            yield from _leaves(entry, (*way, name))
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _leaves(entry, (*way, key))
    else:
        yield way, value


# --- there and back --------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, made.SETTINGS):
        return {name: _plain(entry) for name, entry in value._asdict().items()}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Secret):
        return _SECRET
    return str(value) if isinstance(value, Path) else value


def _project(kept: Mapping[str, Any], look_up: Callable[[_Way], Secret]) -> made.Project:
    hosts = {name: _host(host, ("hosts", name), look_up) for name, host in kept["hosts"].items()}
    environments = {
        name: _environment(one, ("environments", name), look_up) for name, one in kept["environments"].items()
    }
    paths = {name: _path(kept[name]) for name in ("known_hosts", "source", "root")}
    registry = _registry(kept["registry"], ("registry",), look_up)
    return _made(made.Project, kept, hosts=hosts, environments=environments, registry=registry, **paths)


def _environment(kept: Mapping[str, Any], way: _Way, look_up: Callable[[_Way], Secret]) -> made.Environment:
    container = kept["container"]
    env = {name: one_line(look_up((*way, "container", "env", name))) for name in container["env"]}
    return _made(
        made.Environment,
        kept,
        tls=_optional(made.Tls, kept["tls"]),
        registry=_registry(kept["registry"], (*way, "registry"), look_up),
        container=_made(made.Container, container, env=env, log=_made(made.LogOptions, container["log"])),
        health=_made(made.Health, kept["health"]),
        release_command=_optional(made.ReleaseCommand, kept["release_command"]),
        hooks=_optional(made.Hooks, kept["hooks"]),
        notify=_notify(kept["notify"], (*way, "notify"), look_up),
        drain=_made(made.Drain, kept["drain"]),
        maintenance=_made(made.Maintenance, kept["maintenance"]),
        nginx=_made(made.Nginx, kept["nginx"]),
        ports=_made(made.PortRange, kept["ports"]),
        build=_build(kept["build"], (*way, "build"), look_up),
    )


def _host(kept: Mapping[str, Any], way: _Way, look_up: Callable[[_Way], Secret]) -> made.Host:
    secret = None if kept["passphrase"] is None else look_up((*way, "passphrase"))
    return _made(made.Host, kept, key=_path(kept["key"]), passphrase=secret)


def _registry(
    kept: Mapping[str, Any] | None, way: _Way, look_up: Callable[[_Way], Secret]
) -> made.Registry | None:
    if kept is None:
        return None
    password = None if kept["password"] is None else look_up((*way, "password"))
    return _made(made.Registry, kept, password=password, password_file=_path(kept["password_file"]))


def _build(kept: Mapping[str, Any], way: _Way, look_up: Callable[[_Way], Secret]) -> made.Build:
    args = {name: one_line(look_up((*way, "args", name))) for name in kept["args"]}
    return _made(made.Build, kept, args=args)


def _notify(
    kept: Mapping[str, Any] | None, way: _Way, look_up: Callable[[_Way], Secret]
) -> made.Notify | None:
    return None if kept is None else _made(made.Notify, kept, webhook=look_up((*way, "webhook")))


def _optional(kind: type[T], kept: Mapping[str, Any] | None) -> T | None:
    return None if kept is None else _made(kind, kept)


def _path(kept: str | None) -> Path | None:
    return None if kept is None else Path(kept)


def _made(kind: type[T], kept: Mapping[str, Any], **inner: Any) -> T:
    """One of the settings, with all of its fields and no other."""
    names = set(kind._fields)  # type: ignore[attr-defined]  # all of them are named tuples
    if names != kept.keys():
        raise ValueError(kind.__name__)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}
    return kind(**values | inner)

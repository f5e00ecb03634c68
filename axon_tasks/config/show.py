"""The settings that are in force for an environment, and where each was set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from axon_tasks.config.document import Block, Items, Scalar
from axon_tasks.config.faults import dotted
from axon_tasks.config.project import SETTINGS
from axon_tasks.config.secret import MASK, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.config.faults import Place
    from axon_tasks.config.project import Environment
    from axon_tasks.config.reading import Loaded

BUILT_IN = "built-in default"

#: Settings that can hold anything. Where a variable went into one, it is masked: it may well be a secret.
_FREE_TEXT = frozenset(
    {
        "command",
        "entrypoint",
        "expect_body",
        "labels",
        "before_deploy",
        "after_switch",
        "after_deploy",
        "on_failure",
    }
)


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        path: Its path of keys, without the environment's name: `health.timeout`, `hosts.app1.address`.
        value: What is in force, fit for JSON; durations in seconds, secrets masked.
        origin: Where it was set: `hosts.yml:12`, `defaults hosts.yml:7` or `built-in default`.
    """

    path: str
    value: Any
    origin: str


def effective(loaded: Loaded, environment: Environment) -> list[Row]:
    """Return every setting of an environment and of its hosts.

    Args:
        loaded: The project with the places of its values.
        environment: One of its environments.
    """
    project, values, file = loaded.project, loaded.values, loaded.project.source.name
    product = Row("product", project.product, _origin(values, "product", file))
    known_hosts = Row("known_hosts", _plain(project.known_hosts), _origin(values, "known_hosts", file))
    rows = [product, known_hosts, *_rows(environment, values["environments"][environment.name], (), file)]
    for name in environment.servers:
        rows += _rows(project.hosts[name], values["hosts"][name], ("hosts", name), file)
    return rows


def _rows(settings: Any, block: object, path: tuple[str, ...], file: str) -> Iterator[Row]:
    for name in settings._fields:
        if name in {"name", "product"}:
            continue  # said by the path and by the first row
        value: Any = getattr(settings, name)
        written = block.get(name) if isinstance(block, Block) else None
        if name in _FREE_TEXT:
            value = _masked(value, written)
        if isinstance(value, SETTINGS):
            yield from _rows(value, written, (*path, name), file)
        elif isinstance(value, dict) and value:
            for key, entry in value.items():
                yield Row(dotted((*path, name, key)), _plain(entry), _origin(written, key, file))
        else:
            yield Row(dotted((*path, name)), _plain(value), _origin(block, name, file))


def _masked(value: Any, written: object) -> Any:
    """Replace what came from a variable by the mask."""
    if isinstance(value, tuple) and isinstance(written, Items):
        return tuple(_masked(part, source) for part, source in zip(value, written, strict=True))
    if isinstance(value, dict) and isinstance(written, Block):
        return {key: _masked(part, written[key]) for key, part in value.items()}
    return MASK if isinstance(written, Scalar) and written.expanded else value


def _origin(block: object, key: str, file: str) -> str:
    if not isinstance(block, Block) or key not in block:
        return BUILT_IN
    value = block[key]
    place: Place = value.place if isinstance(value, Scalar) else block.keys_at[key]
    origin = f"{file}:{place.line}"
    return f"defaults {origin}" if place.path[:1] == ("defaults",) else origin


def _plain(value: object) -> Any:
    """Turn a setting into something that JSON and tables can hold."""
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {} if isinstance(value, dict) else str(value)

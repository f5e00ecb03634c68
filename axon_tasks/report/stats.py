"""What containers use, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.remote.text import sanitize
from axon_tasks.report import columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.deploy.stats import Usage, Used

_HEADS = (
    "ENVIRONMENT", "SERVER", "RELEASE", "CPU", "MEMORY", "OF", "PROCESSES", "RECEIVED", "SENT", "RESTARTS",
)  # fmt: skip


def table(found: Sequence[Used]) -> str:
    """One line per running container; a percent is one of one processor."""
    return "\n".join(columns.lines(_HEADS, [row for one in found for row in _rows(one)]))


def _rows(used: Used) -> Iterator[tuple[str, ...]]:
    for one in used.usages:
        yield (
            used.environment,
            one.server,
            one.container.release or "-",
            "-" if one.cpu_percent is None else f"{one.cpu_percent:.1f} %",
            *(size(value) for value in (one.memory_bytes, one.limit_bytes)),
            "-" if one.processes is None else str(one.processes),
            *(size(value) for value in (one.received_bytes, one.sent_bytes)),
            "-" if one.restarts is None else str(one.restarts),
        )
    for server in used.errors:
        yield (used.environment, server, "no answer", *["-"] * 7)


def size(count: int | None) -> str:
    """Bytes in the unit that people would use (powers of 1024, IEC 80000-13)."""
    if count is None:
        return "-"
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:  # noqa: PLR2004  (powers of 1024)
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def as_json(found: Sequence[Used]) -> str:
    """The same as data; its shape is `schemas/stats.json`."""
    return json.dumps({"environments": [_environment(one) for one in found]}, indent=2)


def _environment(used: Used) -> dict[str, Any]:
    return {
        "environment": used.environment,
        "containers": [_container(one) for one in used.usages],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in used.errors.items()],
    }


def _container(one: Usage) -> dict[str, Any]:
    numbers = {name: getattr(one, name) for name in one._fields if name not in {"server", "container"}}
    return {
        "server": one.server,
        "name": sanitize(one.container.name),
        "release": sanitize(one.container.release),
        **numbers,
    }

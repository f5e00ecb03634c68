"""What a cleanup has removed, for people and as JSON."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.cleaning import Outcome
    from axon_tasks.deploy.leftovers import Item

_KINDS = {
    "container": "containers",
    "image": "images",
    "network": "networks",
    "job": "ended jobs",
    "staging": "temporary files",
    "record": "release records",
    "start": "kept starts of releases",
    "audit": "audit logs shortened",
    "run": "old runs",
}
#: How many names stand on a line.
_NAMES = 4
_HERE = "here"


def human(size: float) -> str:
    """Bytes in the unit that people would use."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004  (the next unit)
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def text(outcome: Outcome) -> str:
    """A few lines per server, what was skipped and why, and the total."""
    lines = [f"{name}: skipped, {why}" for name, why in outcome.skipped.items()]
    ordered = sorted(
        outcome.items, key=lambda one: (one.server == "", one.server, list(_KINDS).index(one.kind))
    )
    for server, mine in groupby(ordered, key=lambda one: one.server or _HERE):
        lines += _server(outcome, server, list(mine))
    for left in outcome.left:
        lines.append(f"{left.server}: {left.name} stays: {left.why}")
    lines.append(_total(outcome))
    return "\n".join(sanitize(line) for line in lines)


def _server(outcome: Outcome, server: str, items: Sequence[Item]) -> list[str]:
    freed = outcome.freed.get(server)
    lines = [server if freed is None else f"{server}  {human(freed)} freed"]
    for kind, group in groupby(items, key=lambda one: one.kind):
        names = [one.name or one.target for one in group]
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        lines.append(f"  {_KINDS[kind]:<20} {len(names):>4}  {', '.join(names[:_NAMES])}{more}")
    return lines


def _total(outcome: Outcome) -> str:
    count = len(outcome.items)
    if not count:
        return "Nothing was removed." if outcome.failed or outcome.errors else "Nothing to clean up."
    things = f"{count} thing{'' if count == 1 else 's'}"
    if outcome.dry_run:
        size = human(sum(one.size for one in outcome.items))
        return f"Would remove {things}, images of up to {size} (layers that they share counted for each); nothing was changed."
    freed = human(sum(outcome.freed.values()))
    return f"Removed {things}; {freed} freed (free disk space after minus before, whatever else wrote there meanwhile)."


def as_json(outcome: Outcome) -> str:
    """The same; the shape is documented at the task."""
    document = {
        "dry_run": outcome.dry_run,
        "environments": [
            {"name": name, "skipped": sanitize(outcome.skipped[name]) if name in outcome.skipped else None}
            for name in outcome.environments
        ],
        "items": [_plain(one) for one in outcome.items],
        "left": [
            {
                "server": one.server,
                "environment": one.environment,
                "name": sanitize(one.name),
                "why": sanitize(one.why),
            }
            for one in outcome.left
        ],
        "failed": [
            {"server": one.server, "kind": one.kind, "name": sanitize(one.name), "why": sanitize(one.why)}
            for one in outcome.failed
        ],
        "freed_bytes": dict(outcome.freed),
        "errors": [sanitize(str(one)) for one in outcome.errors],
    }
    return json.dumps(document, indent=2)


def _plain(item: Item) -> dict[str, Any]:
    return {
        "server": item.server or None,
        "environment": item.environment or None,
        "kind": item.kind,
        "name": sanitize(item.name or item.target),
        "target": sanitize(item.target),
        "bytes": item.size,
    }

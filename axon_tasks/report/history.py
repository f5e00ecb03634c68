"""The releases of an environment, for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from axon_tasks.deploy.release import GOOD
from axon_tasks.report import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.history import Entry, Past

_HEADS = ("", "RELEASE", "IMAGE", "DIGEST", "WHEN", "WHO", "COMMIT", "TOOK", "OUTCOME")


def table(past: Past, found: Sequence[Entry]) -> str:
    """One line per release, the newest first; what serves has a `>`, and what a rollback goes back to a `<`."""
    if not found:
        return f"{past.environment}: no release is recorded on {past.server}"
    lines = columns.lines(_HEADS, [_row(one) for one in found])
    lines.append(f"\n> serves on {past.server}")
    back = next((one for one in found if one.previous), None)
    if back:
        lines.append(f"< is where a rollback goes: fab rollback --env={past.environment}")
    return "\n".join(lines)


def _row(one: Entry) -> tuple[str, ...]:
    mark = ">" if one.current else "<" if one.previous else " "
    took = "-" if one.seconds is None else f"{one.seconds:.1f} s"
    return (
        mark,
        one.id,
        one.image.rsplit("/", 1)[-1] or "-",
        one.digest.removeprefix("sha256:")[:12] or "-",
        one.when or "-",
        one.who or "-",
        one.commit[:10] or "-",
        took,
        _outcome(one),
    )


def _outcome(one: Entry) -> str:
    if one.outcome != GOOD:
        return f"{one.outcome}: {one.error}" if one.error else one.outcome
    return f"ok, as release {one.of} ran" if one.of else "ok"


def as_json(past: Past, found: Sequence[Entry]) -> str:
    """The same as data; the shape is documented at the task."""
    return json.dumps(
        {
            "environment": past.environment,
            "server": past.server,
            "current": past.state.current,
            "releases": [asdict(one) for one in found],
            "audit": list(past.audit),
        },
        indent=2,
    )


def events(past: Past) -> str:
    """The end of the audit log."""
    return "\n".join(past.audit) or f"{past.environment}: the audit log on {past.server} is empty"

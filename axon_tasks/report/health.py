"""Answers to health checks, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.deploy import looking
from axon_tasks.remote.text import sanitize
from axon_tasks.report import columns, status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.deploy.looking import Check, Look

_HEADS = ("ENVIRONMENT", "SERVER", "ASKED", "ANSWER", "BY")


def text(looks: Sequence[Look]) -> str:
    """One line per check, and the beginning of what was answered where it is not healthy."""
    return "\n".join(columns.lines(_HEADS, [row for seen in looks for row in _rows(seen)]))


def _rows(seen: Look) -> Iterator[tuple[str, ...]]:
    for one in looking.checks(seen):
        body = f"  {one.reply.body[:200]}" if one.reply and not one.reply.good else ""
        yield (seen.environment.name, one.server, _asked(one), _answer(one), f"{one.by or '-'}{body}")
    for server in seen.errors:
        yield (seen.environment.name, server, "-", "no answer", "-")


def _asked(one: Check) -> str:
    if one.through:
        return "through nginx"
    return {True: "directly", False: "directly (gets no traffic)", None: "directly (traffic not known)"}[
        one.traffic
    ]


def _answer(one: Check) -> str:
    return status.answer(one.reply) if one.reply else one.why


def as_json(looks: Sequence[Look]) -> str:
    """The same as data; its shape is `schemas/health.json`."""
    return json.dumps({"environments": [_environment(seen) for seen in looks]}, indent=2)


def _environment(seen: Look) -> dict[str, Any]:
    return {
        "environment": seen.environment.name,
        "healthy": not looking.unhealthy(seen) and not seen.errors,
        "checks": [
            {
                "server": one.server,
                "through": one.through,
                "traffic": one.traffic,
                "by": sanitize(one.by),
                "answer": None if one.reply is None else status.reply(one.reply),
                "why": sanitize(one.why),
            }
            for one in looking.checks(seen)
        ],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in seen.errors.items()],
    }

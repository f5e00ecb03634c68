"""What a delete has removed, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy import deleting
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from axon_tasks.config import Environment
    from axon_tasks.deploy.deleting import Deletion


def text(environment: Environment, what: Deletion) -> str:
    """What is gone on each server, and what stays."""
    lines = []
    for server in environment.servers:
        told = what.removed.get(server, [])
        lines.append(f"{server}: {'nothing was there' if not told else f'removed {len(told)}'}")
        lines += [f"  {one}" for one in told]
    stays = [*what.stays, *deleting.kept(environment)]
    lines += ["Stays:", *(f"  {one}" for one in stays)]
    return "\n".join(sanitize(line) for line in lines)

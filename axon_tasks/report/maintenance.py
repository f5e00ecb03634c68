"""Whether maintenance is on, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.config import Environment
    from axon_tasks.deploy.notes import Note
    from axon_tasks.errors import AxonError


def text(environment: Environment, found: Mapping[str, Note | None]) -> str:
    """One line per system server, or one for all of them where they agree."""
    name = environment.name
    told = {server: _told(note) for server, note in found.items()}
    if len(set(told.values())) == 1:
        return f"{name}: maintenance is {next(iter(told.values()))}, on {', '.join(told)}"
    lines = [f"{name}: maintenance is not the same on all system servers"]
    lines += [f"  {server}: {one}" for server, one in told.items()]
    return "\n".join([*lines, f"To have it so everywhere: fab maintenance --env={name} --on, or --off"])


def _told(note: Note | None) -> str:
    return "off" if note is None else f"on, by {note.sentence}"


def as_json(
    environment: Environment, found: Mapping[str, Note | None], errors: Mapping[str, AxonError]
) -> str:
    """The same as data; its shape is `schemas/maintenance.json`."""
    document = {
        "environment": environment.name,
        "on": any(found.values()),
        "system": [
            {"server": server, "on": note is not None, "note": None if note is None else note.as_dict()}
            for server, note in found.items()
        ],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in errors.items()],
    }
    return json.dumps(document, indent=2)

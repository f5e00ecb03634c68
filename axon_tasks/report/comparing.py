"""What a deploy would change, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

from axon_tasks.deploy.comparing import IMAGE, SERVERS, SETTINGS, SITE, UPSTREAM, VARIABLES
from axon_tasks.remote.text import sanitize
from axon_tasks.report import console

if TYPE_CHECKING:
    from axon_tasks.deploy.comparing import Change, Compared

_WORDS = {
    IMAGE: "image",
    SERVERS: "app servers",
    SETTINGS: "how the container is run",
    VARIABLES: "its variables",
    UPSTREAM: "nginx's upstream, with a reload",
    SITE: "nginx's site, with a reload",
}
_COLOURS = {"-": "31", "+": "32", "@": "36"}


def text(stream: TextIO, found: Compared) -> str:
    """Each change with its lines, in colour on a terminal."""
    name = found.environment.name
    unknown = "what serves is not known" if found.errors else "nothing serves yet"
    release = f"release {found.release}" if found.release else unknown
    lines = [f"{name}: what a deploy would change ({release})"]
    for one in found.changes:
        where = f" on {', '.join(one.servers)}" if one.servers else ""
        lines += [f"\n{_WORDS[one.what]}{where}:", *(f"  {_coloured(stream, line)}" for line in one.diff)]
    lines += [f"\nnot compared: {server}, which could not be asked" for server in found.errors]
    if not found.changes and not found.errors:
        lines.append(
            "nothing but the container itself" if found.release else "everything: it is the first one"
        )
    lines += [f"\nnot compared: {sanitize(note)}" for note in found.notes]
    return "\n".join(lines)


def _coloured(stream: TextIO, line: str) -> str:
    shown = console.one_line(line) if line.startswith("@") else sanitize(line)
    return console.style(stream, shown, _COLOURS[line[0]]) if line[:1] in _COLOURS else shown


def as_json(found: Compared) -> str:
    """The same as data; its shape is `schemas/diff.json`."""
    document = {
        "environment": found.environment.name,
        "release": found.release,
        "changes": [_change(one) for one in found.changes],
        "notes": [sanitize(one) for one in found.notes],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in found.errors.items()],
    }
    return json.dumps(document, indent=2)


def _change(one: Change) -> dict[str, object]:
    return {"what": one.what, "servers": list(one.servers), "diff": [sanitize(line) for line in one.diff]}

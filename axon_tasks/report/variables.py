"""Variables for people and as JSON: their names, where they come from, and never a value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.config import MASK
from axon_tasks.deploy import variables
from axon_tasks.remote.text import sanitize
from axon_tasks.report import columns

if TYPE_CHECKING:
    from axon_tasks.deploy.variables import Difference, Files

_HEADS = ("VARIABLE", "VALUE", "FROM")


def table(found: Files) -> str:
    """One line per variable; where servers differ, it says so."""
    rows = [(one["name"], MASK, _origin(one)) for one in _rows(found)]
    lines = columns.lines(_HEADS, rows) if rows else []
    path = found.environment.env_file
    lines += [f"{server}: there is no {path}" for server, one in found.files.items() if one is None]
    return "\n".join(lines) or f"{found.environment.name}: no variables"


def _origin(one: dict[str, Any]) -> str:
    where = f"the env file on {', '.join(one['servers'])}" if one["servers"] else ""
    if one["hosts_yml"]:
        return f"hosts.yml, which counts before {where}" if where else "hosts.yml"
    if not one["same"]:
        return f"{where}; they are NOT the same on all app servers"
    return where


def _rows(found: Files) -> list[dict[str, Any]]:
    own = found.environment.container.env
    names = sorted({*own, *(name for server in found.files for name in found.values(server))})
    return [
        {
            "name": name,
            "hosts_yml": name in own,
            "servers": list(variables.servers_with(found, name)),
            "same": len({found.values(server).get(name) for server in found.files}) <= 1,
        }
        for name in names
    ]


def as_json(found: Files) -> str:
    """The same as data; its shape is `schemas/env.json`."""
    document = {
        "environment": found.environment.name,
        "env_file": found.environment.env_file,
        "variables": [{**one, "name": sanitize(one["name"])} for one in _rows(found)],
        "missing": [server for server, one in found.files.items() if one is None],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in found.errors.items()],
    }
    return json.dumps(document, indent=2)


def change(found: Difference) -> str:
    """Which variables come, change and go, a line each."""
    lines = [
        f"  {sign} {name}"
        for sign, names in (("+", found.added), ("~", found.changed), ("-", found.removed))
        for name in names
    ]
    return "\n".join(lines)

"""The lock of an environment, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from axon_tasks.deploy.locking import break_command, release_command

if TYPE_CHECKING:
    from axon_tasks.deploy.notes import Note
    from axon_tasks.deploy.unlocking import Broken, Standing


def text(found: Standing, hosts_file: str = "") -> str:
    """Who has the lock, and how it can be taken from them.

    Args:
        found: What a look has found.
        hosts_file: As it was named on the command line.
    """
    name, owner = found.environment, found.owner
    lines = [] if found.hold is None else [held(name, found.server, found.hold, hosts_file)]
    if owner is None:
        return "\n".join([*lines, f"{name}: nobody has the lock, on {found.server}"])
    if found.state == "locked":
        head = f"{name}: locked, on {found.server}"
    else:
        head = f"{name}: nobody has the lock, on {found.server}; its last owner has not finished"
    age = f" ({owner.age} ago)" if owner.age else ""
    rows = {
        "who": owner.name,
        "since": f"{owner.since or '-'}{age}",
        "command": owner.command or "-",
        "where": owner.place or "-",
        "run": owner.run or "-",
    }
    lines += [head, *(f"  {key:<8} {value}" for key, value in rows.items())]
    if found.state == "unfinished":
        lines.append("The next deploy starts from what is really there.")
    elif owner.token:
        command = break_command(name, owner.token, hosts_file)
        lines.append(f"If that run is dead, take the lock from it: {command}")
    return "\n".join(lines)


def held(name: str, server: str, note: Note, hosts_file: str = "") -> str:
    """Who holds an environment, and what ends that.

    Args:
        name: Of the environment.
        server: Where that is kept.
        note: Who, since when and why.
        hosts_file: As it was named on the command line.
    """
    return f"{name}: held by {note.sentence}, on {server}\n  No run changes anything there until: {release_command(name, hosts_file)}"


def as_json(found: Standing) -> str:
    """The same as data; the shape is documented at the task."""
    document = {
        "environment": found.environment,
        "server": found.server,
        "state": found.state,
        "owner": None if found.owner is None else found.owner.as_dict(),
        "hold": None if found.hold is None else found.hold.as_dict(),
    }
    return json.dumps(document, indent=2)


def broken(done: Broken) -> str:
    """What was done to whom."""
    name = done.environment
    if not done.ended:
        return (
            f"{name}: nobody held the lock any more, on {done.server}; what its last owner had left was removed:"
            f" {done.owner.sentence()}"
        )
    return (
        f"{name}: the lock was taken from {done.owner.sentence()}\n"
        f"On {done.server}, process {done.ended} held it and was ended. That run, if it lives, stops before its next change;"
        " a switch that it has begun is completed."
    )

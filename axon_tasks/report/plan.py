"""What `--dry-run` shows: the plan, and the scripts to the letter, with every secret masked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.deploy.engine import Step
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import Batch

#: Ends a script that is pasted; no line of a script is this.
_END = "AXON_SCRIPT"
_MASK = "********"


def text(run: Deployment, steps: Sequence[Step], title: str) -> str:
    """The plan and its scripts, for people; each script can be pasted into a shell on its server.

    Args:
        run: A run that has asked nobody.
        steps: Its plan.
        title: What would be done.
    """
    blocks = [
        f"# Plan: {title}",
        "# Nothing was contacted. Steps that need nothing of each other run at the same time.",
        "#",
    ]
    blocks += [f"# {line}".rstrip() for line in _table(steps)]
    blocks += [
        "#",
        "# The scripts, as they are sent, section by section. What is learnt on the way stands as ${name:?…}: to run a",
        "# script by hand, export these variables first, on the server and as the user that is named.",
    ]
    for step in steps:
        blocks += _scripts(run, step)
    return "\n".join(blocks)


def _table(steps: Sequence[Step]) -> list[str]:
    rows = [("STEP", "NEEDS", "SERVERS", "IF ANOTHER FAILS", "WHAT IT DOES")]
    for step in steps:
        about = step.about
        if step.condition:
            about += f" ({step.condition})"
        if step.commits:
            about += "; from here on nothing is taken back"
        elif step.undo is not None:
            about += "; taken back if something fails before the switch"
        otherwise = "is ended" if step.otherwise == "abort" else "finishes"
        rows.append(
            (step.name, ", ".join(step.needs) or "-", ", ".join(step.servers) or "-", otherwise, about)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]


def _scripts(run: Deployment, step: Step) -> Iterator[str]:
    """One block per different script: servers that get the same are named together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for server, batch in _batches(step):
        for section in batch.sections:
            user = "root" if section.sudo else run.project.hosts[server].user or "the user of ssh_config"
            head = f"section {section.label}, as {user}"
            if section.stdin is not None:
                head += f", which reads a secret on stdin: {_MASK}"
            groups.setdefault((head, section.text), []).append(server)
    for server in step.servers if step.undo is not None else ():
        assert step.undo is not None  # noqa: S101  (see the line before)
        for section in step.undo(server).sections:
            head = f"section {section.label}, only to take the step back"
            groups.setdefault((head, section.text), []).append(server)
    for (head, script), servers in groups.items():
        yield f"\n# ---- {step.name} on {', '.join(servers)}: {head}"
        yield f"sh <<'{_END}'\n{{\n{script}\n}} </dev/null\n{_END}"


def _batches(step: Step) -> Iterator[tuple[str, Batch]]:
    for server in step.servers:
        batch = step.batch(server)
        if batch is not None:
            yield server, batch


def document(run: Deployment, steps: Sequence[Step]) -> dict[str, Any]:
    """The plan as data: per step and server the sections, and the whole script that goes over the wire."""
    return {
        "environment": run.environment.name,
        "reference": run.wanted().reference,
        "steps": [_step(step) for step in steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "about": step.about,
        "needs": list(step.needs),
        "servers": list(step.servers),
        "reads": sorted(step.reads),
        "changes": sorted(step.changes),
        "otherwise": step.otherwise,
        "commits": step.commits,
        "condition": step.condition,
        "batches": {server: _batch(batch, step) for server, batch in _batches(step)},
        "undo": {server: _batch(step.undo(server), step) for server in step.servers} if step.undo else {},
    }


def _batch(batch: Batch, step: Step) -> dict[str, Any]:
    return {
        "name": batch.name,
        "uninterruptible": batch.uninterruptible,
        "fail_fast": step.fail_fast,
        "sections": [
            {
                "label": section.label,
                "command": section.text,
                "sudo": section.sudo,
                "timeout": section.timeout,
                "stdin": None if section.stdin is None else _MASK,
            }
            for section in batch.sections
        ],
        "script": batch.script(masked=True, fail_fast=step.fail_fast),
    }


def as_json(documents: Sequence[dict[str, Any]]) -> str:
    """Several plans as JSON."""
    return json.dumps({"plans": list(documents)}, indent=2)

"""Background jobs, for people and as JSON."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from axon_tasks.deploy.background import RETIRE
from axon_tasks.deploy.owner import in_one_unit
from axon_tasks.remote.text import sanitize
from axon_tasks.report import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.config import Environment
    from axon_tasks.deploy.background import Answer
    from axon_tasks.remote import Batch
    from axon_tasks.remote.jobs import Job

_HEADS = ("SERVER", "JOB", "WHAT", "SINCE", "STATE", "LAST LINE")


def table(answer: Answer) -> str:
    """All jobs, the oldest first, one line each; the last column may be as long as the log's last line."""
    rows = [
        (server, job.id, job.title or "-", age(job), _state(job), _last_line(job.log_tail))
        for server, found in answer.jobs.items()
        for job in found
    ]
    if not rows:
        return "" if answer.errors else f"{answer.environment}: no background jobs"
    return "\n".join(columns.lines(_HEADS, rows))


def details(answer: Answer) -> str:
    """Everything about one job, a block per server, with the end of its log."""
    return "\n\n".join("\n".join(_block(server, job)) for server, job in _each(answer))


def cancelled(answer: Answer, environment: Environment) -> str:
    """What became of a cancellation, and what it means."""
    lines, ended = [], []
    for server, job in _each(answer):
        before = answer.before.get(server)
        if before is not None and before.state != "running":
            lines.append(f"{server}: {job.id} had ended before ({_state(before)}); nothing was cancelled")
        elif job.state == "running":
            lines.append(f"{server}: {job.id} does not end, not even when it is killed")
        else:
            lines.append(f"{server}: {job.id} was cancelled ({_state(job)})")
            ended.append(job)
    if any(job.id.startswith(RETIRE) for job in ended):
        lines += [
            "What it had not removed yet stays there as it is: the old release's container keeps running, without traffic.",
            f"Retire it after all: fab steps.retire --env={environment.name}",
        ]
    return "\n".join(sanitize(line) for line in lines)


def scripts(environment: Environment, names: tuple[str, ...], batch: Batch) -> str:
    """The script that would be sent, and to which servers."""
    where = ", ".join(names)
    return (
        f"# {environment.name}: would be sent to {where}; nothing was contacted\n{batch.script(masked=True)}"
    )


def as_json(answer: Answer) -> str:
    """The jobs and the errors; the shape is documented at the tasks."""
    document = {
        "environment": answer.environment,
        "jobs": [_plain(server, job) for server, job in _each(answer)],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in answer.errors.items()],
    }
    return json.dumps(document, indent=2)


def age(job: Job) -> str:
    """How long ago a job was started, in one unit."""
    return "-" if job.age is None else in_one_unit(job.age)


def _each(answer: Answer) -> Iterator[tuple[str, Job]]:
    return ((server, job) for server, found in answer.jobs.items() for job in found)


def _state(job: Job) -> str:
    return f"done, exit {job.exit_code}" if job.state == "done" else job.state


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    # Container ids as docker itself shows them: whole, they would fill the line.
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", lines[-1].strip()) if lines else ""


def _when(seconds: int | None) -> str | None:
    """As ISO 8601; a server can have written any number into its file."""
    try:
        moment = None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _block(server: str, job: Job) -> list[str]:
    rows = {
        "job": job.id,
        "command": job.title or "-",
        "state": _state(job) + _explained(job),
        "started": f"{_when(job.started) or '-'} ({age(job)} ago)",
        "ended": _when(job.ended) or "-",
        "log": "" if job.log_tail.strip() else "(nothing)",
    }
    lines = [f"{server}:", *(f"  {name:<8} {sanitize(text)}".rstrip() for name, text in rows.items())]
    return lines + [f"    | {sanitize(line)}" for line in job.log_tail.splitlines() if job.log_tail.strip()]


def _explained(job: Job) -> str:
    if job.state == "lost":
        return ": it ended without an exit code, because it was killed or the server was restarted"
    return ""


def _plain(server: str, job: Job) -> dict[str, Any]:
    return {
        "server": server,
        "id": sanitize(job.id),
        "title": sanitize(job.title),
        "state": job.state,
        "exit_code": job.exit_code,
        "started": _when(job.started),
        "ended": _when(job.ended),
        "seconds_ago": job.age,
        "log": sanitize(job.log_tail),
    }

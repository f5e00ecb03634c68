"""The lock of an environment: who works on it now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from axon_tasks.commands import records
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.deploy.run import durations
from axon_tasks.errors import LockedError, StepFailedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult

#: Exit status of the lock script when somebody else holds it.
LOCK_TAKEN = 75


def lock_step(run: Deployment, needs: tuple[str, ...] = ()) -> Step:
    """Take the environment's lock on the first system server; it is held as long as the run's connection lives."""
    server = run.environment.system[0]

    def batch(_server: str) -> Batch:
        owner = {"who": who(), "since": utc_now(), "command": run.options.command or "deploy"}
        return Batch("lock", sudo=True).add(records.hold_lock(run.environment, owner), label="lock")

    def check(server: str, result: BatchResult) -> None:
        section = result["lock"]
        if section.exit_code == LOCK_TAKEN:
            raise _locked(run, server, section.stdout)
        if not section.ok:
            raise problems.explain(
                server, "taking the lock", section.stderr or section.stdout, code=section.exit_code
            )

    def learn(results: Mapping[str, BatchResult]) -> Report:
        run.under_lock = parse.pairs(results[server]["lock"].stdout)
        return Report(servers=durations(results))

    return Step(
        "lock",
        "take the lock of the environment, or say who has it",
        needs,
        servers=(server,),
        changes=frozenset({f"{server}:lock of {run.environment.name}"}),
        batch=batch,
        holds="locked=yes",
        check=check,
        learn=learn,
    )


def _locked(run: Deployment, server: str, told: str) -> LockedError:
    try:
        owner = json.loads(told)
        by = sanitize(f"{owner['who']} since {owner['since']} ({owner['command']})")
    except (ValueError, KeyError, TypeError):
        by = "somebody else"
    return LockedError(
        f"{run.environment.name} is locked by {by}, on {server}",
        hint="Wait until that run has ended; the lock goes with its connection.",
    )


def outdated(run: Deployment) -> bool:
    """Whether somebody else has deployed between the inspection and the moment when the lock was free.

    The inspection does not wait for the lock, because that would cost a round trip in every deploy; what the lock's
    script saw once it had the lock tells whether that went well.
    """
    seen = run.system[run.environment.system[0]]
    told = run.under_lock.get("current", "")
    current = told if told.isdecimal() else ""
    return (run.under_lock.get("slot"), current) != (seen.flag_slot, seen.current)


def must_hold(run: Deployment) -> None:
    """Refuse to go on without the lock.

    Raises:
        StepFailedError: The connection that held it is gone.
    """
    if run.servers.lost:
        raise StepFailedError(
            f"{run.environment.name}: the lock was lost, because its connection to {run.environment.system[0]} broke",
            hint="Deploy again.",
        )

"""The lock of an environment: who works on it now."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from axon_tasks.commands import records
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.errors import LockedError, StepFailedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment

#: Exit status of the lock script when somebody else holds it.
LOCK_TAKEN = 75


def hold_lock(run: Deployment) -> Report:
    """Take the environment's lock on the first system server; it is held as long as the connection lives.

    Raises:
        LockedError: Somebody else holds it; says who, since when, and for what.
    """
    server = run.environment.system[0]
    owner = {"who": who(), "since": utc_now(), "command": run.options.command or "deploy"}
    began = time.monotonic()
    batch = Batch("lock", sudo=True).add(records.hold_lock(run.environment, owner), label="lock")
    answered, said = threading.Event(), bytearray()

    def listen(_label: str, stream: str, chunk: bytes) -> None:
        if stream == "stdout":
            said.extend(chunk)
            if b"locked=yes" in said:
                answered.set()

    lock = batch.start(run.servers.fleet[server], on_output=listen)
    while not answered.wait(0.02):
        if lock.done():
            break
    if not answered.is_set():
        section = lock.result()["lock"]
        if section.exit_code == LOCK_TAKEN:
            raise _locked(run, server, section.stdout)
        raise problems.explain(
            server, "taking the lock", section.stderr or section.stdout, code=section.exit_code
        )
    run.lock = lock
    run.under_lock = parse.pairs(said.decode(errors="replace"))
    return Report(servers={server: time.monotonic() - began})


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
    if run.lock is not None and run.lock.done():
        raise StepFailedError(
            f"{run.environment.name}: the lock was lost, because its connection to {run.environment.system[0]} broke",
            hint="Deploy again.",
        )


def release_lock(run: Deployment) -> None:
    """Give the lock back; a connection that is gone has done so already."""
    if run.lock is not None:
        run.lock.cancel()
        run.lock = None

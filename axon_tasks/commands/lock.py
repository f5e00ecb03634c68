"""Shell text for the lock of an environment, which is kept on its first system server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import naming
from axon_tasks.commands.shell import centiseconds, script

if TYPE_CHECKING:
    from axon_tasks.config import Environment

#: What the scripts print when the lock is had, as a line; what a deployer sends to give it back; what comes before what
#: it sends as a sign of life and gets back.
HELD, GIVE_BACK, ALIVE = "locked=yes", "bye", "alive="

#: Exit statuses: somebody else has the lock; no sign of life came; the token is not the owner's; nobody knows who has it;
#: somebody holds the environment; nobody does.
TAKEN, EXPIRED, NOT_THE_OWNER, UNKNOWN_HOLDER, ON_HOLD, NOT_ON_HOLD = 75, 76, 77, 78, 79, 80


def _state(environment: Environment) -> str:
    return naming.state_directory(environment.product, environment.name)


def hold(environment: Environment, owner: dict[str, Any], *, wait: float = 0, expiry: float = 30) -> str:
    """Take the environment's lock and hold it as long as signs of life come in; exit TAKEN and the owner if it is taken.

    Args:
        environment: Whose lock.
        owner: Who takes it, for others to read; with a `token`.
        wait: Seconds to wait for another owner to give it back.
        expiry: Seconds without a sign of life after which it is let go; whole ones, for busybox.
    """
    return script(
        "lock_hold",
        ("lock",),
        state=_state(environment),
        flag=naming.flag_file(environment.product, environment.name),
        owner=json.dumps(owner, sort_keys=True),
        heeds=1,
        lock_wait=centiseconds(wait),
        lock_expiry=max(1, round(expiry)),
    )


def look(environment: Environment) -> str:
    """Whether somebody has the lock, or has not finished; takes nothing."""
    return script("tell_lock", ("lock",), state=_state(environment))


def acquire(environment: Environment, note: str, line: str) -> str:
    """Hold the environment against every run, for longer than the script lives; exit TAKEN or ON_HOLD if that cannot be.

    Args:
        environment: Which one.
        note: Who does it and why, for others to read.
        line: What the audit log is to say.
    """
    return script(
        "lock_acquire && audit", ("lock", "records"), state=_state(environment), heeds=1, lock_wait=0,
        note=note, line=line,
    )  # fmt: skip


def release(environment: Environment, line: str) -> str:
    """Hold the environment no longer; exit NOT_ON_HOLD if nobody did. Parameters are those of `acquire`."""
    return script(
        "lock_release && audit", ("lock", "records"), state=_state(environment), heeds=0, lock_wait=0, line=line
    )  # fmt: skip


def take_away(environment: Environment, token: str, line: str) -> str:
    """Take the lock from the owner with this token; exit NOT_THE_OWNER if that is not the owner.

    Args:
        environment: Whose lock.
        token: Of the owner that is meant.
        line: What the audit log is to say; what stood beside the lock is added to it.
    """
    return script(
        "lock_break && audit", ("lock", "records"), state=_state(environment), token=token, line=line
    )

"""The lock of an environment: who works on it now."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import lock
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import notes, problems
from axon_tasks.deploy import owner as owners
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.hold import TIMES
from axon_tasks.deploy.notes import Note
from axon_tasks.deploy.run import durations
from axon_tasks.errors import LockedError, StepFailedError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.config import Environment
    from axon_tasks.deploy.hold import Hold
    from axon_tasks.deploy.owner import Owner
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult, Section


def hold_batch(environment: Environment, note: dict[str, Any], *, wait: float = 0) -> Batch:
    """What takes the lock and holds it, with a `Hold`.

    Args:
        environment: Whose lock.
        note: Who takes it.
        wait: Seconds to wait for somebody else to give it back.
    """
    text = lock.hold(environment, note, wait=wait, expiry=TIMES.expiry)
    return Batch("lock", sudo=True).add(text, label="lock", listens=True)


def taken_by(section: Section) -> Owner | None:
    """Who has the lock that could not be had; None if that was not the reason."""
    if section.exit_code != lock.TAKEN:
        return None
    return owners.parse(parse.pairs(section.stdout).get("owner", ""))


def held_by(section: Section) -> Note | None:
    """Who holds the environment, so that its lock could not be had; None if that was not the reason."""
    if section.exit_code != lock.ON_HOLD:
        return None
    return notes.parse(parse.pairs(section.stdout).get("held", "")) or Note()


def release_command(environment: str, hosts_file: str = "") -> str:
    """What to type to have an environment held no longer."""
    return f"fab lock.release --env={environment}{_named(hosts_file)}"


def on_hold(environment: Environment, note: Note, hosts_file: str = "", *, over: str = "") -> LockedError:
    """What is told to whoever cannot have the lock because somebody holds the environment.

    Args:
        environment: Which one.
        note: Who holds it, and why.
        hosts_file: As it was named on the command line.
        over: What was waited for in vain, in words.
    """
    command = release_command(environment.name, hosts_file)
    return LockedError(
        f"{environment.name} is held by {note.sentence}, on {environment.system[0]}{over}",
        hint=f"When that is over: {command}",
    )


def lock_step(run: Deployment, needs: tuple[str, ...] = ()) -> Step:
    """Take the environment's lock on the first system server; it is held as long as this run lives."""
    server = run.environment.system[0]

    def batch(_server: str) -> Batch:
        options = run.options
        note = owners.note(options.command or "deploy", run=options.run_id, token=options.token)
        return hold_batch(run.environment, note, wait=options.wait_lock)

    def check(server: str, result: BatchResult) -> None:
        section = result["lock"]
        owner = taken_by(section)
        if owner is not None:
            raise _locked(run, server, owner)
        note = held_by(section)
        if note is not None:
            raise on_hold(run.environment, note, run.options.hosts_file, over=_over(run))
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
        listen=lambda server, line: _tell(run, server, line),
        holds=lock.HELD,
        check=check,
        learn=learn,
    )


def _tell(run: Deployment, server: str, line: str) -> None:
    """Pass on, once, whom this run waits for, and who has not finished."""
    key, _, told = line.partition("=")
    if key == "waiting":
        limit = owners.in_one_unit(round(run.options.wait_lock))
        run.listener.message(
            server, f"waiting for the lock, for at most {limit}: {owners.parse(told).sentence()}"
        )
    elif key == "waiting_held":
        limit = owners.in_one_unit(round(run.options.wait_lock))
        note = notes.parse(told) or Note()
        run.listener.message(
            server, f"waiting for at most {limit}; the environment is held by {note.sentence}"
        )
    elif key == "stale":
        run.listener.message(
            server,
            f"warning: the last run has not finished: {owners.parse(told).sentence()}."
            " The next steps start from what is really there.",
        )


def break_command(environment: str, token: str, hosts_file: str = "") -> str:
    """What to type to take the lock from its owner."""
    return f"fab lock.break --env={environment} --token={token}{_named(hosts_file)}"


def _named(hosts_file: str) -> str:
    return f" --hosts-file={shlex.quote(hosts_file)}" if hosts_file else ""


def _over(run: Deployment) -> str:
    waited = run.options.wait_lock
    return f"; {owners.in_one_unit(round(waited))} of waiting are over" if waited else ""


def _locked(run: Deployment, server: str, owner: Owner) -> LockedError:
    name = run.environment.name
    hint = "Wait longer" if run.options.wait_lock else "Wait for it: add --wait-lock=10m"
    if owner.token:
        command = break_command(name, owner.token, run.options.hosts_file)
        hint += f". If that run is dead, take the lock from it: {command}"
    return LockedError(f"{name} is locked by {owner.sentence()}, on {server}{_over(run)}", hint=hint)


def outdated(run: Deployment) -> bool:
    """Whether somebody else may have changed something between the inspection and the moment when the lock was free.

    The inspection does not wait for the lock, because that would cost a round trip in every deploy; what the lock's
    script saw once it had the lock tells whether that went well. Who had to wait for the lock, or got it from somebody
    who has not finished, knows that it did not: there may be containers which no record tells of.
    """
    if {"waited", "stale"} & run.under_lock.keys():
        return True
    seen = run.system[run.environment.system[0]]
    told = run.under_lock.get("current", "")
    current = told if parse.number(told) is not None else ""
    return (run.under_lock.get("slot"), current) != (seen.flag_slot, seen.current)


def must_hold(run: Deployment) -> None:
    """Refuse to go on without the lock.

    Raises:
        StepFailedError: It is lost, or nobody knows.
    """
    for hold in run.servers.held:
        why = lost(hold)
        if why:
            raise StepFailedError(
                f"{run.environment.name}: the lock was lost, because {why}",
                hint=f"See who works there now: fab lock.status --env={run.environment.name}; then deploy again.",
            )


def lost(hold: Hold) -> str:
    """Why a lock is not ours any more, or may not be; empty if it is."""
    if hold.ended:
        code = hold.code
        if code is None:
            return f"its connection to {hold.server} broke"
        if code == lock.EXPIRED:
            return f"{hold.server} heard nothing from here for {TIMES.expiry:g} s"
        return f"it was taken away on {hold.server}"
    if hold.silent > TIMES.trust:
        return f"{hold.server} has not answered for {hold.silent:.0f} s, so that somebody else may have it by now"
    return ""

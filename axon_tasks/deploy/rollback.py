"""A rollback: an earlier release serves again, exactly as it ran; if it still runs, nothing but the switch is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axon_tasks.commands import docker, naming, records
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy import background, history, hooks
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import lock_step
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.release import FAILED
from axon_tasks.deploy.run import Again
from axon_tasks.deploy.staging import new_release, plan_step, stage_step
from axon_tasks.deploy.starting import fetch_step, start_step
from axon_tasks.deploy.switching import job_id, record_step, retire_batch, retire_step, switch_step, wait_step
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch, jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult

#: Seconds in which a job that retires a release has ended when it is told to.
_GRACE = 5.0


@dataclass
class Past:
    """What the servers know of earlier releases.

    Attributes:
        states: What each system server has recorded.
        started: What each app server has kept of its releases' starts, by release.
        held: What goes on running there though it was being retired: ids of containers.
        ending: What is being stopped, so that nobody can be sent to it.
    """

    states: dict[str, history.State] = field(default_factory=dict)
    started: dict[str, dict[str, docker.Started]] = field(default_factory=dict)
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)

    @property
    def records(self) -> dict[str, Mapping[str, Any]]:
        """All records; the first system server's count where servers differ."""
        known: dict[str, Mapping[str, Any]] = {}
        for state in self.states.values():
            for release, record in state.records.items():
                known[release] = known.get(release) or record
        return known


def steps(run: Deployment, to: str = "") -> tuple[Step, ...]:
    """The plan of a rollback.

    Args:
        run: The run.
        to: The release to go back to, or forward again; empty for the one before the one that serves.
    """
    past = Past()
    run.action = "rollback"
    # A release runs with the variables that were kept of it: today's file may be gone.
    run.environment = run.environment._replace(env_file=None)

    def decide() -> None:
        choose(run, past, to)

    def starts() -> bool:
        return run.preview or bool(run.again and not run.again.instant)

    waited = run.options.wait or run.options.sequential
    return (
        lock_step(run),
        look_step(run, past),
        plan_step(run, ("lock", "inspect"), decide=decide, look=lambda: look_step(run, past)),
        _only_if(starts, fetch_step(run, ("plan",))),
        stage_step(run, ("plan",)),
        _only_if(starts, start_step(run, ("plan", "fetch"))),
        switch_step(run, ("stage", "start")),
        record_step(run, ("switch",)),
        retire_step(run, ("switch",)),
        *hooks.switch_steps(run, ("switch",)),
        *((wait_step(run, ("retire",)),) if waited else ()),
    )


def _only_if(needed: Callable[[], bool], step: Step) -> Step:
    """The same step, which sends nothing where the release still runs."""

    def learn(results: Mapping[str, BatchResult]) -> Report:
        return step.learn(results) if results else Report("it still runs")

    return step._replace(
        prepare=lambda: step.prepare() if needed() else None,
        batch=lambda server: step.batch(server) if needed() else None,
        learn=learn,
        condition="unless that release still runs",
    )


def look_step(run: Deployment, past: Past) -> Step:
    """Inspect, ask for earlier releases, and have what is being retired go on until it is known which one is wanted.

    It does not wait for the lock, because that would cost a round trip: whoever cannot have it goes on with what was
    held back.
    """
    environment = run.environment

    def before(server: str, asked: Batch) -> None:
        if server in environment.system:
            asked.add(records.state(environment), label="releases", sudo=True)
        if server in environment.app:
            where = background.directory(environment)
            asked.add(docker.started(environment), label="started")
            asked.add(jobs.cancel_all_script(where, background.RETIRE, grace=_GRACE), label="hold")
            asked.add(docker.hold_back(environment, where), label="held")

    def check(server: str, result: BatchResult) -> None:
        for label in ("releases", "started", "hold", "held"):
            if label in result:
                must(server, "looking for earlier releases", result[label])
        if server in environment.system:
            states = history.parse_states(result["releases"].stdout)
            past.states[server] = states.get((environment.product, environment.name), history.State())
        if server in environment.app:
            _read_app(past, server, result)

    return inspect_step(run, heals=True, before=before)._replace(
        about="ask every server what serves, what runs, and which releases there were; what is being retired goes on",
        check=check,
        undo=lambda server: _retire_again(run, past, server),
    )


def _read_app(past: Past, server: str, result: BatchResult) -> None:
    kept: dict[str, docker.Started] = {}
    for line in result["started"].stdout.splitlines():
        release, _, text = line.removeprefix("started=").partition(" ")
        if history.is_release(release) and (one := docker.parse_started(release, text)):
            kept[release] = one
    past.started[server] = kept
    told = [line.partition("=") for line in result["held"].stdout.splitlines()]
    past.held[server] = tuple(value for key, _, value in told if key == "held" and parse.is_container(value))
    past.ending |= {value for key, _, value in told if key == "ending"}


def _retire_again(run: Deployment, past: Past, server: str) -> Batch:
    """Go on with what was held back, because nothing came of the rollback."""
    held = past.held.get(server, ())
    if not held or server not in run.environment.app:
        return Batch("undo").add("true", label="nothing")
    return retire_batch(run, f"{job_id(run)}-again", held)


def choose(run: Deployment, past: Past, to: str) -> None:
    """Decide what to go back to, and how.

    Raises:
        StepFailedError: There is no such release, or a server lacks what is needed to start it.
    """
    first = past.states[run.environment.system[0]]
    serving = run.serving()
    now = serving[0].release if serving else first.current
    known = history.State(first.slot, now, past.records)
    release = to or known.previous
    _must_be_known(run, known, release, to)
    record = known.records[release]
    again = Again(
        release=release,
        record=record,
        kept=_kept(past, release, record),
        instant=_still_runs(run, past, release),
        instead_of=now,
        replaced=known.records.get(now, {}),
        forward=history.is_release(now) and int(known.origin(release)) > int(known.origin(now)),
    )
    run.again = again
    if again.instant:
        return
    digest = _must_be_startable(run, again)
    one = next(iter(again.kept.values()))
    new_release(run, reference=one.reference, digest=digest, by_id=one.by_id)


def _kept(past: Past, release: str, record: Mapping[str, Any]) -> dict[str, docker.Started]:
    """What each app server has kept of a release, with what its record says of the variables there."""
    servers = record.get("servers")
    told = servers if isinstance(servers, dict) else {}
    return {
        server: kept[release]._replace(checksum=parse.checksum_of(told.get(server)))
        for server, kept in past.started.items()
        if release in kept
    }


def _must_be_known(run: Deployment, known: history.State, release: str, to: str) -> None:
    name = run.environment.name
    look = f"See which there are: fab history --env={name}"
    if not release:
        raise StepFailedError(
            f"{name}: there is no earlier release to go back to", hint=f"{look}; any of them: --to=ID"
        )
    if release not in known.records:
        raise StepFailedError(f"{name}: there is no record of a release {to!a}", hint=look)
    if release == known.current:
        raise StepFailedError(f"{name}: release {release} serves already", hint=look)
    if known.outcome(release) == FAILED:
        raise StepFailedError(f"{name}: release {release} has never served: its deploy failed", hint=look)


def _still_runs(run: Deployment, past: Past, release: str) -> bool:
    """Whether the release runs in the other slot on every app server, and nobody stops it; it is adopted then."""
    if not run.previous:
        return False
    slot = naming.other_slot(run.previous)
    for app in run.app.values():
        found = app.in_slot(slot)
        if [one.release for one in found] != [release] or not found[0].running or found[0].id in past.ending:
            return False
    return run.adopt(slot)


def _must_be_startable(run: Deployment, again: Again) -> str:
    """The digest that every app server is to run.

    Raises:
        StepFailedError: A server does not know what it was given to run, or another one says something else.
    """
    name = run.environment.name
    digest = str(again.record.get("digest", ""))
    sent = " --no-pull" if any(one.by_id for one in again.kept.values()) else ""
    anew = (
        f"Deploy that image with today's settings: fab deploy --env={name} --tag={digest or 'DIGEST'}{sent}"
    )
    lacking = [server for server in run.environment.app if server not in again.kept]
    if lacking:
        raise StepFailedError(
            f"{name}: {', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} not kept how release"
            f" {again.release} was started",
            hint=anew,
        )
    digests = {one.digest for one in again.kept.values()} | ({digest} if digest else set())
    if len(digests) > 1:
        raise StepFailedError(
            f"{name}: the servers do not agree on the image of release {again.release}: {', '.join(sorted(digests))}",
            hint=anew,
        )
    return digests.pop()


def unknown(run: Deployment) -> None:
    """What a dry run, which asks nobody, does not know of a rollback: names stand for it."""
    of = Learnt("earlier", "plan")
    digest = Learnt("digest", "inspect")
    words = Learnt("the arguments that this server has kept", "inspect")
    kept = docker.Started(of, run.environment.image, digest, Learnt("restart", "inspect"), (words,))
    run.again = Again(
        of, {}, dict.fromkeys(run.environment.app, kept), False, Learnt("current", "inspect"), {}
    )
    run.release = run.wanted()._replace(reference=run.environment.image, digest=digest)

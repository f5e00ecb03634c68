"""nginx and the records brought back in line with what really runs, after somebody changed something by hand.

Nothing is started and nothing is stopped: of the releases that run and are healthy on all app servers, one is found that all
system servers are to send traffic to and to have recorded. What is so already is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.commands import docker, naming, nginx, records
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy import background, history, looking, noting, problems
from axon_tasks.deploy.converging import settle_step
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import lock_step, must_hold
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.release import FAILED, GOOD
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.staging import differs, managed_files, render_files, stage_step
from axon_tasks.deploy.switching import check_switch, lost_switch, switch_batch, wanted_switch
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch, jobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.deploy.looking import Running
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult


class Found(NamedTuple):
    """A release that runs somewhere.

    Attributes:
        release: Its id.
        slot: Its slot.
        image: Its image, as people know it.
        traffic: The system servers that send requests to it.
        lacks: Why it cannot be the one that serves, a sentence each; empty if it can.
    """

    release: str
    slot: str
    image: str
    traffic: tuple[str, ...]
    lacks: tuple[str, ...]

    def told(self) -> str:
        """In one line."""
        gets = f", gets traffic from {', '.join(self.traffic)}" if self.traffic else ", gets no traffic"
        return f"release {self.release} ({self.image}, slot {self.slot}{gets}): {'; '.join(self.lacks) or 'runs everywhere'}"


@dataclass
class Sync:
    """What was seen, and what is changed.

    Attributes:
        to: The release that was asked for; empty to have it found.
        states: What each system server has recorded.
        running: What runs on each app server, and what it answered.
        retiring: Containers that a job is retiring.
        changes: What is changed on each system server, a sentence each.
    """

    to: str = ""
    states: dict[str, history.State] = field(default_factory=dict)
    running: dict[str, tuple[Running, ...]] = field(default_factory=dict)
    retiring: set[str] = field(default_factory=set)
    changes: dict[str, list[str]] = field(default_factory=dict)


def steps(run: Deployment, sync: Sync) -> tuple[Step, ...]:
    """The plan.

    Args:
        run: The run.
        sync: What is asked for; it learns what was done.
    """
    run.action = "sync"
    # Nothing is started: the env file may be gone.
    run.environment = run.environment._replace(env_file=None)
    run.aftermath = lambda: _how_it_is(run)
    return (
        lock_step(run),
        _look_step(run, sync, ("lock",)),
        _plan_step(run, sync),
        stage_step(run, ("plan",), install=differs),
        _sync_step(run),
        _record_step(run, sync),
    )


def _how_it_is(run: Deployment) -> str:
    name = run.environment.name
    done = f"done on {', '.join(sorted(run.switched_on))}" if run.switched_on else "nothing was switched"
    return f"{name}: {done}; see what is not as it should be: fab status --env={name}"


def _look_step(run: Deployment, sync: Sync, needs: tuple[str, ...] = ()) -> Step:
    """Ask every server what serves, what runs, what is recorded, and whether it is healthy."""
    environment = run.environment

    def before(server: str, asked: Batch) -> None:
        if server in environment.system:
            asked.add(records.state(environment), label="releases", sudo=True)
        if server in environment.app:
            address = docker.probe_address(run.project.hosts[server].private_address)
            asked.add(docker.look(environment, address), label="look")
            asked.add(jobs.bodies_script(background.directory(environment)), label="retiring")

    def learn(results: Mapping[str, BatchResult]) -> Report:
        report = plain.learn(results)
        for server, result in results.items():
            _take(run, sync, server, result)
        return report

    plain = inspect_step(run, needs, reserve=False, heals=True, before=before)
    limit = SHORT + 3 * environment.health.probe_timeout
    return plain._replace(
        about="ask every server what serves, what runs and is healthy, and what is recorded",
        timeout=lambda: limit,
        learn=learn,
    )


def _take(run: Deployment, sync: Sync, server: str, result: BatchResult) -> None:
    for label in ("releases", "look", "retiring"):
        if label in result:
            must(server, "looking for what runs and is recorded", result[label])
    environment = run.environment
    if server in environment.system:
        states = history.parse_states(result["releases"].stdout)
        sync.states[server] = states.get((environment.product, environment.name), history.State())
    if server in environment.app:
        sync.running[server] = tuple(looking.running(run.app[server].containers, result["look"].stdout))
        sync.retiring |= set(re.findall(r"\b[0-9a-f]{64}\b", result["retiring"].stdout))


# --- which release ---------------------------------------------------------------------------------------------------


def _plan_step(run: Deployment, sync: Sync) -> Step:
    def prepare() -> None:
        must_hold(run)
        if any(told.journal for told in run.system.values()):
            # What a run that did not come back had begun to record; which release is to serve is decided here.
            run.servers.perform(settle_step(run))
            run.servers.perform(_look_step(run, sync))
        chosen = choose(run, sync)
        if not run.adopt(chosen.slot):
            raise StepFailedError(f"{run.environment.name}: release {chosen.release} has gone meanwhile")
        render_files(run)
        sync.changes = {server: _changes(run, sync, server) for server in run.environment.system}

    def learn(_results: Mapping[str, BatchResult]) -> Report:
        count = sum(map(len, sync.changes.values()))
        release = run.wanted()
        return Report(
            f"release {release.id} in slot {release.slot} is to serve; "
            + (f"{count} thing{'' if count == 1 else 's'} to change" if count else "nothing to do")
        )

    return Step(
        "plan",
        "find the release that is to serve, and what is not in line with that",
        ("inspect",),
        prepare=prepare,
        learn=learn,
    )


def choose(run: Deployment, sync: Sync) -> Found:
    """Find the release that all system servers are to send traffic to.

    Raises:
        StepFailedError: There is none, or it is not certain which; all that run are listed.
    """
    found = releases(run, sync)
    if sync.to:
        return _asked_for(run, sync.to, found)
    # What gets traffic and fails must not be left silently: that is a rollback, and somebody's decision.
    wounded = [one for one in found if one.traffic and one.lacks]
    if wounded:
        raise _refusal(run, "what gets traffic cannot be taken for what is to serve", found)
    fits = [one for one in found if not one.lacks]
    pool = [one for one in fits if one.traffic] or fits
    recorded = {state.current for state in sync.states.values()}
    for choice in (pool, [one for one in pool if one.release in recorded]):
        if len(choice) == 1:
            return choice[0]
    if not fits:
        raise _refusal(run, "no release runs and is healthy on all app servers", found)
    raise _refusal(run, "it is not certain which release is to serve", found)


def _asked_for(run: Deployment, release: str, found: Sequence[Found]) -> Found:
    for one in found:
        if one.release == release and not one.lacks:
            return one
    raise _refusal(run, f"release {release} does not run, healthy, on all app servers", found)


def _refusal(run: Deployment, why: str, found: Sequence[Found]) -> StepFailedError:
    name = run.environment.name
    lines = [f"{name}: {why}", *(f"    {one.told()}" for one in found)]
    if not found:
        lines.append("    no release of this tool runs")
    fits = [one.release for one in found if not one.lacks]
    if fits:
        hint = f"Take one of them: fab sync --env={name} --release={fits[0]}"
    else:
        hint = f"Deploy: fab deploy --env={name}; or go back: fab rollback --env={name}"
    return StepFailedError("\n".join(lines), hint=hint)


def releases(run: Deployment, sync: Sync) -> list[Found]:
    """Every release of this tool that runs on an app server, the newest first."""
    known = {
        (one.container.release, one.container.slot): one
        for running in sync.running.values()
        for one in running
        if one.container.slot and one.container.running and history.is_release(one.container.release)
    }
    return [
        Found(
            release,
            slot,
            one.container.reference.rsplit("/", 1)[-1],
            _traffic(run, release, slot),
            tuple(_lacks(run, sync, release, slot)),
        )
        for (release, slot), one in sorted(known.items(), key=lambda pair: -int(pair[0][0]))
    ]


def _traffic(run: Deployment, release: str, slot: str) -> tuple[str, ...]:
    """The system servers that send requests to a release, on any app server."""
    places = {
        nginx.target(run.address(server), one.port)
        for server, app in run.app.items()
        for one in app.in_slot(slot)
        if one.release == release
    }
    return tuple(
        server
        for server, told in run.system.items()
        if places.intersection(nginx.targets(run.environment, told.upstream, told.flag_slot))
    )


def _lacks(run: Deployment, sync: Sync, release: str, slot: str) -> list[str]:
    """Why a release cannot be the one that serves."""
    told = []
    for server in run.environment.app:
        mine = [one for one in sync.running[server] if one.container.slot == slot]
        there = [one for one in mine if one.container.release == release]
        ports = run.app[server].ports
        if not there or not there[0].container.running:
            told.append(f"does not run on {server}")
        elif len(mine) > 1:
            told.append(f"is not alone in slot {slot} on {server}")
        elif there[0].container.id in sync.retiring:
            told.append(f"is being retired on {server}")
        elif ports is None or there[0].container.port != ports[naming.SLOTS.index(slot)]:
            told.append(f"has another port on {server} than is reserved there, which only a deploy mends")
        elif not (there[0].reply and there[0].reply.good):
            answer = there[0].reply.told if there[0].reply else "it could not be asked"
            told.append(f"is not healthy on {server}: {answer}")
    return told


# --- what is changed -------------------------------------------------------------------------------------------------


def _changes(run: Deployment, sync: Sync, server: str) -> list[str]:
    release, told = run.wanted(), run.system[server]
    changes = _file_changes(run, server)
    if _must_flip(run, server):
        changes.append(
            f"traffic goes to release {release.id}, slot {release.slot}, instead of slot {told.flag_slot}"
        )
    if told.current != release.id:
        before = f"instead of {told.current}" if told.current else "where none was"
        changes.append(f"release {release.id} is recorded as the one that serves, {before}")
    if sync.states[server].records.get(release.id) != _record(run, sync):
        changes.append(f"the record of release {release.id} is written")
    return changes


def _file_changes(run: Deployment, server: str) -> list[str]:
    told, wanted = run.system[server], managed_files(run, server)
    changes = []
    for kind, before, after in (
        ("upstream", told.upstream, wanted.upstream),
        ("site", told.site, wanted.site),
    ):
        if after and before != after:
            by_hand = nginx.is_changed_by_hand(before, run.environment)
            why = "was lost" if not before else "was changed by hand" if by_hand else "was not as it must be"
            changes.append(f"the {kind} file, which {why}, is written anew")
    if told.unfinished and not changes:
        changes.append("nginx loads its files again: an earlier run did not come back from that")
    return changes


def _must_flip(run: Deployment, server: str) -> bool:
    return run.environment.switch == "slots" and run.system[server].flag_slot != run.wanted().slot


def _sync_step(run: Deployment) -> Step:
    """Have nginx send traffic to the release, where it does not; each server completes it, or puts everything back."""

    def batch(server: str) -> Batch | None:
        wanted = wanted_switch(run, server, recorded=False)
        if not run.preview:
            install = bool(differs(run, server))
            if not install and not _must_flip(run, server):
                return None
            wanted = wanted._replace(install=install, previous=run.system[server].flag_slot)
        return switch_batch(wanted, "sync")

    def learn(results: Mapping[str, BatchResult]) -> Report:
        return Report("proven" if results else "nginx serves it already", durations(results))

    return Step(
        "sync",
        "have nginx send traffic to that release, prove it, or put everything back",
        ("stage",),
        servers=run.environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        commits=True,
        prepare=lambda: must_hold(run),
        batch=batch,
        fail_fast=True,
        condition="where it does not",
        timeout=lambda: SHORT + 10 * run.environment.health.probe_timeout,
        check=lambda server, result: check_switch(run, server, result),
        lost=lambda server, error: lost_switch(run, server, error),
        learn=learn,
    )


def _record_step(run: Deployment, sync: Sync) -> Step:
    environment = run.environment

    def batch(server: str) -> Batch | None:
        if not run.preview and not sync.changes[server]:
            return None
        release = run.wanted()
        record = _record(run, sync)
        made = Batch("record", sudo=True)
        made.add(records.write_current(environment, release.id), label="current")
        made.add(records.note_release(environment, release.id, record), label="record")
        if run.preview:
            return made.add(records.audit(environment, Learnt("line", "plan")), label="audit")
        line = noting.line(environment, "sync", id=release.id, image=release.reference)
        return made.add(line, label="audit")

    def check(server: str, result: BatchResult) -> None:
        for section in result.failed:
            raise problems.explain(server, "writing the records", section.stderr, code=section.exit_code)

    return Step(
        "record",
        "write down which release serves",
        ("sync",),
        servers=environment.system,
        changes=frozenset(f"{server}:records of {environment.name}" for server in environment.system),
        otherwise="finish",
        batch=batch,
        condition="where something was changed",
        timeout=lambda: SHORT,
        check=check,
        learn=lambda results: Report("written" if results else "as it should be", durations(results)),
    )


def _record(run: Deployment, sync: Sync) -> dict[str, Any] | Learnt:
    """The record that all system servers are to have: that of the first which has one, else what is known of it."""
    if run.preview:
        return Learnt("record", "plan")
    release = run.wanted()
    told = (state.records.get(release.id, {}) for state in sync.states.values())
    known = next((one for one in told if one.get("id") == release.id), None)
    if known is None:
        if run.record is None:
            run.record = release.record(action="sync", commit="", arguments={}, environments={}, seconds=0)
        return run.record
    kept = {key: value for key, value in known.items() if key != "error" or known.get("outcome") != FAILED}
    return {**kept, "outcome": GOOD} if "outcome" in kept else kept


def unknown(run: Deployment) -> None:
    """What a dry run, which asks nobody, does not know: names stand for it."""
    run.release = run.wanted()._replace(reference=run.environment.image)

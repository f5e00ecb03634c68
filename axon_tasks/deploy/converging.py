"""What a run that did not come back has left between two states is brought to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming, nginx, records
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.facts import number
from axon_tasks.deploy.inspecting import disagreement, inspect_step
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.servers import ServersFailedError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult


def converge(run: Deployment) -> None:
    """Complete or undo what an earlier run has begun; nothing where there is none.

    It is to be called under the lock, with what was seen under the lock: another run's switch looks the same while it
    goes on.

    Raises:
        ServersFailedError: The system servers disagree, and no release runs everywhere that all could be sent to.
    """
    if not is_between(run):
        return
    cut = sorted({told.journal for told in run.system.values() if told.journal})
    if run.split:
        run.servers.perform(agree_step(run))
    if cut:
        run.servers.perform(settle_step(run))
    run.servers.perform(inspect_step(run))
    run.warnings.append(_told(run, cut))


def is_between(run: Deployment) -> bool:
    """Whether the system servers were seen between two states."""
    return bool(run.split) or any(told.journal for told in run.system.values())


def agree_step(run: Deployment) -> Step:
    """Have every system server send traffic to one slot: the older release, where that still runs everywhere.

    Back rather than forward: the newer one was never proven on all of them.
    """
    alive = {slot: release for slot in naming.SLOTS if (release := _everywhere(run, slot))}
    if not alive:
        raise ServersFailedError(disagreement(run))
    slot = min(alive, key=lambda one: int(alive[one]))

    def batch(server: str) -> Batch | None:
        if run.split[server] == slot:
            return None
        wanted = towards(run, server, slot, alive[slot], install=run.system[server].unfinished)
        made = Batch("agree", sudo=True, uninterruptible=True)
        return made.add(nginx.switch(wanted), label="switch")

    def check(server: str, result: BatchResult) -> None:
        if not result.ok:
            raise problems.explain(
                server,
                f"going back to release {alive[slot]}",
                result["switch"].stderr,
                code=result["switch"].exit_code,
            )

    return Step(
        "agree",
        "have all system servers send traffic to the release that runs everywhere",
        servers=run.environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        batch=batch,
        timeout=lambda: SHORT + 10 * run.environment.health.probe_timeout,
        check=check,
        learn=lambda results: Report(f"slot {slot} serves again", durations(results)),
    )


def settle_step(run: Deployment) -> Step:
    """Write the record of a release that was switched to and not recorded, and close the journal."""

    def batch(server: str) -> Batch | None:
        if not run.system[server].journal:
            return None
        return Batch("settle", sudo=True).add(records.settle_journal(run.environment), label="settle")

    def check(server: str, result: BatchResult) -> None:
        problems.must(server, "completing what an earlier run had begun", result["settle"])

    def learn(results: Mapping[str, BatchResult]) -> Report:
        return Report("an earlier run's switch is recorded", durations(results))

    return Step(
        "settle",
        "complete what an earlier run had begun",
        servers=run.environment.system,
        changes=frozenset(f"{server}:records of {run.environment.name}" for server in run.environment.system),
        otherwise="finish",
        batch=batch,
        timeout=lambda: SHORT,
        check=check,
        learn=learn,
    )


def towards(run: Deployment, server: str, slot: str, release: str, *, install: bool) -> nginx.Switch:
    """The switch of a system server to a release that runs already, with the files that are there.

    Args:
        run: The run.
        server: The system server.
        slot: The release's slot.
        release: Its id.
        install: Whether nginx may have other files loaded than those.
    """
    told, ours = run.system[server], run.site_is_ours(server)
    return nginx.Switch(
        environment=run.environment,
        release=release,
        slot=slot,
        previous=naming.other_slot(slot),
        targets=tuple(
            run.backend(one).target(slot) for one in run.environment.app if run.app[one].in_slot(slot)
        ),
        files=nginx.Files(told.upstream, told.site if ours else ""),
        install=install,
        site_ours=ours,
        run=run.options.run_id,
    )


def _everywhere(run: Deployment, slot: str) -> str:
    """The release that runs in a slot on every app server; empty if there is none."""
    found = [{one.release for one in app.in_slot(slot) if one.running} for app in run.app.values()]
    common = set.intersection(*found) if found else set()
    return next((one for one in common if number(one) is not None), "")


def _told(run: Deployment, cut: Sequence[str]) -> str:
    who = ", ".join(f"run {one}" for one in cut) or "an earlier run"
    serving = run.serving()
    now = f"release {serving[0].release} serves" if serving else "nothing serves"
    return f"{who} did not come back from its switch; what it had begun was brought to an end: {now}"

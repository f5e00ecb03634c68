"""The switch and what follows it: the record, and the end of the old release."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import docker, nginx, records
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy import background, maintaining, problems, repeating
from axon_tasks.deploy.converging import towards
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.locking import must_hold
from axon_tasks.deploy.owner import text_of
from axon_tasks.deploy.release import FAILED, GOOD, ROLLED_BACK, git_commit, utc_now, who
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.servers import ServersFailedError, flatten
from axon_tasks.deploy.staging import managed_files, must_install
from axon_tasks.errors import AfterSwitchError, AxonError, StepFailedError
from axon_tasks.remote import Batch, jobs, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.deploy.run import Again, Deployment
    from axon_tasks.remote import BatchResult

#: Exit statuses of the switch script after which the new state is not the old one (see commands/sh/switch.sh).
SWITCH_BROKEN = frozenset({54, 64})


def switch_step(run: Deployment, needs: tuple[str, ...], *, recorded: bool = True) -> Step:
    """Send traffic to the release on every system server, or leave all of them on the old one.

    Args:
        run: The run.
        needs: The steps before it.
        recorded: Whether the plan goes on to write the record; until then the server's journal keeps it.
    """

    def prepare() -> None:
        must_hold(run)
        # From here on clients may be on the new release, and it must not be removed unless it is certain that they are
        # not: whatever interrupts this run now, also a second Ctrl-C.
        run.tried = run.uncertain = True

    def learn(results: Mapping[str, BatchResult]) -> Report:
        run.switched, run.uncertain = True, False
        if any(told.maintenance for told in run.system.values()) and not run.options.end_maintenance:
            run.warnings.append(maintaining.goes_on(run.environment))
        reloaded = "" if run.environment.switch == "slots" else ", nginx reloaded"
        return Report(f"slot {run.wanted().slot} serves{reloaded}", durations(results))

    return Step(
        "switch",
        "have nginx send the next request to the release, prove it, or put everything back",
        needs,
        servers=run.environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        commits=True,
        prepare=prepare,
        batch=lambda server: switch_batch(wanted_switch(run, server, recorded=recorded)),
        fail_fast=True,
        timeout=lambda: SHORT + 10 * run.environment.health.probe_timeout,
        check=lambda server, result: check_switch(run, server, result),
        lost=lambda server, error: lost_switch(run, server, error),
        recover=lambda failed: _recover_switch(run, failed),
        learn=learn,
    )


def switch_batch(wanted: nginx.Switch, name: str = "switch") -> Batch:
    """The switch on one system server, in one script that completes or restores by itself.

    Args:
        wanted: What it needs to know.
        name: The batch's name.
    """
    batch = Batch(name, sudo=True, uninterruptible=True)
    batch.add(nginx.reach(wanted), label="reach")
    return batch.add(nginx.switch(wanted), label="switch")


def wanted_switch(run: Deployment, server: str, *, recorded: bool) -> nginx.Switch:
    """What a system server's switch to the release of this run needs to know.

    Args:
        run: The run.
        server: The system server.
        recorded: Whether the plan goes on to write the record.
    """
    release = run.wanted()
    install = must_install(run, server)
    if run.preview:
        targets: tuple[str, ...] | Learnt = Learnt("targets", "plan")
        ours: bool | Learnt = Learnt("site_ours", "inspect")
    else:
        targets = tuple(run.backend(one).target(release.slot) for one in run.environment.app)
        ours = run.site_is_ours(server)
    return nginx.Switch(
        environment=run.environment,
        release=release.id,
        slot=release.slot,
        previous=run.previous,
        targets=targets,
        files=managed_files(run, server),
        install=install,
        site_ours=ours,
        expected_current=run.system[server].current,
        run=run.options.run_id,
        record=_record(run) if recorded else None,
    )


def check_switch(run: Deployment, server: str, result: BatchResult) -> None:
    """Judge how a switch ended on one system server.

    Raises:
        AfterSwitchError: It is neither switched nor as it was.
        StepFailedError: It is as it was.
    """
    section = result["reach"] if result["switch"].skipped else result["switch"]
    if section.ok:
        run.switched_on.add(server)
    elif section.exit_code in SWITCH_BROKEN:
        raise AfterSwitchError(
            f"{server}: {sanitize(section.stderr.strip())}",
            hint="Look at nginx on that server now: nginx -t; its error log; then deploy again.",
        )
    else:
        raise problems.explain(server, "switching", section.stderr, code=section.exit_code)


def lost_switch(run: Deployment, server: str, lost: AxonError) -> AxonError:
    """What it means that the answer of a switch did not arrive."""
    return AfterSwitchError(
        f"{server}: the connection was lost during the switch; the script there completes or restores by"
        f" itself, so that either release may serve: {lost.summary}",
        hint=f"See which: fab steps.inspect --env={run.environment.name}; then deploy again.",
    )


def _recover_switch(run: Deployment, failed: AxonError) -> Report:
    """One system server failed: those already switched are switched back."""
    errors = [*flatten([failed]), *_switch_back(run)]
    run.uncertain = bool(run.switched_on) or any(isinstance(error, AfterSwitchError) for error in errors)
    if run.switched_on and not any(isinstance(error, AfterSwitchError) for error in errors):
        errors.append(AfterSwitchError(f"{', '.join(sorted(run.switched_on))}: the new release serves there"))
    raise ServersFailedError(errors)


def _switch_back(run: Deployment) -> list[AxonError]:
    """One system server failed: the others go back, so that all of them send traffic to one release."""
    serving = run.serving()
    if not serving:
        return []

    def work(server: str) -> BatchResult:
        install = bool(must_install(run, server))
        back = towards(run, server, run.previous, serving[0].release, install=install)
        batch = Batch("switch back", sudo=True, uninterruptible=True).add(nginx.switch(back), label="switch")
        try:
            result = run.servers.run(server, batch, timeout=SHORT, abortable=False)
        except AxonError as lost:
            raise AfterSwitchError(
                f"{server}: may still send traffic to the new release: {lost.summary}"
            ) from None
        if not result.ok:
            raise AfterSwitchError(
                f"{server}: still sends traffic to the new release, and could not be switched back:"
                f" {sanitize(result['switch'].stderr.strip())}",
                hint="Mend nginx there, then deploy again.",
            )
        return result

    try:
        run.servers.each(sorted(run.switched_on), work)
    except ServersFailedError as error:
        return list(error.errors)
    run.switched_on.clear()
    return []


def record_step(run: Deployment, needs: tuple[str, ...]) -> Step:
    """Write the release's record and a line of the audit log on every system server."""

    def batch(_server: str) -> Batch:
        release = run.wanted()
        record = _record(run)
        made = Batch("record", sudo=True)
        made.add(records.write_release(run.environment, release.id, record), label="record")
        if run.again and run.again.replaced and not run.again.forward:
            taken_back = {**run.again.replaced, "outcome": ROLLED_BACK}
            made.add(
                records.note_release(run.environment, run.again.instead_of, taken_back), label="rolled back"
            )
        return made.add(records.audit(run.environment, _line(run, record)), label="audit")

    def check(server: str, result: BatchResult) -> None:
        for section in result.failed:
            raise _unrecorded(run, server, sanitize(section.stderr.strip()))

    return Step(
        "record",
        "write down who deployed what, when, as which digest, on which ports",
        needs,
        servers=run.environment.system,
        changes=frozenset(f"{server}:records of {run.environment.name}" for server in run.environment.system),
        otherwise="finish",
        batch=batch,
        timeout=lambda: SHORT,
        check=check,
        lost=lambda server, error: _unrecorded(run, server, error.summary),
        learn=lambda results: Report(f"release {run.wanted().id}", durations(results)),
    )


def _record(run: Deployment) -> dict[str, Any] | Learnt:
    if run.preview:
        return Learnt("record", "plan")
    if run.record is None:
        run.record = _returned(run.again) if run.again and run.again.instant else _new_record(run)
    return run.record


def _new_record(run: Deployment) -> dict[str, Any]:
    release, again = run.wanted(), run.again
    arguments = {server: docker.recorded_arguments(run.candidate(server)) for server in release.containers}
    return release.record(
        action=run.action,
        commit=_commit(run),
        arguments=arguments,
        environments=run.environments,
        seconds=time.monotonic() - run.began,
        of=again.release if again else repeating.repeats(run),
    )


def _commit(run: Deployment) -> str:
    """The git commit that the release comes from: of one that ran before, the one that it had then."""
    if run.again or run.restarts:
        before = run.again.record if run.again else repeating.record(run)
        return text_of(before, "git_commit")
    return run.options.commit or git_commit(run.project.root)


def failure_batch(run: Deployment, error: AxonError) -> Batch:
    """Note on a system server that a release never served, and why: the record of a failed deploy.

    Args:
        run: The run; its release is known.
        error: Why it failed.
    """
    record = {**_new_record(run), "outcome": FAILED, "error": error.summary.splitlines()[0][:300]}
    made = Batch("record", sudo=True)
    made.add(records.note_release(run.environment, run.wanted().id, record), label="record")
    line = {**record, "action": f"{record['action']}-failed"}
    return made.add(records.audit(run.environment, line), label="audit")


def _returned(again: Again) -> dict[str, Any]:
    """The record of a release that serves once more without having been started anew."""
    event = {"instead_of": again.instead_of, "by": who(), "at": utc_now()}
    return {**again.record, "id": again.release, "outcome": GOOD, "returned": event}


def _line(run: Deployment, record: dict[str, Any] | Learnt) -> dict[str, Any] | Learnt:
    """What the audit log says: who did it now."""
    if isinstance(record, Learnt) or "returned" not in record:
        return record
    returned = record["returned"]
    return {
        "deployed_at": returned["at"],
        "deployed_by": returned["by"],
        "action": "rollback",
        "id": run.wanted().id,
        "image": run.wanted().reference,
    }


def _unrecorded(run: Deployment, server: str, why: str) -> AfterSwitchError:
    return AfterSwitchError(
        f"{server}: the release serves, but its record could not be written: {why}",
        hint=f"Mend that, then: fab steps.record --env={run.environment.name}",
    )


def retire_step(run: Deployment, needs: tuple[str, ...], *, strict: bool = False) -> Step:
    """Start the jobs that drain, stop and remove what serves no longer; they go on after this run has ended.

    Args:
        run: The run; its release is the one that stays.
        needs: The steps before it.
        strict: Whether a job that cannot be started is a failure. After a switch it is a warning: the deploy succeeded.
    """
    job = job_id(run)

    def batch(server: str) -> Batch | None:
        old = _old_containers(run, server)
        if not old:
            return None
        return retire_batch(run, job, old)

    def check(server: str, result: BatchResult) -> None:
        if result.ok:
            run.retiring[server] = job
            return
        raise problems.explain(server, "retiring the old release", result["retire"].stderr)

    def recover(failed: AxonError) -> Report:
        if strict:
            raise failed
        again = f"later: fab steps.retire --env={run.environment.name}"
        run.warnings += [
            f"the deployment succeeded, but the old release could not be retired: {error.summary}; {again}"
            for error in flatten([failed])
        ]
        return Report("the old release still runs; see the warning")

    def learn(results: Mapping[str, BatchResult]) -> Report:
        note = f"in the background: job {job}" if run.retiring else "nothing to retire"
        return Report(note, durations(results))

    return Step(
        "retire",
        "start the job that drains, stops and removes the old release",
        needs,
        servers=run.environment.app,
        changes=frozenset(f"{server}:containers of {run.environment.name}" for server in run.environment.app),
        otherwise="finish",
        batch=batch,
        condition="where there is an old release",
        timeout=lambda: SHORT,
        check=check,
        recover=recover,
        learn=learn,
    )


#: What a retire job does, for lists of jobs.
_RETIRE_TITLE = "drain, stop and remove the old release"


def retire_batch(run: Deployment, job: str, containers: tuple[str, ...] | Learnt) -> Batch:
    """Start the job that retires containers on one app server."""
    text = jobs.start_script(
        background.directory(run.environment),
        job,
        docker.retire(run.environment, containers),
        title=_RETIRE_TITLE,
    )
    return Batch("retire").add(text, label="retire")


def job_id(run: Deployment) -> str:
    """The id of this run's retire job: known before anything is sent, and never that of another run."""
    return f"retire-{run.options.run_id}"


def wait_step(run: Deployment, needs: tuple[str, ...]) -> Step:
    """Wait until the old release has been removed, with `--wait`."""
    limit = run.environment.drain.timeout + run.environment.container.stop_timeout + SHORT

    def batch(server: str) -> Batch | None:
        if server not in run.retiring and not run.preview:
            return None
        return background.wait_batch(run.environment, job_id(run), limit)

    def check(server: str, result: BatchResult) -> None:
        found = background.read(result)
        if found.state != "done" or found.exit_code != 0:
            log = found.log_tail.strip().splitlines()
            last = f": {sanitize(log[-1])}" if log else ""
            raise StepFailedError(
                f"{server}: job {job_id(run)}: {found.state}, exit status {found.exit_code}{last}"
            )

    def recover(failed: AxonError) -> Report:
        look = f"see: fab jobs.show --env={run.environment.name} --job={job_id(run)}"
        run.warnings += [
            f"clean-up failed but the deployment succeeded: {error.summary}; {look}"
            for error in flatten([failed])
        ]
        return Report("clean-up failed; see the warning")

    def learn(results: Mapping[str, BatchResult]) -> Report:
        run.retired = bool(results)
        return Report("the old release is gone" if results else "nothing to wait for", durations(results))

    return Step(
        "cleanup",
        "wait until the old release has been removed",
        needs,
        servers=run.environment.app,
        reads=frozenset(f"{server}:containers of {run.environment.name}" for server in run.environment.app),
        batch=batch,
        condition="where an old release is retired",
        timeout=lambda: limit + SHORT,
        check=check,
        recover=recover,
        learn=learn,
    )


def _old_containers(run: Deployment, server: str) -> tuple[str, ...] | Learnt:
    if run.preview:
        return Learnt("containers", "inspect")
    current = run.wanted()
    return tuple(one.id for one in run.app[server].containers if one.release != current.id)

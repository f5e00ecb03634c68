"""The switch and what follows it: the record, and the end of the old release."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from axon_tasks.commands import docker, naming, nginx, records
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report
from axon_tasks.deploy.locking import must_hold
from axon_tasks.deploy.release import git_commit
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.servers import ServersFailedError
from axon_tasks.deploy.staging import managed_files, must_install, site_is_ours
from axon_tasks.errors import AfterSwitchError, AxonError
from axon_tasks.remote import Batch, jobs, sanitize

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult

#: Exit statuses of the switch script after which the new state is not the old one (see commands/sh/switch.sh).
SWITCH_BROKEN = frozenset({54, 64})


def switch(run: Deployment) -> Report:
    """Send traffic to the release on every system server, or leave all of them on the old one.

    Raises:
        ServersFailedError: It failed; those already switched were switched back.
    """
    must_hold(run)
    # From here on clients may be on the new release, and it must not be removed unless it is certain that they are
    # not: whatever interrupts this run now, also a second Ctrl-C.
    run.tried = run.uncertain = True
    try:
        results = run.servers.each(run.environment.system, lambda server: _switch_one(run, server))
    except ServersFailedError as failed:
        errors = [*failed.errors, *_switch_back(run)]
        run.uncertain = bool(run.switched_on) or any(isinstance(error, AfterSwitchError) for error in errors)
        if run.switched_on and not any(isinstance(error, AfterSwitchError) for error in errors):
            errors.append(
                AfterSwitchError(f"{', '.join(sorted(run.switched_on))}: the new release serves there")
            )
        raise ServersFailedError(errors) from None
    run.switched, run.uncertain = True, False
    return Report(
        f"slot {run.wanted().slot} serves"
        + ("" if run.environment.switch == "slots" else ", nginx reloaded"),
        durations(results),
    )


def _wanted_switch(run: Deployment, server: str) -> nginx.Switch:
    release = run.wanted()
    return nginx.Switch(
        environment=run.environment,
        release=release.id,
        slot=release.slot,
        previous=run.previous,
        targets=tuple(run.backend(one).target(release.slot) for one in run.environment.app),
        files=managed_files(run, server),
        install=must_install(run, server),
        site_ours=site_is_ours(run, server),
        expected_current=run.system[server].current,
    )


def _switch_one(run: Deployment, server: str) -> BatchResult:
    batch = Batch("switch", sudo=True, uninterruptible=True)
    batch.add(nginx.switch(_wanted_switch(run, server)), label="switch")
    limit = SHORT + 10 * run.environment.health.probe_timeout
    _ = run.servers.fleet[
        server
    ]  # a server that cannot be reached was not sent anything: that is no lost switch
    try:
        result = run.servers.run(server, batch, timeout=limit, abortable=False)
    except AxonError as lost:
        raise AfterSwitchError(
            f"{server}: the connection was lost during the switch; the script there completes or restores by"
            f" itself, so that either release may serve: {lost.summary}",
            hint=f"See which: fab steps.inspect --env={run.environment.name}; then deploy again.",
        ) from None
    section = result["switch"]
    if section.ok:
        run.switched_on.add(server)
    elif section.exit_code in SWITCH_BROKEN:
        raise AfterSwitchError(
            f"{server}: {sanitize(section.stderr.strip())}",
            hint="Look at nginx on that server now: nginx -t; its error log; then deploy again.",
        )
    else:
        raise problems.explain(server, "switching", section.stderr, code=section.exit_code)
    return result


def _switch_back(run: Deployment) -> list[AxonError]:
    """One system server failed: the others go back, so that all of them send traffic to one release."""
    serving = run.serving()
    if not serving:
        return []

    def work(server: str) -> BatchResult:
        told = run.system[server]
        back = nginx.Switch(
            environment=run.environment,
            release=serving[0].release,
            slot=run.previous,
            previous=run.wanted().slot,
            targets=tuple(
                run.backend(one).target(run.previous)
                for one in run.environment.app
                if run.app[one].in_slot(run.previous)
            ),
            reach=False,
            files=nginx.Files(told.upstream, told.site if site_is_ours(run, server) else ""),
            install=must_install(run, server),
            site_ours=site_is_ours(run, server),
        )
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


def record(run: Deployment) -> Report:
    """Write the release's record and a line of the audit log on every system server.

    Raises:
        AfterSwitchError: It could not be written; the new release serves all the same.
    """
    release = run.wanted()
    content = release.record(
        action="deploy",
        commit=git_commit(run.project.root),
        arguments={server: docker.run_arguments(run.candidate(server)) for server in release.containers},
    )

    def work(server: str) -> BatchResult:
        batch = Batch("record", sudo=True).add(
            records.write_release(run.environment, release.id, content), label="record"
        )
        result = run.servers.run(server, batch, timeout=SHORT, abortable=False)
        if not result.ok:
            raise AfterSwitchError(
                f"{server}: the release serves, but its record could not be written: {sanitize(result['record'].stderr.strip())}",
                hint=f"Mend that, then: fab steps.record --env={run.environment.name}",
            )
        return result

    results = run.servers.each(run.environment.system, work)
    return Report(f"release {release.id}", durations(results))


def retire(run: Deployment, *, strict: bool = False) -> Report:
    """Start the jobs that drain, stop and remove what serves no longer; they go on after this run has ended.

    Args:
        run: The run; its release is the one that stays.
        strict: Whether a job that cannot be started is a failure. After a switch it is a message: the deploy succeeded.

    Raises:
        ServersFailedError: With `strict`, a job could not be started.
    """
    old = {server: _old_containers(run, server) for server in run.environment.app}
    wanted = {server: ids for server, ids in old.items() if ids}
    directory = f"{naming.state_directory(run.environment.product, run.environment.name)}/jobs"
    job = f"retire-{run.wanted().id}-{int(time.time())}"

    def work(server: str) -> BatchResult:
        body = docker.retire(run.environment, wanted[server])
        batch = Batch("retire").add(jobs.start_script(directory, job, body), label="retire")
        result = run.servers.run(server, batch, timeout=SHORT, abortable=False)
        if result.ok:
            run.retiring[server] = job
            return result
        failed = problems.explain(server, "retiring the old release", result["retire"].stderr)
        if strict:
            raise failed
        run.listener.message(
            server, f"{failed.summary}; later: fab steps.retire --env={run.environment.name}"
        )
        return result

    results = run.servers.each(wanted, work)
    note = f"in the background: job {job}" if run.retiring else "nothing to retire"
    return Report(note, durations(results))


def _old_containers(run: Deployment, server: str) -> tuple[str, ...]:
    current = run.wanted()
    return tuple(one.id for one in run.app[server].containers if one.release != current.id)

"""`fab steps.*`: each step of a deploy by itself, for incidents."""

from __future__ import annotations

import sys

from invoke.collection import Collection

from axon_tasks.tasks.alone import run_plan
from axon_tasks.tasks.base import Context, duration, one_environment, task
from axon_tasks.tasks.deploy import HELP, command_line


def _run(
    name: str,
    env: str,
    hosts_file: str,
    tag: str | None = None,
    *,
    now: bool = False,
    wait_lock: str = "",
    dry_run: bool = False,
) -> None:
    project, environment = one_environment(env, hosts_file)
    patience = duration(wait_lock or "0", "wait-lock")
    from axon_tasks.deploy import alone
    from axon_tasks.deploy.preview import preview
    from axon_tasks.deploy.run import Options
    from axon_tasks.deploy.timeline import Recorder
    from axon_tasks.report import console, state
    from axon_tasks.report import plan as shown
    from axon_tasks.report.transcript import Transcript

    transcript = Transcript()
    recorder = Recorder(
        command=command_line(), folder=None if dry_run else project.root, beside=transcript.write
    )
    options = Options(
        tag=tag, now=now, command=recorder.command, run_id=recorder.run_id,
        wait_lock=patience, hosts_file=hosts_file,
    )  # fmt: skip
    if dry_run:
        planned = preview(project, environment, options, versioned=name in alone.VERSIONED)
        title = f"the step {name} of {environment.name}"
        sys.stdout.write(shown.text(planned, alone.steps(planned, name), title) + "\n")
        return
    run = run_plan(project, environment, options, recorder, transcript, lambda run: alone.steps(run, name))
    if name == "inspect":
        console.write_line(sys.stdout, state.inspection(run))
    elif name == "stage":
        console.write_line(sys.stdout, state.staged(run))


_ENV = "Environment of hosts.yml to work on; required."


def _help(*names: str) -> dict[str, str]:
    return {name: HELP[name] for name in ("env", "hosts_file", *names)} | {"env": _ENV}


@task(help=_help())
def inspect(_c: Context, env: str = "", hosts_file: str = "") -> None:
    """Show what serves, runs or is missing; changes nothing.

    Examples:
        fab steps.inspect --env=prod
    """
    _run("inspect", env, hosts_file)


@task(help=_help("tag"))
def pull(_c: Context, env: str = "", tag: str | None = None, hosts_file: str = "") -> None:
    """Pull the image on every app server.

    Examples:
        fab steps.pull --env=prod --tag=v2
    """
    _run("pull", env, hosts_file, tag)


@task(help=_help("tag"))
def stage(_c: Context, env: str = "", tag: str | None = None, hosts_file: str = "") -> None:
    """Test the nginx files of a deploy; changes nothing.

    Examples:
        fab steps.stage --env=prod
    """
    _run("stage", env, hosts_file, tag)


@task(help=_help("tag", "now", "wait_lock", "dry_run"))
def start(
    _c: Context,
    env: str = "",
    tag: str | None = None,
    now: bool = False,
    wait_lock: str = "",
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Start a release beside the serving one; no switch.

    Examples:
        fab steps.start --env=prod --tag=v2      then: fab steps.health, fab steps.switch
    """
    _run("start", env, hosts_file, tag, now=now, wait_lock=wait_lock, dry_run=dry_run)


@task(help=_help())
def health(_c: Context, env: str = "", hosts_file: str = "") -> None:
    """Wait until the started release is healthy everywhere.

    Without one that waits to be switched to, the release that serves is asked.

    Examples:
        fab steps.health --env=prod
    """
    _run("health", env, hosts_file)


@task(help=_help("wait_lock", "dry_run"))
def switch(
    _c: Context, env: str = "", wait_lock: str = "", dry_run: bool = False, hosts_file: str = ""
) -> None:
    """Send traffic to the release that was started.

    Examples:
        fab steps.switch --env=prod              then: fab steps.record, fab steps.retire
    """
    _run("switch", env, hosts_file, wait_lock=wait_lock, dry_run=dry_run)


@task(help=_help("wait_lock", "dry_run"))
def record(
    _c: Context, env: str = "", wait_lock: str = "", dry_run: bool = False, hosts_file: str = ""
) -> None:
    """Write the record of the release that serves.

    Examples:
        fab steps.record --env=prod
    """
    _run("record", env, hosts_file, wait_lock=wait_lock, dry_run=dry_run)


@task(help=_help("wait_lock", "dry_run"))
def retire(
    _c: Context, env: str = "", wait_lock: str = "", dry_run: bool = False, hosts_file: str = ""
) -> None:
    """Drain and remove what does not serve, in the background.

    Examples:
        fab steps.retire --env=prod
    """
    _run("retire", env, hosts_file, wait_lock=wait_lock, dry_run=dry_run)


namespace = Collection("steps", inspect, pull, stage, start, health, switch, record, retire)

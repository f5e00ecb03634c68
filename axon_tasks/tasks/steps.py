"""`fab steps.*`: each step of a deploy by itself, for incidents."""

from __future__ import annotations

from invoke.collection import Collection

from axon_tasks.tasks.base import Context, one_environment, task
from axon_tasks.tasks.deploy import HELP, command_line, show_failure


def _run(name: str, env: str, hosts_file: str, tag: str | None = None, *, now: bool = False) -> None:
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import alone
    from axon_tasks.deploy.problems import DeployFailedError
    from axon_tasks.deploy.run import Options
    from axon_tasks.deploy.runner import session
    from axon_tasks.report import console, state

    progress = console.Progress()
    options = Options(tag=tag, now=now, command=command_line())
    try:
        with session(project, environment, options, progress) as run:
            if name in {"pull", "start", "stage"}:
                _ = run.reference  # a missing tag is told before any server is contacted
            alone.step(run, name)
            if name == "inspect":
                progress.line(state.inspection(run))
            elif name == "stage":
                progress.line(state.staged(run))
    except DeployFailedError as failed:
        show_failure(failed)
        raise


def _help(*names: str) -> dict[str, str]:
    return {name: HELP[name] for name in ("env", "hosts_file", *names)}


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


@task(help=_help("tag", "now"))
def start(
    _c: Context, env: str = "", tag: str | None = None, now: bool = False, hosts_file: str = ""
) -> None:
    """Start a release beside the serving one; no switch.

    Examples:
        fab steps.start --env=prod --tag=v2      then: fab steps.health, fab steps.switch
    """
    _run("start", env, hosts_file, tag, now=now)


@task(help=_help())
def health(_c: Context, env: str = "", hosts_file: str = "") -> None:
    """Wait until the started release is healthy everywhere.

    Without one that waits to be switched to, the release that serves is asked.

    Examples:
        fab steps.health --env=prod
    """
    _run("health", env, hosts_file)


@task(help=_help())
def switch(_c: Context, env: str = "", hosts_file: str = "") -> None:
    """Send traffic to the release that was started.

    Examples:
        fab steps.switch --env=prod              then: fab steps.record, fab steps.retire
    """
    _run("switch", env, hosts_file)


@task(help=_help())
def record(_c: Context, env: str = "", hosts_file: str = "") -> None:
    """Write the record of the release that serves.

    Examples:
        fab steps.record --env=prod
    """
    _run("record", env, hosts_file)


@task(help=_help())
def retire(_c: Context, env: str = "", hosts_file: str = "") -> None:
    """Drain and remove what does not serve, in the background.

    Examples:
        fab steps.retire --env=prod
    """
    _run("retire", env, hosts_file)


namespace = Collection("steps", inspect, pull, stage, start, health, switch, record, retire)

"""`fab deploy`."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

from axon_tasks.tasks.base import Context, one_environment, task

if TYPE_CHECKING:
    from axon_tasks.deploy.problems import DeployFailedError

HELP = {
    "env": "Environment of hosts.yml to work on; required.",
    "tag": "Tag of the image to deploy; default: `tag:` of the environment.",
    "now": "Do not wait for a release that still drains in the slot that is needed: cut it.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}


def command_line() -> str:
    """The command as it was typed, for the lock's owner."""
    return shlex.join(["fab", *sys.argv[1:]])[:200]


def show_failure(failed: DeployFailedError) -> None:
    """The diagnosis blocks of a failed run, before its message ends the program."""
    from axon_tasks.deploy.problems import UnhealthyError
    from axon_tasks.report import console

    for error in failed.errors:
        if isinstance(error, UnhealthyError):
            sys.stderr.write(f"\n{console.diagnosis(error.diagnosis)}\n")
    sys.stderr.write("\n")


@task(help=HELP)
def deploy(
    _c: Context, env: str = "", tag: str | None = None, now: bool = False, hosts_file: str = ""
) -> None:
    """Deploy a release without dropping a request.

    Pulls the image on every app server, starts it beside the release that serves, waits until it is healthy
    everywhere, switches nginx to it, and retires the old release in the background. If anything fails before
    the switch, what was started is removed and the old release keeps serving.

    Examples:
        fab deploy --env=prod --tag=v2
        fab deploy --env=prod               (the tag that hosts.yml names)
        fab deploy --env=staging --tag=v3 --now

    Exit codes: 0 done; 1 failed, the old release serves; 2 wrong usage or configuration, nothing was contacted;
    3 locked by somebody else; 4 a server cannot be reached or its host key is not the known one; 5 failed after
    the switch; 130 interrupted.
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy.problems import DeployFailedError
    from axon_tasks.deploy.run import Options
    from axon_tasks.deploy.runner import deploy as run_deploy
    from axon_tasks.report import console

    progress = console.Progress()
    options = Options(tag=tag, now=now, command=command_line())
    began = time.monotonic()
    try:
        run = run_deploy(project, environment, options, progress)
    except DeployFailedError as failed:
        show_failure(failed)
        raise
    progress.line(console.summary(run, time.monotonic() - began))

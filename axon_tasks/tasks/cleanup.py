"""`invoke cleanup`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from axon_tasks.errors import UsageError
from axon_tasks.tasks.base import Context, task

_MOST = 1000


@task(
    help={
        "env": "Environments, separated by commas. Default: all of hosts.yml.",
        "dry_run": "Show what would be removed, and how large it is; change nothing.",
        "keep": "Images that stay per repository and server, beside those in use. Default: 3.",
        "days": "Remove background jobs that ended so many days ago. Default: 7.",
        "json": "Print JSON instead of text.",
        "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
    }
)
def cleanup(
    _c: Context,
    env: str = "",
    dry_run: bool = False,
    keep: str = "3",
    days: str = "7",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Remove what past deploys left on the servers.

    On all servers at the same time: containers that neither serve nor belong to the current or the previous release,
    images beyond the number kept, networks with our labels that nothing uses, ended jobs and their logs, abandoned
    temporary files, release records beyond 20, an audit log above 1 MB, and old runs on this machine beyond 50.

    Safe while a deploy runs: an environment that somebody works on is skipped, and images are removed only if nobody
    works on any environment that runs them there. What is not certain stays, and the reason is shown.

    --json: {"dry_run", "environments": [{"name", "skipped"}], "items": [{"server", "environment", "kind", "name",
    "target", "bytes"}], "left": [{"server", "environment", "name", "why"}], "failed": [{"server", "kind", "name",
    "why"}], "freed_bytes": {server: bytes}, "errors": [message]}; items are what was removed, or would be.

    Examples:
        invoke cleanup --dry-run
        invoke cleanup
        invoke cleanup --env=staging --keep=1

    Exit codes: 0 done, also if an environment was skipped; 1 something could not be removed; 2 wrong usage;
    4 a server cannot be reached, and the others were cleaned.
    """
    from axon_tasks.config import load
    from axon_tasks.deploy import cleaning
    from axon_tasks.report import cleanup as report

    project = load(hosts_file or None)
    environments = project.environments_named(env) if env else list(project.environments.values())
    options = cleaning.Options(
        keep=_whole(keep, "keep"), days=_whole(days, "days"), dry_run=dry_run, command=_command_line()
    )
    outcome = cleaning.clean(project, environments, options)
    print(report.as_json(outcome) if json else report.text(outcome))  # noqa: T201  (the result belongs on standard output)
    outcome.check()


def _command_line() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]


def _whole(text: str, flag: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or int(text) > _MOST:
        raise UsageError(f"--{flag}={text}: a whole number up to {_MOST} is needed.")
    return int(text)

"""`fab jobs.*`: what goes on on the servers after the prompt is back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke.collection import Collection

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, duration, one_environment, task

if TYPE_CHECKING:
    from axon_tasks.config import Environment
    from axon_tasks.deploy.background import Answer

_HELP = {
    "env": "Environment of hosts.yml to work on; required.",
    "job": "Id of the job, as a deploy and jobs.list tell it; required.",
    "only": "Only these app servers, separated by commas.",
    "json": "Print JSON instead of text.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}
_MOST_LINES = 100_000


def _help(*names: str, **more: str) -> dict[str, str]:
    return {name: _HELP[name] for name in ("env", *names, "only", "hosts_file")} | more


@task(help=_help("json"))
def list_(_c: Context, env: str = "", only: str = "", json: bool = False, hosts_file: str = "") -> None:
    """List the background jobs of an environment.

    A server that cannot be reached is named, and the jobs of the others are shown all the same; the exit code is 4 then.
    --json: {"environment", "jobs": [{"server", "id", "title", "state": running|done|lost, "exit_code", "started",
    "ended", "seconds_ago", "log"}], "errors": [{"server", "message"}]}.

    Examples:
        fab jobs.list --env=prod
        fab jobs.list --env=prod --only=app2 --json
    """
    from axon_tasks.deploy import background
    from axon_tasks.remote import Fleet
    from axon_tasks.report import jobs as report

    project, environment = one_environment(env, hosts_file)
    with Fleet(project) as fleet:
        answer = background.every(fleet, environment, only)
    _say(report.as_json(answer) if json else report.table(answer))
    answer.check()


@task(help=_help("job", "json", lines="How many lines of the log. Default: 20."))
def show(
    _c: Context,
    env: str = "",
    job: str = "",
    lines: str = "20",
    only: str = "",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Show one background job and its log.

    From any machine that can log in: jobs are kept on the servers. --json has the shape of jobs.list.

    Examples:
        fab jobs.show --env=prod --job=retire-20261125-103222-4711
        fab jobs.show --env=prod --job=retire-20261125-103222-4711 --lines=200
    """
    from axon_tasks.deploy import background
    from axon_tasks.remote import Fleet

    project, environment = one_environment(env, hosts_file)
    wanted, count = _job(job, environment), _lines(lines)
    with Fleet(project) as fleet:
        answer = background.show(fleet, environment, wanted, only=only, lines=count)
    _show(answer, json=json)
    answer.check()


@task(help=_help("job", "json", timeout="How long to wait at most: 90s, 5m. Default: 10m."))
def wait(
    _c: Context,
    env: str = "",
    job: str = "",
    timeout: str = "10m",
    only: str = "",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Wait for one background job to end.

    On all servers at the same time; each waits by itself, so that it costs one round trip. Exit code 0 if the job
    has ended with 0 everywhere; 1 if not, or if it still runs when the time is up; 4 if a server cannot be reached.

    Examples:
        fab jobs.wait --env=prod --job=retire-20261125-103222-4711
        fab jobs.wait --env=prod --job=retire-20261125-103222-4711 --timeout=90s
    """
    from axon_tasks.deploy import background
    from axon_tasks.remote import Fleet

    project, environment = one_environment(env, hosts_file)
    wanted, limit = _job(job, environment), duration(timeout, "timeout")
    with Fleet(project) as fleet:
        answer = background.wait(fleet, environment, wanted, only=only, timeout=limit)
    _show(answer, json=json)
    answer.check()
    if answer.unsuccessful:
        raise AxonError(
            f"{wanted} has not ended well: {'; '.join(answer.unsuccessful)}",
            hint=f"Its log: fab jobs.show --env={environment.name} --job={wanted}",
        )


@task(help=_help("job", dry_run="Print the script that would be sent, and contact nothing."))
def cancel(
    _c: Context, env: str = "", job: str = "", only: str = "", dry_run: bool = False, hosts_file: str = ""
) -> None:
    """End one background job early.

    SIGTERM to everything that it started, SIGKILL after 10 s. Cancelling a retirement leaves the old release's
    container where it is, running and without traffic: `fab steps.retire` starts it again.

    Examples:
        fab jobs.cancel --env=prod --job=retire-20261125-103222-4711
        fab jobs.cancel --env=prod --job=retire-20261125-103222-4711 --dry-run
    """
    from axon_tasks.deploy import background
    from axon_tasks.remote import Fleet
    from axon_tasks.report import jobs as report

    project, environment = one_environment(env, hosts_file)
    wanted = _job(job, environment)
    if dry_run:
        batch = background.cancel_batch(environment, wanted)
        _say(report.scripts(environment, background.servers(environment, only), batch))
        return
    with Fleet(project) as fleet:
        answer = background.cancel(fleet, environment, wanted, only=only)
    _say(report.cancelled(answer, environment))
    answer.check()


def _show(answer: Answer, *, json: bool) -> None:
    from axon_tasks.report import jobs as report

    _say(report.as_json(answer) if json else report.details(answer))


def _job(job: str, environment: Environment) -> str:
    if not job:
        raise UsageError(
            "Which job? --job is missing.",
            hint=f"See which there are: fab jobs.list --env={environment.name}",
        )
    return job


def _lines(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII) or int(text) > _MOST_LINES:
        raise UsageError(f"--lines={text}: a whole number up to {_MOST_LINES} is needed.")
    return int(text)


def _say(text: str) -> None:
    if text:
        print(text)  # noqa: T201  (the result of a task belongs on standard output)


namespace = Collection("jobs")
namespace.add_task(list_, name="list")
for _task in (show, wait, cancel):
    namespace.add_task(_task)

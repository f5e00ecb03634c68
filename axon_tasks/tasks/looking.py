"""`fab status`, `fab health` and `fab logs`: what runs, whether it answers, and what it writes."""

from __future__ import annotations

import datetime as dt
import re
import sys
import time
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, duration, environments, one_environment, release_id, task, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.logs import Following, Wanted
    from axon_tasks.remote import Fleet
    from axon_tasks.report.logs import Lines

_HELP = {
    "env": "Environment of hosts.yml, or several, separated by commas.",
    "all": "All environments of hosts.yml.",
    "only": "Only these servers, separated by commas.",
    "json": "Print JSON instead of text.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}


@task(
    help=_HELP
    | {
        "watch": "Look again and again, until Ctrl-C.",
        "interval": "Time between two looks of --watch. Default: 2s.",
    }
)
def status(
    _c: Context,
    env: str = "",
    all: bool = False,  # noqa: A002  (the flag's name)
    only: str = "",
    watch: bool = False,
    interval: str = "2s",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Show what runs where, and what gets traffic.

    One line per system server and per container: release, image, for how long it runs, its state, what it answers to a
    health check just now (on a system server: through nginx), port, slot, and whether it gets traffic. Below that, what
    is not as it is recorded or as it must be, with what to do about it, and who has the lock. Nothing is changed.

    A server that cannot be reached is named, and the others are shown all the same; the exit code is 4 then. --json has
    the shape of axon_tasks/report/schemas/status.json.

    Examples:
        fab status --env=prod
        fab status --all
        fab status --env=prod --watch
        fab status --env=prod --only=app2 --json
    """
    project, chosen = _chosen(env, hosts_file, everything=all)
    pause = duration(interval, "interval")
    if json and watch:
        raise UsageError("--json and --watch do not go together.")
    from axon_tasks.deploy import looking
    from axon_tasks.remote import Fleet
    from axon_tasks.report import status as report

    with Fleet(project) as fleet:
        if watch:
            _watch(lambda: _told(fleet, project, chosen, only), pause)
            return
        looks = looking.look(fleet, project, chosen, only)
    _say(report.as_json(looks) if json else report.table(looks))
    looking.check(looks)


def _told(fleet: Fleet, project: Project, chosen: list[Environment], only: str) -> str:
    """One look as a text, with what went wrong at the end."""
    from axon_tasks.deploy import looking
    from axon_tasks.report import status as report

    looks = looking.look(fleet, project, chosen, only)
    try:
        looking.check(looks)
    except AxonError as error:
        return f"{report.table(looks)}\n\n{error}"
    return report.table(looks)


def _watch(look: Callable[[], str], pause: float) -> None:
    """Show a text again and again; on a terminal in the same place."""
    try:
        while True:
            text = f"{time.strftime('%H:%M:%S')}  (every {pause:g} s, until Ctrl-C)\n{look()}"
            # ECMA-48: cursor to the top left, then erase to the end of the page.
            if not _say(f"\x1b[H\x1b[J{text}" if sys.stdout.isatty() else f"{text}\n"):
                return  # whoever reads has had enough, as `head` has
            time.sleep(pause)
    except KeyboardInterrupt:
        return


@task(help=_HELP)
def health(
    _c: Context,
    env: str = "",
    all: bool = False,  # noqa: A002  (the flag's name)
    only: str = "",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Check the health of what serves.

    Directly and through nginx: one request to each container of an environment on its app server, and on each system
    server as many through nginx as there are app servers. Each is told with status and time, and with what was answered
    if it is not healthy.

    Exit code 0 if everything that gets traffic is healthy, 1 if something is not, 4 if a server cannot be reached.
    --json has the shape of axon_tasks/report/schemas/health.json.

    Examples:
        fab health --env=prod
        fab health --all --json
        fab health --env=prod --only=app2
    """
    project, chosen = _chosen(env, hosts_file, everything=all)
    from axon_tasks.deploy import looking
    from axon_tasks.remote import Fleet
    from axon_tasks.report import health as report

    with Fleet(project) as fleet:
        looks = looking.look(fleet, project, chosen, only)
    _say(report.as_json(looks) if json else report.text(looks))
    looking.check(looks)
    ill = [sentence for seen in looks for sentence in looking.unhealthy(seen)]
    if ill:
        raise AxonError(
            "\n".join(ill), hint=f"What runs: fab status --env={','.join(one.name for one in chosen)}"
        )


@task(help=_HELP)
def stats(
    _c: Context,
    env: str = "",
    all: bool = False,  # noqa: A002  (the flag's name)
    only: str = "",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Show what each container uses.

    Processor, memory, processes, network, and how often it was restarted, as `docker stats` measures it over some
    seconds, on all app servers at the same time. --json has the shape of axon_tasks/report/schemas/stats.json.

    Examples:
        fab stats --env=prod
        fab stats --all --json
    """
    project, chosen = _chosen(env, hosts_file, everything=all)
    from axon_tasks.deploy import stats as using
    from axon_tasks.deploy.problems import raise_all
    from axon_tasks.remote import Fleet
    from axon_tasks.report import stats as report

    with Fleet(project) as fleet:
        found = using.look(fleet, chosen, only)
    _say(report.as_json(found) if json else report.table(found))
    raise_all(error for one in found for error in one.errors.values())


@task(
    help={name: _HELP[name] for name in ("only", "hosts_file")}
    | {
        "env": "Environment of hosts.yml; required.",
        "service": "Which logs, separated by commas: app, access, error (the last two are nginx's), or all. Default: app.",
        "tail": "How many of the last lines of each log, or all. Default: 100.",
        "since": "Only what is not older: 10m, 2h, or a time such as 2026-11-25T03:00:00Z.",
        "grep": "Only lines in which this regular expression (Python's) is found.",
        "release": "Only the containers of this release.",
        "follow": "Go on with what is written from now on, also by containers that are started later, until Ctrl-C.",
        "timestamps": "Write the time before each line.",
        "json": "Print one JSON object per line instead of text.",
    }
)
def logs(
    _c: Context,
    env: str = "",
    service: str = "app",
    tail: str = "100",
    since: str = "",
    grep: str = "",
    release: str = "",
    follow: bool = False,
    only: str = "",
    timestamps: bool = False,
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Show the logs of the application and of nginx.

    From all servers, in the order of time. Each line begins with its server and its release, or with the log of nginx
    that it stands in. The order is that of the times in the lines, which are those of each server's clock. --json: one
    object per line, of the shape of axon_tasks/report/schemas/logs.json.

    A server that cannot be reached is named at the end, and the others are shown all the same; the exit code is 4 then.

    Examples:
        fab logs --env=prod
        fab logs --env=prod --follow
        fab logs --env=prod --since=10m --grep='ERROR|panic' --tail=all
        fab logs --env=prod --service=access,error --only=edge1
        fab logs --env=prod --service=all --timestamps
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import logs as reading
    from axon_tasks.remote import Fleet
    from axon_tasks.report import logs as report

    wanted = _wanted_lines(service, tail, since, grep, release)
    lines = report.Lines(sys.stdout, timestamps=timestamps, as_json=json)
    with Fleet(project) as fleet:
        if follow:
            _follow(reading.Following(fleet, environment, wanted, only), lines)
            return
        told = reading.read(fleet, environment, wanted, only)
    for line in told.lines:
        if not lines.write(line):
            return  # whoever reads has had enough, as `head` has
    for warning in told.warnings:
        print(f"Warning: {warning}", file=sys.stderr)  # noqa: T201  (for people, beside the result)
    told.check()


def _follow(following: Following, lines: Lines) -> None:
    """Show what is written until Ctrl-C, which is how one ends it.

    Raises:
        AxonError: Something could not be read; it was told when it was noticed.
    """
    from axon_tasks.deploy.problems import exit_code

    told: set[str] = set()
    try:
        with following:
            for fresh in following.lines():
                for server, error in following.errors.items():
                    if server not in told:
                        told.add(server)
                        print(error, file=sys.stderr)  # noqa: T201  (for people, beside the result)
                if not all(lines.write(line) for line in fresh):
                    return
    except KeyboardInterrupt:
        pass
    if told:
        raise AxonError(
            f"Not everything was shown: see above what is wrong with {', '.join(sorted(told))}.",
            code=exit_code(list(following.errors.values())),
        )


def _wanted_lines(service: str, tail: str, since: str, grep: str, release: str) -> Wanted:
    """What of the logs is to be shown.

    Raises:
        UsageError: A flag makes no sense.
    """
    from axon_tasks.commands import logs as texts
    from axon_tasks.deploy.logs import Wanted

    names = tuple(dict.fromkeys(service.replace(",", " ").split()))
    unknown = [name for name in names if name not in (*texts.SERVICES, "all")]
    if unknown or not names:
        raise UsageError(
            f"--service={service}: there is no such log.",
            hint=f"There are: {', '.join(texts.SERVICES)}, all.",
        )
    age, moment = _since(since)
    return Wanted(
        services=texts.SERVICES if "all" in names else names,
        lines=None if tail == "all" else whole(tail or "?", "tail", digits=6),
        age=age,
        since=moment,
        pattern=_pattern(grep) if grep else None,
        release=release_id(release, "release"),
    )


def _pattern(grep: str) -> re.Pattern[str]:
    try:
        return re.compile(grep)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--grep={grep}: this is no regular expression: {error}.") from None


def _since(text: str) -> tuple[float | None, float | None]:
    """An age in seconds, or a moment in seconds since 1970; a time without a zone is a local one."""
    if not text:
        return None, None
    if "T" not in text:
        return duration(text, "since"), None
    try:
        return None, dt.datetime.fromisoformat(re.sub(r"Z$", "+00:00", text)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since={text}: a duration such as 10m or 2h is needed, or a time such as 2026-11-25T03:00:00Z."
        ) from None


@task(help=_HELP)
def doctor(
    _c: Context,
    env: str = "",
    all: bool = False,  # noqa: A002  (the flag's name)
    only: str = "",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Check what servers lack for a deploy.

    And say what mends it: connection and host key, programs, clock, privileges, Docker and its free space, the place for
    state, nginx with its includes and its own test, who listens on its ports, the certificate's end and domains, the
    environment's own ports, and the env file. Nothing is changed.

    Exit code 0 if nothing failed (warnings are none), 1 if something did, 4 if a server cannot be reached. --json has
    the shape of axon_tasks/report/schemas/doctor.json.

    Examples:
        fab doctor --env=prod
        fab doctor --all --json
        fab doctor --env=prod --only=app2
    """
    project, chosen = _chosen(env, hosts_file, everything=all)
    from axon_tasks.deploy import doctor as checking
    from axon_tasks.errors import UnreachableError
    from axon_tasks.remote import Fleet
    from axon_tasks.report import doctor as report

    with Fleet(project) as fleet:
        checks = checking.look(fleet, chosen, only)
    _say(report.as_json(checks) if json else report.text(sys.stdout, checks))
    failed = [one for one in checks if one.verdict == checking.FAILED]
    if failed:
        servers = ", ".join(dict.fromkeys(one.server for one in failed))
        unreachable = any(one.name == checking.CONNECTION for one in failed)
        raise AxonError(
            f"Something has to be mended on {servers}; see above.",
            code=UnreachableError.exit_code if unreachable else None,
        )


@task(
    help={
        "env": "Environment of hosts.yml; required.",
        "tag": "Tag of the image that would be deployed; default: `tag:` of the environment, or none.",
        "json": _HELP["json"],
        "hosts_file": _HELP["hosts_file"],
    }
)
def diff(
    _c: Context, env: str = "", tag: str | None = None, json: bool = False, hosts_file: str = ""
) -> None:
    """Show what a deploy would change.

    Image, how the container is run, its variables, nginx's files, app servers: what serves, as it was recorded when it
    was started and as it stands in nginx's files, against what hosts.yml says now. Of variables it is only told whether
    they have changed. Nothing is changed.

    --json has the shape of axon_tasks/report/schemas/diff.json.

    Examples:
        fab diff --env=prod
        fab diff --env=prod --tag=v2 --json
    """
    project, environment = one_environment(env, hosts_file)
    if tag is not None:
        environment.image_reference(tag)
    from axon_tasks.deploy import comparing
    from axon_tasks.remote import Fleet
    from axon_tasks.report import comparing as report

    with Fleet(project) as fleet:
        found = comparing.compare(fleet, project, environment, tag)
    _say(report.as_json(found) if json else report.text(sys.stdout, found))
    comparing.check(found)


def _chosen(env: str, hosts_file: str, *, everything: bool) -> tuple[Project, list[Environment]]:
    """The environments of `--env` or `--all`.

    Raises:
        UsageError: Neither was given, or both, or one is unknown.
    """
    if not everything:
        return environments(env, hosts_file)
    if env:
        raise UsageError("--env and --all do not go together.")
    from axon_tasks.config import load

    project = load(hosts_file or None)
    return project, list(project.environments.values())


def _say(text: str) -> bool:
    """Write to standard output; whether somebody may have read it."""
    from axon_tasks.report import console

    is_heard = console.write_line(sys.stdout, text)
    if not is_heard:
        console.forget(sys.stdout)
    return is_heard

"""`fab deploy`."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, TextIO

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, duration, ended_like_ctrl_c, environments, task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.run import Options
    from axon_tasks.deploy.runner import Outcome
    from axon_tasks.report.transcript import Transcript

HELP = {
    "env": "Environment of hosts.yml to work on, or several: staging,prod; required.",
    "tag": "Tag of the image to deploy; default: `tag:` of the environment.",
    "now": "Do not wait for a release that still drains in the slot that is needed: cut it.",
    "wait": "Come back when the old release has been removed, and say if that failed.",
    "wait_lock": "Wait so long for somebody else's lock: 90s, 5m. Default: exit with 3.",
    "keep_going": "Leave out app servers that fail before the switch, and deploy to the others.",
    "end_maintenance": "End maintenance as soon as the new release serves, and only then.",
    "no_pull": "Take the image that is on the app servers (fab push --push=ssh), and ask no registry.",
    "sequential": "One step, one server and one command after the other: for debugging, and to compare with.",
    "dry_run": "Print the plan and the exact scripts, secrets masked, and contact nothing.",
    "json": "With --dry-run: print the plan as JSON.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}


def command_line() -> str:
    """The command as it was typed, for the lock's owner."""
    return shlex.join(["fab", *sys.argv[1:]])[:200]


def show_failure(failed: AxonError) -> None:
    """The diagnosis blocks of a failed run, before its message ends the program."""
    from axon_tasks.deploy.problems import DeployFailedError, UnhealthyError
    from axon_tasks.report import console

    for error in failed.errors if isinstance(failed, DeployFailedError) else ():
        if isinstance(error, UnhealthyError):
            sys.stderr.write(f"\n{console.diagnosis(error.diagnosis)}\n")
    sys.stderr.write("\n")


def show_transcript(transcript: Transcript, stream: TextIO) -> None:
    """Where everything stands that was asked and said."""
    from axon_tasks.report import console

    if transcript.path:
        console.write_line(stream, transcript.told())


@task(help=HELP)
def deploy(
    _c: Context,
    env: str = "",
    tag: str | None = None,
    now: bool = False,
    wait: bool = False,
    wait_lock: str = "",
    keep_going: bool = False,
    end_maintenance: bool = False,
    no_pull: bool = False,
    sequential: bool = False,
    dry_run: bool = False,
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Deploy a release without dropping a request.

    Pulls the image on every app server, starts it beside the release that serves, waits until it is healthy
    everywhere, switches nginx to it, and retires the old release in the background. If anything fails before
    the switch, what was started is removed and the old release keeps serving. Several environments are deployed side
    by side where they share no app server, and in the order given where they do; one that fails stops no other.

    Examples:
        fab deploy --env=prod --tag=v2
        fab deploy --env=prod                    (the tag that hosts.yml names)
        fab deploy --env=prod --tag=v2 --dry-run (what would be sent, to the letter)
        fab deploy --env=staging,prod --tag=v2
        fab deploy --env=prod --tag=v2 --wait    (until the old release is gone)
        fab deploy --env=prod --tag=v2 --wait-lock=10m   (if somebody else is at it)
        fab deploy --env=prod --tag=v2 --keep-going      (without an app server that is down)
        fab deploy --env=prod --tag=v2 --end-maintenance (see fab maintenance)
        fab deploy --env=prod --tag=v2 --no-pull         (what fab push --push=ssh has sent)
        fab deploy --env=staging --tag=v3 --now

    Exit codes: 0 done; 1 failed, the old release serves; 2 wrong usage or configuration, nothing was contacted;
    3 locked by somebody else; 4 a server cannot be reached or its host key is not the known one; 5 failed after
    the switch, or app servers were left out; 130 interrupted. With several environments, the first of 5, 3, 4 and 1 that one of them has.
    """
    if json and not dry_run:
        raise UsageError("--json goes with --dry-run.", hint="What a run did: fab timeline --json")
    command, patience = command_line(), duration(wait_lock or "0", "wait-lock")

    def options(command: str, run_id: str) -> Options:
        from axon_tasks.deploy.run import Options

        return Options(
            tag=tag, now=now, wait=wait, keep_going=keep_going, no_pull=no_pull, sequential=sequential,
            command=command, run_id=run_id, wait_lock=patience, hosts_file=hosts_file, end_maintenance=end_maintenance,
        )  # fmt: skip

    if dry_run:
        typed = command.replace(" --dry-run", "").replace(" --json", "")
        project, chosen = environments(env, hosts_file)
        sys.stdout.write(plans(project, chosen, options(typed, "RUN"), as_json=json) + "\n")
        return

    from axon_tasks import config
    from axon_tasks.deploy import inventory
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.timeline import Recorder
    from axon_tasks.report.transcript import Transcript

    transcript = Transcript()
    recorder = Recorder(command=command, beside=transcript.write)
    recalled = (None if sequential else inventory.recall(hosts_file, env, tag)) or inventory.NOTHING
    with (
        ended_like_ctrl_c(),
        Connections(recalled.inventory, recorder, prepare=not sequential) as connections,
    ):
        # The way to the servers takes its time; checking the settings, and what is imported next, takes some, too.
        connections.open_early(recalled.servers)
        loaded = None if recalled.project else config.read(hosts_file or None)
        project, chosen = environments(env, hosts_file, loaded.project if loaded else recalled.project)
        for environment in chosen:
            environment.image_reference(tag)  # a missing tag is told before any server is contacted
        recorder.keep_in(project.root)
        if not connections.lead_to(project) and loaded:
            inventory.remember(loaded)
        if not sequential:
            connections.open_early(server for one in chosen for server in one.servers)
        run(project, connections, chosen, options(command, recorder.run_id), transcript)


def plans(project: Project, chosen: Sequence[Environment], options: Options, *, as_json: bool) -> str:
    """What a dry run prints.

    Args:
        project: The settings of everything.
        chosen: The environments.
        options: What the command line says.
        as_json: Whether as JSON.
    """
    from axon_tasks.deploy import plan
    from axon_tasks.deploy.preview import preview
    from axon_tasks.report import plan as shown

    runs = [preview(project, environment, options) for environment in chosen]
    if as_json:
        return shown.as_json([shown.document(run, plan.steps(run)) for run in runs])
    return "\n\n".join(
        shown.text(run, plan.steps(run), f"deploy {run.reference} to {run.environment.name}") for run in runs
    )


def run(
    project: Project,
    connections: Connections,
    chosen: Sequence[Environment],
    options: Options,
    transcript: Transcript,
) -> None:
    """Deploy environments, and show how that ended.

    Args:
        project: The settings of everything.
        connections: To the servers.
        chosen: The environments.
        options: What the command line says.
        transcript: Of this run; the recorder writes it.

    Raises:
        AxonError: One of them failed.
    """
    began, recorder = time.monotonic(), connections.recorder
    transcript.hide(project, chosen, options.logins)
    try:
        outcomes = _run(project, connections, chosen, options)
    except AxonError as error:
        recorder.finish(outcome="failed", exit_code=error.code, told=[str(error)])
        raise
    from axon_tasks.report import console, outcome

    failure, warnings = _failure(outcomes), outcome.warnings(outcomes)
    recorder.finish(
        outcome="failed" if failure else "ok",
        exit_code=failure.code if failure else 0,
        told=[*warnings, *([str(failure)] if failure else [])],
    )
    for line in warnings:
        console.write_line(sys.stderr, line)
    show_transcript(transcript, sys.stderr if failure else sys.stdout)
    if len(outcomes) > 1:
        console.write_line(sys.stdout, outcome.several(outcomes, time.monotonic() - began))
    elif failure is None:
        console.write_line(sys.stdout, console.summary(outcomes[0].run, time.monotonic() - began))
    if failure is not None:
        raise failure


def _run(
    project: Project, connections: Connections, chosen: Sequence[Environment], options: Options
) -> list[Outcome]:
    from axon_tasks.deploy.runner import deploy as run_deploy
    from axon_tasks.report import live, outcome

    with live.screen(sys.stdout, [one.name for one in chosen]) as screen:
        return run_deploy(
            project, connections, chosen, options, screen.listener, lambda: screen.line(outcome.STOPPING)
        )


def _failure(outcomes: Sequence[Outcome]) -> AxonError | None:
    """What ends the program: the error of the one environment, or all of them with the exit status that matters most."""
    from axon_tasks.deploy.problems import exit_code

    failed = [one.error for one in outcomes if one.error is not None]
    for error in failed:
        show_failure(error)
    if len(outcomes) == 1 or not failed:
        return failed[0] if failed else None
    interrupted = [error for error in failed if error.code == 130]  # noqa: PLR2004  (the shells' word for SIGINT)
    code = interrupted[0].code if interrupted else exit_code(failed)
    return AxonError("\n\n".join(map(str, failed)), code=code)

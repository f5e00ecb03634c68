"""Running another plan than that of a deploy, for one environment: what the tasks of that kind have in common."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.errors import AxonError
from axon_tasks.tasks.base import duration, ended_like_ctrl_c
from axon_tasks.tasks.deploy import HELP, command_line, show_failure, show_transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.engine import Step
    from axon_tasks.deploy.run import Deployment, Options
    from axon_tasks.deploy.timeline import Recorder
    from axon_tasks.report.transcript import Transcript


#: What such a task is told, beside the environment and what is its own.
FLAGS = {name: HELP[name] for name in ("now", "wait", "wait_lock", "sequential", "hosts_file")} | {
    "env": "Environment of hosts.yml to work on; required.",
    "dry_run": "Print the plan and the scripts, and contact nothing.",
}


#: Those of a change that starts and retires nothing.
FEWER_FLAGS = {name: told for name, told in FLAGS.items() if name not in {"now", "wait"}}


class Flags(NamedTuple):
    """Those flags, as they were typed.

    Attributes:
        patience: Seconds to wait for somebody else's lock.
    """

    now: bool
    wait: bool
    patience: float
    sequential: bool
    dry_run: bool
    hosts_file: str

    @classmethod
    def given(
        cls,
        *,
        now: bool = False,
        wait: bool = False,
        wait_lock: str,
        sequential: bool,
        dry_run: bool,
        hosts_file: str,
    ) -> Flags:
        """Check them.

        Raises:
            UsageError: `wait_lock` is no duration.
        """
        return cls(now, wait, duration(wait_lock or "0", "wait-lock"), sequential, dry_run, hosts_file)


class Change(NamedTuple):
    """What such a task does.

    Attributes:
        title: In words, for a dry run.
        steps: Makes its plan.
        unknown: Puts names in the place of what a dry run does not know; by default its steps do that themselves.
    """

    title: str
    steps: Callable[[Deployment], Sequence[Step]]
    unknown: Callable[[Deployment], None] = lambda _run: None


def perform(
    project: Project, environment: Environment, flags: Flags, change: Change
) -> tuple[Deployment, float] | None:
    """Show what would be done, or do it and tell its warnings.

    Args:
        project: The settings of everything.
        environment: Where.
        flags: What the command line says.
        change: What to do.

    Returns:
        The run and how many seconds it took; None after a dry run.

    Raises:
        AxonError: It failed; the servers' diagnoses have been shown.
    """
    from axon_tasks.deploy.preview import preview
    from axon_tasks.deploy.run import Options
    from axon_tasks.deploy.timeline import Recorder
    from axon_tasks.report import console
    from axon_tasks.report import plan as shown
    from axon_tasks.report.transcript import Transcript

    transcript = Transcript()
    recorder = Recorder(
        command=command_line().replace(" --dry-run", ""),
        folder=None if flags.dry_run else project.root,
        beside=transcript.write,
    )
    options = Options(
        now=flags.now, wait=flags.wait, sequential=flags.sequential, command=recorder.command,
        run_id=recorder.run_id, wait_lock=flags.patience, hosts_file=flags.hosts_file,
    )  # fmt: skip
    if flags.dry_run:
        planned = preview(project, environment, options, versioned=False)
        change.unknown(planned)
        console.write_line(sys.stdout, shown.text(planned, change.steps(planned), change.title))
        return None
    began = time.monotonic()
    run = run_plan(project, environment, options, recorder, transcript, change.steps)
    for text in run.warnings:
        console.write_line(sys.stderr, f"Warning: {console.one_line(text)}")
    return run, time.monotonic() - began


def run_plan(
    project: Project,
    environment: Environment,
    options: Options,
    recorder: Recorder,
    transcript: Transcript,
    plan_of: Callable[[Deployment], Sequence[Step]],
) -> Deployment:
    """Run a plan with its progress on the screen, and record how it ended.

    Args:
        project: The settings of everything.
        environment: Where.
        options: What the command line says.
        recorder: Of this run.
        transcript: Same; the recorder writes it.
        plan_of: Makes the plan.

    Raises:
        AxonError: It failed; the servers' diagnoses have been shown.
    """
    from axon_tasks.deploy import runner
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.report import live, outcome

    transcript.hide(project, [environment], options.logins)
    try:
        with (
            ended_like_ctrl_c(),
            Connections(project, recorder, prepare=not options.sequential) as connections,
            live.screen(sys.stdout, [environment.name]) as screen,
        ):
            run = runner.alone(
                project,
                connections,
                environment,
                options,
                screen.listener(environment.name),
                plan_of,
                lambda: screen.line(outcome.STOPPING),
            )
    except AxonError as failed:
        recorder.finish(outcome="failed", exit_code=failed.code, told=[str(failed)])
        show_failure(failed)
        show_transcript(transcript, sys.stderr)
        raise
    recorder.finish(outcome="ok", exit_code=0, told=[f"Warning: {text}" for text in run.warnings])
    show_transcript(transcript, sys.stdout)
    return run

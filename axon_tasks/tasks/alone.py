"""Running another plan than that of a deploy, for one environment: what the tasks of that kind have in common."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.tasks.base import ended_like_ctrl_c
from axon_tasks.tasks.deploy import show_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.engine import Step
    from axon_tasks.deploy.run import Deployment, Options
    from axon_tasks.deploy.timeline import Recorder


def run_plan(
    project: Project,
    environment: Environment,
    options: Options,
    recorder: Recorder,
    plan_of: Callable[[Deployment], Sequence[Step]],
) -> Deployment:
    """Run a plan with its progress on the screen, and record how it ended.

    Args:
        project: The settings of everything.
        environment: Where.
        options: What the command line says.
        recorder: Of this run.
        plan_of: Makes the plan.

    Raises:
        AxonError: It failed; the servers' diagnoses have been shown.
    """
    from axon_tasks.deploy import runner
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.report import live, outcome

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
        recorder.finish(outcome="failed", exit_code=failed.code)
        show_failure(failed)
        raise
    recorder.finish(outcome="ok", exit_code=0)
    return run

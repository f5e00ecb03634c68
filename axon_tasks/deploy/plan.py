"""Plans: which steps a deploy has, and what they need of each other. Everything else runs at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy import hooks, maintaining
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import lock_step
from axon_tasks.deploy.release_command import command_steps
from axon_tasks.deploy.staging import plan_step, stage_step
from axon_tasks.deploy.starting import pull_step, start_step
from axon_tasks.deploy.switching import record_step, retire_step, switch_step, wait_step

if TYPE_CHECKING:
    from axon_tasks.deploy.engine import Step
    from axon_tasks.deploy.run import Deployment


def steps(run: Deployment) -> tuple[Step, ...]:
    """The plan of a deploy.

    Raises:
        UsageError: No version was named, neither on the command line nor in `hosts.yml`.
    """
    waited = run.options.wait or run.options.sequential
    command = command_steps(run, ("plan", "pull"))
    return (
        lock_step(run),
        inspect_step(run, heals=True),
        pull_step(run),
        plan_step(run, ("lock", "inspect")),
        stage_step(run, ("plan",)),
        *command,
        start_step(run, ("plan", "pull", *(one.name for one in command))),
        switch_step(run, ("stage", "start")),
        record_step(run, ("switch",)),
        retire_step(run, ("switch",)),
        *((maintaining.end_step(run, ("switch",)),) if run.options.end_maintenance else ()),
        *hooks.switch_steps(run, ("switch",)),
        *((wait_step(run, ("retire",)),) if waited else ()),
    )

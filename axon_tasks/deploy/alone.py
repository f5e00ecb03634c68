"""One step of a deploy by itself, for incidents: with what it needs to be safe, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy import inspecting, locking, staging, starting, switching
from axon_tasks.deploy.engine import Step, execute
from axon_tasks.deploy.problems import DeployFailedError
from axon_tasks.deploy.runner import outcome
from axon_tasks.deploy.servers import flatten
from axon_tasks.errors import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from axon_tasks.deploy.engine import Report
    from axon_tasks.deploy.run import Deployment


def _inspect(run: Deployment) -> Report:
    return inspecting.inspect(run, reserve=False)


def _start(run: Deployment) -> Report:
    starting.pull(run)
    return starting.start(run, wait=False)


def _health(run: Deployment) -> Report:
    if not run.adopt_candidate() and not (run.previous and run.adopt(run.previous)):
        raise StepFailedError(
            f"{run.environment.name}: no release runs whose health could be asked for",
            hint=f"Deploy one: fab deploy --env={run.environment.name}",
        )
    return starting.health(run)


def _switch(run: Deployment) -> Report:
    run.adopt_candidate()
    run.wanted()
    # Also what gives the release its restart policy: without it, a reboot would leave nothing that serves.
    starting.health(run)
    staging.stage(run)
    return switching.switch(run)


def _serving(run: Deployment) -> None:
    if not run.previous or not run.adopt(run.previous):
        raise StepFailedError(
            f"{run.environment.name}: there is no release that serves on all of its app servers",
            hint=f"Look: fab steps.inspect --env={run.environment.name}",
        )


def _record(run: Deployment) -> Report:
    _serving(run)
    return switching.record(run)


def _retire(run: Deployment) -> Report:
    _serving(run)
    return switching.retire(run, strict=True)


#: What each step runs when it is called alone, after its inspection; and whether it changes something.
ALONE: dict[str, tuple[Callable[[Deployment], Report] | None, bool]] = {
    "inspect": (None, False),
    "pull": (starting.pull, False),
    "stage": (staging.stage, False),
    "start": (_start, True),
    "health": (_health, False),
    "switch": (_switch, True),
    "record": (_record, True),
    "retire": (_retire, True),
}


def step(run: Deployment, name: str) -> None:
    """Run one step: under the lock if it changes something, after an inspection of its own.

    Args:
        run: The run, with open servers.
        name: A key of `ALONE`.

    Raises:
        DeployFailedError: It failed; what it had started is removed again.
    """
    work, changes = ALONE[name]
    inspection = (lambda: inspecting.inspect(run)) if name == "start" else (lambda: _inspect(run))
    # Under the lock: what is looked at here must still be so when the step begins.
    plan = [Step("inspect", ("lock",), inspection)]
    if changes:
        plan.append(Step("lock", (), lambda: locking.hold_lock(run)))
    if work is not None:
        plan.append(Step(name, ("inspect", "lock"), lambda: work(run)))
    errors = flatten(execute(plan, run.listener, run.servers.abort))
    if errors:
        left = starting.undo(run)
        raise DeployFailedError([*errors, *left], outcome(run))

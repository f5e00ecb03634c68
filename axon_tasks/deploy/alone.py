"""One step of a deploy by itself, for incidents: with what it needs to be safe, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy.engine import Step
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import lock_step
from axon_tasks.deploy.staging import plan_step, stage_step
from axon_tasks.deploy.starting import health_step, pull_step, start_step
from axon_tasks.deploy.switching import record_step, retire_step, switch_step
from axon_tasks.errors import StepFailedError

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment

#: The steps that can be run alone.
NAMES = ("inspect", "pull", "stage", "start", "health", "switch", "record", "retire")
#: Those that change something, and therefore need the lock.
CHANGING = ("start", "switch", "record", "retire")
#: Those that must know which image is meant.
VERSIONED = ("pull", "stage", "start")


def steps(run: Deployment, name: str) -> tuple[Step, ...]:
    """The plan of one step alone: under the lock if it changes something, after an inspection of its own.

    Args:
        run: The run.
        name: One of `NAMES`.
    """
    # Under the lock: what is looked at here must still be so when the step begins.
    looked = inspect_step(run, ("lock",), reserve=name == "start")
    locked = (lock_step(run),) if name in CHANGING else ()
    return (*locked, looked, *_PLANS[name](run))


def _inspect(_run: Deployment) -> tuple[Step, ...]:
    return ()


def _pull(run: Deployment) -> tuple[Step, ...]:
    return (pull_step(run, ("inspect",)),)


def _stage(run: Deployment) -> tuple[Step, ...]:
    _ = run.reference  # a missing tag is told before any server is contacted
    return plan_step(run, ("inspect",)), stage_step(run, ("plan",))


def _start(run: Deployment) -> tuple[Step, ...]:
    return (
        pull_step(run, ("inspect",)),
        plan_step(run, ("inspect",)),
        start_step(run, ("plan", "pull"), wait=False),
    )


def _find(run: Deployment, *, serving: bool) -> Step:
    """Take the release that was started and does not serve yet, or the one that serves, for the one of this run."""

    def prepare() -> None:
        if not run.adopt_candidate() and not (serving and run.previous and run.adopt(run.previous)):
            run.wanted()

    return Step(
        "plan", "find the release that was started and does not serve yet", ("inspect",), prepare=prepare
    )


def _health(run: Deployment) -> tuple[Step, ...]:
    return _find(run, serving=True), health_step(run, ("plan",))


def _switch(run: Deployment) -> tuple[Step, ...]:
    return (
        _find(run, serving=False),
        # Also what gives the release its restart policy: without it, a reboot would leave nothing that serves.
        health_step(run, ("plan",)),
        stage_step(run, ("plan",)),
        switch_step(run, ("health", "stage"), recorded=False),
    )


def serving_step(run: Deployment) -> Step:
    """Take the release that serves on all app servers for the one of this run."""

    def prepare() -> None:
        if not run.previous or not run.adopt(run.previous):
            raise StepFailedError(
                f"{run.environment.name}: there is no release that serves on all of its app servers",
                hint=f"Look: fab steps.inspect --env={run.environment.name}",
            )

    return Step("plan", "find the release that serves", ("inspect",), prepare=prepare)


def _record(run: Deployment) -> tuple[Step, ...]:
    return serving_step(run), record_step(run, ("plan",))


def _retire(run: Deployment) -> tuple[Step, ...]:
    return serving_step(run), retire_step(run, ("plan",), strict=True)._replace(otherwise="abort")


_PLANS = {
    "inspect": _inspect,
    "pull": _pull,
    "stage": _stage,
    "start": _start,
    "health": _health,
    "switch": _switch,
    "record": _record,
    "retire": _retire,
}

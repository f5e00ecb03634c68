"""The plan of a deploy: its steps and what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy.engine import Step
from axon_tasks.deploy.inspecting import inspect
from axon_tasks.deploy.locking import hold_lock
from axon_tasks.deploy.staging import stage
from axon_tasks.deploy.starting import pull, start
from axon_tasks.deploy.switching import record, retire, switch

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment


def steps(run: Deployment) -> tuple[Step, ...]:
    """The plan of a deploy: what needs what. Everything else runs at the same time."""
    return (
        Step("lock", (), lambda: hold_lock(run)),
        Step("inspect", (), lambda: inspect(run)),
        Step("pull", (), lambda: pull(run)),
        Step("stage", ("inspect",), lambda: stage(run)),
        Step("start", ("lock", "stage", "pull"), lambda: start(run)),
        Step("switch", ("start",), lambda: switch(run)),
        Step("record", ("switch",), lambda: record(run)),
        Step("retire", ("switch",), lambda: retire(run)),
    )

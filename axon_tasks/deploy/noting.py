"""The step that writes into the audit log who does something that is no release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axon_tasks.commands import records
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from axon_tasks.config import Environment
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult


def line(environment: Environment, action: str, **more: str) -> str:
    """The text that adds a line to the audit log of a system server.

    Args:
        environment: Whose log.
        action: What is done.
        more: What else belongs to it: `id`, `image`, `message`.
    """
    return records.audit(
        environment, {"deployed_at": utc_now(), "deployed_by": who(), "action": action, **more}
    )


def audit_step(
    run: Deployment, needs: tuple[str, ...], event: Callable[[], Mapping[str, Any]], *, name: str = "record"
) -> Step:
    """Write into the audit log on every system server.

    Args:
        run: The run.
        needs: The steps before it.
        event: Gives what is done, with `action` and whatever belongs to it.
        name: The step's name.
    """

    def batch(_server: str) -> Batch:
        if run.preview:
            text = records.audit(run.environment, Learnt("line", "plan"))
        else:
            text = line(run.environment, **event())
        return Batch(name, sudo=True).add(text, label="audit")

    def check(server: str, result: BatchResult) -> None:
        must(server, "writing to the audit log", result["audit"])

    return Step(
        name,
        "write into the audit log who does it",
        needs,
        servers=run.environment.system,
        otherwise="finish",
        batch=batch,
        check=check,
        timeout=lambda: SHORT,
        learn=lambda results: Report("noted", durations(results)),
    )

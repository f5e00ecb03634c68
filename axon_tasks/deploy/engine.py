"""Runs a plan: steps with needs, as much at once as the needs allow."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Report:
    """What a step has to tell when it is done.

    Attributes:
        note: One short line for people.
        servers: Seconds per server.
        parts: Seconds per server of parts that people know by their own names, such as the health check.
    """

    note: str = ""
    servers: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Report] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One node of a deploy.

    Attributes:
        name: Its name, also the one of its task.
        needs: The steps that must have ended before.
        run: Does the work; raises AxonError.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[], Report]


class Listener(Protocol):
    """Whoever shows the progress of a run."""

    def started(self, step: str) -> None:
        """A step has begun."""

    def finished(self, step: str, seconds: float, report: Report) -> None:
        """A step has ended well."""

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        """A step has failed, or was ended because another one had; its error is told at the end."""

    def message(self, server: str, text: str) -> None:
        """Something that people should know while they wait."""


def execute(steps: Sequence[Step], listener: Listener, abort: Callable[[], None]) -> list[AxonError]:
    """Run the steps; independent ones at the same time.

    After a failure nothing new starts; `abort` is called once to end what still runs, and every failure is
    reported. An error that is none of ours is a defect and is raised as it is, as is KeyboardInterrupt, both
    after the running steps have ended.

    Args:
        steps: The plan; each step's needs must be in it or be left out.
        listener: Is told about the progress.
        abort: Ends running work early.

    Returns:
        The failures, in the order in which they happened; empty if all went well.
    """
    names = {step.name for step in steps}
    waiting = list(steps)
    done: set[str] = set()
    errors: list[AxonError] = []
    running: dict[Future[Report], tuple[Step, float]] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(steps)), thread_name_prefix="step") as pool:
        try:
            while running or (waiting and not errors):
                if not errors:
                    for step in [one for one in waiting if done.issuperset(set(one.needs) & names)]:
                        waiting.remove(step)
                        listener.started(step.name)
                        running[pool.submit(step.run)] = (step, time.monotonic())
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    step, since = running.pop(future)
                    error = future.exception()
                    if error is None:
                        done.add(step.name)
                        listener.finished(step.name, time.monotonic() - since, future.result())
                        continue
                    listener.failed(step.name, time.monotonic() - since, error)
                    if not isinstance(error, AxonError):
                        raise error  # noqa: TRY301  (a defect of ours: told as it is, after the others have ended)
                    if not errors:
                        abort()
                    errors.append(error)
        except BaseException:
            abort()
            raise
    return errors

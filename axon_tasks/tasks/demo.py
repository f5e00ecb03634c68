"""The demonstration as a task."""

from __future__ import annotations

from axon_tasks.errors import AxonError
from axon_tasks.tasks.base import Context, say, task


@task()
def demo(_c: Context) -> None:
    """Deploy under load in the lab, and count failed requests.

    Starts the lab, builds two versions of the sample application, deploys the first, and then the second while
    clients send requests through nginx. Exit code 1 if one request failed. The lab stays up.

    Examples:
      invoke demo
    """
    from axon_tasks.lab import Lab
    from axon_tasks.lab import demo as demonstration

    verdict = demonstration.run(Lab(), say)
    if verdict.faults:
        raise AxonError(f"The demo failed: {'; '.join(verdict.faults)}.")

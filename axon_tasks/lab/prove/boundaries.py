"""The boundaries of the steps of a deploy: where a deployer can be killed on purpose.

A boundary has a name and not a number, because steps run at the same time and do not always end in the same order:

| name | when |
|---|---|
| `start:begin` | the step is about to start |
| `start@app1:begin` | its part on this server is about to be sent |
| `start@app1:end` | the server's answer is there and was judged |
| `start:end` | what all servers said was taken into the run; what needs this step is about to start |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.deploy.engine import Listener, Report

#: What the engine calls the states of a server, as boundaries.
_STATES = {"running": "begin", "ok": "end", "failed": "failed"}


class Watched:
    """A listener that tells each boundary to somebody else before it passes it on.

    Args:
        listener: Who shows the progress.
        reached: Is called with the boundary's name, in the thread that has reached it.
    """

    def __init__(self, listener: Listener, reached: Callable[[str], None]) -> None:
        self._listener = listener
        self._reached = reached

    def started(self, step: str, servers: Sequence[str] = ()) -> None:
        """The step is about to start."""
        self._reached(f"{step}:begin")
        self._listener.started(step, servers)

    def finished(self, step: str, seconds: float, report: Report) -> None:
        """The step has ended well."""
        self._reached(f"{step}:end")
        self._listener.finished(step, seconds, report)

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        """The step has failed."""
        self._reached(f"{step}:failed")
        self._listener.failed(step, seconds, error)

    def server(self, step: str, server: str, state: str) -> None:
        """A server's part has begun or ended."""
        self._reached(f"{step}@{server}:{_STATES.get(state, state)}")
        self._listener.server(step, server, state)

    def message(self, server: str, text: str) -> None:
        """No boundary."""
        self._listener.message(server, text)

    def progress(self, step: str, server: str, text: str) -> None:
        """No boundary."""
        self._listener.progress(step, server, text)

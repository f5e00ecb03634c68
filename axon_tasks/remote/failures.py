"""How a batch can end other than with results; each failure carries what did arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError, ConnectionLostError

if TYPE_CHECKING:
    from axon_tasks.remote.batch import BatchResult


class BatchLostError(ConnectionLostError):
    """The connection broke before the end of the script: what ran after the break is unknown.

    Args:
        message: What happened, and on which server.
        partial: The sections that had ended, and the output so far of the one that was running.
        hint: What to look at next.
    """

    def __init__(self, message: str, partial: BatchResult, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class ScriptKilledError(AxonError):
    """The shell of a script ended on the server before the script did; the connection is fine.

    Args:
        message: What happened, and on which server.
        partial: The sections that had ended, and the output so far of the one that was running.
        hint: What to look at next.
    """

    def __init__(self, message: str, partial: BatchResult, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class BatchTimeoutError(AxonError):
    """A batch took longer than it was allowed to, and was ended on the server.

    Args:
        message: What happened, and on which server.
        partial: The sections that had ended, and the output so far of the one that was running.
        hint: What to look at next.
    """

    def __init__(self, message: str, partial: BatchResult, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class BatchCancelledError(AxonError):
    """A pending batch was cancelled, so that it has no result.

    Args:
        message: What was cancelled, and where.
        partial: What had arrived until then.
    """

    def __init__(self, message: str, partial: BatchResult) -> None:
        super().__init__(message, code=130)
        self.partial = partial

"""How a batch can end other than with results; each failure carries what did arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError, ConnectionLostError

if TYPE_CHECKING:
    from axon_tasks.remote.batch import BatchResult


class BatchFailedError(AxonError):
    """A batch has no whole result.

    Args:
        message: What happened, and on which server.
        partial: The sections that had ended, and the output so far of the one that was running.
        hint: What to look at next.
    """

    def __init__(self, message: str, partial: BatchResult, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.partial = partial


class BatchLostError(BatchFailedError, ConnectionLostError):
    """The connection broke before the end of the script: what ran after the break is unknown."""

    exit_code = ConnectionLostError.exit_code


class ScriptKilledError(BatchFailedError):
    """The shell of a script ended on the server before the script did; the connection is fine."""


class BatchTimeoutError(BatchFailedError):
    """A batch took longer than it was allowed to, and was ended on the server."""


class BatchCancelledError(BatchFailedError):
    """A pending batch was cancelled, so that it has no result."""

    exit_code = 130

"""The only package that touches SSH.

It knows servers, connections, scripts and their results, and nothing of Docker or nginx.
Names are imported when they are first used, so that listing tasks stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from axon_tasks.remote.batch import (
        Batch,
        BatchResult,
        PendingBatch,
        Section,
        as_completed,
        wait,
        wait_any,
    )
    from axon_tasks.remote.connection import Connection
    from axon_tasks.remote.failures import (
        BatchCancelledError,
        BatchLostError,
        BatchTimeoutError,
        ScriptKilledError,
    )
    from axon_tasks.remote.fleet import Fleet, Outcome
    from axon_tasks.remote.text import sanitize

_PLACES = {
    "Batch": "batch",
    "BatchCancelledError": "failures",
    "BatchLostError": "failures",
    "BatchResult": "batch",
    "BatchTimeoutError": "failures",
    "Connection": "connection",
    "Fleet": "fleet",
    "Outcome": "fleet",
    "PendingBatch": "batch",
    "ScriptKilledError": "failures",
    "Section": "batch",
    "as_completed": "batch",
    "sanitize": "text",
    "wait": "batch",
    "wait_any": "batch",
}

__all__ = [
    "Batch",
    "BatchCancelledError",
    "BatchLostError",
    "BatchResult",
    "BatchTimeoutError",
    "Connection",
    "Fleet",
    "Outcome",
    "PendingBatch",
    "ScriptKilledError",
    "Section",
    "as_completed",
    "sanitize",
    "wait",
    "wait_any",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _PLACES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value

"""Zero-downtime deployments of Docker applications behind nginx, as Fabric and Invoke tasks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from axon_tasks.remote import Batch, BatchResult, PendingBatch, Section, as_completed, wait, wait_any

__all__ = ["Batch", "BatchResult", "PendingBatch", "Section", "as_completed", "wait", "wait_any"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `fab --list` stays fast (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module("axon_tasks.remote"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

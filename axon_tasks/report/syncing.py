"""What a sync has changed, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.report import console

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.deploy.syncing import Sync


def text(run: Deployment, sync: Sync, seconds: float) -> str:
    """One line per thing that was changed, or that there was nothing to do.

    Args:
        run: The run.
        sync: What it did.
        seconds: How long it took.
    """
    release = run.wanted()
    what = console.one_line(f"{release.reference} (release {release.id}, slot {release.slot})")
    lines = [f"  {server}: {one}" for server, told in sync.changes.items() for one in told]
    if not lines:
        return f"Nothing to do: {what} serves, and nginx and the records are in line with that."
    return "\n".join([f"Done in {seconds:.2f} s: {what} serves", *lines])

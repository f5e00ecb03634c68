"""How a run ended, for people: warnings, and one line per environment where there were several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.runner import Outcome

#: Said at the first Ctrl-C.
STOPPING = "Interrupted: undoing, or finishing if it was switched. Once more cuts the connections."


def warnings(outcomes: Sequence[Outcome]) -> list[str]:
    """What went wrong without being a failure."""
    return [f"Warning: {sanitize(text)}" for one in outcomes for text in one.run.warnings]


def several(outcomes: Sequence[Outcome], seconds: float) -> str:
    """A table of what became of each environment.

    Args:
        outcomes: The environments.
        seconds: From the beginning to the end of all of them.
    """
    rows = [("ENVIRONMENT", "RESULT", "SECONDS", "RELEASE", "SERVES"), *map(_row, outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    total = sum(one.seconds for one in outcomes)
    saved = f"; one after the other {total:.2f} s" if total > seconds * 1.05 else ""
    return "\n".join(["", *(line.rstrip() for line in lines), f"Done in {seconds:.2f} s{saved}"])


def _row(one: Outcome) -> tuple[str, str, str, str, str]:
    run = one.run
    if one.error is None:
        result = "deployed"
    elif one.seconds == 0:
        result = "not begun"
    else:
        result = (
            f"failed ({one.error.code})"
            if not run.switched
            else f"deployed, with an error ({one.error.code})"
        )
    release = run.release.id if run.switched and run.release else "-"
    serving = run.serving()
    if run.switched and run.release:
        serves = run.release.reference
    elif run.uncertain:
        serves = "not certain"
    else:
        serves = sanitize(serving[0].reference) if serving else "-"
    return run.environment.name, result, f"{one.seconds:.2f}", release, serves

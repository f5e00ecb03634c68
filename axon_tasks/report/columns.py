"""Rows under each other, in columns as wide as they need to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence


def lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, one line per row; the last column may be as long as it likes.

    Args:
        heads: What stands above the columns.
        rows: The cells; what servers have said in them is made safe to print, and one line.
    """
    cells = [tuple(heads), *(tuple(" ".join(sanitize(cell).split()) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in cells
    ]

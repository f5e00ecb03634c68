"""What a command that still runs has said so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess


def until_it_says(running: subprocess.Popen[str], words: str) -> str:
    """Read what a command prints up to a line with these words."""
    said = ""
    assert running.stdout is not None
    for line in running.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(said)

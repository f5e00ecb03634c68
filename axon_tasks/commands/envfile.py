"""Shell text for the env file of an environment on its app servers."""

from __future__ import annotations

from axon_tasks.commands.shell import script

#: Exit statuses: there is no file; it is not what it was.
MISSING, CHANGED = 39, 38


def read(path: str) -> str:
    """The file as it is."""
    return script("read_env", ("envfile",), file=path)


def write(path: str, expected: str) -> str:
    """Replace the file by standard input, in one piece and readable for its owner alone.

    Args:
        path: The file.
        expected: The SHA-256 that it must have now; `missing` if there must be none.
    """
    return script("write_env", ("envfile",), file=path, expected=expected)

"""Programs of this machine, run as a user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.lab import RUN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds for anything that is measured once; it catches what hangs.
TIMEOUT = 120.0

#: Some machines set these for all; they make Python compile everything again at each start, or print more.
_UNUSUAL = (
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "PYTHONDEVMODE",
    "PYTHONPROFILEIMPORTTIME",
    "AXON_HOSTS",
    "COVERAGE_PROCESS_START",
    "COVERAGE_PROCESS_CONFIG",
)


def user_environment() -> dict[str, str]:
    """The environment of a measured program: without what would slow it down on this machine only.

    What it keeps for the next time goes with the lab, instead of filling the cache of whoever measures.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _UNUSUAL}
    cache = {"XDG_CACHE_HOME": str(RUN / "cache")} if RUN.is_dir() else {}
    return {**kept, **cache, "NO_COLOR": "1"}


def fab() -> list[str]:
    """The words that start `fab`: the program beside this Python, as people call it."""
    program = Path(sys.executable).with_name("fab")
    return [str(program)] if program.exists() else [sys.executable, "-m", "fabric"]


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    keep: bool = True,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program of this machine to its end.

    Args:
        argv: The program and its arguments.
        cwd: Where.
        keep: Whether to give its output; otherwise it goes to /dev/null.
        environment: Instead of the one of a user.

    Raises:
        AxonError: It failed, or did not end.
    """
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if keep else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=dict(environment) if environment is not None else user_environment(),
        )
    except subprocess.TimeoutExpired:
        raise AxonError(f"`{argv[0]}` did not end within {TIMEOUT:g} s.") from None
    if done.returncode:
        told = "\n".join(part for part in ((done.stdout or "").strip(), done.stderr.strip()) if part)
        raise AxonError(f"`{' '.join(argv)}` ended with exit code {done.returncode}: {told[-2000:]}")
    return done.stdout or ""

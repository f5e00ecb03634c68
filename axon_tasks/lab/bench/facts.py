"""What is needed to judge figures: the machine, the versions and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES = ("axon-tasks", "fabric", "invoke", "paramiko", "cryptography")


def facts(root: Path, command: str) -> dict[str, Any]:
    """The machine, the versions and the commit.

    Args:
        root: The project directory.
        command: What was typed.
    """
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "commit": _commit(root),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "ssh": _version("ssh", "-V"),
        "docker": _version("docker", "--version"),
        "nginx": _version("nginx", "-v"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _commit(root: Path) -> str | None:
    """The commit that is checked out, with a mark if files differ from it; None outside a repository."""
    try:
        return local.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], cwd=root
        ).strip()
    except (AxonError, OSError):
        return None


def _version(*argv: str) -> str:
    """What a program says of its version; ssh and nginx answer on standard error."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=local.TIMEOUT, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()

"""The demonstration, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from axon_tasks.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def test_demo(lab: Lab) -> None:
    """`invoke demo` deploys v2 under load without a failed request, shows the numbers, and leaves the lab running."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "demo"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "failed      0\n" in done.stdout
    assert "versions    v1 → v2\n" in done.stdout
    assert "try next" in done.stdout
    assert all(host.ok for host in lab.status())

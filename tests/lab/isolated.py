"""Runs a test on a machine of its own (`.ci/apart`).

A lab can be started, broken and removed there while another one is in use.
"""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Test = Callable[[Path], None]

_APART = Path(__file__).resolve().parents[2] / ".ci/apart"


def isolated(test: Test) -> Test:
    """Let a test's body run on a machine of its own; it is given an empty project directory, which it works in."""

    @functools.wraps(test)
    def outside(tmp_path: Path) -> None:
        if os.environ.get("AXON_TEST_ISOLATED"):
            test(tmp_path)
            return
        source = Path(inspect.getfile(test))
        (tmp_path / "hosts.yml").touch()
        code = (
            f"import sys, pathlib; sys.path[:0] = [{str(source.parent)!r}]; import {source.stem};"
            f" {source.stem}.{test.__name__}(pathlib.Path.cwd())"
        )
        words = ["sh", "-c", 'cd "$1"; "$2" -c "$3"', "sh", str(tmp_path), sys.executable, code]
        done = subprocess.run(
            [_APART, *words],
            env={**os.environ, "AXON_TEST_ISOLATED": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    outside.isolated = True  # type: ignore[attr-defined]  # it does not need the lab that the others share
    del outside.__wrapped__  # type: ignore[attr-defined]  # or pytest would look for its parameters
    return outside

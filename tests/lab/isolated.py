"""Runs a test on a machine of its own: fresh network, PID and mount namespaces, an empty /run and an empty /var/lib.

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

# The first process is a shell that stays, so that orphans are adopted by something that reaps them.
_SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
rmdir /run/cgroup
cd "$1"
"$2" -c "$3"
"""


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
        namespaces = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        done = subprocess.run(
            [*namespaces, "sh", "-c", _SCRIPT, "sh", str(tmp_path), sys.executable, code],
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

"""The first process of a lab host, in parts: as a whole it only ever ends by SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from isolated import isolated

from axon_tasks.lab import init

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


class EndOfTestError(Exception):
    """Raised out of the endless loop."""


def spec(project: Path, **changes: object) -> dict[str, object]:
    entries = [
        {"path": f"{project}/etc/new/file", "text": "text\n", "mode": 0o640, "owner": 7},
        {"path": f"{project}/etc/directory", "text": None, "mode": 0o700, "owner": 0},
    ]
    values = {
        "remove": [f"{project}/foreign", f"{project}/foreign.conf", f"{project}/absent"],
        "files": entries,
    }
    return {**values, **changes}


def test_install_writes_and_removes(tmp_path: Path) -> None:
    """A new host is given its files with their owner and mode, and what is foreign is taken away."""
    (tmp_path / "foreign/below").mkdir(parents=True)
    (tmp_path / "foreign.conf").touch()
    init.install(spec(tmp_path))

    file = tmp_path / "etc/new/file"
    assert (file.read_text(), file.stat().st_mode & 0o777, file.stat().st_uid) == ("text\n", 0o640, 7)
    assert (tmp_path / "etc/directory").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc"]


def test_failing_program_ends_the_start(tmp_path: Path) -> None:
    """A system program that fails ends the start with its words, which the lab shows."""
    with pytest.raises(SystemExit, match=r"^mount --bind /absent .*: mount: "):
        init.run("mount", "--bind", "/absent", str(tmp_path))


@isolated
def test_host_file_system(project: Path) -> None:
    """A host sees this machine's programs in a file system of its own: what it writes stays in its directory."""
    base = project / "host"
    (base / "root").mkdir(parents=True)
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).unshare(init.CLONE_NEWNS)
        init.run("mount", "--make-rprivate", "/")
        init.enter(base, ["/root", "/srv"])
        Path("/etc/mark").write_text("here\n", encoding="utf-8")
        Path("/srv/mark").write_text("here\n", encoding="utf-8")
        Path("/tmp/mark").touch()
        same = os.listdir("/root") == [] and Path("/usr/sbin/nginx").exists() and Path("/proc/self").exists()  # noqa: PTH208
        os._exit(0 if same else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert (base / "upper/all/etc/mark").read_text(encoding="utf-8") == "here\n"
    assert (base / "own/srv/mark").read_text(encoding="utf-8") == "here\n"


@isolated
def test_supervisor(project: Path) -> None:
    """A program that ends is started again, one that is to stay down is not, and orphans are reaped."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/log"], check=True)
    supervisor = init.Supervisor.of(
        {"services": {"one": ["sleep", "1000"], "two": ["sh", "-c", "echo said; sleep 1000"]}}
    )
    one, two = supervisor.services
    pids: list[int] = []

    def turn(_signals: set[int], _seconds: float) -> None:
        """What happens between two turns of the loop."""
        time.sleep(0.1)
        if one.pid and one.pid not in pids:
            pids.append(one.pid)
            os.kill(one.pid, signal.SIGKILL)
        if len(pids) == 3:
            two.pid_file.with_suffix(".down").touch()
            if two.pid:
                os.kill(two.pid, signal.SIGTERM)
                pids.append(0)
        if len(pids) > 3 and not two.pid and time.monotonic() > two.not_before:
            pids.append(0)
        if len(pids) > 6:
            raise EndOfTestError

    original, signal.sigtimedwait = signal.sigtimedwait, turn  # type: ignore[assignment]
    try:
        with pytest.raises(EndOfTestError):
            supervisor.run()
    finally:
        signal.sigtimedwait = original

    assert len(set(pids[:3])) == 3
    assert (two.pid, two.pid_file.exists(), two.wanted) == (0, False, False)
    assert Path("/var/log/lab/two.log").read_text(encoding="utf-8") == "said\n"
    one.pid_file.unlink(missing_ok=True)

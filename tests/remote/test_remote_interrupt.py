"""Ctrl-C: heard at once, and nothing left on the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from axon_tasks.remote import Fleet

PROGRAM = """
import sys
from pathlib import Path
from axon_tasks.remote import Batch, Fleet, wait
from axon_tasks.remote.fleet import AdHocHost

class Project:
    hosts = {{"app1": AdHocHost("app1", "127.0.0.1", {user!r}, {port}, Path({key!r}))}}
    known_hosts = None

with Fleet(Project(), ssh_config=Path({config!r})) as fleet:
    connection = fleet["app1"]
    try:
        {body}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise SystemExit(130)
"""
BODIES = {
    "run": 'Batch("b").add(COMMAND).run(connection)',
    "start": 'wait(Batch("b").add(COMMAND).start(connection), Batch("c").add(COMMAND).start(connection))',
    "gather": 'fleet.gather({"app1": lambda c: Batch("b").add(COMMAND).run(c)})',
    "fabric": "connection.run(COMMAND)",
}


@pytest.mark.parametrize("way", BODIES)
def test_control_c_ends_both_sides(
    sshd: Any, fleet: Fleet, wait_until: Callable[..., bool], tmp_path: Path, way: str
) -> None:
    """An interrupt ends the program though the command sleeps for ever; a batch's command is ended, too."""
    command = f"echo $$ >>{tmp_path}/pids; exec 2>/dev/null; sleep 100000"
    text = PROGRAM.format(
        user=sshd.host().user,
        port=sshd.port,
        key=str(sshd.key),
        config=str(sshd.ssh_config),
        body=BODIES[way].replace("COMMAND", repr(command)),
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, start_new_session=True)
    pids = tmp_path / "pids"
    try:
        assert wait_until(
            lambda: pids.exists() and pids.read_text().count("\n") == (2 if way == "start" else 1)
        )
        process.send_signal(signal.SIGINT)
        assert b"interrupted\n" == process.communicate(timeout=30)[0]
        assert 130 == process.returncode
        if way != "fabric":
            assert wait_until(lambda: not any(_alive(int(pid)) for pid in pids.read_text().split()))
    finally:
        process.kill()
        if way == "fabric":
            for pid in pids.read_text().split():
                subprocess.run(["pkill", "-P", pid], check=False)


def test_a_killed_program_leaves_a_batch_to_end_by_itself(
    sshd: Any, fleet: Fleet, wait_until: Callable[..., bool], tmp_path: Path
) -> None:
    """When the program is killed, the command that runs ends, and the sections after it are not begun."""
    command = (
        f"Batch('b').add('echo $$ >>{tmp_path}/pids; sleep 1').add('touch {tmp_path}/second').run(connection)"
    )
    text = PROGRAM.format(
        user=sshd.host().user,
        port=sshd.port,
        key=str(sshd.key),
        config=str(sshd.ssh_config),
        body=command,
    )
    process = subprocess.Popen([sys.executable, "-c", text], start_new_session=True)
    pids = Path(tmp_path, "pids")
    assert wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    process.kill()
    process.wait()
    assert wait_until(lambda: not _alive(int(pids.read_text())))
    assert not (tmp_path / "second").exists()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

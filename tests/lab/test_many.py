"""Many servers on one machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axon_tasks.errors import UsageError
from axon_tasks.lab.many import IDENTITY, many

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def test_each_is_a_server_of_its_own() -> None:
    """Every server has an address and a host key of its own, lets its key in, and knows who it is."""
    with many(3) as servers:
        said = [
            subprocess.run(
                ["ssh", "-F", str(servers.ssh_config), name, f"echo ${IDENTITY}"],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
            for name in servers.hosts
        ]
        keys = {line.split()[-1] for line in servers.known_hosts.read_text().splitlines()}

    assert ["server1", "server2", "server3"] == said
    assert 3 == len({address for address, _ in servers.hosts.values()})
    assert 3 == len(keys)


def test_nothing_stays() -> None:
    """When the block is left, nobody listens any more and the files are gone."""
    with many(2) as servers:
        listened = [listens(*place) for place in servers.hosts.values()]

    assert [True, True] == listened
    assert not any(listens(*place) for place in servers.hosts.values())
    assert not servers.key.parent.exists()


def test_nothing_stays_when_their_owner_is_killed(tmp_path: Path) -> None:
    """A program that is killed takes its servers with it."""
    told = tmp_path / "place"
    code = (
        "import sys, time, pathlib; from axon_tasks.lab.many import many\n"
        "with many(1) as servers:\n"
        "    address, port = servers.hosts['server1']\n"
        "    pathlib.Path(sys.argv[1]).write_text(f'{address} {port} {servers.key.parent}')\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(told)], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while not told.exists() or not told.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    address, port, directory = told.read_text().split()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()

    while listens(address, int(port)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    subprocess.run(["rm", "-rf", directory], check=True)


@pytest.mark.parametrize("count", [0, 501])
def test_numbers_that_make_no_sense(count: int) -> None:
    """No servers, or more than a machine bears, are refused."""
    with pytest.raises(UsageError), many(count):
        pytest.fail("started")

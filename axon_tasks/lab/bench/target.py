"""Ways into the lab: our connections, Fabric's own, and `ssh`; none of them reads the ssh_config of whoever measures."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench.local import TIMEOUT
from axon_tasks.lab.lab import Lab
from axon_tasks.remote.fleet import AdHocHost, Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Say = Callable[[str], None]

HOST = "app1"


@contextlib.contextmanager
def round_trip(lab: Lab, rtt: float, say: Say) -> Iterator[Lab]:
    """The lab with another round-trip time of SSH, which is put back at the end, whatever happens."""
    if rtt == lab.rtt:
        yield lab
        return
    changed = Lab(lab.apps, rtt, lab.root)
    try:
        changed.up(say)
        yield changed
    finally:
        lab.up(say)


@dataclass(frozen=True)
class Inventory:
    """As little of a project as a fleet needs."""

    hosts: Mapping[str, AdHocHost]
    known_hosts: Path


def fleet(lab: Lab) -> Fleet:
    """Our connections to the lab."""
    host = AdHocHost(HOST, lab.host(HOST).address, user="root", key=lab.key_file)
    return Fleet(Inventory({HOST: host}, lab.known_hosts), ssh_config=Path(os.devnull))


@contextlib.contextmanager
def stock(lab: Lab) -> Iterator[Any]:
    """A connection as Fabric makes it, except that it checks the host key."""
    # The lab measures Fabric itself here; nothing that deploys may make such a connection.
    import fabric
    import paramiko

    keys = {"key_filename": str(lab.key_file), "look_for_keys": False, "allow_agent": False}
    config = fabric.Config(overrides={"load_ssh_configs": False}, lazy=True)
    connection = fabric.Connection(lab.host(HOST).address, user="root", connect_kwargs=keys, config=config)
    connection.client.load_host_keys(str(lab.known_hosts))
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    with connection:
        connection.open()
        yield connection


def ssh(lab: Lab, *options: str) -> list[str]:
    """The words of `ssh` to the lab host."""
    files = [f"IdentityFile={ssh_path(lab.key_file)}", f"UserKnownHostsFile={ssh_path(lab.known_hosts)}"]
    settings = [*files, "IdentitiesOnly=yes", "BatchMode=yes", *options]
    flags = [word for setting in settings for word in ("-o", setting)]
    return ["ssh", "-F", "none", *flags, f"root@{lab.host(HOST).address}"]


def ssh_path(path: Path) -> str:
    """A path as ssh_config(5) takes it literally: spaces only in quotes, and `%` begins a token."""
    return '"{}"'.format(str(path).replace("%", "%%"))


@contextlib.contextmanager
def master(lab: Lab) -> Iterator[list[str]]:
    """The words of `ssh` through a connection that is open already (ssh_config(5): ControlMaster)."""
    with tempfile.TemporaryDirectory(prefix="axon-bench-") as directory:
        socket = Path(directory, "master")
        path = f"ControlPath={ssh_path(socket)}"
        started = subprocess.Popen(
            [*ssh(lab, path, "ControlMaster=yes"), "-N"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(socket, started)
            yield ssh(lab, path)
        finally:
            started.terminate()
            started.wait(timeout=TIMEOUT)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AxonError("ssh does not open a shared connection to the lab.")
        time.sleep(0.02)

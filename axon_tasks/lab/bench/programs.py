"""Contenders that are programs of their own, so that start-up, memory and threads are theirs alone.

    python -m axon_tasks.lab.bench.programs KIND FILE

FILE holds what the program needs, as JSON; it prints what it found out, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

QUERY = 'echo "$AXON_BENCH"'


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """Ask every server once, as a task of ours does."""
    from axon_tasks.lab.bench.target import Inventory
    from axon_tasks.remote import Batch
    from axon_tasks.remote.fleet import AdHocHost, Fleet

    hosts = {
        name: AdHocHost(name, address, user="root", port=port, key=Path(work["key"]))
        for name, (address, port) in work["hosts"].items()
    }
    inventory = Inventory(hosts, Path(work["known_hosts"]))

    def ask(connection: Any) -> str:
        result = Batch("query").add(QUERY, label="query").run(connection, timeout=60, last=True)
        return result["query"].stdout.strip()

    began = time.perf_counter()
    with Fleet(inventory, ssh_config=Path(os.devnull)) as fleet:
        outcomes = fleet.gather(dict.fromkeys(hosts, ask))
    return {"seconds": time.perf_counter() - began, "answers": sorted(one.value for one in outcomes.values())}


def bare(work: dict[str, Any]) -> dict[str, Any]:
    """Ask every server once, with Fabric's own group; as it comes, it accepts any host key."""
    import fabric

    config = fabric.Config(overrides={"load_ssh_configs": False}, lazy=True)
    began = time.perf_counter()
    connections = [
        fabric.Connection(
            address,
            user="root",
            port=port,
            config=config,
            # A mapping of its own each: Fabric writes into it.
            connect_kwargs={"key_filename": work["key"], "look_for_keys": False, "allow_agent": False},
        )
        for address, port in work["hosts"].values()
    ]
    with fabric.ThreadingGroup.from_connections(connections) as group:
        results = group.run(QUERY, hide=True)
    return {
        "seconds": time.perf_counter() - began,
        "answers": sorted(one.stdout.strip() for one in results.values()),
    }


def connect(work: dict[str, Any]) -> dict[str, Any]:
    """Open the connections that a deployment needs, wait for a shell on each, and do nothing with them."""
    from axon_tasks.config import load
    from axon_tasks.remote.fleet import Fleet

    project = load(work["hosts_file"])
    with Fleet(project) as fleet:
        began = time.monotonic()
        opened = fleet.open(work["servers"])
        logged_in = time.monotonic()
        shells = [connection.ready_shell("sh")[0] for connection in opened.values()]
        # sshd opens the window when it has started the program, and Paramiko has no event for that.
        while not all(shell.out_window_size for shell in shells):
            time.sleep(0.0005)
        ready = time.monotonic()
    return {"began": began, "logged_in": logged_in, "ready": ready}


def stream(work: dict[str, Any]) -> dict[str, Any]:
    """Pass a large section on as it arrives, and tell by how much that lets the memory grow."""
    from axon_tasks.lab.bench.target import Inventory
    from axon_tasks.remote import Batch
    from axon_tasks.remote.fleet import AdHocHost, Fleet

    host = AdHocHost("host", work["address"], user="root", key=Path(work["key"]))
    digest, size = hashlib.sha256(), 0

    def take(_label: str, name: str, chunk: bytes) -> None:
        nonlocal size
        if name == "stdout":
            digest.update(chunk)
            size += len(chunk)

    with Fleet(Inventory({"host": host}, Path(work["known_hosts"])), ssh_config=Path(os.devnull)) as fleet:
        connection = fleet["host"]
        before = memory("VmRSS")
        Batch("stream").add(work["command"], label="data").run(
            connection, on_output=take, keep_output=False, timeout=120
        )
    return {"grown": memory("VmHWM") - before, "size": size, "sha256": digest.hexdigest()}


def memory(field: str) -> float:
    """The memory of this process in MB (proc(5)): `VmRSS` is what it has, `VmHWM` the most that it has had.

    Not getrusage(2): what that calls the most includes the process that started this one, up to the exec.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1000


PROGRAMS = {"ours": ours, "bare": bare, "connect": connect, "stream": stream}


def main() -> None:
    """Read the command line, work, and tell."""
    kind, path = sys.argv[1:]
    sys.stdout.write(json.dumps(PROGRAMS[kind](json.loads(Path(path).read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()

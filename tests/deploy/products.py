"""Products of a test's own: their configuration, their commands, and a look at the truth past SSH."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from axon_tasks.lab import Lab

PROJECT = Path(__file__).resolve().parents[2]
EDGE = "10.77.0.10"
APPS = ("app1", "app2")


@dataclass
class Product:
    """A product of one test: its configuration, its commands, and what is really there."""

    lab: Lab
    name: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        return f"{self.name}.test"

    def write(self) -> Path:
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        return path

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).parent / "fab"), *arguments]

    def fab(
        self, *arguments: str, timeout: float = 120, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        flag = f"--hosts-file={self.write()}"
        # What stands behind `--` belongs to a command of its own.
        words = [*arguments, "--"]
        at = words.index("--")
        return subprocess.run(
            self.command(*words[:at], flag, *words[at:-1]),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "NO_COLOR": "1", **(variables or {})},
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and leave it running, for tests that interrupt or race it."""
        return subprocess.Popen(
            self.command(*arguments, f"--hosts-file={self.write()}"),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def on(self, *servers: str) -> None:
        """Have prod on these app servers only: one is enough where their number does not matter, and takes half as long."""
        self.settings["environments"]["prod"]["app"] = list(servers)

    def deploy(self, tag: str, *more: str, env: str = "prod") -> subprocess.CompletedProcess[str]:
        return self.fab("deploy", f"--env={env}", f"--tag={tag}", *more)

    def serve(self, tag: str) -> None:
        """Deploy what a test starts from."""
        done = self.deploy(tag)
        assert (0, (200, tag)) == (done.returncode, self.get()), done.stdout + done.stderr

    def get(self, path: str = "/", address: str = EDGE) -> tuple[int, str]:
        """Status and version of an answer through nginx, as a client sees it."""
        connection = http.client.HTTPConnection(address, 80, timeout=40)
        try:
            connection.request("GET", path, headers={"Host": self.domain})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("X-Version") or ""
        finally:
            connection.close()

    @contextmanager
    def under_load(self, *, keep_alive: int = 6, pause: float = 1.0) -> Iterator[dict[str, Any]]:
        """Clients that ask all the time of the block, and a moment before and after it; what they saw stands there then."""
        load = [
            sys.executable, "-m", "axon_tasks.lab.load", "--address", EDGE, "--host", self.domain,
            "--seconds", "120", "--keep-alive", str(keep_alive), "--one-shot", "6",
        ]  # fmt: skip
        running = subprocess.Popen(load, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        seen: dict[str, Any] = {}
        try:
            time.sleep(pause)
            yield seen
            time.sleep(pause)
        finally:
            running.send_signal(signal.SIGTERM)
            said, errors = running.communicate(timeout=60)
        seen.update(json.loads(said), errors=errors)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep an answer open for the time of the block: the release that gives it cannot be retired before its end."""
        with socket.create_connection((EDGE, 80), timeout=40) as client:
            client.sendall(f"GET /events?seconds=99 HTTP/1.1\r\nHost: {self.domain}\r\n\r\n".encode())
            assert client.recv(12) == b"HTTP/1.1 200"
            yield

    def containers(self, server: str) -> list[str]:
        """Names of this product's containers on a server, running or not, without those that are being retired."""
        said = self.lab.exec(server, ["docker", "ps", "-a", "--format", "{{.Names}}"]).stdout.split()
        return sorted(name for name in said if name.startswith(f"{self.name}-"))

    def settle(self, count: int = 1, servers: tuple[str, ...] = ()) -> None:
        """Wait until the old release has been retired, on the app servers of prod if none are named."""
        servers = servers or tuple(self.settings["environments"]["prod"]["app"])
        deadline = time.monotonic() + 60
        while any(len(self.containers(server)) != count for server in servers):
            assert time.monotonic() < deadline, {server: self.containers(server) for server in servers}
            time.sleep(0.2)

    def workers(self) -> set[str]:
        """The process ids of nginx's workers: a reload changes them."""
        said = self.lab.exec(
            "edge1", "ps -eo pid,args | grep 'nginx: worker' | grep -v grep", check=False
        ).stdout
        return set(re.findall(r"^\s*(\d+)", said, re.MULTILINE))

    def remove(self) -> None:
        """Leave nothing of this product in the lab."""
        for server in APPS:
            for name in self.containers(server):
                self.lab.exec(server, ["docker", "rm", "-f", name], check=False)
            # A job whose container has just gone may still write down how it ended.
            state = f"/var/lib/axon/{self.name}"
            self.lab.exec(
                server, f"for _ in 1 2 3 4 5 6 7 8 9; do rm -rf {state} && exit; sleep 0.3; done; exit 1"
            )
        self.lab.exec(
            "edge1",
            f"rm -rf /var/lib/axon/{self.name} /etc/nginx/axon.d/*/{self.name}-* /var/log/nginx/{self.name}-*; nginx -s reload",
            check=False,
        )


def a_product(images: Lab, folder: Path, seed: str) -> Product:
    """A product with a name of its own, and environment prod on both app servers; nothing is there yet."""
    name = "t" + hashlib.sha1(seed.encode()).hexdigest()[:10]
    keys = PROJECT / ".lab"
    login = {"user": "root", "key": str(keys / "id_ed25519")}
    return Product(
        images,
        name,
        folder,
        {
            "product": name,
            "image": "10.77.0.5:5000/shop",
            "known_hosts": str(keys / "known_hosts"),
            "hosts": {
                "edge1": {"address": EDGE, **login},
                "app1": {"address": "10.77.0.21", "private_address": "10.77.0.21", **login},
                "app2": {"address": "10.77.0.22", "private_address": "10.77.0.22", **login},
            },
            "defaults": {
                "health": {"path": "/api/health", "timeout": "8s"},
                "drain": {"timeout": "10s"},
                "container": {"stop_timeout": "5s"},
            },
            "environments": {"prod": {"system": ["edge1"], "app": list(APPS), "domain": f"{name}.test"}},
        },
    )

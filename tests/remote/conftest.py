"""A real sshd per test session, and shells to feed scripts to."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.remote import Fleet
from axon_tasks.remote.fleet import AdHocHost
from axon_tasks.remote.markers import StreamParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from axon_tasks.remote import Batch

SHELLS = {"bash": ["bash"], "dash": ["dash"], "busybox": ["busybox", "sh"]}
USER = pwd.getpwuid(os.getuid()).pw_name


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "", *options: str) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, *options, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """An sshd on a high port of the loopback, with its own keys, and a client's side to go with it."""

    folder: Path
    options: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = keygen(self.folder / "id_ed25519")
        self.host_key = keygen(self.folder / "host_ed25519")
        self.host_key_rsa = keygen(self.folder / "host_rsa", "rsa", "", "-b", "2048")
        self.ca = keygen(self.folder / "user_ca")
        self.authorized = self.folder / "authorized_keys"
        self.authorize(self.key)
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.write_text(self.known_line())
        self.ssh_config = self.folder / "ssh_config"
        self.configure("")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def public(self, key: Path) -> str:
        kind, blob, *_ = Path(f"{key}.pub").read_text().split()
        return f"{kind} {blob}"

    def known_line(self, name: str | None = None, key: Path | None = None) -> str:
        return f"{name or f'[127.0.0.1]:{self.port}'} {self.public(key or self.host_key)}\n"

    def authorize(self, key: Path, options: str = "") -> None:
        with self.authorized.open("a") as out:
            out.write(f"{options} {self.public(key)}\n".lstrip())

    def configure(self, text: str) -> Path:
        """Write the client's ssh_config: nothing of the machine's own may leak into a test."""
        self.ssh_config.write_text(
            f"{text}\nHost *\n  IdentityFile {self.folder}/none\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile {self.folder}/none\n"
        )
        return self.ssh_config

    def start(self) -> Sshd:
        Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(
            # The first value of a keyword counts, so that a test's own come first.
            f"{self.options}\nPort {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nHostKey {self.host_key_rsa}\n"
            f"AuthorizedKeysFile {self.authorized}\nTrustedUserCAKeys {self.ca}.pub\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"LogLevel VERBOSE\nSubsystem sftp internal-sftp\n"
        )
        self.process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-f", str(config), "-E", str(self.folder / "log")],
            start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError(self.log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def sessions(self) -> list[int]:
        """The processes that serve connections."""
        assert self.process is not None
        return children(self.process.pid)

    def host(self, **changes: Any) -> AdHocHost:
        return AdHocHost(
            **{"name": "app1", "address": "127.0.0.1", "user": USER, "port": self.port, "key": self.key}
            | changes
        )

    def fleet(self, *hosts: AdHocHost, known_hosts: Path | None = None, config: str | None = None) -> Fleet:
        if config is not None:
            self.configure(config)
        inventory = {host.name: host for host in hosts or (self.host(),)}
        return Fleet(Inventory(inventory, known_hosts), ssh_config=self.ssh_config)


@dataclass
class Inventory:
    hosts: dict[str, AdHocHost]
    known_hosts: Path | None = None


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd")).start()
    yield server
    server.stop()


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Make an sshd with options of its own."""
    started: list[Sshd] = []

    def start(options: str = "") -> Sshd:
        started.append(Sshd(tmp_path / f"sshd{len(started)}", options).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def fleet(sshd: Sshd) -> Iterator[Fleet]:
    sshd.known_hosts.write_text(sshd.known_line())
    with sshd.fleet(config="") as opened:
        yield opened


@dataclass
class Local:
    """What a script gave that was run by a shell on this machine."""

    out: StreamParser
    err: StreamParser
    labels: list[str]
    status: int

    def __getitem__(self, label: str) -> tuple[bytes, bytes, int | None]:
        index = self.labels.index(label)
        out, err = self.out.slots[index], self.err.slots[index]
        return b"".join(out.chunks), b"".join(err.chunks), out.code

    @property
    def finished(self) -> bool:
        return self.out.finished and self.err.finished


def run_locally(
    batch: Batch, shell: str, *, fail_fast: bool = False, env: dict[str, str] | None = None
) -> Local:
    """Feed a batch to a shell of this machine, and read it as it would be read from a server."""
    program = SHELLS[shell]
    batch.shell = " ".join(program)
    nonce, script = batch._nonce, batch.script(fail_fast=fail_fast)
    done = subprocess.run(
        [*program, "-s"],
        input=script.encode(),
        capture_output=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"]} | (env or {}),
        start_new_session=True,
    )
    out, err = StreamParser(nonce, len(batch.labels)), StreamParser(nonce, len(batch.labels))
    out.feed(done.stdout)
    err.feed(done.stderr)
    return Local(out, err, batch.labels, done.returncode)


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell that a server may have; they are all required on a machine that runs the tests."""
    name = str(request.param)
    assert shutil.which(SHELLS[name][0]), f"install {SHELLS[name][0]}"
    return name


@pytest.fixture
def locally() -> Callable[..., Local]:
    return run_locally


@pytest.fixture
def make_key() -> Callable[..., Path]:
    return keygen


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    """Wait for something that another process does; the bound only catches what never happens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., bool]:
    return wait_until


def with_arguments(*words: str) -> list[int]:
    """The processes of this machine, which is the server too, that have all the words among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if {word.encode() for word in words} <= set((entry / "cmdline").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
    return found


@pytest.fixture
def running() -> Callable[..., list[int]]:
    return with_arguments


@pytest.fixture
def open_files() -> Callable[[], int]:
    return lambda: len(list(Path("/proc/self/fd").iterdir()))

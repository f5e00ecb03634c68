"""Many servers on one machine: an sshd each, on a loopback address of its own, with a host key of its own.

A lab host is a whole machine; this is the cheap kind, for what is only about how many there are. All of them live in a
PID namespace that ends with whoever started it, also if that one is killed: its first process waits for the end of its
standard input, and when it goes the kernel ends the rest.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab.machine import require_root, run

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SERVERS = 500
#: The variable that tells a session which server it is on.
IDENTITY = "AXON_BENCH"

_PORT = 2299
_READY_TIMEOUT = 30.0
_AT_ONCE = 16

#: Homes are hidden: what somebody's .bashrc does at each command (sshd(8), bash(1)) is not what is measured. Nothing
#: waits for a server: they are children of the shell, which ends when nobody holds the other end of its standard input.
_SUPERVISOR = """
mount -t tmpfs tmpfs /root && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd || exit 1
for config in "$1"/*.conf; do
    /usr/sbin/sshd -D -f "$config" -E "${config%.conf}.log" </dev/null &
done
read -r _
"""

_CONFIG = """\
ListenAddress {address}:{port}
HostKey {key}
AuthorizedKeysFile {authorized}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
PrintMotd no
PrintLastLog no
MaxStartups 200
SetEnv {identity}={name}
"""


@dataclass(frozen=True)
class Servers:
    """The servers, and how to get in.

    Args:
        hosts: Address and port of each, by name.
        key: The private key that root may log in with.
        known_hosts: Their host keys, as OpenSSH reads them.
        ssh_config: A file for `ssh -F` that knows all of them by name.
    """

    hosts: dict[str, tuple[str, int]]
    key: Path
    known_hosts: Path
    ssh_config: Path


@contextlib.contextmanager
def many(count: int) -> Iterator[Servers]:
    """So many servers, gone at the end.

    Args:
        count: How many, 1 to 500.

    Raises:
        UsageError: Not root, or a number that makes no sense.
        AxonError: They do not start.
    """
    require_root()
    if not 1 <= count <= MAX_SERVERS:
        raise UsageError(f"{count} servers: between 1 and {MAX_SERVERS} are possible.")
    with tempfile.TemporaryDirectory(prefix="axon-many-") as name:
        directory = Path(name)
        servers = _prepare(directory, count)
        process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
                "sh",
                "-c",
                _SUPERVISOR,
                "sh",
                name,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _wait_ready(servers, process, directory)
            yield servers
        finally:
            _end(process)


def _prepare(directory: Path, count: int) -> Servers:
    """Keys and configuration of all of them."""
    key = directory / "client"
    _make_key(key, "axon-tasks bench")
    hosts = {f"server{number}": (_address(number), _PORT) for number in range(1, count + 1)}
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        lines = list(pool.map(lambda name: _prepare_one(directory, name, *hosts[name]), hosts))
    known_hosts = directory / "known_hosts"
    known_hosts.write_text("".join(lines), encoding="ascii")
    config = directory / "ssh_config"
    config.write_text(_ssh_config(hosts, key, known_hosts), encoding="utf-8")
    return Servers(hosts, key, known_hosts, config)


def _prepare_one(directory: Path, name: str, address: str, port: int) -> str:
    """The host key and the configuration of one server; gives its line for known_hosts."""
    key = directory / name
    _make_key(key, name)
    content = _CONFIG.format(
        address=address,
        port=port,
        key=key,
        authorized=directory / "client.pub",
        identity=IDENTITY,
        name=name,
    )
    (directory / f"{name}.conf").write_text(content, encoding="utf-8")
    kind, public = key.with_suffix(".pub").read_text(encoding="ascii").split()[:2]
    return f"[{address}]:{port} {kind} {public}\n"


def _make_key(path: Path, comment: str) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def _address(number: int) -> str:
    """All of 127.0.0.0/8 is this machine (RFC 1122, 3.2.1.3)."""
    return f"127.77.{number // 250}.{number % 250 + 1}"


def _ssh_config(hosts: dict[str, tuple[str, int]], key: Path, known_hosts: Path) -> str:
    blocks = [
        f"Host {name}\n    HostName {address}\n    Port {port}\n" for name, (address, port) in hosts.items()
    ]
    common = f"""\
Host *
    User root
    IdentityFile {key}
    IdentitiesOnly yes
    UserKnownHostsFile {known_hosts}
    BatchMode yes
"""
    return "".join([*blocks, common])


def _wait_ready(servers: Servers, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT
    for name, place in servers.hosts.items():
        while not _answers(place):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AxonError(f"sshd on {place[0]} does not answer: {_why(directory / f'{name}.log')}")
            time.sleep(0.02)


def _answers(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, timeout=2):
            return True
    except OSError:
        return False


def _why(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip()[-400:] or "nothing in its log"
    except OSError:
        return "it was not started"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all servers: the end of its input ends the supervisor, and that the rest."""
    with process:
        assert process.stdin  # a pipe was asked for
        process.stdin.close()
        try:
            process.wait(timeout=_READY_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()

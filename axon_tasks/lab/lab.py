"""The lab: a throw-away data centre of namespaces on one Linux machine.

Each host is one process (`init.py`) with network, mount, PID, IPC and host-name namespaces of its own; everything
that runs on the host is below it. So there is nothing to track but that process: ending it ends the host.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import bare, machine
from axon_tasks.lab.hosts import (
    BARE,
    DEFAULT_APPS,
    DOCKER_STARTS,
    MAX_APPS,
    MIRROR,
    REGISTRY_PASSWORD,
    REGISTRY_PORT,
    REGISTRY_PORT_WITH_LOGIN,
    REGISTRY_USER,
    SSHD_BEHIND_PROXY,
    Accounts,
    LabHost,
    Secrets,
    all_hosts,
    cgroup_name,
    docker_settings,
    host_files,
    host_spec,
    sshd_port,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.lab.machine import Report

#: Sockets have paths of at most 108 bytes (unix(7)), so what holds them is not below the project.
RUN = Path("/run/axon-lab")
STORE = Path("/var/lib/axon-lab")

_INIT = Path(__file__).with_name("init.py")
_DELAY = Path(__file__).with_name("delay.py")
_READY_TIMEOUT = 60.0
_SERVICE_TIMEOUT = 20.0


def _silent(_message: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class HostStatus:
    """What one host is doing.

    Args:
        name: Host name.
        address: IPv4 address.
        role: `registry`, `system` or `app`.
        running: Whether the host is powered on.
        services: Per program, whether it runs.
        containers: On app servers, the running containers as `name (image)`.
        rtt: Round-trip time that its SSH has, in milliseconds.
    """

    name: str
    address: str
    role: str
    running: bool
    services: dict[str, bool]
    containers: list[str]
    rtt: float

    @property
    def ok(self) -> bool:
        """Whether everything that belongs here runs."""
        return self.running and all(self.services.values())


@dataclass(frozen=True)
class LabState:
    """What a running lab remembers of itself, in `/run/axon-lab/lab.json`.

    Args:
        project: The project directory that it belongs to.
        apps: Number of app servers.
        rtt: Round-trip time of SSH in milliseconds.
    """

    project: str
    apps: int
    rtt: float

    @classmethod
    def load(cls) -> LabState | None:
        """The lab of this machine, if there is one."""
        try:
            return cls(**json.loads((RUN / "lab.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def save(self) -> None:
        """Write it for the next process."""
        _write(RUN / "lab.json", json.dumps(asdict(self)))


class Lab:
    """The lab of one project directory; there is one lab per machine at a time.

    Args:
        apps: How many app servers it has; None keeps what runs, or makes three.
        rtt: Round-trip time of SSH in milliseconds; None keeps what runs, or adds nothing.
        root: The project directory: `.lab/` below it gets the SSH key and the known hosts.

    Raises:
        UsageError: A number that makes no sense.
    """

    def __init__(self, apps: int | None = None, rtt: float | None = None, root: Path | None = None) -> None:
        state = LabState.load()
        self.apps = apps if apps is not None else state.apps if state else DEFAULT_APPS
        self.rtt = rtt if rtt is not None else state.rtt if state else 0.0
        self.root = (root or find_project()).resolve()
        if not 1 <= self.apps <= MAX_APPS:
            raise UsageError(f"--apps={self.apps}: the lab has between 1 and {MAX_APPS} app servers.")
        if not 0 <= self.rtt <= 2000:  # noqa: PLR2004  (milliseconds; beyond that is a mistake in the unit)
            raise UsageError(f"--rtt={self.rtt}: between 0 and 2000 milliseconds.")

    @property
    def hosts(self) -> list[LabHost]:
        """The hosts of the lab, in the order in which people list them."""
        return all_hosts(self.apps)

    @property
    def key_file(self) -> Path:
        """The private key that may log in, as root and as the unprivileged user."""
        return self.root / ".lab" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The host keys of all hosts, as OpenSSH reads them."""
        return self.root / ".lab" / "known_hosts"

    def host(self, name: str) -> LabHost:
        """One host by name.

        Raises:
            UsageError: There is none of that name.
        """
        for host in (*self.hosts, *BARE):
            if host.name == name:
                return host
        raise UsageError(
            f"The lab has no host {name!r}.", hint=f"It has: {', '.join(h.name for h in self.hosts)}"
        )

    # --- up and down -------------------------------------------------------------------------------------------

    def up(self, report: Report = _silent) -> None:
        """Make the lab as asked: start what is not there, repair what is broken, remove what is too much.

        Args:
            report: Called with one line for everything that takes a moment.

        Raises:
            UsageError: Not root, or not Linux.
            AxonError: Something could not be installed or started; the message names its log.
        """
        machine.require_root()
        with machine.exclusive(report):
            self._refuse_foreign()
            machine.install_packages(report)
            machine.storage_up(STORE)
            RUN.mkdir(mode=0o700, exist_ok=True)
            machine.bridge_up()
            machine.mend()
            LabState(str(self.root), self.apps, self.rtt).save()
            keys = self._secrets()
            self._take_stock(report)
            with ThreadPoolExecutor(max_workers=len(self.hosts)) as pool:
                list(pool.map(lambda host: self._host_up(host, keys, report), self.hosts))

    def down(self, report: Report = _silent, *, force: bool = False) -> None:
        """Remove the lab and every trace of it, also when it is half there.

        Args:
            report: Called with one line for everything that takes a moment.
            force: Remove it even if it belongs to another project directory.
        """
        machine.require_root()
        with machine.exclusive(report):
            if not force:
                self._refuse_foreign()
            for pid in _search().values():
                _kill(pid)
            machine.bridge_down()
            machine.remove_cgroups(cgroup_name(_identity(STORE / "keys" / "id")))
            machine.storage_down(STORE)
            shutil.rmtree(RUN, ignore_errors=True)
            shutil.rmtree(self.root / ".lab", ignore_errors=True)
            report("The lab is gone")

    def start(self, name: str, report: Report = _silent) -> None:
        """Power one host on; it has the files that it had when it was stopped.

        Args:
            name: Which one; the bare hosts, too, which `up` does not start and which are gone after the next `up`.
            report: Called with one line when it answers.
        """
        host = self.host(name)
        with machine.exclusive(report):
            self._host_up(host, self._secrets(), report)

    def stop(self, name: str) -> None:
        """Power one host off, at once, as a power cut does: nothing on it is told."""
        host = self.host(name)
        with machine.exclusive(_silent):
            pid = self.pid(host.name)
            if pid is not None:
                _kill(pid)

    def discard(self, name: str) -> None:
        """Power one host off and forget its files: the next start is its first."""
        self.stop(name)
        with machine.exclusive(_silent):
            shutil.rmtree(STORE / self.host(name).name, ignore_errors=True)

    def start_service(self, name: str, service: str) -> None:
        """Start one program of a host (`nginx`, `dockerd`, `sshd`, …) and wait until it answers."""
        host = self._host_with(name, service)
        self._service_file(host, service, ".down").unlink(missing_ok=True)
        self._wait_ready(host)

    def stop_service(self, name: str, service: str) -> None:
        """Stop one program of a host with SIGTERM; it stays down until it is started again."""
        host = self._host_with(name, service)
        self._service_file(host, service, ".down").touch()
        pid = self._service_pid(host, service)
        if pid is not None:
            self.exec(name, ["kill", str(pid)])
        _until(lambda: self._service_pid(host, service) is None, f"{service} on {name} does not stop")

    def cut(self, name: str) -> None:
        """Swallow what goes between this machine and the sshd of a host; neither end is told, and others reach it still."""
        machine.cut(self.host(name).address)

    def mend(self) -> machine.Dropped:
        """End every cut, also one of a program that did not come to it, and tell what did not get through."""
        return machine.mend()

    # --- looking into it ---------------------------------------------------------------------------------------

    def status(self) -> list[HostStatus]:
        """What each host is doing now."""
        return [self._host_status(host) for host in self.hosts]

    def exec(
        self,
        name: str,
        command: Sequence[str] | str,
        *,
        check: bool = True,
        stdin: str | bytes | None = None,
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on a host, past SSH: for looking at the truth, and for breaking things.

        Args:
            name: The host.
            command: An argument list, or a text for `sh -c`.
            check: Raise when it fails.
            stdin: What it reads; nothing by default.
            timeout: Seconds after which it is ended.

        Raises:
            AxonError: The host is not running, or the command failed and `check` is set.
        """
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*self.enter(name), *argv],
            input=data or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
            env=_ENV,
        )
        result = subprocess.CompletedProcess(
            argv, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and result.returncode:
            raise AxonError(
                f"On {name}, `{' '.join(argv)}` failed with exit code {result.returncode}:"
                f" {result.stderr.strip() or result.stdout.strip()}"
            )
        return result

    def enter(self, name: str) -> list[str]:
        """The words that, put before a command, run it on a host.

        Not `ip netns exec`: that mounts a new /sys and so hides the control groups, which Docker needs.

        Raises:
            AxonError: The host is not running.
        """
        pid = self.pid(name)
        if pid is None:
            raise AxonError(f"The lab host {name} is not running.", hint="Start the lab: invoke lab.up")
        flags = ["--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wd"]
        return ["nsenter", "--target", str(pid), *flags, "--"]

    def pid(self, name: str) -> int | None:
        """The first process of a host, as seen from this machine; None if the host is off."""
        return _recall(self.host(name).name)

    def path(self, name: str, path: str) -> Path:
        """A file of a running host as it can be reached from this machine (reading and writing go to the host).

        Absolute symbolic links in it lead astray: they are followed on this machine.
        """
        pid = self.pid(name)
        if pid is None:
            raise AxonError(f"The lab host {name} is not running.", hint="Start the lab: invoke lab.up")
        return Path(f"/proc/{pid}/root", path.lstrip("/"))

    # --- parts -------------------------------------------------------------------------------------------------

    def _refuse_foreign(self) -> None:
        state = LabState.load()
        # Notes alone are no lab: after a reboot or a crash nothing of it runs, and whoever comes takes it over.
        if state and state.project != str(self.root) and Path(state.project).is_dir() and _search():
            raise AxonError(
                f"A lab that belongs to {state.project} is on this machine, and there can be one.",
                hint=f"Remove it with: cd {state.project} && invoke lab.down   (or here: invoke lab.down --force)",
            )

    def _secrets(self) -> Secrets:
        """The lab's keys: kept in its store as long as it exists, and handed to the project in `.lab/`."""
        keys = STORE / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        logins = [*BARE, *(host for host in all_hosts(MAX_APPS) if host.has_ssh)]
        for name in ["client", *(host.name for host in logins)]:
            if not (keys / name).exists():
                comment = "axon-tasks lab" if name == "client" else name
                machine.run(
                    "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(keys / name)
                )
        self._hand_out(keys, logins)
        identity = _identity(keys / "id")
        _write(keys / "id", identity)
        return Secrets(
            lab=identity,
            client_public=(keys / "client.pub").read_text(encoding="ascii"),
            host_keys={host.name: (keys / host.name).read_text(encoding="ascii") for host in logins},
            htpasswd=_htpasswd(),
        )

    def _hand_out(self, keys: Path, logins: list[LabHost]) -> None:
        self.key_file.parent.mkdir(mode=0o700, exist_ok=True)
        for source, target in (("client", self.key_file), ("client.pub", self.key_file.with_suffix(".pub"))):
            _write(target, (keys / source).read_text(encoding="ascii"))
        lines = []
        for host in logins[: len(BARE) + self.apps + 1]:
            kind, key = (keys / f"{host.name}.pub").read_text(encoding="ascii").split()[:2]
            lines.append(f"{host.address},{host.name} {kind} {key}\n")
        _write(self.known_hosts, "".join(lines))

    def _take_stock(self, report: Report) -> None:
        """Note the hosts that run, and end those that a smaller lab does not have."""
        wanted = {host.name for host in self.hosts}
        for name, pid in _search().items():
            if name in wanted:
                _remember(name, pid)
            else:
                report(f"{name}: removed")
                _kill(pid)
                shutil.rmtree(STORE / name, ignore_errors=True)

    def _host_up(self, host: LabHost, keys: Secrets, report: Report) -> None:
        """Start one host if it does not run, and wait until its services answer."""
        started = time.monotonic()
        fresh = self.pid(host.name) is None
        if fresh:
            self._boot(host, keys, report)
        self._set_rtt(host)
        for service in host.services:
            self._service_file(host, service, ".down").unlink(missing_ok=True)
        self._wait_ready(host)
        if fresh:
            took = time.monotonic() - started
            report(f"{host.name}: {', '.join(host.services)} at {host.address} ({took:.1f} s)")

    def _boot(self, host: LabHost, keys: Secrets, report: Report) -> None:
        base = STORE / host.name
        base.mkdir(mode=0o755, exist_ok=True)
        (base / "root").mkdir(exist_ok=True)
        # What an overlay kept for itself is of no use to the next one, and may say that it is in use.
        shutil.rmtree(base / "work", ignore_errors=True)
        installed = base / "installed"
        files = host_files(host, all_hosts(MAX_APPS), Accounts.of_machine(), keys)
        spec = host_spec(host, base, files, self.rtt, installed=installed.exists())
        _write(base / "spec.json", json.dumps(spec))
        self._launch(host, base)
        if host.role == "bare" and not installed.exists():
            self._strip(host, keys, report)
        installed.touch()

    def _strip(self, host: LabHost, keys: Secrets, report: Report) -> None:
        """Take from a bare host what it has of this machine; how its Docker is to be run stays, for the day it has one."""
        mirror = STORE / host.name / "own" / MIRROR.strip("/").replace("/", "-")
        bare.strip(lambda script: self.exec(host.name, script).stdout, STORE / "packages", mirror, report)
        for file in (docker_settings(host, keys.lab), *DOCKER_STARTS):
            folder = file.path.rpartition("/")[0]
            self.exec(host.name, f"mkdir -p {folder} && cat >{file.path}", stdin=file.text)

    @staticmethod
    def _launch(host: LabHost, base: Path) -> None:
        """Start the host's first process, connect its network, and wait until its file system stands."""
        launcher = subprocess.Popen(
            [sys.executable, "-I", str(_INIT), str(base / "spec.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
            env=_ENV,
        )
        with launcher:
            assert launcher.stdin  # pipes were asked for above
            assert launcher.stdout
            assert launcher.stderr
            line = launcher.stdout.readline()
            if line:
                machine.connect(host.name, host.mac, int(line))
                _remember(host.name, int(line))
                launcher.stdin.write("go\n")
                launcher.stdin.close()
            said = launcher.stderr.read().strip()
        if said or not line:
            raise AxonError(f"The lab host {host.name} could not be started: {said or 'no process'}")

    def _set_rtt(self, host: LabHost) -> None:
        """Give the host's SSH the wanted round-trip time: sshd on port 22 itself, or behind a delay proxy."""
        if not host.has_ssh:
            return
        running = self._proxy(host)
        if (running["rtt"] if running else 0.0) == self.rtt:
            return
        if running:
            self.exec(host.name, ["kill", str(running["pid"])], check=False)
            _until(lambda: self._proxy(host) is None, f"the delay proxy of {host.name} does not end")
        setting = sshd_port(self.rtt)
        config = self.path(host.name, setting.path)
        if config.read_text(encoding="utf-8") != setting.text:
            config.write_text(setting.text or "", encoding="utf-8")
            self.exec(host.name, "kill -HUP $(cat /run/lab/sshd.pid)", check=False)
        if self.rtt:
            self._start_proxy(host)

    def _start_proxy(self, host: LabHost) -> None:
        """Start the proxy in the host's network and PID namespaces, but with this machine's files, where Python is."""
        entry = ["nsenter", "--target", str(self.pid(host.name)), "--net", "--pid", "--"]
        ports = ["--port", "22", "--target", str(SSHD_BEHIND_PROXY)]
        state = ["--rtt", str(self.rtt), "--state", str(_delay_file(host.name))]
        with (STORE / host.name / "delay.log").open("w", encoding="utf-8") as log:
            subprocess.Popen(
                [*entry, sys.executable, "-I", str(_DELAY), *ports, *state],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=_ENV,
            )
        _until(lambda: self._proxy(host) is not None, f"the delay proxy of {host.name} does not start")

    def connections(self, name: str) -> int:
        """How many SSH connections a host has had since its round-trip time was set; 0 without one."""
        running = self._proxy(self.host(name))
        return int(running["connections"]) if running else 0

    def _proxy(self, host: LabHost) -> dict[str, Any] | None:
        """What the host's delay proxy says of itself, if it is alive."""
        try:
            stats: dict[str, Any] = json.loads(_delay_file(host.name).read_text(encoding="utf-8"))
            words = self.path(host.name, f"/proc/{stats['pid']}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, KeyError, AxonError):
            return None
        return stats if os.fsencode(_DELAY) in words else None

    def _wait_ready(self, host: LabHost) -> None:
        for service in host.services:
            _until(
                lambda service=service: self._answers(host, service),
                f"{service} on {host.name} does not answer",
                self._log_of(host, service),
                _READY_TIMEOUT,
            )

    def _answers(self, host: LabHost, service: str) -> bool:
        if self._service_pid(host, service) is None:
            return False
        match service:
            case "sshd":
                return _answers_on(host.address, 22)
            case "dockerd":
                return _docker_answers(self.path(host.name, "/run/docker.sock"))
            case "registry":
                return _answers_on(host.address, REGISTRY_PORT)
            case "registry-login":
                return _answers_on(host.address, REGISTRY_PORT_WITH_LOGIN)
            case _:
                return self.path(host.name, "/run/nginx.pid").exists()

    def _host_with(self, name: str, service: str) -> LabHost:
        host = self.host(name)
        if service not in host.services:
            raise UsageError(f"{name} does not run {service!r}.", hint=f"It runs: {', '.join(host.services)}")
        return host

    def _service_file(self, host: LabHost, service: str, suffix: str) -> Path:
        return self.path(host.name, f"/run/lab/{service}{suffix}")

    def _service_pid(self, host: LabHost, service: str) -> int | None:
        """The process of a service, as a number of the host's own PID namespace."""
        try:
            return int(self._service_file(host, service, ".pid").read_text(encoding="ascii"))
        except (OSError, ValueError, AxonError):
            return None

    def _log_of(self, host: LabHost, service: str) -> Path:
        return STORE / host.name / "upper" / "all" / "var/log/lab" / f"{service}.log"

    def _host_status(self, host: LabHost) -> HostStatus:
        running = self.pid(host.name) is not None
        services = {name: running and self._answers(host, name) for name in host.services}
        containers = self._containers(host) if services.get("dockerd") else []
        return HostStatus(host.name, host.address, host.role, running, services, containers, self.rtt)

    def _containers(self, host: LabHost) -> list[str]:
        done = self.exec(host.name, ["docker", "ps", "--format", "{{.Names}} ({{.Image}})"], check=False)
        return done.stdout.splitlines()


_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DOCKER_BUILDKIT": "0",
}


def find_project() -> Path:
    """The project directory: the working directory or the next one above it with a `hosts.yml` or `.lab`."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / "hosts.yml").is_file() or (directory / ".lab").is_dir():
            return directory
    return here


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with os.fdopen(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    temporary.replace(path)


def _identity(path: Path) -> str:
    """The identity that a lab was given when it was made, or a new one."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return secrets.token_hex(4)


def _htpasswd() -> str:
    import bcrypt  # comes with paramiko; the registry takes no other kind of hash

    hashed = bcrypt.hashpw(REGISTRY_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    return f"{REGISTRY_USER}:{hashed}\n"


def _remember(name: str, pid: int) -> None:
    """Note a host's first process together with when it was started: the number alone may be used again."""
    _write(RUN / f"{name}.json", json.dumps({"pid": pid, "started": _started(pid)}))


def _delay_file(name: str) -> Path:
    """Where the delay proxy of a host keeps its statistics."""
    return RUN / f"{name}.delay.json"


def _recall(name: str) -> int | None:
    """The first process of a host as it was noted, if it is still that process and alive."""
    try:
        noted = json.loads((RUN / f"{name}.json").read_text(encoding="utf-8"))
        return int(noted["pid"]) if _started(noted["pid"]) == noted["started"] else None
    except (OSError, ValueError, KeyError):
        return None


def _started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot (proc(5)); None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _search() -> dict[str, int]:
    """The first process of each running host, found without the notes, which may be lost.

    Such a process runs `init.py` with a specification of the lab and is number 1 of a PID namespace right below
    ours: a lab inside a container or inside a test is somebody else's.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, KeyError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                spec = Path(os.fsdecode(words[3]))
                if words[2].endswith(b"/lab/init.py") and spec.parent.parent == STORE and _is_first(entry):
                    found[spec.parent.name] = int(entry.name)
    return found


def _is_first(entry: Path) -> bool:
    """Whether a process is number 1 of a PID namespace that is a child of ours."""
    lines = (entry / "status").read_text(encoding="utf-8").splitlines()
    numbers = dict(line.split(":", 1) for line in lines if ":" in line)["NSpid"].split()
    return numbers[1:] == ["1"]


def _kill(pid: int) -> None:
    """End a host, and wait until the kernel has ended all that ran on it."""
    started = _started(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _until(lambda: started is None or _started(pid) != started, f"process {pid} does not end")


def _until(true: Any, otherwise: str, log: Path | None = None, timeout: float = _SERVICE_TIMEOUT) -> None:
    """Wait until a condition holds.

    Raises:
        AxonError: It does not hold in time; the message ends with the last lines of the log.
    """
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AxonError(f"{otherwise} after {timeout:.0f} s.{_tail(log)}")
        time.sleep(0.03)


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return f" The end of {log}:\n" + "\n".join(f"    {line}" for line in lines)


def _answers_on(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def _docker_answers(path: Path) -> bool:
    """Whether a dockerd answers on its socket (`GET /_ping`, Docker's engine API)."""
    with contextlib.suppress(OSError, http.client.HTTPException), _unix_connection(path) as connection:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


@contextlib.contextmanager
def _unix_connection(path: Path) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(str(path))
        yield connection
    finally:
        connection.close()

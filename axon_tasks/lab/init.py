"""The first process of a lab host: makes the host's namespaces and file system, then keeps its services alive.

It runs as a program of its own, `python -I init.py SPEC.json`, and imports nothing but the standard library, all of
it at the top: once the host has a root file system of its own, Python's library may no longer be visible.

Being process 1 of a PID namespace is what makes the lab easy to remove: when it dies, the kernel ends every process
of the host, containers included, and with the last process go its mounts, its network and its interfaces
(pid_namespaces(7), mount_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

#: Top-level directories that are laid over one by one where the machine keeps them on file systems of their own:
#: an overlay of / does not contain what is mounted below it.
SEPARATE = ("boot", "etc", "home", "opt", "root", "srv", "usr", "var")

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

#: Seconds until a service that ended is started again.
RESTART_DELAY = 0.3


def run(*argv: str) -> None:
    """Run a system program, or end with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")


def launch(spec: dict[str, Any]) -> None:
    """Enter new namespaces and fork: the child is the host; its PID is printed for the lab, which then says "go"."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET):
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    pid = os.fork()
    if pid:
        os.write(1, f"{pid}\n".encode())
        os._exit(0)
    if sys.stdin.readline() != "go\n":  # the lab has died, or could not connect the network
        sys.exit(1)
    log = os.open(f"{spec['base']}/init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    boot(spec)
    # Whoever waits for our output is told that the file system stands by its end.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Supervisor.of(spec).run()


def boot(spec: dict[str, Any]) -> None:
    """Name the host, connect it, and give it its own file system."""
    socket.sethostname(spec["name"])
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", spec["address"], "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("mount", "--make-rprivate", "/")
    enter(pathlib.Path(spec["base"]), spec["own"])
    if not spec["installed"]:
        install(spec)
    write_files(spec["settings"])


def enter(base: pathlib.Path, own: list[str]) -> None:
    """Make `base`/root, an overlay of the machine's file system with private parts, the root directory.

    Args:
        base: The host's directory on the machine; what the host writes ends up below it.
        own: Directories that start empty and are kept on the machine's file system as they are, not in the overlay.
    """
    root = base / "root"
    lay_over(pathlib.Path("/"), base, "all", root)
    for name in SEPARATE:
        if os.path.ismount(f"/{name}"):
            lay_over(pathlib.Path("/", name), base, name, root / name)
    for name in own:
        bind(base / "own" / name.strip("/").replace("/", "-"), root / name.lstrip("/"))
    for name, mode in (("tmp", "1777"), ("run", "755")):
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", str(root / name))
    run("mount", "-t", "proc", "proc", str(root / "proc"))
    run("mount", "-t", "sysfs", "sysfs", str(root / "sys"))
    if os.path.ismount("/sys/fs/cgroup"):
        run("mount", "--rbind", "/sys/fs/cgroup", str(root / "sys/fs/cgroup"))
    run("mount", "--rbind", "/dev", str(root / "dev"))
    run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev/shm"))
    run(
        "mount",
        "-t",
        "devpts",
        "-o",
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
        "devpts",
        str(root / "dev/pts"),
    )
    run("mount", "--bind", str(root / "dev/pts/ptmx"), str(root / "dev/ptmx"))
    (root / "mnt").mkdir(exist_ok=True)
    os.chdir(root)
    run("pivot_root", ".", "mnt")
    os.chdir("/")
    run("umount", "-l", "/mnt")


def lay_over(lower: pathlib.Path, base: pathlib.Path, name: str, target: pathlib.Path) -> None:
    """Show `lower` at `target`; what is written there goes to `base`."""
    upper, work = base / "upper" / name, base / "work" / name
    for directory in (upper, work, target):
        directory.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", options, "overlay", str(target))


def bind(source: pathlib.Path, target: pathlib.Path) -> None:
    """Show `source` at `target`; both are made where they are missing."""
    source.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", str(source), str(target))


def install(spec: dict[str, Any]) -> None:
    """Write the host's own files, once in its life: later starts find what was changed meanwhile, as a disk does."""
    for name in spec["remove"]:
        path = pathlib.Path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    write_files(spec["files"])


def write_files(entries: list[dict[str, Any]]) -> None:
    """Write files and, for entries without a text, make directories."""
    for entry in entries:
        path = pathlib.Path(entry["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry["text"] is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(entry["text"], encoding="utf-8")
        path.chmod(entry["mode"])
        os.chown(path, entry["owner"], entry["owner"])


@dataclass
class Service:
    """A program that is kept running."""

    name: str
    argv: list[str]
    pid: int = 0
    not_before: float = 0.0

    @property
    def pid_file(self) -> pathlib.Path:
        """Where the lab finds the process, as a number of this host's PID namespace."""
        return pathlib.Path("/run/lab", f"{self.name}.pid")

    @property
    def wanted(self) -> bool:
        """Whether nobody has asked that it stays down."""
        return not self.pid_file.with_suffix(".down").exists()

    def start(self) -> None:
        """Start the program with its output in a file: a full pipe would stop it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.pid = os.posix_spawnp(
            self.argv[0],
            self.argv,
            ENVIRONMENT,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"/var/log/lab/{self.name}.log", flags, 0o640),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
        )
        self.pid_file.write_text(f"{self.pid}\n", encoding="utf-8")

    def ended(self) -> None:
        """Note that the process is gone."""
        self.pid = 0
        self.not_before = time.monotonic() + RESTART_DELAY
        self.pid_file.unlink(missing_ok=True)


@dataclass
class Supervisor:
    """Process 1: starts services, starts them again, and reaps whatever is orphaned."""

    services: list[Service] = field(default_factory=list)

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Supervisor:
        """The supervisor of one host."""
        return cls([Service(name, argv) for name, argv in spec["services"].items()])

    def run(self) -> None:
        """Keep going for ever; the lab ends a host with SIGKILL, as a power cut would."""
        for directory in ("/run/lab", "/run/sshd", "/var/log/lab"):
            pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        while True:
            for service in self.services:
                if not service.pid and service.wanted and time.monotonic() >= service.not_before:
                    service.start()
            signal.sigtimedwait({signal.SIGCHLD}, RESTART_DELAY)
            self.reap()

    def reap(self) -> None:
        """Collect every process that has ended."""
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                for service in self.services:
                    if service.pid == pid:
                        service.ended()


if __name__ == "__main__":
    launch(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")))

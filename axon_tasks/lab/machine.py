"""What the lab needs of the machine it runs on: privileges, packages, a bridge, a file system for overlays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab.hosts import BRIDGE, GATEWAY, NETWORK

Report = Callable[[str], None]

#: Programs that the lab and its tests start, and the Debian/Ubuntu package that brings each.
PROGRAMS = {
    "nginx": "nginx",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "sshd": "openssh-server",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "ss": "iproute2",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "mount": "mount",
    "sudo": "sudo",
    "curl": "curl",
    "wget": "wget",
    "openssl": "openssl",
    "ps": "procps",
    "shellcheck": "shellcheck",
}

#: Without /usr/local: that is empty on the lab's hosts, so that nobody's own tools are to be found there.
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

#: What the bridge's ends of the hosts' interfaces are called.
_PORT_PREFIX = "axl-"
#: How the rules that cut a host off are found again.
_CUT = "axon-lab-cut"
#: Somebody else may be changing the rules of this machine: wait for them, for some seconds.
_IPTABLES = ("iptables", "-w", "5")

#: A policy that keeps packages from starting their services: the lab wants the programs, not a second nginx here.
_NO_SERVICES = "#!/bin/sh\n# Written by axon-tasks while packages are installed.\nexit 101\n"
_POLICY = Path("/usr/sbin/policy-rc.d")


def run(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a system program of this machine; a failure becomes a message with what it said."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AxonError(f"{argv[0]} is not installed on this machine.", hint="Run: invoke lab.up") from None
    if check and done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise AxonError(f"`{' '.join(argv)}` failed: {said}")
    return done


def require_root() -> None:
    """Refuse on machines where the lab cannot work.

    Raises:
        UsageError: This is not Linux, or the user is not root.
    """
    if sys.platform != "linux":
        raise UsageError(
            f"The lab needs Linux (namespaces, overlay file systems), this is {sys.platform}.",
            hint="Run it in a Linux virtual machine, or point hosts.yml at servers of your own.",
        )
    if os.geteuid() != 0:
        raise UsageError(
            "The lab needs root: it creates network namespaces, mounts and a bridge.",
            hint="Run the same as root: sudo make demo, or sudo .venv/bin/invoke lab.up",
        )


@contextlib.contextmanager
def exclusive(report: Report) -> Iterator[None]:
    """Let one process at a time change the lab.

    The lock is held on the directory /run itself, because a lock file would be one more thing to leave behind.
    """
    descriptor = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another process is changing the lab; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def missing_packages() -> list[str]:
    """The packages that bring the programs which are not there."""
    missing = {
        package for program, package in PROGRAMS.items() if shutil.which(program, path=_SYSTEM_PATH) is None
    }
    if busybox_path() is None:
        missing.add("busybox-static")
    return sorted(missing)


def busybox_path() -> Path | None:
    """Where a busybox is that runs without libraries, as it must in an image that holds nothing else."""
    name = shutil.which("busybox", path=_SYSTEM_PATH)
    if name is None:
        return None
    # A dynamic executable names its interpreter right behind its headers (elf(5), PT_INTERP).
    with Path(name).open("rb") as file:
        head = file.read(4096)
    return None if b"/ld-linux" in head or b"/ld-musl" in head else Path(name)


def install_packages(report: Report) -> None:
    """Install what is missing through apt, after saying so.

    Raises:
        AxonError: There is no apt here, or it failed.
    """
    missing = missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise AxonError(
            f"The lab needs {', '.join(missing)} (names of Debian's packages), and there is no apt-get here.",
            hint="Install them with this system's own package manager, then run it again.",
        )
    report(f"Installing with apt-get: {' '.join(missing)} (their services are not started)")
    install = ("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    with _services_stay_down():
        done = apt(*install, report=report)
        if done.returncode:
            raise AxonError(
                f"apt-get could not install {' '.join(missing)}: {done.stderr.strip()[-800:]}",
                hint=f"Try by hand: {' '.join(install)}",
            )
    still = missing_packages()
    if still:
        raise AxonError(
            f"apt-get has installed its packages, but these programs are still missing: {', '.join(still)}"
        )


def apt(*argv: str, report: Report, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run apt-get; once more with new lists of packages if it fails, because they may be missing or too old.

    Args:
        argv: The command.
        report: Is told about the second time.
        folder: Where to run it.
    """
    done = _apt(*argv, folder=folder)
    if done.returncode:
        report("Fetching apt's lists of packages first")
        _apt("apt-get", "update", "-q")
        done = _apt(*argv, folder=folder)
    return done


def _apt(*argv: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        argv,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def _services_stay_down() -> Iterator[None]:
    """Ask Debian's maintainer scripts not to start services (invoke-rc.d(8), policy-rc.d)."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text(_NO_SERVICES, encoding="ascii")
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)


def bridge_up() -> None:
    """Make the lab's bridge, if it is not there.

    Raises:
        AxonError: The lab's addresses are in use for something else on this machine.
    """
    if not Path("/sys/class/net", BRIDGE).exists():
        _refuse_foreign_network()
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    prefix = NETWORK.rpartition("/")[2]
    run("ip", "addr", "replace", f"{GATEWAY}/{prefix}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    # A new network namespace has its loopback down; the load generator's own tests need it.
    run("ip", "link", "set", "lo", "up")
    for rule in _filter_rules():
        if run(*_IPTABLES, "-C", *rule, check=False).returncode:
            run(*_IPTABLES, "-I", *rule)


class Dropped(NamedTuple):
    """What was done by the cuts that were mended.

    Attributes:
        directions: The directions, two for each server that was cut off.
        packets: The packets that did not get through.
    """

    directions: int = 0
    packets: int = 0


def cut(address: str) -> None:
    """Drop what goes between this machine and the sshd of a host, in both directions, until `mend`."""
    for rule in (
        ("INPUT", "-s", address, "-p", "tcp", "--sport", "22"),
        ("OUTPUT", "-d", address, "-p", "tcp", "--dport", "22"),
    ):
        run(*_IPTABLES, "-I", *rule, "-m", "comment", "--comment", _CUT, "-j", "DROP")


def mend() -> Dropped:
    """Let everything through again that `cut` has dropped, whoever called it, and tell what that was.

    Raises:
        AxonError: A rule could not be removed, or nobody can tell whether there is one.
    """
    if not shutil.which("iptables"):
        return Dropped()  # nobody can have cut anything
    directions = packets = 0
    stays: list[AxonError] = []
    for told in run(*_IPTABLES, "-S", "-v").stdout.splitlines():
        rule, counted, rest = told.partition(" -c ")
        if not counted or _CUT not in rule:
            continue
        count, _bytes, target = rest.split(" ", 2)
        try:
            run(*_IPTABLES, "-D", *rule.split()[1:], *target.split())
        except AxonError as error:
            stays.append(error)
        directions, packets = directions + 1, packets + int(count)
    if stays:
        raise stays[0]
    return Dropped(directions, packets)


def bridge_down() -> None:
    """Remove the bridge, what was opened for it, and what was closed on it."""
    mend()
    for rule in _filter_rules():
        while run(*_IPTABLES, "-D", *rule, check=False).returncode == 0:
            pass
    # The kernel removes a dead host's interface some time later; whoever looks now is not to find it.
    for port in Path("/sys/class/net").glob(f"{_PORT_PREFIX}*"):
        run("ip", "link", "del", port.name, check=False)
    if Path("/sys/class/net", BRIDGE).exists():
        run("ip", "link", "del", BRIDGE)


def _refuse_foreign_network() -> None:
    routes = run("ip", "-4", "route", "show", "root", NETWORK).stdout.strip()
    if routes:
        raise AxonError(
            f"The lab's network {NETWORK} is in use on this machine: {routes.splitlines()[0].strip()}",
            hint="Remove that route or interface while you use the lab.",
        )


def _filter_rules() -> list[list[str]]:
    """What lets frames pass from one lab host to another where the machine filters bridged traffic.

    That is so on machines with a Docker of their own: it loads br_netfilter and drops what is forwarded.
    """
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    try:
        filtered = switch.read_text(encoding="ascii").strip() == "1"
    except OSError:
        filtered = False
    return (
        [["FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"]]
        if filtered and shutil.which("iptables")
        else []
    )


def connect(name: str, mac: str, pid: int) -> None:
    """Give the network namespace of a process an interface on the lab's bridge.

    Args:
        name: The host's name; the bridge's end is called after it.
        mac: The interface's hardware address.
        pid: A process of the host.
    """
    port = f"{_PORT_PREFIX}{name}"
    if Path("/sys/class/net", port).exists():
        run("ip", "link", "del", port)
    run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", str(pid))
    run("ip", "link", "set", port, "master", BRIDGE, "up")


def storage_up(directory: Path) -> None:
    """Make the directory of the lab's file systems; in memory where the disk cannot hold an overlay's upper layer.

    The kernel refuses an overlay as the upper layer of another, which is what / is in a container.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(directory) and not _holds_overlays(directory):
        run("mount", "-t", "tmpfs", "-o", "mode=700", "axon-lab", str(directory))
    directory.chmod(0o700)


def storage_down(directory: Path) -> None:
    """Remove the directory and whatever is mounted in it."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for mount in reversed(mounts):
        if mount == str(directory) or mount.startswith(f"{directory}/"):
            run("umount", "-l", mount)
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        raise AxonError(f"{directory} could not be removed: {os.listdir(directory)}")  # noqa: PTH208  (names, for people)


def _holds_overlays(directory: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=directory, prefix="probe-") as name:
        probe = Path(name)
        for part in ("lower", "upper", "work", "at"):
            (probe / part).mkdir()
        options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
        done = run("mount", "-t", "overlay", "-o", options, "overlay", f"{probe}/at", check=False)
        if done.returncode == 0:
            run("umount", f"{probe}/at")
        return done.returncode == 0


def remove_cgroups(name: str) -> None:
    """Remove the empty control groups that containers leave behind; one that is still in use stays.

    A group can be removed a moment after its last process has ended, so this is tried for a second.
    """
    deadline = time.monotonic() + 1
    while True:
        tops = [
            path
            for path in (*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup", name))
            if path.exists()
        ]
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        if not any(top.exists() for top in tops) or time.monotonic() > deadline:
            return
        time.sleep(0.02)

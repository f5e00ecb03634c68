"""Hosts with nothing but sshd, for `servers.setup`: what they share with this machine is taken from them with dpkg.

A lab host sees the machine's programs, nginx and Docker included. From a bare one these packages are removed as an
operator would remove them, and a mirror of its own, a directory of packages, offers them again to its apt-get.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab import machine
from axon_tasks.lab.hosts import MIRROR

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from axon_tasks.lab.machine import Report

#: Packages that a fresh server does not have; what needs them goes with them.
_TAKEN = (
    "nginx", "nginx-common", "docker.io", "containerd", "runc", "docker-registry", "sudo", "curl", "wget",
)  # fmt: skip

#: What dpkg leaves, because this machine has it from elsewhere, goes as well. Its apt knows no other source, and has not fetched its lists: what comes first on a new server is `apt-get update`.
_SOURCES = f"""\
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/* /usr/sbin/policy-rc.d
rm -rf /etc/nginx /etc/docker
echo 'deb [trusted=yes] file:{MIRROR} ./' >/etc/apt/sources.list
"""


def strip(run: Callable[[str], str], store: Path, mirror: Path, report: Report) -> None:
    """Take from a host what it has of this machine, and fill its mirror.

    Args:
        run: Runs a script on the host and gives what it wrote.
        store: Where packages are kept for all hosts.
        mirror: The host's mirror, as it can be reached from this machine on the same file system as `store`.
        report: Called with one line for what takes a moment.

    Raises:
        AxonError: The packages cannot be had.
    """
    installed = run(
        f"dpkg-query -W -f '${{Package}} ${{db:Status-Abbrev}}\\n' {' '.join(_TAKEN)} 2>/dev/null || true"
    )
    names = " ".join(line.split()[0] for line in installed.splitlines() if line.split()[1:] == ["ii"])
    planned = run(f"apt-get purge -s {names}")
    gone = sorted(set(re.findall(r"^(?:Purg|Remv) (\S+)", planned, re.MULTILINE)))
    _fetch(gone, store, report)
    mirror.mkdir(parents=True, exist_ok=True)
    for package in store.glob("*.deb"):
        if not (mirror / package.name).exists():
            os.link(package, mirror / package.name)
    (mirror / "Packages").write_text("".join(map(_stanza, sorted(store.glob("*.deb")))), encoding="utf-8")
    # sudo does not let itself be removed where root has no password.
    purge = f"DEBIAN_FRONTEND=noninteractive SUDO_FORCE_REMOVE=yes apt-get purge -y -q {names} >&2"
    run(f"set -e\n{purge}\n{_SOURCES}")


def _fetch(names: list[str], store: Path, report: Report) -> None:
    store.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not list(store.glob(f"{name.partition(':')[0]}_*.deb"))]
    if not missing:
        return
    done = machine.apt("apt-get", "download", "-q", *missing, report=report, folder=store)
    if done.returncode:
        raise AxonError(
            f"apt-get could not fetch {' '.join(missing)} for the bare hosts: {done.stderr.strip()[-800:]}",
            hint="They come from this machine's own sources of packages: is it connected?",
        )


def _stanza(package: Path) -> str:
    """A package in the index of a mirror (deb-packages: Filename, Size and SHA256 beside its own fields)."""
    fields = machine.run("dpkg-deb", "-f", str(package)).stdout.strip()
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return f"{fields}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n\n"

"""The lab: servers to try everything on, made of namespaces on this machine."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from invoke.collection import Collection

from axon_tasks.errors import UsageError
from axon_tasks.tasks.base import Context, say, task, whole

if TYPE_CHECKING:
    from axon_tasks.lab import HostStatus


#: What the lab has to deploy from the start: tag and variant of the sample application.
SAMPLES = {"v1": "ok", "v2": "ok", "sick": "sick", "crash": "crash"}


@task(
    help={
        "apps": "How many app servers, 1 to 9. Default: as it is, or 3.",
        "rtt": "Round-trip time of SSH in milliseconds, 0 to 2000. Default: as it is, or 0.",
    }
)
def up(_c: Context, apps: str = "", rtt: str = "") -> None:
    """Start the lab: servers with nginx and Docker, a registry.

    Needs root on Linux. What is missing is installed with apt-get, after saying so. Called again, it changes
    the running lab to what is asked and repairs what is broken. The SSH key and the host keys are in .lab/.
    The registry then has the sample application as v1 and v2, as `sick` (never healthy) and `crash` (exits at once).

    Examples:
      invoke lab.up
      invoke lab.up --apps=3 --rtt=50
    """
    from axon_tasks.lab import Lab
    from axon_tasks.lab.images import build_sample

    lab = Lab(apps=whole(apps, "apps"), rtt=_milliseconds(rtt))
    lab.up(say)
    samples = [build_sample(lab, tag, variant) for tag, variant in SAMPLES.items()]
    others = f", SSH with {lab.rtt:g} ms round-trip time" if lab.rtt else ""
    say(f"The lab is up: {', '.join(f'{host.name} {host.address}' for host in lab.hosts)}{others}")
    say(f"In its registry: {', '.join(samples)}")
    say("Try next: fab deploy --env=prod --tag=v1")


@task(help={"force": "Also if the lab belongs to another project directory."})
def down(_c: Context, force: bool = False) -> None:
    """Remove the lab: its processes, network, files and keys.

    Nothing of it stays on this machine but the packages that were installed. Also works when it is half there.

    Examples:
      invoke lab.down
    """
    from axon_tasks.lab import Lab

    Lab().down(say, force=force)


@task(help={"json": "Print JSON instead of a table."})
def status(_c: Context, json: bool = False) -> None:
    """Show the lab's hosts and what runs on them.

    Exit code 1 if something that belongs to the lab does not run.

    Examples:
      invoke lab.status
      invoke lab.status --json
    """
    from axon_tasks.lab import Lab
    from axon_tasks.lab.machine import require_root

    require_root()
    hosts = Lab().status()
    say(_as_json(hosts) if json else _as_table(hosts))
    if not all(host.ok for host in hosts):
        sys.exit(1)


@task(help={"host": "The host: edge1, app1, app2, ..., registry."})
def shell(_c: Context, host: str) -> None:
    """Open a root shell on a lab host, or run a command there.

    It does not go through SSH, so it also works on a host whose sshd is broken. What stands behind `--` is run
    instead of a shell, and its exit code is the one of this task.

    Examples:
      invoke lab.shell app1
      invoke lab.shell edge1 -- nginx -T
    """
    from axon_tasks.lab import Lab
    from axon_tasks.lab.machine import require_root

    require_root()
    # Invoke keeps what stands behind `--` to itself; replacing this process also keeps Fabric from running it here.
    behind = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    argv = [*Lab().enter(host), "env", "HOME=/root", *(behind or ["bash"])]
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606  (the point of this task)


def _milliseconds(text: str) -> float | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?(ms)?", text, re.ASCII):
        raise UsageError(f"--rtt={text}: a number of milliseconds is needed.")
    return float(text.removesuffix("ms"))


def _as_json(hosts: list[HostStatus]) -> str:
    import json
    from dataclasses import asdict

    return json.dumps([{**asdict(host), "ok": host.ok} for host in hosts], indent=2)


def _as_table(hosts: list[HostStatus]) -> str:
    """One line per host; what is down is marked with its word, not with a colour."""
    lines = [f"{'HOST':<10}{'ADDRESS':<13}{'RTT':<8}{'SERVICES':<36}CONTAINERS"]
    for host in hosts:
        services = ", ".join(f"{name}{'' if up else ' DOWN'}" for name, up in host.services.items())
        rtt = f"{host.rtt:g} ms" if host.role != "registry" else ""
        containers = ", ".join(host.containers) or ("none" if host.role in {"app", "both"} else "")
        state = services if host.running else "OFF"
        lines.append(f"{host.name:<10}{host.address:<13}{rtt:<8}{state:<36}{containers}".rstrip())
    return "\n".join(lines)


namespace = Collection("lab")
for _task in (up, down, status, shell):
    namespace.add_task(_task)

"""What an inspection found, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy.staging import must_install
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment


def inspection(run: Deployment) -> str:
    """Servers, slots and containers of an environment, one line each."""
    lines = []
    for name, system in run.system.items():
        version = ".".join(map(str, system.version))
        lines.append(f"  {name:<10} nginx {version}, slot {run.previous or '-'} serves")
    for name, app in run.app.items():
        ports = "no ports chosen yet" if app.ports is None else f"ports a {app.ports[0]}, b {app.ports[1]}"
        free = app.free_bytes / 2**30
        lines.append(f"  {name:<10} docker {sanitize(app.docker)}, {free:.1f} GiB free, {ports}")
        for one in app.containers:
            role = "serves" if one.slot and one.slot == run.previous else "does not serve"
            running = "running" if one.running else "stopped"
            lines.append(
                sanitize(
                    f"  {'':<10}   {one.name}  {one.reference}  slot {one.slot or '-'}  {running}, {role}"
                )
            )
    return "\n".join(lines)


def staged(run: Deployment) -> str:
    """The files that a deploy would write, per server, or that they are there already."""
    lines = []
    for server, files in run.files.items():
        if not must_install(run, server):
            lines.append(f"  {server}: both files are as wanted; a deploy would not reload nginx")
            continue
        for kind, text in (("upstreams", files.upstream), ("sites", files.site)):
            path = f"{run.environment.nginx.directory}/{kind}/{run.environment.product}-{run.environment.name}.conf"
            lines += [f"  {server}: {path}", *(f"    {line}" for line in text.splitlines())]
    return "\n".join(lines)

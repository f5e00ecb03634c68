"""The release is decided, and its nginx files are tested, while the image is still being pulled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from axon_tasks.commands import naming, nginx
from axon_tasks.deploy.engine import Report
from axon_tasks.deploy.release import Release
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult


def plan_release(run: Deployment) -> None:
    """Decide the release's id, slot, ports and containers from what the inspection found."""
    known = [
        int(one.release) for app in run.app.values() for one in app.containers if one.release.isdecimal()
    ]
    known += [int(one.current) for one in run.system.values() if one.current]
    identity = str(max([int(time.time()), *(one + 1 for one in known)]))
    slot = naming.other_slot(run.previous) if run.previous else "a"
    name = naming.container_name(run.environment.product, run.environment.name, identity)
    run.release = Release(
        id=identity,
        reference=run.reference,
        digest="",
        slot=slot,
        containers=dict.fromkeys(run.environment.app, name),
        ports={one: run.backend(one).ports[naming.SLOTS.index(slot)] for one in run.environment.app},
    )


def stage(run: Deployment) -> Report:
    """Write the candidate nginx configuration and test it on a shadow copy; the live tree is not touched.

    Raises:
        ServersFailedError: nginx refuses the candidate; its own message is shown.
    """
    if run.release is None:
        plan_release(run)
    release = run.wanted()
    backends = tuple(run.backend(server) for server in run.environment.app)
    for server in run.environment.system:
        run.files[server] = nginx.render(
            run.environment, backends, version=run.system[server].version, slot=release.slot
        )
    changed = [server for server in run.environment.system if must_install(run, server)]
    results = run.servers.each(changed, lambda server: _stage_one(run, server))
    note = f"nginx configuration changes on {', '.join(changed)}: tested" if changed else "no reload needed"
    return Report(note, durations(results))


def _stage_one(run: Deployment, server: str) -> BatchResult:
    batch = Batch("stage", sudo=True).add(
        nginx.stage(run.environment, managed_files(run, server)), label="nginx_test"
    )
    result = run.servers.run(server, batch, timeout=SHORT)
    section = result["nginx_test"]
    if not section.ok:
        told = "\n    ".join(map(sanitize, section.stderr.strip().splitlines()[-8:]))
        raise StepFailedError(
            f"{server}: nginx refuses the configuration with the new files in place\n    {told}",
            hint="Nothing was changed. The file and line above say what to mend.",
        )
    return result


def site_is_ours(run: Deployment, server: str) -> bool:
    """Whether this tool writes the site; with `switch: reload`, one that somebody else wrote stays."""
    site = run.system[server].site
    return run.environment.switch == "slots" or not site or nginx.is_ours(site, run.environment)


def managed_files(run: Deployment, server: str) -> nginx.Files:
    """The files that this tool may write on a server."""
    files = run.files[server]
    return files if site_is_ours(run, server) else nginx.Files(files.upstream, "")


def must_install(run: Deployment, server: str) -> bool:
    """Whether a server's files differ from the wanted ones, or a reload of them was never confirmed."""
    told, wanted = run.system[server], managed_files(run, server)
    if told.unfinished or run.environment.switch == "reload":
        return True
    return told.upstream != wanted.upstream or wanted.site not in {"", told.site}

"""The release is decided, and its nginx files are tested, while the image is still being pulled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from axon_tasks.commands import naming, nginx
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy.converging import converge, is_between
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.facts import number
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import must_hold, outdated
from axon_tasks.deploy.release import Release
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult


def plan_step(
    run: Deployment,
    needs: tuple[str, ...],
    *,
    decide: Callable[[], None] | None = None,
    look: Callable[[], Step] | None = None,
) -> Step:
    """Decide the release: its id, its slot, its ports. Nothing is sent, unless somebody else was faster.

    Args:
        run: The run.
        needs: The steps before it.
        decide: What decides; by default a new release of the image that was asked for is.
        look: The inspection, to do it again; by default the one of a deploy.
    """

    def prepare() -> None:
        must_hold(run)
        if run.under_lock:
            # The inspection did not wait for the lock; whoever had it may have changed what was seen.
            if is_between(run) or outdated(run):
                run.servers.perform(look() if look else inspect_step(run, heals=True))
            converge(run)
        if decide:
            decide()
        else:
            new_release(run, reference=run.reference, by_id=run.is_sent)

    def learn(_results: Mapping[str, BatchResult]) -> Report:
        release = run.wanted()
        return Report(f"release {release.id} goes into slot {release.slot}")

    return Step(
        "plan",
        "decide the release's id, slot and ports from what was found",
        needs,
        prepare=prepare,
        learn=learn,
    )


def _tell_broken(run: Deployment) -> None:
    """A mistake in somebody else's file stops nobody who needs no reload, but the next restart of nginx would fail."""
    for server, told in run.system.items():
        if told.broken and not must_install(run, server):
            run.warnings.append(
                f"{server}: nginx would not load its configuration again: {sanitize(told.broken)};"
                " this deployment needs no reload, a restart of nginx would fail"
            )


def new_release(run: Deployment, *, reference: str, digest: str = "", by_id: bool = False) -> None:
    """Decide the release's id, slot, ports and containers from what the inspection found.

    Args:
        run: The run.
        reference: The image, as people write it.
        digest: Its digest, where that is known before it has been pulled.
        by_id: Whether no registry has it, so that its id counts.
    """
    told = [one.release for app in run.app.values() for one in app.containers]
    told += [one.current for one in run.system.values()]
    known = [found for one in told if (found := number(one)) is not None]
    identity = str(max([int(time.time()), *(one + 1 for one in known)]))
    slot = naming.other_slot(run.previous) if run.previous else "a"
    name = naming.container_name(run.environment.product, run.environment.name, identity)
    run.release = Release(
        id=identity,
        reference=reference,
        digest=digest,
        slot=slot,
        containers=dict.fromkeys(run.environment.app, name),
        ports={one: str(run.backend(one).ports[naming.SLOTS.index(slot)]) for one in run.environment.app},
        by_id=by_id,
    )


def render_files(run: Deployment) -> None:
    """Write down what each system server's two files must be for this run's release.

    Those that are there already are not made anew: that would cost the import of the templates' library in each deploy.
    """
    backends = tuple(run.backend(server) for server in run.environment.app)
    for server in run.environment.system:
        told = run.system[server]
        wanted = nginx.Wanted(run.environment, backends, told.version, run.wanted().slot)
        present = nginx.Files(told.upstream, told.site)
        is_same = all(nginx.is_made_from(text, wanted) for text in present)
        run.files[server] = present if is_same else nginx.render(wanted)


def stage_step(
    run: Deployment,
    needs: tuple[str, ...],
    *,
    install: Callable[[Deployment, str], bool | Learnt] | None = None,
) -> Step:
    """Write the candidate nginx configuration and test it on a shadow copy; the live tree is not touched.

    Args:
        run: The run.
        needs: The steps before it.
        install: Whether a server's files are going to be installed; by default as in a deploy.
    """
    is_wanted = install or must_install

    def prepare() -> None:
        render_files(run)
        _tell_broken(run)

    def batch(server: str) -> Batch | None:
        if not is_wanted(run, server):
            return None
        text = nginx.stage(run.environment, managed_files(run, server))
        return Batch("stage", sudo=True).add(text, label="nginx_test")

    def learn(results: Mapping[str, BatchResult]) -> Report:
        changed = ", ".join(results)
        note = f"nginx configuration changes on {changed}: tested" if changed else "no reload needed"
        return Report(note, durations(results))

    return Step(
        "stage",
        "test the new nginx files on a copy of the server's whole configuration",
        needs,
        servers=run.environment.system,
        reads=run.nginx_resources,
        prepare=prepare,
        batch=batch,
        condition="where nginx's files must change",
        timeout=lambda: SHORT,
        check=check_stage,
        learn=learn,
    )


def check_stage(server: str, result: BatchResult) -> None:
    """Judge what nginx says of the candidate files.

    Raises:
        StepFailedError: It refuses them.
    """
    section = result["nginx_test"]
    if not section.ok:
        told = "\n    ".join(map(sanitize, section.stderr.strip().splitlines()[-8:]))
        raise StepFailedError(
            f"{server}: nginx refuses the configuration with the new files in place\n    {told}",
            hint="Nothing was changed. The file and line above say what to mend.",
        )


def managed_files(run: Deployment, server: str) -> nginx.Files:
    """The files that this tool may write on a server."""
    files = run.files[server]
    return files if run.site_is_ours(server) else nginx.Files(files.upstream, "")


def must_install(run: Deployment, server: str) -> bool | Learnt:
    """Whether a server's files differ from the wanted ones, or a reload of them was never confirmed."""
    return differs(run, server) or run.environment.switch == "reload"


def differs(run: Deployment, server: str) -> bool | Learnt:
    """The same, and no more than that: with `switch: reload`, a switch installs files that are the same as well."""
    if run.preview:
        return Learnt("install", "inspect")
    told, wanted = run.system[server], managed_files(run, server)
    return told.unfinished or told.upstream != wanted.upstream or wanted.site not in {"", told.site}

"""A restart: the release that serves once more, in new containers beside the old ones, or in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import docker
from axon_tasks.commands.shell import Learnt
from axon_tasks.config import ImageReference
from axon_tasks.config.images import is_digest
from axon_tasks.deploy import hooks, noting
from axon_tasks.deploy.alone import serving_step
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import lock_step, must_hold
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.staging import new_release, plan_step, stage_step
from axon_tasks.deploy.starting import add_health, fetch_step, must_be_healthy, start_step, tell_waiting
from axon_tasks.deploy.switching import record_step, retire_step, switch_step, wait_step
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult


def steps(run: Deployment) -> tuple[Step, ...]:
    """The plan of a restart without a gap: a deploy of the digest that serves."""
    run.action = "restart"
    waited = run.options.wait or run.options.sequential
    return (
        lock_step(run),
        inspect_step(run, heals=True),
        plan_step(run, ("lock", "inspect"), decide=lambda: choose(run)),
        fetch_step(run, ("plan",)),
        stage_step(run, ("plan",)),
        start_step(run, ("plan", "fetch")),
        switch_step(run, ("stage", "start")),
        record_step(run, ("switch",)),
        retire_step(run, ("switch",)),
        *hooks.switch_steps(run, ("switch",)),
        *((wait_step(run, ("retire",)),) if waited else ()),
    )


def choose(run: Deployment) -> None:
    """Take the image that serves for the one of this run.

    Raises:
        StepFailedError: Nothing serves, or not the same everywhere, or it is not known which image it is.
    """
    name = run.environment.name
    images = {(one.reference, one.digest, one.by_id) for one in run.serving()}
    if len(images) != 1:
        raise StepFailedError(
            f"{name}: {'different images serve' if images else 'nothing of this tool serves'}, so there is nothing to restart",
            hint=f"Look: fab status --env={name}; deploy: fab deploy --env={name}",
        )
    [(reference, digest, by_id)] = images
    if not (is_reference(reference) and is_digest(digest)):
        raise StepFailedError(
            f"{name}: the labels of what serves name no image: {reference[:100]!a} {digest[:100]!a}",
            hint=f"Deploy it: fab deploy --env={name} --tag=TAG",
        )
    run.restarts = run.serving()[0].release
    new_release(run, reference=reference, digest=digest, by_id=by_id)


def is_reference(text: str) -> bool:
    """Whether a container's label names an image."""
    try:
        ImageReference.parse(text)
    except ValueError:
        return False
    return True


def unknown(run: Deployment) -> None:
    """What a dry run, which asks nobody, does not know of a restart: names stand for it."""
    digest = Learnt("digest", "inspect")
    run.release = run.wanted()._replace(reference=run.environment.image, digest=digest)


def in_place(run: Deployment, servers: Sequence[str]) -> tuple[Step, ...]:
    """The plan of a restart in place: one app server after the other, each healthy before the next.

    Args:
        run: The run.
        servers: The app servers, in this order.
    """
    run.action = "restart"
    # Noted before it is done: whatever becomes of it, somebody has done it.
    chain = [noting.audit_step(run, ("plan",), lambda: _event(run, servers))._replace(otherwise="abort")]
    for server in servers:
        chain.append(_restart_step(run, server, chain[-1].name))
    return (
        lock_step(run),
        inspect_step(run, ("lock",), reserve=False),
        serving_step(run)._replace(learn=lambda _results: Report(f"release {run.wanted().id} serves")),
        *chain,
    )


def _restart_step(run: Deployment, server: str, after: str) -> Step:
    environment = run.environment

    def prepare() -> None:
        must_hold(run)
        run.restarted.append(server)

    def batch(_server: str) -> Batch:
        candidate = run.candidate(server)
        return add_health(Batch("restart").add(docker.restart(candidate), label="restart"), candidate)

    def check(_server: str, result: BatchResult) -> None:
        must(server, "restarting the container", result["restart"])
        must_be_healthy(run, server, result)

    return Step(
        f"restart {server}",
        f"stop the container on {server}, start it again, and wait until it is healthy",
        (after,),
        servers=(server,),
        changes=frozenset({f"{server}:containers of {environment.name}"}),
        # A container that is stopped must come back, whatever else fails meanwhile.
        otherwise="finish",
        prepare=prepare,
        batch=batch,
        fail_fast=True,
        timeout=lambda: environment.container.stop_timeout + environment.health.timeout + SHORT,
        listen=lambda name, line: tell_waiting(run, name, line),
        check=check,
        learn=lambda results: Report("healthy again", durations(results)),
    )


def _event(run: Deployment, servers: Sequence[str]) -> dict[str, str]:
    release = run.wanted()
    return {
        "action": f"restart-in-place on {','.join(servers)}",
        "id": release.id,
        "image": release.reference,
    }

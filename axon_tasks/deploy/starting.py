"""On the app servers: pull, start, wait until healthy, and take back what did not become so."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from axon_tasks.commands import docker
from axon_tasks.config import Secret
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report
from axon_tasks.deploy.inspecting import inspect
from axon_tasks.deploy.locking import must_hold, outdated
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT, by_digest, durations, repository_of
from axon_tasks.deploy.servers import ServersFailedError
from axon_tasks.deploy.staging import plan_release, stage
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from axon_tasks.deploy.run import Deployment
    from axon_tasks.errors import AxonError
    from axon_tasks.remote import BatchResult, Section

#: Seconds for a pull: a large image over a slow line.
PULL = 3600.0


def pull(run: Deployment) -> Report:
    """Pull the image on every app server, and make sure that all have the same one.

    Raises:
        ServersFailedError: A pull failed; the message says whether the tag, the login, the registry or the disk is it.
    """
    reference = run.reference
    results = run.servers.each(run.environment.app, lambda server: _pull_one(run, server, reference))
    repository = repository_of(reference)
    digests = {
        name: parse.parse_digest(name, one["pull"].stdout, repository) for name, one in results.items()
    }
    run.digest = digests[run.environment.app[0]]
    # A tag can move between two pulls; what was pulled first is what all run.
    late = [name for name, digest in digests.items() if digest != run.digest]
    run.servers.each(late, lambda server: _pull_one(run, server, by_digest(reference, run.digest)))
    return Report(f"{reference} is {run.digest[:19]}…", durations(results))


def _pull_one(run: Deployment, server: str, reference: str) -> BatchResult:
    registry = run.environment.registry
    batch = Batch("pull").add(
        docker.pull(reference, registry), label="pull", stdin=registry.password if registry else None
    )
    result = run.servers.run(server, batch, timeout=PULL)
    must(server, f"pulling {reference}", result["pull"])
    return result


def start(run: Deployment, *, wait: bool = True) -> Report:
    """Run the release on every app server and wait there until it is healthy, in one script per server.

    Args:
        run: The run, which learns what was started.
        wait: Whether to wait for its health; without it, `steps.health` does that later.

    Raises:
        ServersFailedError: It could not be started, or did not become healthy; each server's diagnosis is in it.
    """
    must_hold(run)
    if run.lock is not None and outdated(run):
        inspect(run)
        plan_release(run)
        stage(run)
    if run.release is None:
        plan_release(run)
    if not run.release or not run.release.digest:
        run.release = dataclasses.replace(run.wanted(), digest=run.digest)

    def work(server: str) -> BatchResult:
        candidate = run.candidate(server)
        batch = Batch("start")
        text = docker.env_text(run.environment)
        batch.add(
            docker.start(candidate, now=run.options.now), label="start", stdin=Secret(text) if text else None
        )
        if wait:
            batch.add(docker.health(candidate), label="health")
        run.started.add(server)
        result = run.servers.run(
            server, batch, fail_fast=True, timeout=_start_limit(run), on_output=_tell_waiting(run, server)
        )
        must(server, f"starting {candidate.container}", result["start"])
        if wait and not result["health"].ok:
            raise problems.UnhealthyError(diagnose(run, server, result["health"]))
        return result

    results = run.servers.each(run.environment.app, work)
    return (
        _start_report(results)
        if wait
        else Report(f"release {run.wanted().id}, not serving yet", durations(results))
    )


def _start_limit(run: Deployment) -> float:
    environment = run.environment
    return environment.drain.timeout + environment.container.stop_timeout + environment.health.timeout + 120


def _tell_waiting(run: Deployment, server: str) -> Callable[[str, str, bytes], None]:
    """Pass on what the scripts say while they wait: for a slot to drain, or for health."""

    def listen(_label: str, stream: str, chunk: bytes) -> None:
        if stream == "stdout":
            for line in chunk.decode(errors="replace").splitlines():
                if line.startswith("waiting="):
                    run.listener.message(server, line.removeprefix("waiting="))

    return listen


def health(run: Deployment) -> Report:
    """Wait until this run's release is healthy on every app server, without starting anything.

    Raises:
        ServersFailedError: It did not become healthy; each server's diagnosis is in it.
    """

    def work(server: str) -> BatchResult:
        batch = Batch("health").add(docker.health(run.candidate(server)), label="health")
        limit = run.environment.health.timeout + SHORT
        result = run.servers.run(server, batch, timeout=limit, on_output=_tell_waiting(run, server))
        if not result["health"].ok:
            raise problems.UnhealthyError(diagnose(run, server, result["health"]))
        return result

    results = run.servers.each(run.wanted().containers, work)
    return Report("healthy", durations(results))


def diagnose(run: Deployment, server: str, section: Section) -> problems.Diagnosis:
    """Ask the server what the container was doing, before it is removed."""
    container = run.wanted().containers[server]
    batch = Batch("diagnose")
    batch.add(docker.container_state(container), label="state")
    batch.add(docker.last_logs(container, run.environment.health.log_lines), label="logs", timeout=10)
    told = run.servers.run(server, batch, timeout=SHORT)
    return problems.diagnose(
        server, container, parse.pairs(section.stdout), told["state"].stdout, told["logs"].stdout
    )


def undo(run: Deployment) -> list[AxonError]:
    """Remove what this run has started, if it has not been switched to.

    Returns:
        What could not be removed, and on which server.
    """
    if run.switched or run.uncertain or not run.started or run.release is None:
        return []
    run.servers.resume()
    release = run.release.id

    def work(server: str) -> BatchResult:
        batch = Batch("undo").add(
            docker.remove_release(run.environment, release, drain=run.tried), label="remove"
        )
        limit = SHORT + run.environment.drain.timeout + run.environment.container.stop_timeout
        result = run.servers.run(server, batch, timeout=limit)
        must(server, f"removing the containers of release {release}", result["remove"])
        return result

    try:
        run.servers.each(sorted(run.started), work)
    except ServersFailedError as error:
        return list(error.errors)
    return []


def _start_report(results: dict[str, BatchResult]) -> Report:
    """Start and health were one script; people know them as two."""
    health = parse.pairs(next(iter(results.values()))["health"].stdout)
    return Report(
        servers={name: one["start"].duration for name, one in results.items()},
        parts={
            "health": Report(
                f"{health.get('answer', '')} on {health.get('url', '').split('/', 3)[-1].join(('/', ''))}",
                {name: one["health"].duration for name, one in results.items()},
            )
        },
    )

"""On the app servers: pull, start, wait until healthy, and take back what did not become so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from axon_tasks.commands import docker
from axon_tasks.config import ImageReference, Secret
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import problems, repeating
from axon_tasks.deploy.credentials import CredentialsError
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.locking import must_hold
from axon_tasks.deploy.owner import text_of
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT, durations, repository_of
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.commands.shell import Word
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult, Section

#: Seconds for a pull: a large image over a slow line.
PULL = 3600.0


def _things(run: Deployment, what: str) -> frozenset[str]:
    return frozenset(f"{server}:{what}" for server in run.environment.app)


def pull_step(run: Deployment, needs: tuple[str, ...] = ()) -> Step:
    """Pull the image on every app server, and make sure that all have the same one."""
    if run.is_sent:
        return _present_step(run, needs)
    reference = run.reference
    layers = {server: Layers() for server in run.environment.app}

    def listen(server: str, line: str) -> None:
        if layers[server].take(line):
            run.listener.progress("pull", server, layers[server].told)

    def learn(results: Mapping[str, BatchResult]) -> Report:
        repository = repository_of(reference)
        digests = {
            name: parse.parse_digest(name, one["digest"].stdout, repository) for name, one in results.items()
        }
        run.digest = digests[run.environment.app[0]]
        # A tag can move between two pulls; what was pulled first is what all run.
        late = [name for name, digest in digests.items() if digest != run.digest]
        run.servers.each(late, lambda server: _pull_by_digest(run, server, run.reference))
        return Report(f"{reference} is {run.digest[:19]}…", durations(results))

    return Step(
        "pull",
        f"pull {reference}; all servers must get the same digest",
        needs,
        servers=run.environment.app,
        # One large pull at a time on a server: several would only share the line and the disk.
        changes=_things(run, "images"),
        batch=lambda _server: _pull_batch(run, reference),
        fail_fast=True,
        timeout=lambda: PULL,
        listen=listen,
        check=lambda server, result: _check_pull(server, reference, result),
        learn=learn,
    )


def _present_step(run: Deployment, needs: tuple[str, ...]) -> Step:
    """Look for an image that was sent to the app servers, and make sure that all have the same one."""
    reference = run.reference
    image = ImageReference.parse(reference)
    # By its id, too: that is how a record names it.
    wanted = image.digest or reference

    def check(server: str, result: BatchResult) -> None:
        if not result["digest"].ok and "no such image" in result["digest"].stderr.lower():
            raise StepFailedError(f"{server}: {wanted} is not there", hint=f"Send it: {_sending(run)}")
        must(server, f"looking at {wanted}", result["digest"])

    def learn(results: Mapping[str, BatchResult]) -> Report:
        ids = {name: parse.parse_image_id(name, one["digest"].stdout) for name, one in results.items()}
        run.digest = ids[run.environment.app[0]]
        if len(set(ids.values())) > 1:
            told = ", ".join(f"{name} {identity[7:19]}" for name, identity in ids.items())
            raise StepFailedError(
                f"{run.environment.name}: the app servers do not have the same {wanted}: {told}",
                hint=f"Send it to all of them: {_sending(run)}",
            )
        return Report(f"{reference} is {run.digest[:19]}…, and was sent there", durations(results))

    return Step(
        "pull",
        f"look for {wanted}, which was sent to the app servers; all must have the same",
        needs,
        servers=run.environment.app,
        reads=_things(run, "images"),
        batch=lambda _server: Batch("pull").add(docker.digests(wanted), label="digest"),
        timeout=lambda: SHORT,
        check=check,
        learn=learn,
    )


def _sending(run: Deployment) -> str:
    """What sends an image to the app servers."""
    tag = run.options.tag or run.environment.tag
    return f"fab push --env={run.environment.name} --push=ssh" + (f" --tag={tag}" if tag else "")


def fetch_step(run: Deployment, needs: tuple[str, ...]) -> Step:
    """Have the image of an earlier release on every app server, by its digest: its tag may be another one's by now."""

    def image() -> Word:
        return docker.by_id() if run.wanted().by_id else docker.by_digest(run.wanted().reference)

    def looks_first() -> bool:
        """Whether no registry has it, or a login would have to be asked for which is not needed where it is there."""
        registry = run.environment.registry
        return run.wanted().by_id or (registry is not None and registry.password is None)

    def batch(_server: str) -> Batch:
        digest = run.wanted().digest
        if looks_first():
            return Batch("pull").add(docker.digests(image(), digest=digest), label="digest")
        return _pull_batch(run, image(), if_missing=True, digest=digest)

    def check(server: str, result: BatchResult) -> None:
        if not looks_first():
            _check_pull(server, run.wanted().digest, result)
        elif run.wanted().by_id and not result["digest"].ok:
            raise _gone(run, server)

    def learn(results: Mapping[str, BatchResult]) -> Report:
        lacking = [name for name, one in results.items() if not one["digest"].ok]
        run.digest = run.wanted().digest
        run.servers.each(lacking, lambda server: _pull_by_digest(run, server, run.wanted().reference))
        return Report(f"{run.wanted().digest[:19]}… is there", durations(results))

    return Step(
        "fetch",
        "have the image of that release on every app server, by its digest",
        needs,
        servers=run.environment.app,
        changes=_things(run, "images"),
        batch=batch,
        fail_fast=True,
        timeout=lambda: PULL,
        check=check,
        learn=learn,
    )


def _gone(run: Deployment, server: str) -> StepFailedError:
    """An image that was sent to a server, and is needed there once more."""
    record = run.again.record if run.again else repeating.record(run)
    commit = text_of(record, "git_commit")[:12]
    build = f"git checkout {commit}; " if commit else ""
    return StepFailedError(
        f"{server}: the image of that release, {run.wanted().reference}, is not there any more, and no registry has it",
        hint=f"Build it again: {build}fab ship --env={run.environment.name} --push=ssh",
    )


def _pull_batch(run: Deployment, image: Word, *, if_missing: bool = False, **values: str) -> Batch:
    try:
        login = run.login()
    except CredentialsError as error:
        # By now servers have been contacted, and nothing was changed on them.
        raise StepFailedError(error.summary, hint=error.hint) from None
    batch = Batch("pull")
    batch.add(
        docker.pull(image, login, if_missing=if_missing, **values),
        label="pull",
        stdin=login.password if login else None,
    )
    return batch.add(docker.digests(image, **values), label="digest")


def _check_pull(server: str, image: str, result: BatchResult) -> None:
    must(server, f"pulling {image}", result["pull"])
    must(server, f"looking at {image}", result["digest"])


def _pull_by_digest(run: Deployment, server: str, reference: str) -> BatchResult:
    batch = _pull_batch(run, docker.by_digest(reference), digest=run.digest)
    result = run.servers.run(server, batch, fail_fast=True, timeout=PULL)
    _check_pull(server, run.digest, result)
    return result


class Layers:
    """How far a pull is, from the lines that `docker pull` writes where there is no terminal."""

    def __init__(self) -> None:
        self._layers: dict[str, bool] = {}

    def take(self, line: str) -> bool:
        """Read one line; whether it says something new."""
        match = re.fullmatch(r"([0-9a-f]{6,64}): (.*)", line.strip())
        if match is None:
            return False
        self._layers[match.group(1)] = match.group(2) in {"Pull complete", "Already exists"}
        return True

    @property
    def told(self) -> str:
        """In words."""
        return f"{sum(self._layers.values())} of {len(self._layers)} layers"


def start_step(run: Deployment, needs: tuple[str, ...], *, wait: bool = True) -> Step:
    """Run the release on every app server and wait there until it is healthy, in one script per server.

    Args:
        run: The run, which learns what was started.
        needs: The steps before it.
        wait: Whether to wait for its health; without it, `steps.health` does that later.
    """

    def prepare() -> None:
        must_hold(run)
        if not run.wanted().digest:
            run.release = run.wanted()._replace(digest=run.digest)

    def batch(server: str) -> Batch:
        made = _start_batch(run, server)
        return add_health(made, run.candidate(server)) if wait else made

    def check(server: str, result: BatchResult) -> None:
        _check_start(run, server, result)
        if wait:
            must_be_healthy(run, server, result)

    def learn(results: Mapping[str, BatchResult]) -> Report:
        if wait:
            return _start_report(results)
        return Report(f"release {run.wanted().id}, not serving yet", durations(results))

    return Step(
        "start",
        "run the release in the free slot" + (", and wait there until it is healthy" if wait else ""),
        needs,
        servers=run.environment.app,
        reads=_things(run, "images"),
        changes=_things(run, f"containers of {run.environment.name}"),
        prepare=prepare,
        batch=batch,
        fail_fast=True,
        timeout=lambda: _start_limit(run),
        listen=lambda server, line: tell_waiting(run, server, line),
        check=check,
        learn=learn,
        undo=lambda _server: undo_batch(run),
    )


def _start_batch(run: Deployment, server: str) -> Batch:
    candidate = run.candidate(server)
    made = Batch("start")
    if _occupied(run, server):
        made.add(docker.clear_slot(candidate, now=run.options.now), label="slot")
    if run.environment.container.network:
        made.add(docker.have_network(run.environment), label="network")
    text = docker.env_text(candidate)
    return made.add(docker.start(candidate), label="start", stdin=Secret(text) if text else None)


def _check_start(run: Deployment, server: str, result: BatchResult) -> None:
    doing = {"slot": "clearing the slot", "network": "making the network"}
    for label in ("slot", "network", "start"):
        if label in result:
            container = run.candidate(server).container
            must(server, doing.get(label, f"starting {container}"), result[label])
    run.environments[server] = parse.parse_checksum(server, result["start"].stdout)


def _occupied(run: Deployment, server: str) -> bool:
    """Whether something stood in the slot when it was looked at; under the lock nobody else starts anything there.

    Looking again would cost a start of docker in every deploy.
    """
    if run.preview:
        return True
    return bool(run.app[server].in_slot(run.wanted().slot))


def _start_limit(run: Deployment) -> float:
    environment = run.environment
    return environment.drain.timeout + environment.container.stop_timeout + environment.health.timeout + 120


def tell_waiting(run: Deployment, server: str, line: str) -> None:
    """Pass on what the scripts say while they wait: for a slot to drain, or for health."""
    if line.startswith("waiting="):
        run.listener.message(server, line.removeprefix("waiting="))


def health_step(run: Deployment, needs: tuple[str, ...]) -> Step:
    """Wait until this run's release is healthy on every app server, without starting anything."""
    return Step(
        "health",
        "wait on every app server until the release is healthy",
        needs,
        servers=run.environment.app,
        reads=_things(run, f"containers of {run.environment.name}"),
        batch=lambda server: add_health(Batch("health"), run.candidate(server)),
        fail_fast=True,
        timeout=lambda: run.environment.health.timeout + SHORT,
        listen=lambda server, line: tell_waiting(run, server, line),
        check=lambda server, result: must_be_healthy(run, server, result),
        learn=lambda results: Report("healthy", durations(results)),
    )


def add_health(batch: Batch, candidate: docker.Candidate) -> Batch:
    """Wait until a release is healthy, in the same script as what comes before."""
    batch.add(docker.health(candidate), label="health")
    # Only a release that is healthy may come back by itself after a restart of the daemon.
    return batch.add(docker.restart_policy(candidate), label="restart_policy")


def must_be_healthy(run: Deployment, server: str, result: BatchResult) -> None:
    """Judge what `add_health` has added.

    Raises:
        UnhealthyError: The release did not become healthy; with what its server says about it.
        StepFailedError: It is healthy, and would not come back after a restart of the daemon.
    """
    if not result["health"].ok:
        raise problems.UnhealthyError(diagnose(run, server, result["health"]))
    must(server, "setting the restart policy", result["restart_policy"])


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


def undo_batch(run: Deployment) -> Batch:
    """Remove what this run has started on one server."""
    text = docker.remove_release(run.environment, run.wanted().id, drain=run.tried)
    return Batch("undo").add(text, label="remove")


def undo_limit(run: Deployment) -> float:
    """Seconds for `undo_batch`."""
    return SHORT + run.environment.drain.timeout + run.environment.container.stop_timeout


def _start_report(results: Mapping[str, BatchResult]) -> Report:
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

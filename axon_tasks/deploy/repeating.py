"""What a restart takes over from the release that it repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import docker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from axon_tasks.deploy.run import Deployment


def record(run: Deployment) -> Mapping[str, Any]:
    """The record of the release that is restarted; empty if none is, or nobody knows it."""
    told = run.system[run.environment.system[0]].record if run.restarts else {}
    return told if told.get("id") == run.restarts else {}


def repeats(run: Deployment) -> str:
    """The release that this run's repeats to the letter: same arguments, same variables; empty if something has changed.

    A rollback goes past such a repetition. To what was restarted it only goes if that ran with other settings.
    """
    before = record(run)
    servers = before.get("servers")
    if not isinstance(servers, dict):
        return ""
    is_same = all(_same(run, server, before, servers.get(server)) for server in run.wanted().containers)
    return run.restarts if is_same else ""


def _same(run: Deployment, server: str, before: Mapping[str, Any], told: object) -> bool:
    """Whether one app server runs this release as it ran the one before."""
    if not isinstance(told, dict):
        return False
    now = docker.recorded_arguments(in_its_place(run.candidate(server), before, told))
    return (now, run.environments.get(server, "-")) == (told.get("run"), told.get("environment"))


def in_its_place(
    candidate: docker.Candidate, record: Mapping[str, Any], told: Mapping[str, Any]
) -> docker.Candidate:
    """What would run, with the id, slot, port and digest of a release that ran, so that both can be compared.

    Whether a registry has the image, or it was sent to the servers, is no difference of what runs.

    Args:
        candidate: What would run.
        record: The record of that release.
        told: What it says about the server.
    """
    ran = told.get("run")
    return candidate._replace(
        by_id=isinstance(ran, list) and record.get("digest") in ran,
        release=str(record.get("id")),
        slot=str(record.get("slot")),
        port=str(told.get("port")),
        digest=str(record.get("digest")),
    )

"""The release command: run once per deploy, in a container of the new image, before anything of it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import docker
from axon_tasks.config import Secret
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.locking import must_hold
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.errors import StepFailedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.config.project import ReleaseCommand
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult

#: The step's name.
NAME = "command"
#: Exit statuses of the script (see commands/sh/command.sh): another one still runs, it took too long, it failed.
_OURS = frozenset({70, 71, 72})


def command_steps(run: Deployment, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """The step that runs it; none if there is no command.

    It runs on the first app server alone, with the variables, volumes and network that the release will have. Whatever
    the old release serves meanwhile stays as it is; if it fails, nothing of the new one has been started.

    Args:
        run: The run.
        needs: The steps before it.
    """
    wanted = run.environment.release_command
    return (_step(run, wanted, needs),) if wanted else ()


def _step(run: Deployment, wanted: ReleaseCommand, needs: tuple[str, ...]) -> Step:
    server = run.environment.app[0]

    def prepare() -> None:
        must_hold(run)
        if not run.wanted().digest:
            run.release = run.wanted()._replace(digest=run.digest)

    def batch(_server: str) -> Batch:
        candidate = run.candidate(server)
        made = Batch(NAME)
        if run.environment.container.network:
            made.add(docker.have_network(run.environment), label="network")
        text = docker.env_text(candidate)
        script = docker.release_command(candidate, wanted)
        return made.add(script, label=NAME, stdin=Secret(text) if text else None)

    def check(_server: str, result: BatchResult) -> None:
        if "network" in result:
            must(server, "making the network", result["network"])
        section = result[NAME]
        if section.exit_code in _OURS:
            raise StepFailedError(
                f"{server}: the release command failed: {sanitize(section.stderr.strip())}",
                hint=f"What it said stands above. It was: {wanted}",
            )
        must(server, "running the release command", section)

    def learn(results: Mapping[str, BatchResult]) -> Report:
        return Report(str(wanted), durations(results))

    return Step(
        NAME,
        f"run once, in a container of the new image: {wanted}",
        needs,
        servers=(server,),
        reads=frozenset({f"{server}:images"}),
        prepare=prepare,
        batch=batch,
        fail_fast=True,
        # It may have to wait for that of a deploy whose deployer died.
        timeout=lambda: 2 * wanted.timeout + SHORT,
        listen=lambda name, line: _tell(run, name, line),
        check=check,
        learn=learn,
        undo=lambda name: Batch("undo").add(docker.remove_command(run.candidate(name)), label="remove"),
    )


def _tell(run: Deployment, server: str, line: str) -> None:
    """Show what it says while it runs."""
    if line.strip():
        run.listener.message(server, line.removeprefix("waiting="))

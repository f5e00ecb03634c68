"""A run that asks nobody: its steps show what they would send, with names in the place of what servers would tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming, nginx
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy.release import Release
from axon_tasks.deploy.run import Deployment
from axon_tasks.deploy.servers import Servers
from axon_tasks.deploy.timeline import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.engine import Report
    from axon_tasks.deploy.run import Options
    from axon_tasks.remote import Connection


class Nobody:
    """The connections of a run that has none."""

    def __init__(self) -> None:
        self.recorder = Recorder(command="")

    def __getitem__(self, server: str) -> Connection:
        """Refuse.

        Raises:
            AssertionError: Always; a dry run contacts nothing, and a defect must not change that.
        """
        raise AssertionError(f"a dry run wanted to connect to {server}")


class Silent:
    """A listener that tells nobody."""

    def started(self, step: str, servers: Sequence[str] = ()) -> None:
        """Tell nobody."""

    def finished(self, step: str, seconds: float, report: Report) -> None:
        """Tell nobody."""

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        """Tell nobody."""

    def server(self, step: str, server: str, state: str) -> None:
        """Tell nobody."""

    def message(self, server: str, text: str) -> None:
        """Tell nobody."""

    def progress(self, step: str, server: str, text: str) -> None:
        """Tell nobody."""


def preview(
    project: Project, environment: Environment, options: Options, *, versioned: bool = True
) -> Deployment:
    """A run whose facts are names of what is learnt later.

    Args:
        project: The settings of everything.
        environment: What would be deployed.
        options: What the command line says.
        versioned: Whether the plan needs to know the image; some steps take the release that they find.

    Raises:
        UsageError: No version was named.
    """
    listener = Silent()
    servers = Servers(Nobody(), listener)  # type: ignore[arg-type]  # on purpose no connections
    run = Deployment(project, environment, servers, listener, options, preview=True)
    run.previous = Learnt("previous", "inspect")
    run.digest = Learnt("digest", "pull")
    run.release = Release(
        id=Learnt("release", "plan"),
        reference=run.reference if versioned else Learnt("image", "inspect"),
        digest=run.digest,
        slot=Learnt("slot", "plan"),
        containers=dict.fromkeys(
            environment.app, naming.container_name(environment.product, environment.name, "<release>")
        ),
        ports={server: Learnt("port", "plan") for server in environment.app},
        by_id=run.is_sent,
    )
    for server in environment.system:
        run.files[server] = nginx.Files(Learnt("upstream_text", "plan"), Learnt("site_text", "plan"))
        run.system[server] = _unknown_system(server)
    return run


def _unknown_system(server: str) -> parse.SystemFacts:
    return parse.SystemFacts(
        server=server,
        version=(),
        running=True,
        included=True,
        flag_slot=Learnt("slot", "inspect"),
        current=Learnt("expected_current", "inspect"),
        record={},
        upstream="",
        site="",
    )

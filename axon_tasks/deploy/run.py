"""One run: the environment, its servers, and what the steps have learnt from them."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.commands import docker, naming, nginx
from axon_tasks.commands.registry import Login
from axon_tasks.commands.shell import Learnt
from axon_tasks.config import ImageReference, Secret
from axon_tasks.deploy import facts
from axon_tasks.deploy.credentials import Logins, known_user
from axon_tasks.deploy.release import Release
from axon_tasks.errors import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.engine import Listener
    from axon_tasks.deploy.servers import Servers
    from axon_tasks.remote import BatchResult

#: Seconds for what should take a moment: an inspection, a record.
SHORT = 60.0


@dataclass(frozen=True)
class Options:
    """What the command line says about a run.

    Attributes:
        tag: The tag to deploy; None for the environment's own.
        now: Whether to cut what still drains in the slot that is needed.
        wait: Whether to wait until the old release has been removed.
        keep_going: Whether to deploy without the app servers that fail before the switch.
        sequential: One step, one server and one command after the other.
        command: The command line, for the lock's owner.
        run_id: The run's id: its background jobs have it in their names, so that none runs twice.
        wait_lock: Seconds to wait for somebody else's lock.
        hosts_file: The configuration file as it was named on the command line, for commands that people are told to type.
        end_maintenance: Whether maintenance ends as soon as the new release serves.
        no_pull: Whether the image is on the app servers, and no registry is asked for it.
        commit: The git commit that the image was built from, where that is known; else the one that is checked out counts.
        logins: To registries: who knows a password is asked once per run.
        token: Names this run as the owner of its locks, and no other.
    """

    tag: str | None = None
    now: bool = False
    wait: bool = False
    keep_going: bool = False
    sequential: bool = False
    command: str = ""
    run_id: str = ""
    wait_lock: float = 0.0
    hosts_file: str = ""
    end_maintenance: bool = False
    no_pull: bool = False
    commit: str = ""
    logins: Logins = field(default_factory=Logins, compare=False)
    token: str = field(default_factory=lambda: secrets.token_hex(4))


class Again(NamedTuple):
    """An earlier release that is to serve once more, exactly as it ran.

    Attributes:
        release: Its id.
        record: Its record.
        kept: What each app server had been given to run.
        instant: Whether it still runs everywhere: then nothing has to be started.
        instead_of: The release that it takes over from.
        replaced: The record of that.
        forward: Whether that one ran what is older: going on from it is no judgement of it.
    """

    release: str
    record: Mapping[str, Any]
    kept: Mapping[str, docker.Started]
    instant: bool
    instead_of: str
    replaced: Mapping[str, Any]
    forward: bool = False


@dataclass
class Deployment:
    """The state of one run. Each step fills in what it learns, and nothing is asked twice.

    Attributes:
        project: The settings of everything.
        environment: The environment that is deployed.
        servers: The connections.
        listener: Is told about the progress.
        options: What the command line says.
        warnings: What went wrong without being a failure, for the end.
        preview: Nothing was asked: what servers would tell is only named.
        record: What is written down about the release of this run, once it is known.
        split: The slot that each system server sends traffic to, where they differ.
        environments: SHA-256 of the variables of what was started, by app server.
        again: What is rolled back to; None for a deploy.
        action: What is done, for records: `deploy`, `rollback` or `restart`.
        restarts: The release that is restarted; empty if none is.
        restarted: The app servers on which containers are restarted in place, those that were begun with.
        began: When the run began (`time.monotonic`).
        aftermath: Tells, where it did not end well, how things are now; None where that is which release serves.
    """

    project: Project
    environment: Environment
    servers: Servers
    listener: Listener
    options: Options = field(default_factory=Options)

    system: dict[str, facts.SystemFacts] = field(default_factory=dict)
    app: dict[str, facts.AppFacts] = field(default_factory=dict)
    digest: str = ""
    release: Release | None = None
    previous: str = ""
    switched: bool = False
    switched_on: set[str] = field(default_factory=set)
    uncertain: bool = False
    tried: bool = False
    retiring: dict[str, str] = field(default_factory=dict)
    retired: bool = False
    under_lock: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    preview: bool = False
    record: dict[str, Any] | None = None
    split: dict[str, str] = field(default_factory=dict)
    files: dict[str, nginx.Files] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=dict)
    again: Again | None = None
    action: str = "deploy"
    restarts: str = ""
    restarted: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    aftermath: Callable[[], str] | None = None

    @property
    def nginx_resources(self) -> frozenset[str]:
        """What nginx does for this environment, on each system server: what a step reads or changes."""
        return frozenset(f"{server}:nginx of {self.environment.name}" for server in self.environment.system)

    @property
    def reference(self) -> str:
        """The image to deploy, with its tag.

        Raises:
            UsageError: There is no version, neither on the command line nor in `hosts.yml`, or it is none.
        """
        return str(self.environment.image_reference(self.options.tag))

    @property
    def is_sent(self) -> bool:
        """Whether the image to deploy has been sent to the app servers, so that nothing is pulled."""
        return self.options.no_pull or self.environment.build.push == "ssh"

    def login(self) -> Login | None:
        """The login for the registry; None if there is none. Whoever knows the password is asked now, unless it was.

        Raises:
            CredentialsError: It cannot be had.
        """
        registry = self.environment.registry
        if registry is None:
            return None
        if self.preview:
            user = known_user(registry) or Learnt("registry_user", "pull")
            return Login(registry.server, user, Secret("?"))
        found = self.options.logins.get(registry)
        if found.warning and found.warning not in self.warnings:
            self.warnings.append(found.warning)
        return found

    def address(self, server: str) -> str:
        """The address at which nginx reaches an app server."""
        return self.project.hosts[server].upstream_address

    def backend(self, server: str) -> nginx.Backend:
        """An app server with its two ports."""
        ports = self.app[server].ports
        if ports is None:
            raise StepFailedError(
                f"{server}: no ports have been chosen yet", hint="A first deploy chooses them."
            )
        return nginx.Backend(self.address(server), ports)

    def site_is_ours(self, server: str) -> bool:
        """Whether this tool writes the site; with `switch: reload`, one that somebody else wrote stays."""
        if self.preview:
            return True
        site = self.system[server].site
        return self.environment.switch == "slots" or not site or nginx.is_ours(site, self.environment)

    def wanted(self) -> Release:
        """The release of this run.

        Raises:
            StepFailedError: There is none, because nothing has been started.
        """
        if self.release is None:
            raise StepFailedError(
                f"{self.environment.name}: no release is waiting to be switched to",
                hint=f"Start one: fab steps.start --env={self.environment.name} --tag=TAG",
            )
        return self.release

    def candidate(self, server: str) -> docker.Candidate:
        """What one app server runs of this run's release."""
        release, host = self.wanted(), self.project.hosts[server]
        return docker.Candidate(
            environment=self.environment,
            release=release.id,
            slot=release.slot,
            port=release.ports[server],
            address=host.upstream_address,
            reference=release.reference,
            bind=host.private_address or "0.0.0.0",  # noqa: S104  (without a private address nginx comes from outside)
            digest=release.digest,
            again=self.again.kept.get(server) if self.again else None,
            by_id=release.by_id,
        )

    def serving(self) -> tuple[facts.Container, ...]:
        """The containers of the slot that serves, on all app servers."""
        return (
            tuple(one for app in self.app.values() for one in app.in_slot(self.previous))
            if self.previous
            else ()
        )

    def adopt(self, slot: str) -> bool:
        """Take the release that stands in a slot for the one of this run, if all app servers have the same there.

        Args:
            slot: `a` or `b`.

        Returns:
            Whether there is one.
        """
        found = {server: app.in_slot(slot) for server, app in self.app.items()}
        releases = {one.release for containers in found.values() for one in containers if one.running}
        if len(releases) != 1 or not all(found.values()) or facts.number(min(releases)) is None:
            return False
        one = next(iter(found.values()))[0]
        _must_be_image(one)
        self.release = Release(
            id=one.release,
            reference=one.reference,
            digest=one.digest,
            slot=slot,
            containers={server: containers[0].name for server, containers in found.items()},
            ports={server: str(containers[0].port) for server, containers in found.items()},
            by_id=one.by_id,
        )
        return True

    def adopt_candidate(self) -> bool:
        """Take the release that was started and does not serve yet.

        Ids only grow, so that a release older than the one that serves is no candidate: it is being retired.
        """
        slots = [naming.other_slot(self.previous)] if self.previous else list(naming.SLOTS)
        told = (facts.number(one.release) for one in self.serving())
        newest = max((release for release in told if release is not None), default=0)
        if any(self.adopt(slot) for slot in slots) and int(self.wanted().id) > newest:
            return True
        self.release = None
        return False


def _must_be_image(one: facts.Container) -> None:
    """Refuse a release whose label names no image: what it names goes into the record, and into commands.

    Raises:
        StepFailedError: It does not.
    """
    try:
        ImageReference.parse(one.reference)
    except ValueError:
        raise StepFailedError(
            f"{one.name!a}: its label axon.image is no image: {one.reference[:100]!a}",
            hint="Deploy again: a release with a label of its own replaces it.",
        ) from None


def repository_of(reference: str) -> str:
    """The name of an image without tag and digest, as `docker image inspect` lists it."""
    return ImageReference.parse(reference).name


def durations(results: Mapping[str, BatchResult]) -> dict[str, float]:
    """Seconds per server, as measured there."""
    return {name: one.duration for name, one in results.items()}

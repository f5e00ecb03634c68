"""What `hosts.yml` says, checked and frozen: names filled in, paths made absolute, project-wide values inherited.

This is what tasks work with. The shape of the file, and what checks it, is in `models`. Nothing here imports it: settings
that were found right once can be had again without the library that checks them (`kept`).

They are named tuples, as everything that is made before servers are connected to: on CPython 3.11 a frozen dataclass of
seven fields takes seven times as long to be made, and these are made at each start while somebody waits.

Durations are seconds throughout, sizes bytes or what Docker and nginx take for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from axon_tasks.config.faults import nearest, shown
from axon_tasks.config.images import ImageReference, is_digest, is_tag
from axon_tasks.errors import UsageError
from axon_tasks.hosts_file import environment_names

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config.secret import Secret


class Registry(NamedTuple):
    """How to log in to a registry; `deploy/credentials.py` makes a login of it when one is needed.

    Attributes:
        server: Its `host` or `host:port`.
        username: None if whoever is asked knows it.
        password: The password itself.
        password_file: The file that holds it, absolute.
        credentials: Who is asked for it: `aws`, `azure`, `docker`, `gcloud` or `gh`.
    """

    server: str
    username: str | None
    password: Secret | None
    password_file: Path | None = None
    credentials: str | None = None


class Host(NamedTuple):
    """One server of the inventory; what is None comes from ssh_config.

    Attributes:
        name: What `hosts.yml` calls it.
        key: Private key file, absolute.
        connect_timeout: Seconds until an SSH connection must stand.
    """

    name: str
    address: str
    user: str | None
    port: int | None
    key: Path | None
    passphrase: Secret | None
    private_address: str | None
    jump: str | None
    host_keys: Literal["strict", "accept-new"]
    connect_timeout: float

    @property
    def upstream_address(self) -> str:
        """The address that nginx sends requests to and that containers are bound to."""
        return self.private_address or self.address


class Tls(NamedTuple):
    """The site's certificate, which must already be on the system servers."""

    certificate: str
    key: str
    hsts_days: int | None


class LogOptions(NamedTuple):
    """How Docker keeps the container's log."""

    driver: str
    max_size: str
    max_file: int


class Container(NamedTuple):
    """How the application's container is run."""

    port: int
    restart: str
    env: dict[str, Secret]
    volumes: tuple[str, ...]
    network: str | None
    network_alias: str | None
    extra_hosts: tuple[str, ...]
    command: tuple[str, ...] | None
    memory: str | None
    cpus: float | None
    user: str | None
    init: bool
    stop_timeout: float
    log: LogOptions
    labels: dict[str, str]


class Health(NamedTuple):
    """When a new release counts as healthy. It is probed on its server, before nginx sends it a request."""

    path: str
    host: str | None
    expect_status: tuple[int, ...]
    expect_body: str | None
    timeout: float
    interval: float
    probe_timeout: float
    successes: int
    docker: bool
    log_lines: int


class ReleaseCommand(NamedTuple):
    """What is run once per deploy in a container of the new image.

    Attributes:
        command: Its words.
        entrypoint: The program that is given them; None for the image's own.
        timeout: The seconds that it may take.
    """

    command: tuple[str, ...]
    entrypoint: str | None
    timeout: float

    def __str__(self) -> str:
        """As people know it."""
        return " ".join((*((self.entrypoint,) if self.entrypoint else ()), *self.command))


class Hooks(NamedTuple):
    """Commands of this machine around a deploy, and the seconds that each of them may take."""

    before_deploy: tuple[str, ...] | None
    after_switch: tuple[str, ...] | None
    after_deploy: tuple[str, ...] | None
    on_failure: tuple[str, ...] | None
    timeout: float


class Notify(NamedTuple):
    """Whom to tell how a deploy has ended, and after which endings."""

    webhook: Secret
    events: tuple[str, ...]


class Drain(NamedTuple):
    """How the old release is let go: the seconds in which it may finish its requests."""

    timeout: float


class Maintenance(NamedTuple):
    """What clients are told while maintenance is on: after how many seconds they may ask again."""

    retry_after: float


class Nginx(NamedTuple):
    """Where nginx is configured on the system servers, and how it proxies."""

    directory: str
    config: str
    http_port: int
    https_port: int
    client_max_body_size: str
    proxy_timeout: float
    acme_root: str | None


class Build(NamedTuple):
    """How the image is built on this machine, and how it gets to the app servers.

    Attributes:
        context: The folder that is built, as written: relative to that of `hosts.yml`.
        dockerfile: Its Dockerfile, relative to the context.
        args: Build arguments.
        target: The stage to build; None for the last one.
        platform: None for that of the app servers.
        push: `registry`, or `ssh` for images that no registry has.
    """

    context: str
    dockerfile: str
    args: dict[str, Secret]
    target: str | None
    platform: str | None
    push: Literal["registry", "ssh"]


class PortRange(NamedTuple):
    """The ports on the app servers from which two are chosen for each environment."""

    first: int
    last: int


class Environment(NamedTuple):
    """One place where the product runs, with everything that it inherits."""

    name: str
    product: str
    system: tuple[str, ...]
    app: tuple[str, ...]
    domain: str
    aliases: tuple[str, ...]
    tls: Tls | None
    env_file: str | None
    image: str
    tag: str | None
    switch: Literal["slots", "reload"]
    registry: Registry | None
    container: Container
    health: Health
    release_command: ReleaseCommand | None
    hooks: Hooks | None
    notify: Notify | None
    drain: Drain
    maintenance: Maintenance
    nginx: Nginx
    ports: PortRange
    build: Build

    @property
    def domains(self) -> tuple[str, ...]:
        """All domains of the site, the main one first."""
        return (self.domain, *self.aliases)

    @property
    def health_host(self) -> str:
        """The Host header of the probe: the one that was set, else the first domain that is no wildcard."""
        return self.health.host or next(name for name in self.domains if not name.startswith("*."))

    @property
    def servers(self) -> tuple[str, ...]:
        """The names of all its hosts, each once, system servers first."""
        return tuple(dict.fromkeys((*self.system, *self.app)))

    def image_reference(self, version: str | None = None) -> ImageReference:
        """Return the image to deploy.

        Args:
            version: A tag or a digest, as from `--tag`; default: the environment's own `tag`.

        Raises:
            UsageError: There is no version, or it is neither a tag nor a digest.
        """
        version = version if version is not None else self.tag
        if version is None:
            raise UsageError(
                f"No version was named for {self.name}.",
                hint=f"Add --tag=TAG, or set `tag:` for {self.name}.",
            )
        image = ImageReference.parse(self.image)
        if is_digest(version):
            return image.with_digest(version)
        if not is_tag(version):
            raise UsageError(
                f"{shown(version)} is neither a tag nor a digest.",
                hint="A tag has up to 128 letters, digits, dots, dashes or underscores; a digest is sha256: and 64 digits.",
            )
        return image.with_tag(version)


class Project(NamedTuple):
    """Everything that `hosts.yml` says.

    Attributes:
        product: Name of the product.
        image: Image of the product, without a tag.
        registry: Registry login that environments inherit.
        hosts: The servers, by name.
        environments: The environments, by name.
        known_hosts: The project's own known_hosts file, absolute; it need not exist.
        source: The file that was read, absolute.
        root: The folder of that file, absolute.
    """

    product: str
    image: str
    registry: Registry | None
    hosts: dict[str, Host]
    environments: dict[str, Environment]
    known_hosts: Path | None
    source: Path
    root: Path

    def environment(self, name: str) -> Environment:
        """Return an environment.

        Raises:
            UsageError: There is none of that name; the message names the nearest one and the hint all.
        """
        found = self.environments.get(name)
        if found is not None:
            return found
        close = nearest(name, self.environments)
        question = f" Did you mean {close}?" if close else ""
        raise UsageError(
            f"There is no environment {shown(name)} in {self.source.name}.{question}",
            hint=f"Known environments: {', '.join(self.environments)}.",
        )

    def environments_named(self, names: str) -> list[Environment]:
        """Return the environments of `--env=one,two`, each once, in the order given.

        Raises:
            UsageError: No name was given, or one is unknown.
        """
        wanted = environment_names(names)
        if not wanted:
            raise UsageError(
                "No environment was named.",
                hint=f"Add --env=NAME. Known environments: {', '.join(self.environments)}.",
            )
        return [self.environment(name) for name in wanted]


#: What holds settings by name; any other tuple is a list.
SETTINGS = (
    Registry, Host, Tls, LogOptions, Container, Health, ReleaseCommand, Hooks, Notify, Drain, Maintenance, Nginx,
    PortRange, Build, Environment, Project,
)  # fmt: skip

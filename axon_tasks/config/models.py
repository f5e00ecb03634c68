"""The shape of `hosts.yml`: what checks it, and describes it to editors. What tasks work with is in `project`.

Durations are seconds throughout.
"""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from axon_tasks.config import values as v
from axon_tasks.config.faults import ValueFault
from axon_tasks.config.registries import EXAMPLES, belongs
from axon_tasks.config.secret import Secret

#: A deploy needs one port for the old release and one for the new.
_FEWEST_PORTS = 2


class Settings(BaseModel):
    """What all settings share: nothing unknown, nothing changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RegistrySettings(Settings):
    """How to log in to the registry that the image comes from."""

    server: v.RegistryServer | None = Field(
        None, description="host[:port]; default: the registry of the image"
    )
    username: v.RegistryUser | None = Field(
        None, description="user name for the registry; aws, azure, docker and gcloud know it themselves"
    )
    password: Secret | None = Field(
        None, description="password or token, best as ${VARIABLE}; travels over stdin only"
    )
    password_file: v.LocalPath | None = Field(
        None, description="local file that holds the password, relative to this file; ~ is expanded"
    )
    credentials: v.Credentials | None = Field(
        None, description="whom to ask for the login on this machine: aws, azure, docker, gcloud or gh"
    )

    @model_validator(mode="after")
    def _one_way(self) -> "RegistrySettings":
        ways = [one for one in (self.password, self.password_file, self.credentials) if one is not None]
        if len(ways) != 1:
            raise ValueFault(
                "names several ways to log in" if ways else "names no way to log in",
                expected="one of password, password_file and credentials",
            )
        if self.credentials in v.KNOW_THE_USER and self.username is not None:
            raise ValueFault(
                f"has a username, and credentials: {self.credentials} knows it itself", expected="no username"
            )
        if self.credentials not in v.KNOW_THE_USER and self.username is None:
            raise ValueFault("has no username", expected="username: NAME beside it")
        return self

    @model_validator(mode="after")
    def _fitting_server(self) -> "RegistrySettings":
        if self.credentials and self.server and not belongs(self.credentials, self.server):
            raise ValueFault(
                f"has credentials: {self.credentials} for a registry that is none of theirs",
                expected=f"a registry such as {EXAMPLES[self.credentials]}",
            )
        return self


class HostSettings(Settings):
    """How to reach one server; what is left out comes from ssh_config."""

    address: v.Address = Field(description="host name or IP address that SSH connects to")
    user: v.User | None = Field(None, description="user to log in as; default: ssh_config")
    port: v.Port | None = Field(None, description="SSH port; default: ssh_config, else 22")
    key: v.LocalPath | None = Field(
        None, description="private key file, relative to this file; ~ is expanded"
    )
    passphrase: Secret | None = Field(None, description="passphrase of the private key, best as ${VARIABLE}")
    private_address: v.IpAddress | None = Field(
        None, description="IP address by which nginx reaches the containers; default: address"
    )
    jump: v.Jump | None = Field(None, description="jump host: a name of this file, or [user@]host[:port]")
    host_keys: v.HostKeys = Field(
        "strict", description="strict: the host key must be known; accept-new: an unknown one is stored"
    )
    connect_timeout: v.PositiveDuration = Field(
        10.0, description="seconds until an SSH connection must stand, or a duration such as 10s"
    )


class TlsSettings(Settings):
    """The site's certificate, which must already be on the system servers."""

    certificate: v.RemotePath = Field(
        description="absolute path of the certificate chain on the system servers"
    )
    key: v.RemotePath = Field(description="absolute path of its private key on the system servers")
    hsts_days: v.Days | None = Field(
        None, description="days for which browsers shall ask for HTTPS only (HSTS); default: not said"
    )


class LogOptionsSettings(Settings):
    """How Docker keeps the container's log."""

    driver: v.LogDriver = Field("json-file", description="Docker logging driver")
    max_size: v.Size = Field(
        "10m", description="size in bytes, or with k, m, g, at which a log file is rotated"
    )
    max_file: v.Count = Field(3, description="number of log files that are kept")


class ContainerSettings(Settings):
    """How the application's container is run."""

    port: v.Port = Field(3000, description="port on which the application listens inside the container")
    restart: v.Restart = Field("unless-stopped", description="Docker's restart policy")
    env: dict[v.VariableName, v.EnvironmentValue] = Field(
        default_factory=dict, description="environment variables; they travel as an env-file, never in argv"
    )
    volumes: tuple[v.Volume, ...] = Field((), description="mounts, as host:container[:options]")
    network: v.Network | None = Field(
        None, description="Docker network, made if it is not there; default: Docker's bridge"
    )
    network_alias: v.DockerName | None = Field(None, description="name of the container in its network")
    extra_hosts: tuple[v.ExtraHost, ...] = Field((), description="additional host entries, as name:address")
    command: tuple[v.Argument, ...] | None = Field(
        None, description="command and arguments instead of the image's own, as a list"
    )
    memory: v.Size | None = Field(None, description="memory limit in bytes, or with k, m, g: 512m")
    cpus: v.Cpus | None = Field(None, description="processor limit in processors: 1.5")
    user: v.ContainerUser | None = Field(None, description="user[:group] inside the container")
    init: v.Flag = Field(False, description="whether Docker's init reaps processes inside the container")
    stop_timeout: v.Duration = Field(
        10.0, description="seconds between SIGTERM and SIGKILL when it is stopped"
    )
    log: LogOptionsSettings = Field(
        default_factory=LogOptionsSettings, description="how Docker keeps the log"
    )
    labels: dict[v.LabelName, v.Argument] = Field(
        default_factory=dict, description="additional Docker labels"
    )

    @model_validator(mode="after")
    def _alias_needs_network(self) -> "ContainerSettings":
        if self.network_alias and not self.network:
            raise ValueFault("network_alias is set without a network", expected="network: NAME beside it")
        return self


class HealthSettings(Settings):
    """When a new release counts as healthy. It is probed on its server, before nginx sends it a request."""

    path: v.UrlPath = Field("/", description="path that is probed, with a query if need be")
    host: v.HostHeader | None = Field(
        None, description="Host header of the probe; default: the site's domain"
    )
    expect_status: v.Statuses = Field(
        (200,), description="HTTP status codes that count as healthy: one, or a list"
    )
    expect_body: v.Line | None = Field(None, description="text that the response must contain")
    timeout: v.PositiveDuration = Field(
        60.0, description="seconds until it must be healthy, or a duration: 60s"
    )
    interval: v.PositiveDuration = Field(0.1, description="seconds between probes, or a duration: 100ms")
    probe_timeout: v.PositiveDuration = Field(5.0, description="seconds for one probe, or a duration: 5s")
    successes: v.Count = Field(1, description="number of probes in a row that must succeed")
    docker: v.Flag = Field(True, description="whether the image's own HEALTHCHECK must report healthy, too")
    log_lines: v.Lines = Field(
        20, description="number of log lines that are shown when it does not get healthy"
    )

    @field_validator("expect_status")
    @classmethod
    def _some_status(cls, codes: tuple[int, ...]) -> tuple[int, ...]:
        if not codes:
            raise ValueFault("the list is empty", expected="at least one HTTP status code")
        return codes


class ReleaseCommandSettings(Settings):
    """A command that is run once per deploy, in a container of the new image, before anything of it is started."""

    command: tuple[v.Argument, ...] = Field(
        description="command and arguments, as a list: [bin/rails, db:migrate]"
    )
    entrypoint: v.Argument | None = Field(
        None, description="program that is given them instead of the image's own ENTRYPOINT"
    )
    timeout: v.PositiveDuration = Field(
        600.0, description="seconds until it must have ended, or a duration: 10m"
    )

    @field_validator("command")
    @classmethod
    def _some_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not words:
            raise ValueFault("the list is empty", expected="a command")
        return words


class HooksSettings(Settings):
    """Commands that are run on this machine, in the folder of this file, with facts in AXON_... and as JSON on stdin."""

    before_deploy: tuple[v.Argument, ...] | None = Field(
        None, description="before anything is done; if it fails, nothing is"
    )
    after_switch: tuple[v.Argument, ...] | None = Field(
        None, description="as soon as the new release serves; a failure is a warning"
    )
    after_deploy: tuple[v.Argument, ...] | None = Field(
        None, description="when the deploy has ended well; a failure is a warning"
    )
    on_failure: tuple[v.Argument, ...] | None = Field(
        None, description="when the deploy has failed; its own failure hides nothing"
    )
    timeout: v.PositiveDuration = Field(300.0, description="seconds that each of them may take: 5m")

    @field_validator("before_deploy", "after_switch", "after_deploy", "on_failure")
    @classmethod
    def _some_words(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words is not None and not words:
            raise ValueFault("the list is empty", expected="a command")
        return words


class NotifySettings(Settings):
    """Whom to tell how a deploy has ended."""

    webhook: Secret = Field(
        description="URL that is sent a message as Slack takes it, best as ${VARIABLE}: it is a secret"
    )
    events: tuple[v.Ending, ...] = Field(
        ("success", "failure"), description="after which endings: success, failure"
    )

    @field_validator("webhook")
    @classmethod
    def _is_url(cls, url: Secret) -> Secret:
        if not url.reveal().startswith(("https://", "http://")):
            raise ValueFault("is no URL", expected="https://...", secret=True)
        return url


class DrainSettings(Settings):
    """How the old release is let go."""

    timeout: v.Duration = Field(
        30.0, description="seconds in which it may finish its requests, or a duration: 30s"
    )


class MaintenanceSettings(Settings):
    """What clients are told while maintenance is on (`fab maintenance`)."""

    retry_after: v.PositiveDuration = Field(
        120.0, description="seconds after which clients may ask again (Retry-After), or a duration: 2m"
    )


class NginxSettings(Settings):
    """Where nginx is configured on the system servers, and how it proxies."""

    directory: v.RemotePath = Field(
        "/etc/nginx/axon.d", description="directory for generated files, absolute"
    )
    config: v.RemotePath = Field("/etc/nginx/nginx.conf", description="nginx's main configuration, absolute")
    http_port: v.Port = Field(80, description="port for HTTP")
    https_port: v.Port = Field(443, description="port for HTTPS, if there is a certificate")
    client_max_body_size: v.BodySize = Field(
        "1m", description="largest request body in bytes, or with k, m, g"
    )
    proxy_timeout: v.PositiveDuration = Field(
        60.0, description="seconds that the application may be silent, or a duration: 60s"
    )

    acme_root: v.RemotePath | None = Field(
        None,
        description="directory that answers /.well-known/acme-challenge/ over HTTP;"
        " default: /var/www/html where there is a certificate",
    )

    @model_validator(mode="after")
    def _two_ports(self) -> "NginxSettings":
        if self.http_port == self.https_port:
            raise ValueFault("http_port and https_port are the same", expected="two different ports")
        return self


class BuildSettings(Settings):
    """How the image is built on this machine, and how it gets to the app servers."""

    context: v.LocalPath = Field(".", description="folder that is built, relative to this file")
    dockerfile: v.LocalPath = Field("Dockerfile", description="its Dockerfile, relative to that folder")
    args: dict[v.BuildArgument, v.EnvironmentValue] = Field(
        default_factory=dict,
        description="build arguments; never shown, but the image's history holds them: they are no place for secrets",
    )
    target: v.DockerName | None = Field(
        None, description="stage of the Dockerfile to build; default: the last"
    )
    platform: v.Platform | None = Field(
        None, description="such as linux/amd64; default: that of the app servers, which are asked"
    )
    push: v.Push = Field(
        "registry",
        description="registry: the image goes there, and app servers pull it; ssh: it is sent to them, without a registry",
    )


class PortRangeSettings(Settings):
    """The ports on the app servers from which two are chosen for each environment."""

    first: v.HostPort = Field(30000, description="lowest port")
    last: v.HostPort = Field(32767, description="highest port")

    @model_validator(mode="after")
    def _enough(self) -> "PortRangeSettings":
        if self.last - self.first + 1 < _FEWEST_PORTS:
            raise ValueFault(
                "the range is too small", expected="last above first: each environment needs two ports"
            )
        return self


class EnvironmentSettings(Settings):
    """One place where the product runs; `defaults` has the same keys and is merged under each."""

    system: tuple[v.HostReference, ...] = Field(
        description="hosts that run nginx: a list of names of this file"
    )
    app: tuple[v.HostReference, ...] = Field(
        description="hosts that run the containers: a list of names of this file"
    )
    domain: v.Domain = Field(description="the site's domain, such as shop.example.com or *.example.com")
    aliases: tuple[v.Domain, ...] = Field((), description="further domains of the site")
    tls: TlsSettings | None = Field(None, description="certificate; without one the site is served over HTTP")
    env_file: v.RemotePath | None = Field(None, description="absolute path of an env-file on the app servers")
    image: v.Image | None = Field(None, description="image without a tag; default: the project's")
    tag: v.Version | None = Field(None, description="tag or digest to deploy when --tag is not given")
    switch: v.Switch = Field(
        "slots", description="slots: no reload per deploy; reload: rewrite and reload nginx"
    )
    registry: RegistrySettings | None = Field(None, description="registry login; default: the project's")
    container: ContainerSettings = Field(
        default_factory=ContainerSettings, description="how the container is run"
    )
    health: HealthSettings = Field(
        default_factory=HealthSettings, description="when a new release counts as healthy"
    )
    release_command: ReleaseCommandSettings | None = Field(
        None, description="run once per deploy, on the first app server, before the new release is started"
    )
    hooks: HooksSettings | None = Field(None, description="commands of this machine around a deploy")
    notify: NotifySettings | None = Field(None, description="whom to tell how a deploy has ended")
    drain: DrainSettings = Field(default_factory=DrainSettings, description="how the old release is let go")
    maintenance: MaintenanceSettings = Field(
        default_factory=MaintenanceSettings, description="what clients are told while maintenance is on"
    )
    nginx: NginxSettings = Field(default_factory=NginxSettings, description="where nginx is configured")
    ports: PortRangeSettings = Field(
        default_factory=PortRangeSettings, description="ports on the app servers"
    )
    build: BuildSettings = Field(default_factory=BuildSettings, description="how the image is built")

    @field_validator("system", "app")
    @classmethod
    def _some_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not hosts:
            raise ValueFault("the list is empty", expected="at least one host")
        return _without_repetition(hosts)

    @field_validator("aliases")
    @classmethod
    def _different_aliases(cls, aliases: tuple[str, ...]) -> tuple[str, ...]:
        return _without_repetition(aliases)

    @model_validator(mode="after")
    def _alias_is_another_domain(self) -> "EnvironmentSettings":
        if self.domain in self.aliases:
            raise ValueFault("aliases name the domain again", expected="further domains only")
        return self

    @model_validator(mode="after")
    def _probe_has_a_host(self) -> "EnvironmentSettings":
        if self.health.host is None and all(name.startswith("*.") for name in (self.domain, *self.aliases)):
            raise ValueFault(
                "every domain is a wildcard, so the probe has no Host header",
                expected="health.host to be set",
            )
        return self


class FileSettings(Settings):
    """The whole of `hosts.yml`."""

    product: v.Name = Field(description="name of the product: up to 40 of a-z, 0-9 and dashes")
    image: v.Image = Field(description="image without a tag, such as registry.example.com/shop")
    registry: RegistrySettings | None = Field(None, description="registry login for all environments")
    known_hosts: v.LocalPath | None = Field(
        None, description="the project's own known_hosts file, relative to this file, read beside the user's"
    )
    hosts: dict[v.HostName, HostSettings] = Field(description="the servers, by name")
    defaults: EnvironmentSettings | None = Field(
        None, description="merged under every environment: mappings key by key, lists as a whole"
    )
    environments: dict[v.Name, EnvironmentSettings] = Field(description="the environments, by name")

    @field_validator("hosts", "environments")
    @classmethod
    def _not_empty(cls, entries: dict[str, Settings]) -> dict[str, Settings]:
        if not entries:
            raise ValueFault("there is none", expected="at least one")
        return entries


def _without_repetition(names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first != index:
            # By position: a name that came from a variable must not be shown.
            raise ValueFault(f"entry {index + 1} repeats entry {first + 1}", expected="each name once")
    return names

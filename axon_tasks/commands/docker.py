"""Shell text for the app servers: look, pull, start, wait until healthy, diagnose, retire."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from axon_tasks.commands import naming
from axon_tasks.commands.shell import centiseconds, command, script

if TYPE_CHECKING:
    from axon_tasks.config import Environment, Registry

#: Fields of `docker ps`, each as JSON, so that no label or name of a foreign container can shift a column.
PS_FIELDS = ("ID", "Names", "State", "Image", "Ports")
PS_LABELS = ("product", "environment", "release", "slot", "port", "image", "digest")


@dataclass(frozen=True)
class Candidate:
    """What one app server runs of a release.

    Attributes:
        environment: The environment it belongs to.
        release: The release's id.
        slot: `a` or `b`.
        port: The host port.
        address: The address that nginx uses, where the container is published.
        image: The reference to run: by digest, so that every server runs the same bytes.
        reference: The reference as people wrote it, with its tag.
        bind: The address to publish on; `0.0.0.0` if the host has no private address.
        digest: The image's digest.
    """

    environment: Environment
    release: str
    slot: str
    port: int
    address: str
    image: str
    reference: str
    bind: str
    digest: str

    @property
    def container(self) -> str:
        """The container's name."""
        return naming.container_name(self.environment.product, self.environment.name, self.release)

    @property
    def probe_address(self) -> str:
        """Where the app server itself reaches the container."""
        return "127.0.0.1" if self.bind == "0.0.0.0" else self.bind  # noqa: S104  (compared, not bound)


def _place(environment: Environment) -> dict[str, str]:
    return {
        "product": environment.product,
        "environment": environment.name,
        "axon_root": naming.STATE_ROOT,
        "state": naming.state_directory(environment.product, environment.name),
    }


def info() -> str:
    """The daemon's version; fails, with a reason, where docker is missing, stopped or forbidden."""
    return command("docker", "version", "--format", "{{.Server.Version}}")


def containers() -> str:
    """Every container of the server, one JSON array a line: ours are selected from it by exact label."""
    fields = [f"{{{{json .{field}}}}}" for field in PS_FIELDS]
    labels = [f'{{{{json (.Label "axon.{label}")}}}}' for label in PS_LABELS]
    return command("docker", "ps", "-a", "--no-trunc", "--format", f"[{','.join([*fields, *labels])}]")


def env_file(path: str) -> str:
    """Whether the environment file is there and readable for the user that runs docker."""
    where = shlex.quote(path)
    return f"if [ ! -e {where} ]; then echo missing; elif [ ! -r {where} ]; then echo unreadable; else echo ok; fi"


def free_space() -> str:
    """Free space of the file systems that an image and its containers need, in KiB (POSIX df -Pk)."""
    return "df -Pk \"$(docker info --format '{{.DockerRootDir}}')\" | awk 'NR == 2 { print $4 }'"


def reserved_ports(environment: Environment) -> str:
    """The environment's two ports on this server, if they have been chosen; changes nothing."""
    path = f"{naming.state_directory(environment.product, environment.name)}/ports"
    return f"cat {shlex.quote(path)} 2>/dev/null || true"


def reserve_ports(environment: Environment) -> str:
    """Choose the environment's two ports on this server, once, or tell the ones already chosen."""
    return script(
        "reserve_ports",
        ("ports",),
        **_place(environment),
        first_port=environment.ports.first,
        last_port=environment.ports.last,
    )


def pull(image: str, registry: Registry | None) -> str:
    """Pull an image with credentials that exist for this command alone.

    The password comes on stdin, and Docker's configuration is a private directory that is removed at the end:
    `docker login` would leave it in ~/.docker/config.json, base64 being no protection.
    """
    # A shell that is ended runs its EXIT trap only if the signal is trapped, too (dash).
    lines = ["trap 'exit 1' HUP INT TERM PIPE"]
    if registry is not None:
        lines += [
            "DOCKER_CONFIG=$(mktemp -d) || exit 30",
            "export DOCKER_CONFIG",
            "trap 'rm -rf \"$DOCKER_CONFIG\"' EXIT",
            command(
                "docker", "login", "--username", registry.username, "--password-stdin", registry.server or ""
            )
            + " >/dev/null || exit 33",
        ]
    lines += [
        command("docker", "pull", "--quiet", image) + " || exit 34",
        command("docker", "image", "inspect", "--format", "{{json .RepoDigests}} {{.Id}}", image),
    ]
    return "\n".join(lines)


def run_arguments(candidate: Candidate) -> list[str]:
    """The arguments of `docker run -d` for a candidate, without any secret: those come on stdin."""
    environment, container = candidate.environment, candidate.environment.container
    labels = {
        **container.labels,
        "axon.product": environment.product,
        "axon.environment": environment.name,
        "axon.release": candidate.release,
        "axon.role": "app",
        "axon.slot": candidate.slot,
        "axon.port": str(candidate.port),
        "axon.container_port": str(container.port),
        "axon.image": candidate.reference,
        "axon.digest": candidate.digest,
    }
    bind = f"[{candidate.bind}]" if ":" in candidate.bind else candidate.bind
    arguments = [
        "--name", candidate.container,
        "--publish", f"{bind}:{candidate.port}:{container.port}",
        # Nothing that has not been healthy yet may come back by itself.
        "--restart", "no",
        "--log-driver", container.log.driver,
    ]  # fmt: skip
    if container.log.driver in {"json-file", "local"}:
        arguments += ["--log-opt", f"max-size={container.log.max_size}"]
        arguments += ["--log-opt", f"max-file={container.log.max_file}"]
    for key, value in labels.items():
        arguments += ["--label", f"{key}={value}"]
    if environment.env_file:
        arguments += ["--env-file", environment.env_file]
    if container.env:
        arguments += ["--env-file", "/dev/stdin"]
    for volume in container.volumes:
        arguments += ["--volume", volume]
    for entry in container.extra_hosts:
        arguments += ["--add-host", entry]
    single = {
        "--network": container.network,
        "--network-alias": container.network_alias,
        "--memory": container.memory,
        "--cpus": container.cpus,
        "--user": container.user,
    }
    for flag, setting in single.items():
        if setting is not None:
            arguments += [flag, str(setting)]
    if container.init:
        arguments.append("--init")
    return [*arguments, candidate.image, *(container.command or ())]


def env_text(environment: Environment) -> str:
    """The variables of `container.env` as the text of an env-file, for the section's stdin."""
    return "".join(f"{name}={value.reveal()}\n" for name, value in environment.container.env.items())


def _timing(environment: Environment) -> dict[str, str | float]:
    return {
        "drain_time": centiseconds(environment.drain.timeout),
        "stop_time": max(1, round(environment.container.stop_timeout)),
    }


def start(candidate: Candidate, *, now: bool = False) -> str:
    """Run the candidate in its slot; a release that still drains there is waited for, or cut with `now`."""
    values: dict[str, str | float] = {**_place(candidate.environment), **_timing(candidate.environment)}
    if now:
        values["drain_time"] = 0
    return script(
        f"start {command(*run_arguments(candidate))}",
        ("drain", "start"),
        **values,
        release=candidate.release,
        slot=candidate.slot,
        port=candidate.port,
        container=candidate.container,
    )


def probe_values(environment: Environment) -> dict[str, str | float]:
    """What a probe sends and expects, as shell variables."""
    health = environment.health
    return {
        "path": health.path,
        "host_header": environment.health_host,
        "expect_status": " ".join(map(str, health.expect_status)),
        "expect_body": health.expect_body or "",
        "probe_timeout": f"{health.probe_timeout:g}",
    }


def health(candidate: Candidate) -> str:
    """Wait on the app server until the candidate is healthy, then give it its restart policy."""
    settings = candidate.environment.health
    return script(
        "health",
        ("http", "health"),
        **probe_values(candidate.environment),
        container=candidate.container,
        address=candidate.probe_address,
        port=candidate.port,
        health_time=centiseconds(settings.timeout),
        interval=f"{settings.interval:g}",
        successes=settings.successes,
        honour_docker=int(settings.docker),
        restart=candidate.environment.container.restart,
    )


def container_state(container: str) -> str:
    """The container's state as one JSON object, with restarts and, where it has one, Docker's health log."""
    return command(
        "docker", "inspect", "--format",
        '{"state":{{json .State}},"restarts":{{.RestartCount}},"image":{{json .Config.Image}}}', container,
    )  # fmt: skip


def last_logs(container: str, lines: int) -> str:
    """The last lines the container wrote, both streams."""
    return f"{command('docker', 'logs', '--tail', lines, container)} 2>&1"


def remove_release(environment: Environment, release: str, *, drain: bool = False) -> str:
    """Remove what one release has started on this server, and nothing else; with `drain`, its clients finish first."""
    return script(
        "remove_release",
        ("drain", "start"),
        **_place(environment),
        **_timing(environment),
        release=release,
        drain_first=int(drain),
    )


def retire(environment: Environment, container_ids: tuple[str, ...]) -> str:
    """Drain, stop and remove the named containers; explicit ids, never "everything but the new one"."""
    return script(
        "\n".join(
            [f"retire {command(one)} || retire_failed=1" for one in container_ids] + ["exit $retire_failed"]
        ),
        ("drain",),
        **_timing(environment),
        retire_failed=0,
    )

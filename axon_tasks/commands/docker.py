"""Shell text for the app servers: look, pull, start, wait until healthy, diagnose, retire."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.commands import naming
from axon_tasks.commands.shell import Var, Word, centiseconds, command, joined, script, text
from axon_tasks.config import ImageReference
from axon_tasks.config.images import is_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.commands.registry import Login
    from axon_tasks.commands.shell import Learnt
    from axon_tasks.config import Environment
    from axon_tasks.config.project import ReleaseCommand

#: Fields of `docker ps`, each as JSON, so that no label or name of a foreign container can shift a column.
PS_FIELDS = ("ID", "Names", "State", "Image", "Ports")
PS_LABELS = ("product", "environment", "release", "slot", "port", "image", "digest")


#: The variables of a release's scripts: what differs from one to the next.
VARIABLES = ("release", "slot", "port", "digest")


class Started(NamedTuple):
    """What an app server was given to run as a release, as it has kept it.

    Attributes:
        release: The release's id.
        reference: The image as people wrote it.
        digest: The image's digest.
        restart: With what it comes back after a restart of the daemon.
        arguments: The arguments of `docker run`, with variables where releases differ.
        checksum: The SHA-256 that the variables kept beside it must have; empty if that is not known.
    """

    release: str
    reference: str
    digest: str
    restart: str
    arguments: tuple[Word, ...]
    checksum: str = ""

    @property
    def by_id(self) -> bool:
        """Whether the image was run by its id, because no registry has it."""
        return _BY_ID in self.arguments


class Candidate(NamedTuple):
    """What one app server runs of a release.

    Attributes:
        environment: The environment it belongs to.
        release: The release's id.
        slot: `a` or `b`.
        port: The host port, as text: in a plan it may not be known yet.
        address: The address that nginx uses, where the container is published.
        reference: The reference as people wrote it, with its tag; what runs is the digest, the same on every server.
        bind: The address to publish on; `0.0.0.0` if the host has no private address.
        digest: The image's digest.
        again: What an earlier release was started with here, if this is to be the same once more.
        by_id: Whether the digest is the image's id on the server, because no registry has the image.
    """

    environment: Environment
    release: str
    slot: str
    port: str
    address: str
    reference: str
    bind: str
    digest: str
    again: Started | None = None
    by_id: bool = False

    @property
    def container(self) -> str:
        """The container's name."""
        return naming.container_name(self.environment.product, self.environment.name, self.release)

    @property
    def variables(self) -> dict[str, str]:
        """What differs from one release to the next: the shell variables of its scripts (`VARIABLES`)."""
        return {"release": self.release, "slot": self.slot, "port": self.port, "digest": self.digest}

    @property
    def image(self) -> Word:
        """The image to run: the same bytes on every server, whatever happens to the tag."""
        return _BY_ID if self.by_id else by_digest(self.reference)

    @property
    def restart(self) -> str:
        """With what it comes back after a restart of the daemon, once it has been healthy."""
        return self.again.restart if self.again else self.environment.container.restart

    @property
    def env_file(self) -> str:
        """The file on the server that holds its variables; empty if there is none."""
        if self.again:
            return f"{started_directory(self.environment)}/{self.again.release}.env"
        return self.environment.env_file or ""

    @property
    def probe_address(self) -> str:
        """Where the app server itself reaches the container."""
        return probe_address(None if self.bind == "0.0.0.0" else self.bind)  # noqa: S104  (compared, not bound)


def _place(environment: Environment) -> dict[str, str]:
    return {
        "product": environment.product,
        "environment": environment.name,
        "axon_root": naming.STATE_ROOT,
        "state": naming.state_directory(environment.product, environment.name),
    }


def started_directory(environment: Environment) -> str:
    """Where an app server keeps what its releases were started with."""
    return f"{naming.state_directory(environment.product, environment.name)}/started"


#: The name of a release's container in a script, from the variables that stand before it.
_CONTAINER: Word = (Var("product"), "-", Var("environment"), "-", Var("release"))


def info() -> str:
    """The daemon's version, and the free space where it keeps its data in KiB (POSIX df -Pk).

    Fails, with a reason, where docker is missing, stopped or forbidden. One call of the program answers both: starting
    it is what takes the time.
    """
    return script("docker_info", ("docker",))


def containers() -> str:
    """Every container of the server, one JSON array a line: ours are selected from it by exact label."""
    fields = [f"{{{{json .{field}}}}}" for field in PS_FIELDS]
    labels = [f'{{{{json (.Label "axon.{label}")}}}}' for label in PS_LABELS]
    return command("docker", "ps", "-a", "--no-trunc", "--format", f"[{','.join([*fields, *labels])}]")


def env_file(path: str) -> str:
    """Whether the environment file is there and readable for the user that runs docker."""
    where = shlex.quote(path)
    return f"if [ ! -e {where} ]; then echo missing; elif [ ! -r {where} ]; then echo unreadable; else echo ok; fi"


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


def pull(image: Word, login: Login | None, *, if_missing: bool = False, **values: str) -> str:
    """Pull an image with credentials that exist for this command alone.

    The password comes on stdin, and Docker's configuration is a private directory that is removed at the end:
    `docker login` would leave it in ~/.docker/config.json, base64 being no protection.

    Args:
        image: The reference; it may contain variables.
        login: The login, if the registry asks for one.
        if_missing: Whether nothing is pulled, nor asked, if the image is there already.
        values: The variables.
    """
    return script(
        "fetch_image" if if_missing else "pull_image",
        ("docker",),
        registry_user=login.username if login else "",
        registry_server=login.server if login else "",
        **values,
        image=image,
    )


def digests(image: Word, **values: str) -> str:
    """The digests of an image that is there; its parameters are those of `pull`."""
    return script("image_digests", ("docker",), **values, image=image)


def by_digest(reference: str) -> Word:
    """The image by its digest: the same bytes on every server, whatever happens to the tag."""
    return (ImageReference.parse(reference).name, "@", Var("digest"))


#: An image by its id. An id and a digest look the same; which of the two it is shows in whether a name stands before it.
_BY_ID: Word = (Var("digest"),)


def by_id() -> Word:
    """The image by its id, where it was sent to the servers and no registry knows it."""
    return _BY_ID


def images() -> str:
    """Where Docker keeps its images, and the layers of each, so that only what is missing has to be sent."""
    return script("tell_layers", ("docker",))


def load(reference: str) -> str:
    """Load an image from an archive on stdin, and tell its id.

    Args:
        reference: Its name.
    """
    return script("load_image", ("docker",), image=reference)


def run_arguments(candidate: Candidate) -> list[Word]:
    """The arguments of `docker run -d` for a candidate, without any of its variables: those come on stdin."""
    if candidate.again:
        return list(candidate.again.arguments)
    environment, container = candidate.environment, candidate.environment.container
    labels: dict[str, Word] = {
        **container.labels,
        "axon.product": environment.product,
        "axon.environment": environment.name,
        "axon.release": (Var("release"),),
        "axon.role": "app",
        "axon.slot": (Var("slot"),),
        "axon.port": (Var("port"),),
        "axon.container_port": str(container.port),
        "axon.image": candidate.reference,
        "axon.digest": (Var("digest"),),
    }
    bind = f"[{candidate.bind}]" if ":" in candidate.bind else candidate.bind
    arguments: list[Word] = [
        "--name", (f"{environment.product}-{environment.name}-", Var("release")),
        "--publish", (f"{bind}:", Var("port"), f":{container.port}"),
        # Nothing that has not been healthy yet may come back by itself.
        "--restart", "no",
        "--log-driver", container.log.driver,
    ]  # fmt: skip
    if container.log.driver in {"json-file", "local"}:
        arguments += ["--log-opt", f"max-size={container.log.max_size}"]
        arguments += ["--log-opt", f"max-file={container.log.max_file}"]
    for key, value in labels.items():
        arguments += ["--label", (f"{key}=", *((value,) if isinstance(value, str) else value))]
    arguments += _surroundings(environment)
    return [*arguments, candidate.image, *(container.command or ())]


def _surroundings(environment: Environment, *, alias: bool = True) -> list[Word]:
    """What a program finds around it in a container: variables, volumes, network, limits.

    Args:
        environment: Whose settings.
        alias: Whether it is to be found under the application's name in its network.
    """
    container = environment.container
    arguments: list[Word] = []
    if environment.env_file or container.env:
        arguments += ["--env-file", "/dev/stdin"]
    for volume in container.volumes:
        arguments += ["--volume", volume]
    for entry in container.extra_hosts:
        arguments += ["--add-host", entry]
    single = {
        "--network": container.network,
        "--network-alias": container.network_alias if alias else None,
        "--memory": container.memory,
        "--cpus": container.cpus,
        "--user": container.user,
    }
    for flag, setting in single.items():
        if setting is not None:
            arguments += [flag, str(setting)]
    if container.init:
        arguments.append("--init")
    return arguments


#: The name of the container in which a release's command runs.
_COMMAND: Word = (*_CONTAINER, "-command")


def release_command(candidate: Candidate, wanted: ReleaseCommand) -> str:
    """Run a command once in the candidate's image, with its variables on stdin, and wait for its end.

    The container has a label of its own and none of a release, so that nobody takes it for one.

    Args:
        candidate: The release that it belongs to.
        wanted: The command.
    """
    environment = candidate.environment
    entrypoint = ("--entrypoint", wanted.entrypoint) if wanted.entrypoint else ()
    arguments: list[Word] = [
        "--rm", "--name", (f"{environment.product}-{environment.name}-", Var("release"), "-command"),
        "--label", f"axon.command={environment.product}/{environment.name}",
        *_surroundings(environment, alias=False), *entrypoint,
        candidate.image, *wanted.command,
    ]  # fmt: skip
    return script(
        f"release_command {command(*arguments)}",
        ("start", "command"),
        **_place(environment),
        **candidate.variables,
        container=_COMMAND,
        env_file=candidate.env_file,
        env_checksum="",
        command_time=max(1, round(wanted.timeout)),
    )


def remove_command(candidate: Candidate) -> str:
    """Remove the container of a release's command."""
    environment = candidate.environment
    return script(
        "remove_command", ("command",), product=environment.product, environment=environment.name,
        release=candidate.release, container=_COMMAND,
    )  # fmt: skip


def recorded_arguments(candidate: Candidate) -> list[str]:
    """The same arguments as they were run, for the release's record."""
    return [text(one, candidate.variables) for one in run_arguments(candidate)]


def env_text(candidate: Candidate) -> str:
    """The variables of `container.env` as the text of an env-file, for the section's stdin; empty for what is run again."""
    if candidate.again:
        return ""
    return "".join(
        f"{name}={value.reveal()}\n" for name, value in candidate.environment.container.env.items()
    )


def _kept(candidate: Candidate) -> Word:
    """What a server keeps of a start, as one line of JSON in which the shell fills in the digest."""
    words: list[Any] = [
        one
        if isinstance(one, str)
        else [{"var": part.name} if isinstance(part, Var) else part for part in one]
        for one in run_arguments(candidate)
    ]
    told = {"image": candidate.reference, "restart": candidate.restart, "run": words}
    return ('{"digest": "', Var("digest"), '", ', json.dumps(told)[1:])


def parse_started(release: str, line: str) -> Started | None:
    """Read what a server has kept of a start.

    Args:
        release: The release's id.
        line: What stands in the file.

    Returns:
        What was started, or None if that is not what was written.
    """
    try:
        told = json.loads(line)
        words = tuple(_word(one) for one in _list(told["run"]))
        reference, digest, restart = (told[key] for key in ("image", "digest", "restart"))
        ImageReference.parse(reference)
        fits = words and is_digest(digest) and isinstance(restart, str)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return Started(release, reference, digest, restart, words) if fits else None


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("no list")  # noqa: TRY004  (what a server has kept is a value, not a type)
    return value


def _word(one: object) -> Word:
    """One argument as it was kept.

    Raises:
        ValueError: It is none.
    """
    if isinstance(one, str):
        return _text(one)
    return tuple(Var(_variable(part)) if isinstance(part, dict) else _text(part) for part in _list(one))


def _text(part: object) -> str:
    if not isinstance(part, str) or "\0" in part:
        raise ValueError("no text")
    return part


def _variable(part: Mapping[str, object]) -> str:
    name = part["var"]
    if not isinstance(name, str) or name not in VARIABLES:
        raise ValueError("no variable")
    return name


def started(environment: Environment) -> str:
    """What this server has kept of its releases' starts, one line each; `parse_started` reads it."""
    return script(
        "tell_started", ("start",), state=naming.state_directory(environment.product, environment.name)
    )


def _timing(environment: Environment) -> dict[str, str | float]:
    return {
        "drain_time": centiseconds(environment.drain.timeout),
        "stop_time": max(1, round(environment.container.stop_timeout)),
    }


def clear_slot(candidate: Candidate, *, now: bool = False) -> str:
    """Wait for the release that still drains in the slot that is needed, or cut it with `now`."""
    values: dict[str, Word | float] = {**_place(candidate.environment), **_timing(candidate.environment)}
    if now:
        values["drain_time"] = 0
    return script("clear_slot", ("drain", "start"), **values, release=candidate.release, slot=candidate.slot)


def have_network(environment: Environment) -> str:
    """Make the container's network if it is not there."""
    return script(
        "have_network", ("start",), **_place(environment), network=environment.container.network or ""
    )


def start(candidate: Candidate) -> str:
    """Run the candidate in its slot."""
    return script(
        f"start {command(*run_arguments(candidate))}",
        ("drain", "start"),
        **_place(candidate.environment),
        **_timing(candidate.environment),
        **candidate.variables,
        container=_CONTAINER,
        env_file=candidate.env_file,
        env_checksum=candidate.again.checksum if candidate.again else "",
        kept=_kept(candidate),
    )


def environment(environment: Environment) -> str:
    """The checksum of the variables with which a release would be started now; those of `container.env` on stdin."""
    return script(
        "tell_environment", ("start", "compare"), env_file=environment.env_file or "", env_checksum=""
    )


def restart_policy(candidate: Candidate) -> str:
    """Have the candidate come back by itself after a restart of the daemon."""
    return script(
        "restart_policy",
        ("health",),
        product=candidate.environment.product,
        environment=candidate.environment.name,
        release=candidate.release,
        container=_CONTAINER,
        restart=candidate.restart,
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
    """Wait on the app server until the candidate is healthy."""
    settings = candidate.environment.health
    return script(
        "health",
        ("http", "health"),
        **probe_values(candidate.environment),
        product=candidate.environment.product,
        environment=candidate.environment.name,
        release=candidate.release,
        port=candidate.port,
        container=_CONTAINER,
        address=candidate.probe_address,
        health_time=centiseconds(settings.timeout),
        interval=f"{settings.interval:g}",
        successes=settings.successes,
        honour_docker=int(settings.docker),
    )


#: One container for `look_containers`: what the script reads of it, and the rest as JSON on the same line. `.ID` and not
#: `.Id`: with that, Docker falls back to the raw answer, in which what is not there, such as `.State.Health`, is an error.
_LOOK = (
    '{{.State.Status}} {{or (index .Config.Labels "axon.port") "-"}} {{.ID}} '
    '{"id":{{json .ID}},"status":{{json .State.Status}},"exit_code":{{json .State.ExitCode}},'
    '"oom_killed":{{json .State.OOMKilled}},"started":{{json .State.StartedAt}},"restarts":{{json .RestartCount}},'
    '"health":{{if .State.Health}}{{json .State.Health.Status}}{{else}}""{{end}}}'
)


def probe_address(private_address: str | None) -> str:
    """Where an app server itself reaches its containers: where they are published, or on loopback."""
    return private_address or "127.0.0.1"


def look(environment: Environment, address: str) -> str:
    """Each of the environment's containers as Docker describes it, and what it answers to a health check.

    Args:
        environment: Whose containers.
        address: Where this server reaches them.
    """
    return script(
        "look_containers", ("http", "look"), **_place(environment), **probe_values(environment),
        address=address, look_format=_LOOK,
    )  # fmt: skip


def stats(environment: Environment) -> str:
    """What each running container of the environment uses, and how often it was started again."""
    return script("look_stats", ("look",), **_place(environment))


def execute(container_id: str, words: tuple[str, ...], *, terminal: bool = False) -> str:
    """Run a program in a container.

    Args:
        container_id: In which one.
        words: The program and its arguments; a single word is a line for the container's shell.
        terminal: Whether it has a terminal, and a keyboard.
    """
    run = ("sh", "-c", *words) if len(words) == 1 else words
    return command("docker", "exec", *(("--interactive", "--tty") if terminal else ()), container_id, *run)


def restart(candidate: Candidate) -> str:
    """Stop a container and start it again, with the time to stop that it has in a deploy."""
    environment = candidate.environment
    seconds = max(1, round(environment.container.stop_timeout))
    return script(
        f'docker restart --time {seconds} "$container" >/dev/null', (),
        product=environment.product, environment=environment.name, release=candidate.release, container=_CONTAINER,
    )  # fmt: skip


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


def retire(environment: Environment, container_ids: tuple[str, ...] | Learnt) -> str:
    """Drain, stop and remove the named containers; explicit ids, never "everything but the new one"."""
    return script("retire_all", ("drain",), **_timing(environment), containers=joined(container_ids))


def hold_back(environment: Environment, jobs: str) -> str:
    """Keep running what the jobs that were ended were to retire, and say of what it is too late.

    Args:
        environment: Whose containers.
        jobs: Where its jobs are.
    """
    return script("hold_back", ("drain",), jobs=jobs, restart=environment.container.restart)

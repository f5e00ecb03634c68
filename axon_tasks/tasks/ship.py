"""`fab build`, `fab push` and `fab ship`: from a working directory to a release."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Literal

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks import deploy as deploying
from axon_tasks.tasks.base import Context, duration, ended_like_ctrl_c, one_environment, say, task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.building import Build, Source
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.credentials import Logins
    from axon_tasks.report.transcript import Transcript

HELP = {
    "env": "Environment of hosts.yml whose image is meant; required.",
    "tag": "Tag of the image; default: the git commit, its first 12 digits.",
    "allow_dirty": "Build what is in no commit, too; its tag ends in -dirty and the time.",
    "platform": "Platform to build for, such as linux/amd64; default: that of the app servers.",
    "push": "registry, or ssh for sending it to the app servers; default: `build: {push}`, else registry.",
    "dry_run": "Print what would be run, secrets masked; build nothing and contact nothing.",
    "hosts_file": deploying.HELP["hosts_file"],
}


def _help(*names: str) -> dict[str, str]:
    return {name: HELP[name] for name in names}


@task(help=_help("env", "tag", "allow_dirty", "platform", "dry_run", "hosts_file"))
def build(
    _c: Context,
    env: str = "",
    tag: str | None = None,
    allow_dirty: bool = False,
    platform: str = "",
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Build the image on this machine, from a commit.

    With docker buildx where it is there, else with docker build. `build:` in hosts.yml names the folder, the Dockerfile,
    build arguments, the stage and the platform. The tag is the git commit, and a label of the image names it, too. What is
    not committed is refused, because nobody could say later what the image holds.

    Examples:
        fab build --env=prod
        fab build --env=prod --tag=v2 --platform=linux/arm64
        fab build --env=prod --allow-dirty
        fab build --env=prod --dry-run

    Exit codes: 0 done; 1 the build failed; 2 wrong usage or configuration, or changes that are not committed; 4 an app server
    cannot be asked for its platform; 130 interrupted.
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import building

    made_of = building.source(project, environment, tag, allow_dirty=allow_dirty)
    wanted = building.platform(environment, platform)
    if dry_run:
        _print(_build_lines(environment, made_of, wanted))
        return
    with ended_like_ctrl_c():
        _build(environment, made_of, wanted or _asked(project, environment))


@task(help=_help("env", "tag", "push", "dry_run", "hosts_file"))
def push(
    _c: Context,
    env: str = "",
    tag: str | None = None,
    push: str = "",
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Push a built image to its registry, or to the app servers.

    To the registry of `image:`, with the login of `registry:` for this push alone; without one, with what docker login has
    left on this machine. With --push=ssh it is sent to all app servers at the same time instead, over the SSH connections
    that a deploy uses, and only the layers that they lack: no registry is needed. Deploy it with --no-pull then, or set
    `build: {push: ssh}`.

    Examples:
        fab push --env=prod                      (the image of the commit that is checked out)
        fab push --env=prod --tag=v2
        fab push --env=prod --tag=v2 --push=ssh

    Exit codes: 0 done; 1 it failed; 2 wrong usage or configuration, or no password to be had; 4 an app server cannot be
    reached or its host key is not the known one; 130 interrupted.
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import building
    from axon_tasks.deploy.credentials import Logins

    way = _way(environment, push)
    made_of = building.source(project, environment, tag, allow_dirty=False, builds=False)
    if dry_run:
        _print(_push_lines(environment, made_of, way))
        return
    with ended_like_ctrl_c():
        if way == "registry":
            _push(environment, made_of, Logins())
            return
        with _connected(project) as connections:
            connections.open_early(environment.app)
            _send(connections, environment, made_of)


@task(
    help=_help("env", "tag", "allow_dirty", "platform", "push", "dry_run", "hosts_file")
    | {name: deploying.HELP[name] for name in ("now", "wait", "wait_lock", "keep_going")}
)
def ship(
    _c: Context,
    env: str = "",
    tag: str | None = None,
    allow_dirty: bool = False,
    platform: str = "",
    push: str = "",
    now: bool = False,
    wait: bool = False,
    wait_lock: str = "",
    keep_going: bool = False,
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Build the image, push it and deploy it.

    The three tasks build, push and deploy in one, with one tag and over one set of connections. The first that fails ends
    it, with its exit code: until the deploy switches, what serves goes on.

    Examples:
        fab ship --env=prod
        fab ship --env=prod --push=ssh           (without a registry: only layers that are missing are sent)
        fab ship --env=prod --allow-dirty --wait-lock=10m
        fab ship --env=prod --dry-run

    Exit codes: as those of fab build, fab push and fab deploy.
    """
    patience = duration(wait_lock or "0", "wait-lock")
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import building
    from axon_tasks.deploy.run import Options

    way = _way(environment, push)
    environment = environment._replace(build=environment.build._replace(push=way))
    made_of = building.source(project, environment, tag, allow_dirty=allow_dirty)
    wanted = building.platform(environment, platform)
    options = Options(
        tag=made_of.tag, now=now, wait=wait, keep_going=keep_going, command=deploying.command_line(),
        wait_lock=patience, hosts_file=hosts_file, commit=made_of.revision,
    )  # fmt: skip
    if dry_run:
        _print([*_build_lines(environment, made_of, wanted), *_push_lines(environment, made_of, way)])
        say(deploying.plans(project, [environment], options, as_json=False))
        return
    if way == "registry" and environment.registry:
        # A password that is not to be had is told now, and not after a long build.
        options.logins.get(environment.registry)
    from axon_tasks.report.transcript import Transcript

    transcript = Transcript()
    transcript.hide(project, [environment], options.logins)
    with ended_like_ctrl_c(), _connected(project, transcript) as connections:
        # Connecting goes on while the image is built.
        connections.open_early(environment.servers)
        try:
            known = wanted or _platform(connections, environment, keep_going=keep_going)
            with _noted(connections, environment, "build"):
                _build(environment, made_of, known)
            if way == "registry":
                with _noted(connections, environment, "push"):
                    _push(environment, made_of, options.logins)
            else:
                _send(connections, environment, made_of, keep_going=keep_going)
        except BaseException as error:
            told = [str(error)] if isinstance(error, AxonError) else []
            connections.recorder.finish(outcome="failed", exit_code=_code(error), told=told)
            deploying.show_transcript(transcript, sys.stderr)
            raise
        from dataclasses import replace

        options = replace(options, run_id=connections.recorder.run_id)
        deploying.run(project, connections, [environment], options, transcript)


def _code(error: BaseException) -> int:
    """The exit code of a run that ends with this."""
    if isinstance(error, AxonError):
        return error.code
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _way(environment: Environment, push: str) -> Literal["registry", "ssh"]:
    """How the image gets to the app servers.

    Raises:
        UsageError: That is none.
    """
    if not push:
        return environment.build.push
    if push == "ssh":
        return "ssh"
    if push == "registry":
        return "registry"
    raise UsageError(f"--push={push}: registry or ssh is needed.")


def _connected(project: Project, transcript: Transcript | None = None) -> Connections:
    """The connections of a run; one with a transcript is kept."""
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.timeline import Recorder

    command = deploying.command_line()
    if transcript is None:
        return Connections(project, Recorder(command=command))
    return Connections(project, Recorder(command=command, folder=project.root, beside=transcript.write))


@contextlib.contextmanager
def _noted(connections: Connections, environment: Environment, step: str) -> Iterator[None]:
    """Have the timeline show what this machine does."""
    recorder = connections.recorder
    span = recorder.begin("step", step, parent=connections.span, environment=environment.name)
    try:
        yield
    except BaseException:
        recorder.end(span, outcome="failed")
        raise
    recorder.end(span)


def _asked(project: Project, environment: Environment) -> str:
    """The platform of the app servers, over connections for that alone."""
    with _connected(project) as connections:
        connections.open_early(environment.app)
        return _platform(connections, environment)


def _platform(connections: Connections, environment: Environment, *, keep_going: bool = False) -> str:
    from axon_tasks.deploy import building

    platform, lost = building.ask_platform(connections, environment)
    _tell_lost(lost, keep_going=keep_going)
    return platform


def _tell_lost(lost: Mapping[str, AxonError], *, keep_going: bool) -> None:
    """Warn of app servers that failed, where the deploy is to leave them out.

    Raises:
        AxonError: It is not.
    """
    from axon_tasks.deploy.problems import raise_all
    from axon_tasks.report import console

    if not keep_going:
        raise_all(lost.values())
    for error in lost.values():
        console.write_line(sys.stderr, f"Warning: {console.one_line(error.summary)}")


def _build(environment: Environment, made_of: Source, platform: str) -> None:
    from axon_tasks.deploy import building

    began = time.monotonic()
    prepared = building.prepared(environment, made_of, platform, buildx=building.has_buildx())
    say(f"Building {prepared.reference} for {platform}{_from(made_of)}")
    building.run(prepared)
    say(f"Built {prepared.reference} in {time.monotonic() - began:.2f} s")


def _from(made_of: Source) -> str:
    return (
        f" from commit {made_of.revision[:12]}{'-dirty' if made_of.revision.endswith('-dirty') else ''}"
        if made_of.revision
        else ""
    )


def _push(environment: Environment, made_of: Source, logins: Logins) -> None:
    from axon_tasks.deploy import pushing
    from axon_tasks.remote import sanitize
    from axon_tasks.report import console

    reference = str(environment.image_reference(made_of.tag))
    login = logins.get(environment.registry) if environment.registry else None
    if login and login.warning:
        console.write_line(sys.stderr, f"Warning: {sanitize(login.warning)}")
    began = time.monotonic()
    say(f"Pushing {reference}")
    pushing.push(reference, login, lambda line: console.write(sys.stderr, sanitize(line)))
    say(f"Pushed {reference} in {time.monotonic() - began:.2f} s")


def _send(
    connections: Connections, environment: Environment, made_of: Source, *, keep_going: bool = False
) -> None:
    from axon_tasks.deploy.sending import Sender
    from axon_tasks.report import shipping

    reference = str(environment.image_reference(made_of.tag))
    say(f"Sending {reference} to {', '.join(environment.app)}")
    sender = Sender(connections, environment, reference, shipping.Sending(sys.stdout))
    sent, lost = sender.send()
    if sent:
        say(shipping.sent(reference, sent))
    _tell_lost(lost, keep_going=keep_going)


# --- what a dry run prints --------------------------------------------------------------------------------------------


def _print(lines: list[str]) -> None:
    say("\n".join(["# Nothing was built, and nothing was contacted.", *lines]))


def _build_lines(environment: Environment, made_of: Source, platform: str | None) -> list[str]:
    from axon_tasks.deploy import building
    from axon_tasks.report import shipping

    known = platform or building.unknown_platform(environment.app)
    prepared: Build = building.prepared(environment, made_of, known, buildx=building.has_buildx())
    return ["# On this machine:", shipping.command(prepared.words, prepared.variables)]


def _push_lines(environment: Environment, made_of: Source, way: str) -> list[str]:
    from axon_tasks.commands import docker, registry
    from axon_tasks.config import Secret
    from axon_tasks.deploy.credentials import known_user
    from axon_tasks.report import shipping

    reference = str(environment.image_reference(made_of.tag))
    if way == "ssh":
        return [
            f"# On {', '.join(environment.app)}, which is sent the layers of {reference} that it lacks:",
            docker.load(reference),
        ]
    lines = ["# On this machine:"]
    if environment.registry:
        user = known_user(environment.registry) or "<the user that docker knows>"
        login = registry.Login(environment.registry.server, user, Secret("?"))
        lines += [
            "# (with a DOCKER_CONFIG of its own, which is removed afterwards; the password comes on stdin)",
            shipping.command(registry.log_in(login)),
        ]
    return [*lines, shipping.command(registry.push(reference))]

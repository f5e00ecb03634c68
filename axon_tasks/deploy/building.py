"""Building the image on this machine: which tag it gets, for which platform, and how the builder is called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import build as commands
from axon_tasks.commands.shell import Learnt
from axon_tasks.deploy import local
from axon_tasks.deploy.preview import Silent
from axon_tasks.deploy.problems import must, raise_all
from axon_tasks.deploy.servers import Servers
from axon_tasks.errors import AxonError, UsageError
from axon_tasks.remote import Batch, BatchResult, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from axon_tasks.config import Environment, Project, Secret
    from axon_tasks.deploy.connections import Connections

#: Digits of the commit that make a tag.
_DIGITS = 12
#: Seconds for a question to git.
_GIT = 60.0
#: Seconds for a question to a server.
_LOOK = 60.0
#: Names that a message about changes shows.
_MOST_NAMES = 10


class Source(NamedTuple):
    """What is built.

    Attributes:
        context: The folder, absolute.
        dockerfile: The Dockerfile, absolute.
        tag: The image's tag.
        revision: The commit; empty if there is none.
    """

    context: Path
    dockerfile: Path
    tag: str
    revision: str


class Build(NamedTuple):
    """A build as it is run.

    Attributes:
        reference: The image.
        words: The command.
        variables: Build arguments, which the command takes from its variables.
    """

    reference: str
    words: tuple[str, ...]
    variables: Mapping[str, Secret]


def source(
    project: Project, environment: Environment, tag: str | None, *, allow_dirty: bool, builds: bool = True
) -> Source:
    """Decide what is built, and under which tag.

    Args:
        project: The settings of everything.
        environment: Whose image.
        tag: As it was named; None for the commit.
        allow_dirty: Whether what no commit has may go into the image.
        builds: Whether it is to be built now: what was built under a named tag before need not be looked at.

    Raises:
        UsageError: There is no such folder or Dockerfile, or no tag, or what would be built is not in a commit.
    """
    if tag is not None:
        environment.image_reference(tag)
        if tag.startswith("sha256:"):
            raise UsageError(f"--tag={tag}: a tag is needed, and that is a digest.")
    context = project.root / os.path.expanduser(environment.build.context)  # noqa: PTH111  (Path.expanduser raises for an unknown user)
    dockerfile = context / environment.build.dockerfile
    if tag is not None and not builds:
        return Source(context, dockerfile, tag, "")
    _must_be_there(environment, context, dockerfile)
    commit = _commit(context)
    if not commit:
        if tag is None:
            why = (
                f"{context} is in no git repository with a commit"
                if shutil.which("git")
                else "git is not installed"
            )
            raise UsageError(f"{why}, so that no tag is known.", hint="Name one: --tag=TAG")
        return Source(context, dockerfile, tag, "")
    changed = changes(context, dockerfile)
    if not changed:
        return Source(context, dockerfile, tag or commit[:_DIGITS], commit)
    if not allow_dirty:
        raise _dirty(context, changed, tag)
    if not builds:
        raise UsageError(
            "What was built from uncommitted changes has a tag of its own.", hint="Name it: --tag=TAG"
        )
    now = f"{commit[:_DIGITS]}-dirty-{int(time.time())}"
    return Source(context, dockerfile, tag or now, f"{commit}-dirty")


def _must_be_there(environment: Environment, context: Path, dockerfile: Path) -> None:
    for path, there, what in (
        (context, context.is_dir(), "folder"),
        (dockerfile, dockerfile.is_file(), "file"),
    ):
        if not there:
            raise UsageError(
                f"{environment.name}: there is no {what} {path} to build from.",
                hint="`build: {context, dockerfile}` in hosts.yml name the folder and the Dockerfile in it.",
            )


def _dirty(context: Path, changed: list[str], tag: str | None) -> UsageError:
    # A name may have a newline in it.
    names = "\n".join(f"  {' '.join(sanitize(name).splitlines())}" for name in changed[:_MOST_NAMES])
    more = f"\n  and {len(changed) - _MOST_NAMES} more" if len(changed) > _MOST_NAMES else ""
    what = "the image would hold what no commit has" if tag else "the tag would name a commit that it is not"
    return UsageError(
        f"{context} has changes that are not committed, so that {what}:\n{names}{more}",
        hint="Commit them, or have git ignore them; or build all the same: --allow-dirty",
    )


def _git(words: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            words, cwd=folder, capture_output=True, timeout=_GIT, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, b"", b"not a git repository: git is not installed")
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"git does not answer: {error}", hint="Name a tag: --tag=TAG") from None


def _commit(folder: Path) -> str:
    """The commit that is checked out; empty if there is none.

    Raises:
        UsageError: git says something else, such as that the repository is somebody else's.
    """
    told = _git(commands.head(), folder)
    commit = told.stdout.decode("ascii", errors="replace").strip()
    if told.returncode == 0 and re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return commit
    said = told.stderr.decode("utf-8", errors="replace")
    if re.search(r"not a git repository|Needed a single revision|unknown revision", said):
        return ""
    raise UsageError(f"git does not tell the commit of {folder}: {' '.join(sanitize(said).split())[:500]}")


def changes(context: Path, dockerfile: Path) -> list[str]:
    """What stands in the context, or in its Dockerfile, and in no commit: names relative to the repository.

    Raises:
        UsageError: git cannot tell.
    """
    told = _git(commands.changes((".", str(dockerfile))), context)
    if told.returncode and dockerfile.resolve().is_relative_to(context.resolve()) is False:
        # A Dockerfile from another place is not of this repository.
        told = _git(commands.changes((".",)), context)
    if told.returncode:
        said = told.stderr.decode("utf-8", errors="replace")
        raise UsageError(f"git does not tell what has changed: {' '.join(sanitize(said).split())[:500]}")
    found: list[str] = []
    entries = iter(told.stdout.decode("utf-8", errors="replace").split("\0"))
    for entry in entries:
        if not entry:
            continue
        found.append(entry[3:])
        if entry[:1] in {"R", "C"}:
            next(entries, "")  # what it was before stands in an entry of its own
    return found


def ask_platform(connections: Connections, environment: Environment) -> tuple[str, dict[str, AxonError]]:
    """Ask all app servers for their processor, at the same time.

    Args:
        connections: To the servers.
        environment: Whose app servers.

    Returns:
        The platform of those that answer, and why the others do not.

    Raises:
        AxonError: None can be asked, or they differ.
    """
    servers = Servers(connections, Silent(), environment=environment.name)

    def work(server: str) -> BatchResult:
        told = servers.run(server, Batch("platform").add("uname -m", label="machine"), timeout=_LOOK)
        must(server, "asking for its processor", told["machine"])
        return told

    told, lost = servers.attempt(environment.app, work)
    if not told:
        raise_all(lost.values())
    return agreed({server: one["machine"].stdout for server, one in told.items()}), lost


def platform(environment: Environment, named: str) -> str | None:
    """The platform to build for, where nobody has to be asked.

    Args:
        environment: Whose image.
        named: As it was named on the command line; empty if it was not.

    Raises:
        UsageError: It is none.
    """
    if named and not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9]+)?", named, re.ASCII):
        raise UsageError(f"--platform={named}: a platform such as linux/amd64 is needed.")
    return named or environment.build.platform


def agreed(machines: Mapping[str, str]) -> str:
    """The one platform of all app servers.

    Args:
        machines: What `uname -m` said, by server.

    Raises:
        AxonError: They differ, or one is not known.
    """
    found = {server: commands.platform_of(machine) for server, machine in machines.items()}
    hint = "Name the one to build for: --platform=linux/amd64, or `build: {platform}` in hosts.yml"
    for server, one in found.items():
        if one is None:
            raise AxonError(
                f"{server}: its processor is not known here: {machines[server].strip()!a}", hint=hint
            )
    if len(set(found.values())) > 1:
        told = ", ".join(f"{server} {one}" for server, one in found.items())
        raise AxonError(f"The app servers have different platforms: {told}.", hint=hint)
    return str(next(iter(found.values())))


def unknown_platform(servers: Iterable[str]) -> str:
    """What stands in the place of a platform that nobody has been asked for yet."""
    return Learnt(f"the platform of {', '.join(servers)}", "uname")


def prepared(environment: Environment, made_of: Source, platform: str | None, *, buildx: bool) -> Build:
    """The command that builds.

    Args:
        environment: Whose image.
        made_of: What is built.
        platform: For what; None for that of the builder.
        buildx: Whether there is buildx.
    """
    settings = environment.build
    reference = str(environment.image_reference(made_of.tag))
    wanted = commands.Wanted(
        reference=reference,
        context=str(made_of.context),
        dockerfile=str(made_of.dockerfile),
        arguments=tuple(settings.args),
        target=settings.target,
        platform=platform,
        revision=made_of.revision,
    )
    return Build(reference, commands.build(wanted, buildx=buildx), settings.args)


def has_buildx() -> bool:
    """Whether Docker here has buildx.

    Raises:
        UsageError: There is no Docker here.
    """
    return local.asked(commands.has_buildx()).returncode == 0


def run(build: Build) -> None:
    """Build, with what the builder says on the screen.

    Raises:
        AxonError: It failed.
    """
    code = local.shown_run(build.words, build.variables)
    if code:
        raise AxonError(
            f"Building {build.reference} failed: the builder ended with exit code {code}; nothing was deployed.",
            hint="What it said stands above.",
        )

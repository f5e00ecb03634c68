"""What is built: the tag, what is in no commit, the platform, and the builder's command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reading import PROJECT, wait_for

from axon_tasks.config import Environment, Project, load
from axon_tasks.deploy import building
from axon_tasks.errors import AxonError, UsageError

if TYPE_CHECKING:
    from programs import Programs

TEXT = """
product: shop
image: registry.test:5000/shop
hosts: {edge1: {address: 10.0.0.1}, app1: {address: 10.0.0.21}, app2: {address: 10.0.0.22}}
defaults: {build: {context: app, args: {TOKEN: s3cret, EMPTY: ""}}}
environments: {prod: {system: [edge1], app: [app1, app2], domain: shop.test}}
"""


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=me", "-c", "user.email=me@test", *words],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose application is committed."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "app" / "main.py").write_text("print()\n")
    (tmp_path / "app" / ".gitignore").write_text("*.log\n")
    (tmp_path / "hosts.yml").write_text(TEXT)
    git(tmp_path, "init", "--quiet", ".")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def project(folder: Path) -> Project:
    return load(folder / "hosts.yml")


def source(
    folder: Path, tag: str | None = None, *, allow_dirty: bool = False, builds: bool = True
) -> building.Source:
    found = project(folder)
    return building.source(found, found.environment("prod"), tag, allow_dirty=allow_dirty, builds=builds)


def test_the_tag_is_the_commit(folder: Path) -> None:
    """Its first twelve digits; what git ignores, and what changes outside of the context, is no part of the image."""
    (folder / "app" / "a.log").write_text("ignored")
    (folder / "hosts.yml").write_text(TEXT + "\n")
    (folder / "notes").write_text("outside")
    commit = git(folder, "rev-parse", "HEAD")
    assert building.Source(folder / "app", folder / "app" / "Dockerfile", commit[:12], commit) == source(
        folder
    )
    assert ("v2", commit) == source(folder, "v2")[2:]


@pytest.mark.parametrize("how", ["changed", "staged", "new", "renamed", "removed"])
def test_what_is_in_no_commit_is_refused(folder: Path, how: str) -> None:
    """A change of any kind within the context is named, also with a tag; --allow-dirty builds it under a name that says so."""
    app = folder / "app"
    if how == "new":
        (app / "new\n\x07.py").write_text("")
    elif how == "renamed":
        git(app, "mv", "main.py", "other.py")
    elif how == "removed":
        (app / "main.py").unlink()
    else:
        (app / "main.py").write_text("changed")
    if how == "staged":
        git(app, "add", ".")
    name = {"new": r"app/new \x07.py", "renamed": "app/other.py"}.get(how, "app/main.py")
    for tag in (None, "v2"):
        with pytest.raises(UsageError) as caught:
            source(folder, tag)
        assert (2, [f"  {name}"]) == (caught.value.code, caught.value.summary.splitlines()[1:])
    commit = git(folder, "rev-parse", "HEAD")
    found = source(folder, allow_dirty=True)
    assert re.fullmatch(rf"{commit[:12]}-dirty-\d{{10}}", found.tag)
    assert f"{commit}-dirty" == found.revision
    assert "v2" == source(folder, "v2", allow_dirty=True).tag


def test_many_changes_are_cut(folder: Path) -> None:
    """A message names the first ten, and says how many more there are."""
    for number in range(12):
        (folder / "app" / f"{number:02}.py").write_text("")
    with pytest.raises(UsageError, match=r"  app/09.py\n  and 2 more\n"):
        source(folder)


def test_a_dockerfile_outside_of_the_context_counts(folder: Path) -> None:
    """What it says goes into the image, too."""
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "hosts.yml").write_text(TEXT.replace("context: app", "context: app, dockerfile: ../Dockerfile"))
    with pytest.raises(UsageError, match="  Dockerfile\n"):
        source(folder)


@pytest.mark.parametrize("how", ["no repository", "no commit"])
def test_without_a_commit_a_tag_is_needed(folder: Path, how: str) -> None:
    """Then nothing is said about a revision."""
    (folder / ".git").rename(folder / "git")
    if how == "no commit":
        git(folder, "init", "--quiet", ".")
    with pytest.raises(UsageError, match="in no git repository with a commit") as caught:
        source(folder)
    assert "Name one: --tag=TAG" == caught.value.hint
    assert ("v2", "") == source(folder, "v2")[2:]


def test_without_git_a_tag_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said that git is what is missing."""
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UsageError, match="git is not installed, so that no tag is known"):
        source(folder)
    assert ("v2", "") == source(folder, "v2")[2:]


def test_what_is_not_there(folder: Path) -> None:
    """A missing folder or Dockerfile is named; a digest is no tag."""
    with pytest.raises(UsageError, match="that is a digest"):
        source(folder, "sha256:" + "0" * 64)
    (folder / "app" / "Dockerfile").unlink()
    with pytest.raises(UsageError, match=r"there is no file .*app/Dockerfile to build from"):
        source(folder)
    (folder / "app").rename(folder / "other")
    with pytest.raises(UsageError, match=r"there is no folder .*app to build from"):
        source(folder)


def test_what_was_built_before_is_found_again(folder: Path) -> None:
    """Pushing takes the tag of the commit, or the one that is named, whatever has changed since; else it must be named."""
    assert git(folder, "rev-parse", "HEAD")[:12] == source(folder, builds=False).tag
    (folder / "app" / "new.py").write_text("")
    assert "v2" == source(folder, "v2", builds=False).tag
    with pytest.raises(UsageError, match="changes that are not committed"):
        source(folder, builds=False)


def test_the_platform_of_the_servers() -> None:
    """All must have the same; what differs, or is not known, has to be decided by somebody."""
    assert "linux/arm64" == building.agreed({"app1": "aarch64\n", "app2": "arm64\n"})
    with pytest.raises(AxonError, match="app1 linux/amd64, app2 linux/arm/v7") as caught:
        building.agreed({"app1": "x86_64\n", "app2": "armv7l\n"})
    assert "--platform=linux/amd64" in str(caught.value.hint)
    with pytest.raises(AxonError, match="app1: its processor is not known here: 'pdp11'"):
        building.agreed({"app1": "pdp11\n"})


def test_a_named_platform_is_not_asked_for(folder: Path) -> None:
    """The flag counts before the settings; what is no platform is refused."""
    prod = project(folder).environment("prod")
    assert (None, "linux/386") == (building.platform(prod, ""), building.platform(prod, "linux/386"))
    settled = prod._replace(build=prod.build._replace(platform="linux/arm64"))
    assert "linux/arm64" == building.platform(settled, "")
    with pytest.raises(UsageError, match="a platform such as linux/amd64"):
        building.platform(prod, "arm64; id")


@pytest.mark.parametrize(
    ("buildx", "begin"), [(True, ("docker", "buildx", "build", "--load")), (False, ("docker", "build"))]
)
def test_the_command_line(folder: Path, buildx: bool, begin: tuple[str, ...]) -> None:
    """Everything that was decided stands in it, and of build arguments the names alone."""
    prod: Environment = project(folder).environment("prod")
    prod = prod._replace(build=prod.build._replace(target="app"))
    made = building.prepared(prod, source(folder), "linux/amd64", buildx=buildx)
    commit = git(folder, "rev-parse", "HEAD")
    assert (
        *begin,
        *("--tag", f"registry.test:5000/shop:{commit[:12]}", "--file", f"{folder}/app/Dockerfile"),
        *("--platform", "linux/amd64", "--target", "app"),
        *("--label", f"org.opencontainers.image.revision={commit}"),
        *("--build-arg", "TOKEN", "--build-arg", "EMPTY", f"{folder}/app"),
    ) == made.words
    assert {"TOKEN": "s3cret", "EMPTY": ""} == {name: one.reveal() for name, one in made.variables.items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_a_build_leaves_nothing_running(
    folder: Path, programs: Programs, number: signal.Signals
) -> None:
    """The builder is ended, too, and the exit code is 130."""
    note = folder / "pid"
    docker = programs.folder / "docker"
    docker.write_text(
        f'#!/bin/sh\n[ "$2" != build ] || {{ echo $$ >{note}.new; mv {note}.new {note}; exec sleep 60; }}\n'
    )
    docker.chmod(0o755)
    running = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "fab"), "build", "--env=prod", "--platform=linux/amd64",
            f"--hosts-file={folder / 'hosts.yml'}",
        ],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    wait_for(note.exists, "the builder does not begin")
    running.send_signal(number)
    said = "".join(running.communicate(timeout=30))
    assert (130, True) == (running.returncode, "Interrupted" in said), said
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)

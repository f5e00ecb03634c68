"""What a server needs for what it does, and for whom; hostile names and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from axon_tasks.commands import setup as commands
from axon_tasks.commands.setup import Who
from axon_tasks.config import load
from axon_tasks.deploy import setup
from axon_tasks.errors import AxonError, UsageError
from axon_tasks.remote import BatchResult, Section

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Project

HOSTS = """\
product: shop
image: registry.example.com/shop
hosts:
  edge1: {{address: 203.0.113.10, user: {user}}}
  app1: {{address: 203.0.113.21, user: {user}}}
defaults: {{system: [edge1], app: [app1], env_file: /srv/shop/env}}
environments:
  prod: {{domain: shop.example.com}}
  both: {{domain: both.example.com, app: [edge1]}}
"""
DEPLOY = Who("deploy", "root")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An environment on two servers, and one on a single one."""
    return written(tmp_path, "deploy")


def written(folder: Path, user: str) -> Project:
    (folder / "hosts.yml").write_text(HOSTS.format(user=user))
    return load(folder / "hosts.yml")


def names(project: Project, server: str, who: Who, *environments: str) -> list[str]:
    chosen = [project.environments[name] for name in environments]
    return [one.name for one in commands.parts(chosen, server, who)]


def test_each_server_gets_what_it_needs(project: Project) -> None:
    """System servers get nginx and a sudo line, app servers Docker and directories, and root needs no user."""
    assert ["packages", "user", "sudo", "nginx", "includes"] == names(project, "edge1", DEPLOY, "prod")
    assert ["packages", "docker", "user", "state", "env file"] == names(project, "app1", DEPLOY, "prod")
    assert ["packages", "nginx", "includes"] == names(project, "edge1", Who("root", "root"), "prod")
    # What is the same for two environments is done once.
    assert ["packages", "docker", "user", "sudo", "nginx", "includes", "state", "env file"] == names(
        project, "edge1", DEPLOY, "prod", "both"
    )


@pytest.mark.parametrize("user", ["ALL", "Deploy", "a.b"])
def test_no_name_means_something_to_sudo(tmp_path: Path, user: str) -> None:
    """A user that Debian would not take never gets into a line for sudo, where ALL is everybody."""
    with pytest.raises(UsageError, match="no user can be called"):
        setup.whom(written(tmp_path, user), ["edge1"])


def test_for_whom(project: Project) -> None:
    """The user of hosts.yml, made ready by whoever logs in, or by itself."""
    assert {"app1": Who("deploy", "root", "k")} == setup.whom(project, ["app1"], "root", "k")
    assert {"app1": Who("deploy", "deploy")} == setup.whom(project, ["app1"])


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgMHrcjCi4xuzEBQZVvTqN2B1Fn2rVZ2Jxv6FQGx1yT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no public key"),
        ("# mine\n\n", "no public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "a private key"),
        (f"{KEY} me\nhello\n", "line 2"),
        (f'command="rm" {KEY}\n', "line 1"),
        (f"{KEY} a\x1b[2J\n", "line 1"),
    ],
)
def test_files_that_hold_no_public_keys(text: str, expected: str) -> None:
    """A private key, options and anything else is refused, with the line."""
    with pytest.raises(UsageError, match=expected):
        setup.public_keys(text, "keys")


def test_public_keys() -> None:
    """Comments and empty lines are left out."""
    assert f"{KEY} me\n{KEY}" == setup.public_keys(f"# mine\n\n{KEY} me\r\n  {KEY}\n", "keys")


def answered(project: Project, system: str, packages: str) -> BatchResult:
    parts = commands.parts([project.environments["prod"]], "app1", DEPLOY)
    said = [("system", system), *((f"{number} {one.name}", "") for number, one in enumerate(parts))]
    sections = [
        Section(label, (packages if label == "0 packages" else text).encode(), b"", 0, 0.1) for label, text in said
    ]  # fmt: skip
    return BatchResult("setup", "app1", sections, duration=0.1, bytes_received=0)


DEBIAN = "id=debian\nlike=\nname=Debian GNU/Linux 12 (bookworm)\napt=yes\n"


@pytest.mark.parametrize(
    ("system", "is_known"),
    [
        (DEBIAN, True),
        ("id=linuxmint\nlike=ubuntu debian\nname=Mint\napt=yes\n", True),
        ("id=fedora\nlike=\nname=Fedora\napt=no\n", False),
        (DEBIAN.replace("apt=yes", "apt=no"), False),
        ("", False),
        ("\x1b]0;x\x07\n" * 9, False),
    ],
)
def test_other_systems_are_refused(project: Project, system: str, is_known: bool) -> None:
    """Debian, Ubuntu and what is made from them, with apt-get; nothing else is touched."""
    parts = commands.parts([project.environments["prod"]], "app1", DEPLOY)
    empty = setup.Found("app1", "root", "deploy")
    told = answered(project, system, "todo=install\x1b[2J it\nnoise\n")
    if not is_known:
        with pytest.raises(AxonError, match="only Debian and Ubuntu are set up"):
            setup._read(empty, parts, told)
        return
    lacks = setup._read(empty, parts, told).lacks
    assert [("packages", True)] == [(one.part.name, one.todo[0].isprintable()) for one in lacks]
    with pytest.raises(AxonError, match="still missing: install"):
        setup.must_be_ready([empty._replace(lacks=lacks)])

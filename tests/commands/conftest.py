"""Settings and shells for the builders' tests."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from axon_tasks.config import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from axon_tasks.config import Project

HOSTS = """
product: shop
image: registry.test:5000/shop
hosts:
  edge1: {address: 10.0.0.1}
  app1: {address: 203.0.113.21, private_address: 10.0.0.21}
  app2: {address: 10.0.0.22}
environments:
  prod: {system: [edge1], app: [app1, app2], domain: shop.test, health: {path: /up}}
  classic: {system: [edge1], app: [app1], domain: classic.test, switch: reload, aliases: [www.classic.test]}
  safe: {system: [edge1], app: [app1], domain: safe.test, tls: {certificate: /etc/ssl/c.pem, key: /etc/ssl/k.pem}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with one environment of each kind."""
    (tmp_path / "hosts.yml").write_text(HOSTS)
    return load(tmp_path / "hosts.yml")


@pytest.fixture(params=["dash", "bash", "busybox sh"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Each of the shells that servers have as /bin/sh."""
    words = str(request.param).split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"NOT RUN: {words[0]} is not installed: apt-get install dash bash busybox-static")
    return words


@pytest.fixture
def run(shell: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script the way a server does: on the standard input of the shell."""

    def runner(text: str, **options: object) -> subprocess.CompletedProcess[str]:
        body = f"axon_test() {{\n{text}\n}}\naxon_test </dev/null"
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [*shell, "-s"], input=body, capture_output=True, text=True, timeout=60, check=False, **options
        )

    return runner

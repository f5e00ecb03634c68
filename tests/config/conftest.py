"""A small valid hosts.yml, and what loading a changed one gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from axon_tasks.config import ConfigurationFaults, Fault, Project, load
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VALID = """\
product: shop
image: registry.example.com:5000/shop
hosts:
  edge1: {address: 203.0.113.10}
  app1: {address: app1.example.com, private_address: 10.0.1.21, user: deploy, port: 2222}
defaults:
  health: {path: /api/health, timeout: 60s}
environments:
  prod:
    system: [edge1]
    app: [app1]
    domain: shop.example.com
"""

Loader = Callable[..., Project]
Finder = Callable[..., list[Fault]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "hosts.yml"
        path.write_bytes(text.encode())
        return path

    return write_file


@pytest.fixture
def loaded(write: Callable[[str], Path]) -> Loader:
    def load_text(text: str = VALID, environ: Mapping[str, str] | None = None) -> Project:
        return load(write(text), environ or {})

    return load_text


@pytest.fixture
def faults(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Finder:
    """The faults of a text, with the file named as someone in its folder would type it."""
    monkeypatch.chdir(tmp_path)

    def find(text: str, environ: Mapping[str, str] | None = None) -> list[Fault]:
        with pytest.raises(ConfigurationFaults) as caught:
            load(write(text), environ or {})
        return caught.value.faults

    return find

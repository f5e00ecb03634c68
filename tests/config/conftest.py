"""A small valid hosts.yml, and what loading a changed one gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from config_samples import VALID, Finder, Loader
from hypothesis import settings

from axon_tasks.config import ConfigurationFaults, Fault, Project, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# A slow machine is no fault of the code under test.
settings.register_profile("config", deadline=None)
settings.load_profile("config")


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

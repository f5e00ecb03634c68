"""The lab as a deploy's target: products of a test's own, and a look at the truth past SSH."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from products import Product, a_product
from programs import Programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from axon_tasks.lab import Lab


@pytest.fixture(scope="session")
def images(lab: Lab) -> Lab:
    """The lab with every variant of the sample application in its registry."""
    from axon_tasks.lab.images import build_sample

    for tag, variant in {"v1": "ok", "v2": "ok"}.items():
        build_sample(lab, tag, variant)
    for variant in ("crash", "sick", "slowstart", "healthcheck", "unhealthy", "noshell"):
        build_sample(lab, variant, variant)
    return lab


@pytest.fixture
def product(images: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Product]:
    """A product of this test's own, with environment prod on both app servers."""
    made = a_product(images, tmp_path, request.node.nodeid)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def shared(
    images: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Product]:
    """A product that serves v1 on both app servers, for all tests of a file that leave it serving."""
    made = a_product(images, tmp_path_factory.mktemp("shared"), request.node.nodeid)
    try:
        made.serve("v1")
        yield made
    finally:
        made.remove()


@pytest.fixture
def shop(shared: Product, tmp_path: Path) -> Product:
    """The product that the file's tests share, with settings that a test may change for itself."""
    return replace(shared, folder=tmp_path, settings=copy.deepcopy(shared.settings))


@pytest.fixture
def prod(product: Product) -> dict[str, Any]:
    """The settings of the product's only environment, to change."""
    return product.settings["environments"]["prod"]  # type: ignore[no-any-return]


@pytest.fixture
def broken(images: Lab) -> Iterator[Callable[[str, str], None]]:
    """Stop a service of a lab host for one test."""
    stopped: list[tuple[str, str]] = []

    def stop(host: str, service: str) -> None:
        images.stop_service(host, service)
        stopped.append((host, service))

    yield stop
    for host, service in stopped:
        images.start_service(host, service)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Stand-ins for programs of this machine, and a home in which nobody has logged in anywhere."""
    folder, home = tmp_path / "bin", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return Programs(folder)

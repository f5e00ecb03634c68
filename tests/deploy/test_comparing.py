"""What a deploy would change, from what was recorded and what stands in nginx's files."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands import docker, nginx
from axon_tasks.config import load
from axon_tasks.deploy import comparing, facts
from axon_tasks.deploy.comparing import Change, Known
from axon_tasks.report import comparing as report

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Environment, Project

TEXT = """
product: shop
image: registry.test:5000/shop
hosts: {edge1: {address: 10.0.0.1}, app1: {address: 10.0.0.21}, app2: {address: 10.0.0.22}}
environments: {prod: {system: [edge1], app: [app1, app2], domain: shop.test, container: {memory: 64m}}}
"""
DIGEST = f"sha256:{'d' * 64}"
SUM = "e" * 64


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    path: Path = tmp_path_factory.mktemp("comparing") / "hosts.yml"
    path.write_text(TEXT)
    return load(path)


@pytest.fixture
def prod(project: Project) -> Environment:
    return project.environment("prod")


def record(project: Project, prod: Environment, **changes: Any) -> dict[str, Any]:
    """The record of a deploy with these settings."""
    servers = {}
    for server in prod.app:
        candidate = docker.Candidate(
            prod, "7", "a", "30000", "", "registry.test:5000/shop:v1", "0.0.0.0", DIGEST
        )
        servers[server] = {"port": 30000, "run": docker.recorded_arguments(candidate), "environment": SUM}
    told = {
        "id": "7",
        "image": "registry.test:5000/shop:v1",
        "digest": DIGEST,
        "slot": "a",
        "servers": servers,
    }
    return {**told, **changes}


def known(prod: Environment, told: dict[str, Any], ports: tuple[int, int] | None = (30000, 30001)) -> Known:
    backends = tuple(nginx.Backend(address, (30000, 30001)) for address in ("10.0.0.21", "10.0.0.22"))
    files = nginx.render(nginx.Wanted(prod, backends, (1, 22, 1), "a"))
    system = facts.SystemFacts("edge1", (1, 22, 1), True, True, "a", "7", told, files.upstream, files.site)
    apps = {name: facts.AppFacts(name, "24", 10**9, "ok", ports, ()) for name in prod.app}
    return Known({"edge1": system}, apps, dict.fromkeys(prod.app, SUM))


def found(project: Project, prod: Environment, seen: Known, wanted: str = "") -> list[Change]:
    return comparing.conclude(project, prod, seen, wanted).changes


def test_nothing_would_change(project: Project, prod: Environment) -> None:
    """What was deployed with the settings of today is the same, and that is said."""
    seen = known(prod, record(project, prod))
    assert [] == found(project, prod, seen, "registry.test:5000/shop:v1")
    told = comparing.conclude(project, prod, seen, "")
    assert "nothing but the container itself" in report.text(io.StringIO(), told)


def test_how_the_image_came_there_is_no_change(project: Project, prod: Environment) -> None:
    """A release that was run by its image's id is compared as such, whatever the settings say about registries."""
    told = record(project, prod)
    for entry in told["servers"].values():
        entry["run"] = [DIGEST if one.endswith(f"@{DIGEST}") else one for one in entry["run"]]
    assert [] == found(project, prod, known(prod, told), "registry.test:5000/shop:v1")


def test_each_thing_that_would(project: Project, prod: Environment) -> None:
    """Image, arguments, variables and files; what is the same on several servers is told once."""
    seen = known(prod, record(project, prod))
    seen.variables["app2"] = "f" * 64
    wanted = prod._replace(
        container=prod.container._replace(memory="128m", labels={"team": "a"}), aliases=("www.shop.test",)
    )
    both = ("app1", "app2")
    changes = found(project, wanted, seen, "registry.test:5000/shop:v2")
    assert [("image", ()), ("settings", both), ("variables", ("app2",)), ("site", ("edge1",))] == [
        (one.what, one.servers) for one in changes
    ]
    assert ("-registry.test:5000/shop:v1", "+registry.test:5000/shop:v2") == changes[0].diff
    assert ["+--label team=a", "---memory 64m", "+--memory 128m"] == [
        line for line in changes[1].diff if line[0] in "+-"
    ]
    assert any(line.startswith("+") and "www.shop.test" in line for line in changes[3].diff)
    assert not any("Sealed" in line for one in changes for line in one.diff)


def test_app_servers_come_and_go(project: Project, prod: Environment) -> None:
    """Those that hosts.yml names now, and those that the release runs on."""
    told = record(project, prod)
    told["servers"]["old"] = told["servers"].pop("app2")
    changes = found(project, prod, known(prod, told))
    assert ("servers", ("-old", "+app2")) == (changes[0].what, changes[0].diff)


def test_what_cannot_be_compared(project: Project, prod: Environment) -> None:
    """A record that does not tell, and ports that are not known yet, are told, and nothing is made up."""
    seen = known(prod, record(project, prod, servers={"app1": {"run": "x"}, "app2": 7}), ports=None)
    told = comparing.conclude(project, prod, seen, "")
    assert ([], 3) == (told.changes, len(told.notes)), told
    assert "not compared: nginx's files" in report.text(io.StringIO(), told)
    assert 3 == len(json.loads(report.as_json(told))["notes"])


def test_nothing_is_recorded(project: Project, prod: Environment) -> None:
    """Before the first deploy, the files would all be new."""
    seen = known(prod, {})
    seen.system["edge1"] = seen.system["edge1"]._replace(upstream="", site="", current="")
    told = comparing.conclude(project, prod, seen, "registry.test:5000/shop:v1")
    assert ["image", "upstream", "site"] == [one.what for one in told.changes]
    assert "nothing serves yet" in report.text(io.StringIO(), told)

"""Which release a sync takes for the one that is to serve, and when it says that it cannot know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands import nginx
from axon_tasks.config import load
from axon_tasks.deploy import facts, syncing
from axon_tasks.deploy.history import State
from axon_tasks.deploy.looking import Reply, Running
from axon_tasks.errors import StepFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Environment

TEXT = """
product: shop
image: registry.test:5000/shop
hosts:
  edge1: {address: 10.0.0.1}
  edge2: {address: 10.0.0.2}
  app1: {address: 10.0.0.21}
  app2: {address: 10.0.0.22}
environments: {prod: {system: [edge1, edge2], app: [app1, app2], domain: shop.test}}
"""
ADDRESSES = {"app1": "10.0.0.21", "app2": "10.0.0.22"}
GOOD = Reply(200, 10, True, "HTTP 200", "", "")
ILL = Reply(500, 10, False, "HTTP 500", "", "")
PORTS = (30000, 30001)


@pytest.fixture
def prod(tmp_path: Path) -> Environment:
    """The environment prod of the product shop."""
    path = tmp_path / "hosts.yml"
    path.write_text(TEXT)
    return load(path).environment("prod")


def one(
    release: str, slot: str, *, reply: Reply | None = GOOD, port: int = 0, up: bool = True, mark: str = "a"
) -> Running:
    """A container of a release."""
    port = port or PORTS["ab".index(slot)]
    found = facts.Container(
        mark * 64, f"shop-prod-{release}", up, release, slot, port, f"r/shop:v{release}", ""
    )
    return Running(found, "running" if up else "exited", 1, reply=reply if up else None)


def seen(
    prod: Environment,
    app1: list[Running],
    app2: list[Running],
    *,
    flags: str = "aa",
    current: tuple[str, str] = ("7", "7"),
    files: bool = True,
) -> tuple[Any, syncing.Sync]:
    """What was seen of an environment with two system servers."""
    upstream = nginx.render(
        nginx.Wanted(prod, tuple(nginx.Backend(a, PORTS) for a in ADDRESSES.values()), (1, 24), "")
    ).upstream
    running = {"app1": tuple(app1), "app2": tuple(app2)}
    apps = {
        name: facts.AppFacts(name, "24", 1, "ok", PORTS, tuple(each.container for each in told))
        for name, told in running.items()
    }
    system = {
        name: SimpleNamespace(upstream=upstream if files else "", flag_slot=flag)
        for name, flag in zip(("edge1", "edge2"), flags, strict=True)
    }
    run = SimpleNamespace(environment=prod, app=apps, system=system, address=ADDRESSES.__getitem__)
    states = {name: State(current=told) for name, told in zip(("edge1", "edge2"), current, strict=True)}
    return run, syncing.Sync(states=states, running=running)


def chosen(*told: Any, to: str = "", **more: Any) -> str:
    run, sync = seen(*told, **more)
    sync.to = to
    return syncing.choose(run, sync).release


BOTH = [one("7", "a"), one("9", "b")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "7"),
        ({"current": ("9", "9")}, "7"),
        ({"flags": "bb"}, "9"),
        ({"flags": "ab", "current": ("9", "9")}, "9"),
        ({"files": False, "current": ("9", "9")}, "9"),
        ({"to": "9"}, "9"),
    ],
    ids=["traffic", "traffic-before-record", "flag", "split-by-record", "record", "asked-for"],
)
def test_traffic_decides_before_records(prod: Environment, more: dict[str, Any], expected: str) -> None:
    """What gets traffic is taken; where that does not tell, what is recorded; and always what was asked for."""
    assert expected == chosen(prod, BOTH, BOTH, **more)


def test_the_only_one_is_taken(prod: Environment) -> None:
    """Without files and records, the only release that runs on all app servers is the one."""
    assert "7" == chosen(prod, [one("7", "a"), one("9", "b")], [one("7", "a")], files=False, current=("", ""))
    assert "9" == chosen(prod, [one("9", "b")], [one("9", "b")], flags="aa")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"flags": "ab", "current": ("7", "9")}, "it is not certain which release"),
        ({"files": False, "current": ("", "")}, "it is not certain which release"),
        ({"to": "8"}, "release 8 does not run"),
    ],
)
def test_what_is_not_certain_is_refused(prod: Environment, more: dict[str, Any], words: str) -> None:
    """All that run are listed, and what picks one of them."""
    with pytest.raises(StepFailedError, match=words) as raised:
        chosen(prod, BOTH, BOTH, **more)
    assert (True, True) == (
        "release 7 (shop:v7, slot a" in str(raised.value),
        "--release=9" in str(raised.value),
    )


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ([], "does not run on app2"),
        ([one("7", "a", up=False)], "does not run on app2"),
        ([one("7", "a", reply=ILL)], "is not healthy on app2: HTTP 500"),
        ([one("7", "a", reply=None)], "is not healthy on app2: it could not be asked"),
        ([one("7", "a"), one("6", "a")], "is not alone in slot a on app2"),
        ([one("7", "a", port=30005)], "has another port on app2"),
        ([one("7", "a", mark="d")], "is being retired on app2"),
    ],
)
def test_what_gets_traffic_is_not_left_silently(prod: Environment, there: list[Running], why: str) -> None:
    """If it is not healthy everywhere that is said, and no other one is taken unless somebody asks for it."""
    other = one("9", "b")
    told = prod, [one("7", "a"), other], [*there, other]
    run, sync = seen(*told)
    sync.retiring = {"d" * 64}
    with pytest.raises(StepFailedError, match="what gets traffic cannot be taken") as raised:
        syncing.choose(run, sync)
    assert why in str(raised.value)
    assert "9" == chosen(*told, to="9")


def test_nothing_of_this_tool_runs(prod: Environment) -> None:
    """Where nothing runs, or only what AXON made, it says so and names a deploy."""
    for there in ([], [one("7", "a")._replace(container=one("7", "a").container._replace(slot=""))]):
        with pytest.raises(StepFailedError, match=r"(?s)no release of this tool runs.*fab deploy --env=prod"):
            chosen(prod, there, there)

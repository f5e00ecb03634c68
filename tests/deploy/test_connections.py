"""Connections of a run: opened early, once, and shared."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.deploy import connections as module
from axon_tasks.deploy.connections import Connections
from axon_tasks.deploy.inventory import Inventory
from axon_tasks.deploy.timeline import Recorder
from axon_tasks.errors import UnreachableError
from axon_tasks.remote.fleet import AdHocHost

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Line:
    """A connection that stands until it breaks."""

    is_connected: bool = True

    def refill(self, *, started: int) -> None:
        """Shells are nothing that these tests look at."""


@dataclass
class Lines:
    """A fleet whose servers answer when they are let, or not at all."""

    asked: list[str] = field(default_factory=list)
    answer: Callable[[str], Line] = field(default=lambda _server: Line())
    closed: bool = False

    def __getitem__(self, server: str) -> Line:
        self.asked.append(server)
        return self.answer(server)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(module, "Fleet", lambda _project, prepare: made)
    return made


def opened(address: str = "10.0.0.21") -> Connections:
    return Connections(leading_to(address), Recorder(command="test"))


def leading_to(address: str) -> Inventory:
    return Inventory({"app1": AdHocHost("app1", address)})


def noted(connections: Connections) -> list[tuple[str, str]]:
    return [(one.name, one.outcome) for one in connections.recorder.timeline().of_kind("connect")]


def test_whoever_asks_for_a_server_gets_the_same_connection(lines: Lines) -> None:
    """A server is connected to once, by whoever comes first, and noted once; the others wait for that."""
    waiting = threading.Barrier(5, timeout=20)
    lines.answer = lambda _server: Line()
    with opened() as connections, ThreadPoolExecutor(5) as pool:

        def ask(_number: int) -> Any:
            waiting.wait()
            return connections["app1"]

        got = list(pool.map(ask, range(5)))
        assert (1, ["app1"], [("app1", "ok")]) == (len(set(map(id, got))), lines.asked, noted(connections))
    assert lines.closed


def test_connecting_early_does_not_wait(lines: Lines) -> None:
    """`open_early` returns before a server has answered; who needs it later waits for the rest of the way only."""
    go = threading.Event()

    def slow(_server: str) -> Line:
        assert go.wait(20)
        return Line()

    lines.answer = slow
    with opened() as connections:
        connections.open_early(["app1", "app2", "app1"])
        go.set()
        assert connections["app1"] is connections["app1"]
        assert connections["app2"].is_connected
        assert ["app1", "app2"] == sorted(lines.asked)


def test_a_server_that_cannot_be_reached_is_tried_once(lines: Lines) -> None:
    """Every step that needs a dead server is told the same reason, and none of them waits for it again."""

    def dead(server: str) -> Line:
        raise UnreachableError(f"{server} did not answer")

    lines.answer = dead
    with opened() as connections:
        connections.open_early(["app1"])
        for _ in range(3):
            with pytest.raises(UnreachableError, match="app1 did not answer"):
                _ = connections["app1"]
        assert (["app1"], [("app1", "failed")]) == (lines.asked, noted(connections))


def test_a_connection_that_broke_is_opened_again(lines: Lines) -> None:
    """Undoing needs a way to the server even if the first connection is gone."""
    with opened() as connections:
        first = connections["app1"]
        first.is_connected = False  # type: ignore[misc]
        assert first is not connections["app1"]
        assert ["app1", "app1"] == lines.asked


@pytest.mark.parametrize(("address", "same"), [("10.0.0.21", True), ("10.0.0.22", False)])
def test_what_leads_somewhere_else_is_closed(lines: Lines, address: str, same: bool) -> None:
    """A connection that was opened before the settings were checked is used only if they lead to the same server."""
    with opened() as connections:
        first = connections["app1"]
        connections.lead_to(leading_to(address))
        assert (same, not same) == (first is connections["app1"], lines.closed)

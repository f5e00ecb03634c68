"""Round trips are counted from bytes and times alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from axon_tasks.lab.bench.counts import AFTER_CONNECTING, AFTER_LOGIN, TO_LOG_IN, Observed, figures
from axon_tasks.lab.bench.trips import Move, Traffic

if TYPE_CHECKING:
    from axon_tasks.lab.bench import Figure

RTT = 0.1
SMALL, SCRIPT = 80, 5000


def up(server: str, at: float, size: int = SMALL, connection: int = 1) -> Move:
    return Move(server, connection, True, at, at + RTT / 2, size)


def down(server: str, at: float, size: int = SMALL, connection: int = 1) -> Move:
    """An answer that its server sends at a time."""
    return Move(server, connection, False, at, at + RTT / 2, size)


def exchange(server: str, at: float, work: float = 0.01, size: int = SCRIPT) -> list[Move]:
    """A question that leaves the client at a time, and its answer."""
    return [up(server, at, size), down(server, at + RTT / 2 + work)]


def dependent(*moves: Move | list[Move], until: float = 99.0) -> int:
    flat = [one for move in moves for one in (move if isinstance(move, list) else [move])]
    return Traffic(tuple(flat)).dependent(until)


def test_one_after_the_other() -> None:
    """Three questions of which each waits for the answer before are three round trips, on one server or on three."""
    assert 3 == dependent(exchange("a", 0.0), exchange("a", 0.2), exchange("a", 0.4))
    assert 3 == dependent(exchange("a", 0.0), exchange("b", 0.2), exchange("c", 0.4))


def test_at_the_same_time() -> None:
    """Questions to many servers at the same time are one round trip, also if one of them takes longer."""
    assert 1 == dependent(exchange("a", 0.0), exchange("b", 0.001), exchange("c", 0.002, work=2.0))


def test_fork_and_join() -> None:
    """What waits for the slower of two branches depends on it alone, however often the other one was asked."""
    slow = exchange("a", 0.0, work=1.0)
    fast = [move for at in (0.0, 0.2, 0.4, 0.6) for move in exchange("b", at)]

    assert 2 == dependent(slow, fast, exchange("b", 1.2))


def test_long_answer_is_one_round_trip() -> None:
    """Output that goes on for long belongs to the script that it comes from."""
    output = [down("a", 0.1 + tick / 10) for tick in range(20)]

    assert 2 == dependent(up("a", 0.0, SCRIPT), output, exchange("a", 2.2))


def test_small_talk_meanwhile_is_no_reason() -> None:
    """A channel that is opened while a script works is not what its result was waited for."""
    greeting = [up("a", -2.0), down("a", -1.9), up("a", -1.8, 1200), down("a", -1.7)]
    script = [up("a", 0.0, SCRIPT), down("a", 1.0)]
    opened = [up("a", 0.3), down("a", 0.351)]

    assert 4 == dependent(greeting, script, opened, exchange("a", 1.1))


def test_answer_in_several_chunks() -> None:
    """What a server says at once belongs to what it was asked last, also in several chunks."""
    goodbye = [up("a", 2.0), down("a", 2.051), down("a", 2.055)]

    assert 2 == dependent(up("a", 0.0, SCRIPT), down("a", 1.0), goodbye)


def test_large_greeting_is_no_script() -> None:
    """The offer of algorithms is large and carries no work: logging in takes as many round trips as it has steps."""
    greeting = [up("a", 0.0), down("a", 0.1), up("a", 0.2, 1200), down("a", 0.3)]
    login = [up("a", 0.4), down("a", 0.46), down("a", 0.47)]

    assert 3 == dependent(greeting, login)


def test_server_that_speaks_first() -> None:
    """The greeting of a server is the reason of what follows, and begins the chain."""
    assert 2 == dependent(down("a", 0.0), exchange("a", 0.06), exchange("a", 0.3))


def test_what_comes_after_the_prompt() -> None:
    """Answers that nobody waited for are not counted."""
    assert 1 == dependent(exchange("a", 0.0), exchange("a", 0.2), until=0.25)


def test_nothing_was_sent() -> None:
    """Without traffic there is no round trip."""
    assert 0 == dependent()


def test_connections_bytes_and_turns() -> None:
    """Connections are told per server, and a turn begins when the client speaks after the server."""
    traffic = Traffic(
        (
            up("a", 0.0, 10),
            up("a", 0.01, 10),
            down("a", 0.1, 5),
            up("a", 0.2, 10),
            up("b", 0.0, 1, connection=7),
            up("b", 0.0, 1, connection=8),
        )
    )

    assert {"a": 1, "b": 2} == traffic.connections
    assert 37 == traffic.bytes
    assert 4 == traffic.turns
    assert {"a": 1} == traffic.between(0.1, 0.2).connections


def observed(way: float, trips: int, login: int) -> Observed:
    """A deployment with so many round trips, of which some are to connect, when the way takes so many seconds."""
    if not way:
        return Observed(1.0, 0.5, 0.5)
    moves = [move for n in range(trips) for move in exchange("a", n * 0.2)]
    to_connect = [move for n in range(login + 2) for move in exchange("a", n * 0.2)]
    return Observed(
        1.0 + way * trips,
        0.5 + way * login,
        0.5 + way * (login + 2),
        Traffic(tuple(moves)),
        Traffic(tuple(to_connect)),
        ended=99.0,
        logged_in=login * 0.2,
        ready=99.0,
    )


def values(found: list[Figure]) -> dict[tuple[str, str], float]:
    return {(one.unit, one.who): one.value for one in found if hasattr(one, "unit")}


def test_two_witnesses() -> None:
    """The proxies and the clock tell the same numbers, and what it takes to log in and to get a shell is taken off by both."""
    near, far = [observed(0.0, 9, 4)] * 3, [observed(0.2, 9, 4)] * 3
    told = values(figures({0.0: near, 200.0: far}))

    proxies, clock = "at the proxies", "by the clock, 0 and 200 ms"
    rows = (AFTER_CONNECTING, AFTER_LOGIN, TO_LOG_IN)
    assert [3, 5, 4] == [told[row, proxies] for row in rows]
    assert pytest.approx([3, 5, 4]) == [told[row, clock] for row in rows]
    assert 1 == told["connections per server", "at the proxies"]


def test_one_round_trip_time_has_one_witness() -> None:
    """At a single round-trip time the proxies alone tell, and where there are no proxies nobody does."""
    assert {"at the proxies"} == {who for _, who in values(figures({50.0: [observed(0.05, 6, 2)]}))}
    assert [] == figures({0.0: [observed(0.0, 6, 2)]})

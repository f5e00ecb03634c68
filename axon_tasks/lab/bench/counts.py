"""Round trips and connections of a deployment, counted at the delay proxies and checked by how much longer it takes."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.deploys import DEFAULT, Redeploy
from axon_tasks.lab.bench.figures import Budget, Count
from axon_tasks.lab.bench.product import ENVIRONMENT, TAGS, Product, product
from axon_tasks.lab.bench.trips import Move, Traffic
from axon_tasks.lab.delay import moves_file
from axon_tasks.lab.hosts import EDGE
from axon_tasks.lab.lab import RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab

#: Far apart, so that the difference is all about the way.
RTTS = (0.0, 200.0)
TRIPS = Budget(5, at_least=False)
CONNECTIONS = Budget(1, at_least=False)

_WHAT, BACK = "regular deploy", "instant rollback"
#: The same for a rollback to a release that still runs: one script on each server, the switch, the record.
BACK_TRIPS = Budget(3, at_least=False)
#: Connected is who has a shell that waits for its script; ssh(1) too has that only two round trips after the login.
AFTER_CONNECTING = "dependent round trips after connecting"
AFTER_LOGIN = "dependent round trips after the login"
TO_LOG_IN = "dependent round trips to log in"
_LOG_TIMEOUT = 10.0


@dataclass(frozen=True)
class Observed:
    """One round at one round-trip time.

    Args:
        deploy: Seconds of `fab deploy`.
        login: Seconds in which a program that does nothing else logged in to the same servers.
        connect: Seconds until it had a shell on each that waits for a script, too.
        deployed: What the proxies saw of the deployment; None where there are none.
        connected: What they saw of the other one.
        ended: When the deployment's prompt was back.
        logged_in: When the other one had logged in everywhere.
        ready: When it had its shells.
    """

    deploy: float
    login: float
    connect: float
    deployed: Traffic | None = None
    connected: Traffic | None = None
    ended: float = 0.0
    logged_in: float = 0.0
    ready: float = 0.0


@dataclass
class Counts:
    """Measured at each round-trip time, told after the last of them.

    Args:
        options: How much.
    """

    options: Options
    seen: dict[float, list[Observed]] = field(default_factory=dict)
    back: dict[float, list[Observed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what the options say."""
        # The witness at the proxies errs by one now and then, the more the busier the machine is.
        self.repeat = self.options.rounds(9)
        self.rtts = self.options.round_trips(RTTS)

    def measure(self, lab: Lab, say: Say) -> list[Figure]:
        """Measure at the round-trip time that the lab has.

        Raises:
            AxonError: A deployment failed, or a proxy does not answer.
        """
        say(f"Round trips of a {_WHAT}, at {lab.rtt:g} ms round-trip time")
        with product(lab, ("app1",)) as made:
            made.deploy(TAGS[0])
            self.seen[lab.rtt] = [_round(made) for _ in range(self.repeat)]
            if lab.rtt:
                self.back[lab.rtt] = [_round_back(made) for _ in range(self.repeat)]
        if set(self.seen) != set(self.rtts):
            return []
        return figures(self.seen) + [_back(rtt, rounds) for rtt, rounds in self.back.items()]


def figures(seen: dict[float, list[Observed]]) -> list[Figure]:
    """What was counted, and what follows from the times.

    Args:
        seen: The rounds, by round-trip time.
    """
    found: list[Figure] = []
    for rtt, rounds in seen.items():
        if all(one.deployed for one in rounds):
            found += _counted(rtt, rounds)
    near, far = min(seen), max(seen)
    if near != far:
        found += _timed(near, far, seen)
    return found


def _counted(rtt: float, rounds: list[Observed]) -> list[Figure]:
    deployed = [(one.deployed or Traffic(()), one) for one in rounds]
    connected = [(one.connected or Traffic(()), one) for one in rounds]
    whole = [traffic.dependent(one.ended) for traffic, one in deployed]
    login = [traffic.dependent(one.logged_in) for traffic, one in connected]
    connect = [traffic.dependent(one.ready) for traffic, one in connected]
    return [
        _count(AFTER_CONNECTING, rtt, "at the proxies", _rest(whole, connect), TRIPS),
        _count(AFTER_LOGIN, rtt, "at the proxies", _rest(whole, login)),
        _count(TO_LOG_IN, rtt, "at the proxies", login),
        _count(
            "connections per server",
            rtt,
            "at the proxies",
            [max(t.connections.values()) for t, _ in deployed],
            CONNECTIONS,
        ),
        _count("turns on all connections", rtt, "at the proxies", [t.turns for t, _ in deployed]),
        _count("kB in both directions", rtt, "at the proxies", [t.bytes / 1000 for t, _ in deployed]),
    ]


def _back(rtt: float, rounds: list[Observed]) -> Figure:
    whole = [(one.deployed or Traffic(())).dependent(one.ended) for one in rounds]
    connect = [(one.connected or Traffic(())).dependent(one.ready) for one in rounds]
    return _count(AFTER_CONNECTING, rtt, "at the proxies", _rest(whole, connect), BACK_TRIPS, what=BACK)


def _timed(near: float, far: float, seen: dict[float, list[Observed]]) -> list[Figure]:
    """How many round trips the difference of two times is, once for all of it and once without the connecting."""
    way = (far - near) / 1000
    both = list(zip(seen[near], seen[far], strict=True))
    whole = [(b.deploy - a.deploy) / way for a, b in both]
    login = [(b.login - a.login) / way for a, b in both]
    connect = [(b.connect - a.connect) / way for a, b in both]
    who = f"by the clock, {near:g} and {far:g} ms"
    return [
        _count(AFTER_CONNECTING, None, who, _rest(whole, connect)),
        _count(AFTER_LOGIN, None, who, _rest(whole, login)),
        _count(TO_LOG_IN, None, who, login),
    ]


def _rest(whole: list[Any], parts: list[Any]) -> list[Any]:
    return [all_of_it - part for all_of_it, part in zip(whole, parts, strict=True)]


def _count(
    unit: str,
    rtt: float | None,
    who: str,
    values: list[Any],
    budget: Budget | None = None,
    *,
    what: str = _WHAT,
) -> Count:
    return Count("counts", what, rtt, budget, who, unit, tuple(float(value) for value in values))


# --- one round -------------------------------------------------------------------------------------------------


def _round(made: Product) -> Observed:
    redeploy = Redeploy(made, DEFAULT, again=True)
    redeploy.prepare()
    began = time.monotonic()
    tag = redeploy.run()
    ended = time.monotonic()
    deployed = traffic(made, began, ended)
    redeploy.check(tag)
    return _with_connecting(made, began, ended, deployed)


def _round_back(made: Product) -> Observed:
    """A rollback while the release before still has a client."""
    made.settle()
    tag = made.version()
    with _client(made):
        made.deploy(made.other())
        began = time.monotonic()
        made.fab("rollback", f"--env={ENVIRONMENT}")
        ended = time.monotonic()
        seen = traffic(made, began, ended)
    if made.version() != tag:
        raise AxonError(f"After the rollback to {tag}, clients get {made.version() or 'no answer'}.")
    return _with_connecting(made, began, ended, seen)


@contextlib.contextmanager
def _client(made: Product) -> Iterator[None]:
    """Somebody who gets an answer that does not end: the release that gives it goes on running meanwhile."""
    with socket.create_connection((EDGE.address, 80), timeout=20) as client:
        client.sendall(f"GET /events?seconds=60 HTTP/1.1\r\nHost: {made.domain}\r\n\r\n".encode())
        client.recv(1)
        yield


def _with_connecting(made: Product, began: float, ended: float, deployed: Traffic | None) -> Observed:
    began_to_connect, logged_in, ready = _connect(made)
    connected = traffic(made, began_to_connect, ready)
    return Observed(
        ended - began,
        logged_in - began_to_connect,
        ready - began_to_connect,
        deployed,
        connected,
        ended,
        logged_in,
        ready,
    )


def _connect(made: Product) -> tuple[float, float, float]:
    """Let a program open the same connections and do nothing with them; gives when it began, had logged in, had shells."""
    work = made.folder / "connect.json"
    work.write_text(
        json.dumps({"hosts_file": str(made.hosts_file), "servers": made.servers}), encoding="utf-8"
    )
    said = local.run([sys.executable, "-m", "axon_tasks.lab.bench.programs", "connect", str(work)])
    times = json.loads(said)
    # CLOCK_MONOTONIC is the same for all processes (clock_gettime(2)).
    return float(times["began"]), float(times["logged_in"]), float(times["ready"])


def traffic(made: Product, since: float, until: float) -> Traffic | None:
    """What went through the proxies of a product's servers in a time; None if the lab has none.

    Raises:
        AxonError: A proxy does not write its log.
    """
    if not made.lab.rtt:
        return None
    moves: list[Move] = []
    for server in made.servers:
        moves += [Move(server, *one) for one in _log(made.lab, server)]
    return Traffic(tuple(moves)).between(since, until)


def _log(lab: Lab, server: str) -> list[Any]:
    """The log of one server's proxy, which writes it when it is asked to."""
    state = RUN / f"{server}.delay.json"
    path = moves_file(state)
    path.unlink(missing_ok=True)
    pid = json.loads(state.read_text(encoding="utf-8"))["pid"]
    lab.exec(server, ["kill", "-USR1", str(pid)])
    return _wait_for(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def _wait_for(path: Path, read: Callable[[], list[Any]]) -> list[Any]:
    deadline = time.monotonic() + _LOG_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            return read()
        time.sleep(0.01)
    raise AxonError(
        f"The delay proxy does not write {path}.", hint="Start the lab again: invoke lab.down, lab.up"
    )

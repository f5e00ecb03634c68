"""Round trips and connections of a deployment, counted at the delay proxies and checked by how much longer it takes."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.deploys import DEFAULT, Redeploy
from axon_tasks.lab.bench.figures import Budget, Count
from axon_tasks.lab.bench.product import TAGS, Product, product
from axon_tasks.lab.bench.trips import Move, Traffic
from axon_tasks.lab.delay import moves_file
from axon_tasks.lab.lab import RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab

#: Far apart, so that the difference is all about the way.
RTTS = (0.0, 200.0)
TRIPS = Budget(5, at_least=False)
CONNECTIONS = Budget(1, at_least=False)

_WHAT = "regular deploy"
_LOG_TIMEOUT = 10.0


@dataclass(frozen=True)
class Observed:
    """One round at one round-trip time.

    Args:
        deploy: Seconds of `fab deploy`.
        connect: Seconds in which a program that does nothing else opened the same connections.
        deployed: What the proxies saw of the deployment; None where there are none.
        connected: What they saw of the other one.
        ended: When the deployment's prompt was back.
        opened: When the connections stood.
    """

    deploy: float
    connect: float
    deployed: Traffic | None = None
    connected: Traffic | None = None
    ended: float = 0.0
    opened: float = 0.0


@dataclass
class Counts:
    """Measured at each round-trip time, told after the last of them.

    Args:
        options: How much.
    """

    options: Options
    seen: dict[float, list[Observed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what the options say."""
        self.repeat = self.options.rounds(4)
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
        return figures(self.seen) if set(self.seen) == set(self.rtts) else []


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
    login = [traffic.dependent(one.opened) for traffic, one in connected]
    after = [all_of_it - part for all_of_it, part in zip(whole, login, strict=True)]
    return [
        _count("dependent round trips after connecting", rtt, "at the proxies", after, TRIPS),
        _count("dependent round trips to connect", rtt, "at the proxies", login),
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


def _timed(near: float, far: float, seen: dict[float, list[Observed]]) -> list[Figure]:
    """How many round trips the difference of two times is, once for all of it and once without the connecting."""
    way = (far - near) / 1000
    both = list(zip(seen[near], seen[far], strict=True))
    login = [(b.connect - a.connect) / way for a, b in both]
    after = [(b.deploy - a.deploy) / way - part for (a, b), part in zip(both, login, strict=True)]
    who = f"by the clock, {near:g} and {far:g} ms"
    return [
        _count("dependent round trips after connecting", None, who, after),
        _count("dependent round trips to connect", None, who, login),
    ]


def _count(unit: str, rtt: float | None, who: str, values: list[Any], budget: Budget | None = None) -> Count:
    return Count("counts", _WHAT, rtt, budget, who, unit, tuple(float(value) for value in values))


# --- one round -------------------------------------------------------------------------------------------------


def _round(made: Product) -> Observed:
    redeploy = Redeploy(made, DEFAULT, again=True)
    redeploy.prepare()
    began = time.monotonic()
    tag = redeploy.run()
    ended = time.monotonic()
    deployed = traffic(made, began, ended)
    redeploy.check(tag)
    began_to_connect, opened = _connect(made)
    connected = traffic(made, began_to_connect, opened)
    return Observed(ended - began, opened - began_to_connect, deployed, connected, ended, opened)


def _connect(made: Product) -> tuple[float, float]:
    """Let a program open the same connections and do nothing with them; gives when it began and when they stood."""
    work = made.folder / "connect.json"
    work.write_text(
        json.dumps({"hosts_file": str(made.hosts_file), "servers": made.servers}), encoding="utf-8"
    )
    said = local.run([sys.executable, "-m", "axon_tasks.lab.bench.programs", "connect", str(work)])
    times = json.loads(said)
    # CLOCK_MONOTONIC is the same for all processes (clock_gettime(2)).
    return float(times["began"]), float(times["opened"])


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

"""A batch of ten commands against ten calls, over connections that are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench.figures import Budget, Contender, Ratio, pairs, take_turns
from axon_tasks.lab.bench.local import TIMEOUT
from axon_tasks.lab.bench.target import HOST, fleet, stock
from axon_tasks.remote.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab
    from axon_tasks.remote.connection import Connection

RTTS = (0.0, 10.0, 50.0, 100.0)
BUDGET = Budget(5, at_least=True)

#: Commands that take no time by themselves: what is left is the way there and back, which is what a batch saves. It is
#: what the budget was set for; the time that programs take counts on both sides and pulls every ratio towards 1.
NOTHING = ("true",) * 10
#: What a deploy asks a server for. Their output is the same at each call, so that it can be compared.
PROGRAMS = (
    "uname -n",
    "uname -r",
    "id -u",
    "cat /etc/hostname",
    "ls -d /etc/ssh",
    "test -r /proc/uptime && echo readable",
    "wc -c < /etc/passwd",
    "command -v docker",
    "stat -c %U:%a /srv",
    "cat /proc/sys/kernel/pid_max",
)


class Batches:
    """Ours, and for information Fabric's own calls.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.repeat = options.rounds(5)
        self.rtts = options.round_trips(RTTS)

    def measure(self, lab: Lab, say: Say) -> list[Figure]:
        """Measure at the round-trip time that the lab has.

        Raises:
            AxonError: The contenders did not get the same output.
        """
        say(f"A batch of 10 commands, at {lab.rtt:g} ms round-trip time")
        with fleet(lab) as ours, stock(lab) as other:
            connection = ours[HOST]
            calls = {"10 calls": connection, "10 calls of stock Fabric": other}
            nothing = self._turns(connection, calls, NOTHING)
            programs = self._turns(connection, {"10 calls": connection}, PROGRAMS)
        return [
            _figure("10 times `true`", "10 calls", lab.rtt, nothing, BUDGET),
            _figure("10 times `true`", "10 calls of stock Fabric", lab.rtt, nothing),
            _figure("10 small programs", "10 calls", lab.rtt, programs),
        ]

    def _turns(
        self, connection: Connection, callers: Mapping[str, Any], commands: Sequence[str]
    ) -> dict[str, list[float]]:
        outputs: set[tuple[str, ...]] = set()

        def check(output: tuple[str, ...]) -> None:
            outputs.add(output)
            if len(outputs) > 1:
                raise AxonError(f"The batch and the single calls got different output: {sorted(outputs)}")

        def calling(caller: Any) -> Callable[[], tuple[str, ...]]:
            return lambda: _one_by_one(caller, commands)

        contenders = {"a batch": Contender(lambda: _in_a_batch(connection, commands), check)}
        contenders |= {name: Contender(calling(caller), check) for name, caller in callers.items()}
        return take_turns(contenders, self.repeat)


def _figure(
    what: str, one: str, rtt: float, seconds: Mapping[str, list[float]], budget: Budget | None = None
) -> Ratio:
    return Ratio("batch", what, rtt, budget, one, "a batch", pairs(seconds, one, "a batch"))


def _in_a_batch(connection: Connection, commands: Sequence[str]) -> tuple[str, ...]:
    batch = Batch("bench")
    for command in commands:
        batch.add(command)
    result = batch.run(connection, timeout=TIMEOUT)
    if not result.ok:
        raise AxonError(f"The batch failed: {result!r}")
    return tuple(section.stdout for section in result.values())


def _one_by_one(connection: Any, commands: Sequence[str]) -> tuple[str, ...]:
    """Call by call, on our connection or on Fabric's own."""
    return tuple(
        connection.run(command, hide=True, in_stream=False, timeout=int(TIMEOUT)).stdout
        for command in commands
    )

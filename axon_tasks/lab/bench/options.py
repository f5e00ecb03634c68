"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

from axon_tasks.errors import UsageError

#: The parts, in the order in which they are told.
GROUPS = ("deploy", "floor", "counts", "batch", "fanout", "listing", "output")

MAX_REPEAT = 50
MAX_RTTS = 5
_LONGEST_RTT = 1000.0


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Args:
        only: The parts that are measured.
        repeat: Rounds per comparison, 1 to 50; None leaves it to each part, so that all of it ends in a quarter of an hour.
        rtts: Round-trip times of SSH in milliseconds, for all parts; none leaves them to each part.
        size: Bytes of the large section.
        servers: How many servers the fan-outs have.
        quick: Whether one round of a little is enough: it shows that everything works, and measures nothing.
    """

    only: tuple[str, ...] = GROUPS
    repeat: int | None = None
    rtts: tuple[float, ...] = ()
    size: int = 100_000_000
    servers: tuple[int, ...] = (10, 50, 100, 200)
    quick: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense or would take for ever.

        Raises:
            UsageError: It does.
        """
        unknown = [name for name in self.only if name not in GROUPS]
        if unknown or not self.only:
            raise UsageError(
                f"--only={','.join(self.only)}: there is no such part.",
                hint=f"There are: {', '.join(GROUPS)}",
            )
        if self.repeat is not None and not 1 <= self.repeat <= MAX_REPEAT:
            raise UsageError(f"--repeat={self.repeat}: between 1 and {MAX_REPEAT} rounds.")
        if len(self.rtts) > MAX_RTTS or not all(0 <= rtt <= _LONGEST_RTT for rtt in self.rtts):
            raise UsageError(f"--rtt: up to {MAX_RTTS} round-trip times of at most {_LONGEST_RTT:g} ms.")

    @classmethod
    def quickly(cls, only: tuple[str, ...] = GROUPS, rtts: tuple[float, ...] = (0.0,)) -> Options:
        """A smoke test: every part, once, with little."""
        return cls(only, repeat=1, rtts=rtts, size=1_000_000, servers=(3,), quick=True)

    def rounds(self, usual: int) -> int:
        """How many rounds a part measures that usually has so many."""
        return usual if self.repeat is None else self.repeat

    def round_trips(self, usual: tuple[float, ...]) -> tuple[float, ...]:
        """The round-trip times at which a part measures that usually has these."""
        return self.rtts or usual

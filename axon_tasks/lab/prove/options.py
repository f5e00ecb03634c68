"""How much is proven."""

from __future__ import annotations

import re
from dataclasses import dataclass

from axon_tasks.errors import UsageError

#: The parts, in the order in which they are told. Each has an entry in `suite.REGISTRY`.
PARTS = ("switches", "kills", "cuts", "races", "inputs", "secrets")

#: Bounds, so that a mistake in a number does not become a day.
_BOUNDS = {
    "seed": (0, 2**31 - 1),
    "switches": (1, 1000),
    "requests": (100, 1_000_000),
    "kills": (0, 1000),
    "boundaries": (0, 1000),
    "cuts": (0, 1000),
    "races": (1, 1000),
    "inputs": (2, 1000),
}
_BOUNDARY = re.compile(r"[a-z]+(@[A-Za-z0-9.-]+)?:(begin|end)", re.ASCII)
_TIME = re.compile(r"(\d{1,3}(\.\d{1,6})?)s", re.ASCII)


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Args:
        only: The parts.
        seed: For everything that is random: what is sent, when is killed, how far two deploys are apart.
        switches: How many deploys under load.
        requests: How many requests meanwhile, in total.
        kills: How many deployers are killed at random times.
        boundaries: How many boundaries are tried, spread over the plan; None for every one.
        at: The boundaries that are tried, by name, or times such as `1.25s`, and nothing else; none for those of
            `boundaries` and `kills`.
        cuts: How many boundaries a server is cut off at, spread over the plan; None for every one.
        races: How many pairs of deploys.
        inputs: How many hostile inputs each place is given, and a fifth of the things that are spoilt on servers.
        whole: Whether every command is watched for a secret, and not only those that have secrets in hand.
    """

    only: tuple[str, ...] = PARTS
    seed: int = 1
    switches: int = 200
    requests: int = 500_000
    kills: int = 100
    boundaries: int | None = None
    at: tuple[str, ...] = ()
    cuts: int | None = None
    races: int = 50
    inputs: int = 20
    whole: bool = True

    def __post_init__(self) -> None:
        """Refuse what makes no sense or would take for ever.

        Raises:
            UsageError: It does.
        """
        unknown = [name for name in self.only if name not in PARTS]
        if unknown or not self.only:
            raise UsageError(
                f"--only={','.join(self.only)}: there is no such part.", hint=f"There are: {', '.join(PARTS)}"
            )
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"--{name}={value}: between {low} and {high}.")
        for name in self.at:
            if not _BOUNDARY.fullmatch(name) and not _TIME.fullmatch(name):
                raise UsageError(
                    f"--at={name}: this is neither a boundary nor a time.",
                    hint="Such as switch:begin, start:end, start@app1:begin, start@app1:end, or 1.25s.",
                )

    @property
    def times(self) -> tuple[float, ...]:
        """The times of `at`, in seconds after the start of a deploy."""
        return tuple(float(match.group(1)) for match in map(_TIME.fullmatch, self.at) if match)

    @classmethod
    def quickly(cls, only: tuple[str, ...] = PARTS, seed: int = 1) -> Options:
        """A smoke test: a little of every part."""
        return cls(
            only,
            seed,
            switches=3,
            requests=2000,
            kills=1,
            boundaries=1,
            cuts=1,
            races=2,
            inputs=2,
            whole=False,
        )

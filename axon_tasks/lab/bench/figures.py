"""What a measurement gives: ratios of contenders that took turns, and counts; each with its spread and budget.

Seconds say something about a machine. A ratio of two things that were measured next to each other says something
about the code, and the median of several rounds holds on a machine that is busy with something else.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """What a figure is held against.

    Args:
        limit: The number.
        at_least: Whether more is better; otherwise less is.
        required: Whether the benchmark fails when it is missed.
    """

    limit: float
    at_least: bool
    required: bool = True

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def met(self, value: float) -> bool:
        """Whether a number is within it."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Spread:
    """How several measurements of one thing lie: the median decides, the rest tells how far to trust it."""

    median: float
    low: float
    lower: float
    upper: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, extremes and quartiles (inclusive: these rounds are all there are)."""
        ordered = sorted(values)
        quarters = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
        return cls(statistics.median(ordered), ordered[0], quarters[0], quarters[2], ordered[-1])


@dataclass(frozen=True)
class _Measured:
    """What ratios and counts have in common.

    Args:
        group: The part of the benchmark.
        what: What was done, for people.
        rtt: Round-trip time of SSH in milliseconds; None where none is added.
        budget: What the value is held against; None where it is only of interest.
    """

    group: str
    what: str
    rtt: float | None
    budget: Budget | None

    @property
    def values(self) -> list[float]:
        """One number per round."""
        raise NotImplementedError

    @property
    def spread(self) -> Spread:
        """Median, quartiles and extremes."""
        return Spread.of(self.values)

    @property
    def value(self) -> float:
        """The median: half of the rounds may be spoilt without changing the verdict."""
        return self.spread.median

    @property
    def verdict(self) -> str:
        """How it stands against its budget."""
        if self.budget is None:
            return ""
        return "PASS" if self.budget.met(self.value) else "over budget"

    @property
    def missed(self) -> bool:
        """Whether the benchmark fails because of it."""
        return self.budget is not None and self.budget.required and not self.budget.met(self.value)

    def as_dict(self) -> dict[str, Any]:
        """Everything about it, for JSON."""
        return {
            "kind": type(self).__name__.lower(),
            **asdict(self),
            "spread": asdict(self.spread),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Ratio(_Measured):
    """How many times as long one thing takes as another.

    Args:
        one: What is divided.
        by: What it is divided by.
        rounds: Per round, the seconds of both.
    """

    one: str
    by: str
    rounds: tuple[tuple[float, float], ...]

    @property
    def values(self) -> list[float]:
        """The ratio of each round: both were measured next to each other."""
        return [one / other for one, other in self.rounds]

    @property
    def name(self) -> str:
        """What is compared, in one line."""
        return f"{self.what}: {self.one} / {self.by}"

    @property
    def seconds(self) -> tuple[Spread, Spread]:
        """How long each of the two took."""
        one, other = zip(*self.rounds, strict=True)
        return Spread.of(one), Spread.of(other)


@dataclass(frozen=True)
class Count(_Measured):
    """How many, or how much, of something.

    Args:
        who: Who needed it.
        unit: What is counted.
        counted: The number of each round.
    """

    who: str
    unit: str
    counted: tuple[float, ...]

    @property
    def values(self) -> list[float]:
        """The number of each round."""
        return list(self.counted)

    @property
    def name(self) -> str:
        """What was counted, in one line."""
        return f"{self.what}: {self.unit}, {self.who}"


Figure = Ratio | Count


def figure_from(content: Mapping[str, Any]) -> Figure:
    """Read back what `as_dict` gave."""
    values = {key: content[key] for key in ("group", "what", "rtt")}
    budget = Budget(**content["budget"]) if content["budget"] else None
    if content["kind"] == "ratio":
        rounds = tuple((one, other) for one, other in content["rounds"])
        return Ratio(**values, budget=budget, one=content["one"], by=content["by"], rounds=rounds)
    return Count(
        **values, budget=budget, who=content["who"], unit=content["unit"], counted=tuple(content["counted"])
    )


# --- taking turns ----------------------------------------------------------------------------------------------


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Contender(Generic[T]):
    """One of several things that are measured in turns.

    Args:
        run: What is measured.
        check: Called with what it returned, outside of the time that is measured; raises if that is not right.
        prepare: Called before it, outside of the time as well.
        timed: Gives its seconds from what it returned, for what can tell them better than the clock around it.
    """

    run: Callable[[], T]
    check: Callable[[T], None]
    prepare: Callable[[], None] = _nothing
    timed: Callable[[T], float] | None = None


def take_turns(
    contenders: Mapping[str, Contender[Any]],
    repeat: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Measure several things, each once per round, after rounds that do not count (imports, caches).

    Every other round goes backwards, so that none of them always runs in the wake of the same other one.

    Args:
        contenders: What is measured, by name.
        repeat: How many rounds count.
        warm_up: How many rounds before them do not.
        clock: Seconds.

    Returns:
        The seconds of each, by name, in the order of the rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeat + warm_up):
        names = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in names:
            contender = contenders[name]
            contender.prepare()
            began = clock()
            returned = contender.run()
            took = clock() - began
            contender.check(returned)
            if number >= warm_up:
                seconds[name].append(contender.timed(returned) if contender.timed else took)
    return seconds


def pairs(seconds: Mapping[str, list[float]], one: str, other: str) -> tuple[tuple[float, float], ...]:
    """The seconds of two contenders, round by round."""
    return tuple(zip(seconds[one], seconds[other], strict=True))

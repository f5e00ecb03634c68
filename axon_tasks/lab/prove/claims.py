"""What is claimed, in how many cases it was tried, and in which of them it did not hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Failures that are told one by one.
MAX_TOLD = 20


@dataclass(frozen=True)
class Claim:
    """A sentence that was tried.

    Args:
        part: The part of the proof.
        claim: The sentence.
        unit: What was counted: requests, switches, boundaries.
        cases: In how many cases it was tried.
        failed: In how many of them it did not hold.
        least: How many cases make it worth saying.
        failures: Those in which it did not hold, each with what is needed to see it again; the first ones only.
        facts: Other figures of the same cases.
    """

    part: str
    claim: str
    unit: str
    cases: int
    failed: int
    least: int = 1
    failures: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether it was tried often enough and never failed."""
        return self.failed == 0 and self.cases >= self.least

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.failed:
            return "FAILED"
        return "holds" if self.holds else "too few cases"

    def as_dict(self) -> dict[str, Any]:
        """Everything about it, for JSON."""
        return {**asdict(self), "failures": list(self.failures), "holds": self.holds}


def claim_from(content: Mapping[str, Any]) -> Claim:
    """Read back what `as_dict` gave."""
    values = {key: value for key, value in content.items() if key != "holds"}
    return Claim(**{**values, "failures": tuple(values["failures"])})


def middle_and_most(seconds: Sequence[float]) -> dict[str, float]:
    """How long something took: told and not judged, because machines differ."""
    took = sorted(seconds)
    return {"median": round(took[len(took) // 2], 2), "most": round(took[-1], 2)} if took else {}


def told(failures: list[str]) -> tuple[str, ...]:
    """The failures that are told one by one."""
    return tuple(failures[:MAX_TOLD])

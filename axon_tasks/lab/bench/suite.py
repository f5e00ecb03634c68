"""Everything in one run: the parts, at all round-trip times that they want."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from axon_tasks.lab.bench import target
from axon_tasks.lab.bench.figures import Figure, figure_from
from axon_tasks.lab.bench.options import GROUPS, Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab


class Part(Protocol):
    """One part of the benchmark."""

    #: The round-trip times at which it measures; none means that it does not matter.
    rtts: tuple[float, ...]

    def measure(self, lab: Lab, say: Say) -> list[Figure]:
        """Measure at the round-trip time that the lab has."""


@dataclass(frozen=True)
class Results:
    """What one run gave.

    Args:
        figures: All figures, by part in the order of the parts.
        facts: The machine, the versions and the commit.
        options: How much was measured.
    """

    figures: tuple[Figure, ...]
    facts: Mapping[str, Any]
    options: Mapping[str, Any]

    def of(self, group: str) -> list[Figure]:
        """The figures of one part."""
        return [figure for figure in self.figures if figure.group == group]

    @property
    def judged(self) -> list[Figure]:
        """The figures that have a budget."""
        return [figure for figure in self.figures if figure.budget is not None]

    @property
    def missed(self) -> list[Figure]:
        """The figures because of which the benchmark fails."""
        return [figure for figure in self.figures if figure.missed]

    def as_json(self) -> str:
        """All of it, for programs."""
        content = {**self.facts, "options": self.options, "figures": [one.as_dict() for one in self.figures]}
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read back what `as_json` wrote."""
        content = json.loads(text)
        figures, options = content.pop("figures"), content.pop("options")
        return cls(tuple(map(figure_from, figures)), content, options)


def parts(options: Options) -> dict[str, Part]:
    """The parts that are wanted, by name, in their order."""
    from axon_tasks.lab.bench.batches import Batches
    from axon_tasks.lab.bench.counts import Counts
    from axon_tasks.lab.bench.deploys import Deploys
    from axon_tasks.lab.bench.fanout import Fanout
    from axon_tasks.lab.bench.floor import Floors
    from axon_tasks.lab.bench.listing import Listing
    from axon_tasks.lab.bench.output import Output

    made: dict[str, Any] = {
        "deploy": Deploys,
        "floor": Floors,
        "counts": Counts,
        "batch": Batches,
        "fanout": Fanout,
        "listing": Listing,
        "output": Output,
    }
    return {name: made[name](options) for name in GROUPS if name in options.only}


def run(lab: Lab, options: Options, say: Say, wanted: Mapping[str, Part] | None = None) -> list[Figure]:
    """Start the lab if needed and measure.

    Args:
        lab: Its round-trip time is the same again afterwards.
        options: How much.
        say: Called with what is being measured.
        wanted: The parts; default: those of the options.

    Raises:
        AxonError: A contender failed, or did not do what it was to do.
    """
    lab.up(say)
    todo = parts(options) if wanted is None else wanted
    found: dict[str, list[Figure]] = {name: [] for name in todo}
    # What does not care comes first, and then each round-trip time once: to change it takes a moment.
    for name, part in todo.items():
        if not part.rtts:
            found[name] += part.measure(lab, say)
    for rtt in sorted({rtt for part in todo.values() for rtt in part.rtts}):
        with target.round_trip(lab, rtt, say) as there:
            for name, part in todo.items():
                if rtt in part.rtts:
                    found[name] += part.measure(there, say)
    return [figure for figures in found.values() for figure in figures]


def results(figures: Sequence[Figure], options: Options, facts: Mapping[str, Any]) -> Results:
    """Put together what is kept."""
    return Results(tuple(figures), facts, asdict(options))

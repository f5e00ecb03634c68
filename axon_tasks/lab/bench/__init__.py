"""How fast it is, as ratios: contenders take turns in one run, so that noise hits all of them."""

from axon_tasks.lab.bench.facts import facts
from axon_tasks.lab.bench.figures import Budget, Contender, Count, Figure, Ratio, Spread, take_turns
from axon_tasks.lab.bench.options import GROUPS, Options
from axon_tasks.lab.bench.page import page
from axon_tasks.lab.bench.suite import Results, results, run
from axon_tasks.lab.bench.tables import markdown, table

__all__ = [
    "GROUPS",
    "Budget",
    "Contender",
    "Count",
    "Figure",
    "Options",
    "Ratio",
    "Results",
    "Spread",
    "facts",
    "markdown",
    "page",
    "results",
    "run",
    "table",
    "take_turns",
]

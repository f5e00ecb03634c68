"""How reliable it is, as claims that are tried many times in the lab: each with its cases and its failures."""

from axon_tasks.lab.prove.claims import Claim
from axon_tasks.lab.prove.options import PARTS, Options
from axon_tasks.lab.prove.suite import Results, results, run
from axon_tasks.lab.prove.tables import markdown, table

__all__ = ["PARTS", "Claim", "Options", "Results", "markdown", "results", "run", "table"]

"""`invoke prove`."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, ended_like_ctrl_c, must_be_writable, say, task, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.lab import Lab
    from axon_tasks.lab.prove import Claim, Options, Results

#: Where the results go, below the project.
_OUT = "benchmarks/reliability.json"


@task(
    help={
        "only": "Parts to try: switches,kills,cuts,races,inputs,secrets. Default: all.",
        "seed": "For everything that is random. Default: 1.",
        "switches": "How many deploys under load. Default: 200.",
        "requests": "How many requests meanwhile. Default: 500000.",
        "kills": "How many deployers to kill at random times. Default: 100.",
        "boundaries": "How many step boundaries to kill a deployer at. Default: every one.",
        "cuts": "How many step boundaries to cut a server off at. Default: every one.",
        "at": "Only these kills and cuts: boundaries such as switch:begin or start@app1:end, or times such as 1.25s.",
        "races": "How many pairs of deploys at the same time. Default: 50.",
        "inputs": "How many hostile inputs for each place that takes one; 1000 are all. Default: 20.",
        "quick": "A little of each part: 3 switches, 2 boundaries, 1 kill, 1 cut, 2 races, 2 inputs per place.",
        "out": f"File for the results; tables go beside it as .md. Default: {_OUT} of the project.",
    }
)
def prove(
    _c: Context,
    only: str = "",
    seed: str = "",
    switches: str = "",
    requests: str = "",
    kills: str = "",
    boundaries: str = "",
    cuts: str = "",
    at: str = "",
    races: str = "",
    inputs: str = "",
    quick: bool = False,
    out: str = "",
) -> None:
    """Try in the lab what must never happen, many times.

    Starts the lab if needed. Switches under load, with every answer held against what was deployed when; deployers
    that are killed at every step boundary and at random times, and servers that are cut off there, after which the
    next deploy must succeed and nothing may be left; deploys that race; hostile input through every way in; and secrets, looked for in every process, file
    and output. Each claim is told with its cases and its failures, and each failure with what to type to see it again.
    Ctrl-C ends it and leaves nothing. Exit code 1 if a claim does not hold.

    Examples:
      invoke prove
      invoke prove --quick --out=quick.json
      invoke prove --only=kills --seed=7 --kills=20
      invoke prove --only=kills --at=switch@edge1:begin,1.25s
      invoke prove --only=inputs,secrets --inputs=1000
    """
    numbers = {
        "seed": seed, "switches": switches, "requests": requests, "kills": kills, "boundaries": boundaries,
        "cuts": cuts, "races": races, "inputs": inputs,
    }  # fmt: skip
    options = _options(only, numbers, at, quick=quick)
    from axon_tasks.lab import Lab
    from axon_tasks.lab.bench import facts

    lab = Lab()
    path = _results(Path(out) if out else lab.root / _OUT)
    with ended_like_ctrl_c():
        found = _run(lab, options, facts(lab.root, shlex.join(["invoke", *sys.argv[1:]])), path)
    from axon_tasks.lab.prove import table

    say(f"\n{table(found.claims)}\n\nResults: {path}, as a table: {path.with_suffix('.md')}")
    if found.broken:
        broken = "; ".join(f"{one.part}: {one.claim} ({one.verdict})" for one in found.broken)
        raise AxonError(f"Not proven: {broken}.")


def _run(lab: Lab, options: Options, facts: Mapping[str, Any], path: Path) -> Results:
    """Try everything, and write what is known after each part: an hour of work is not lost to the last minute."""
    from axon_tasks.lab import prove as proving

    claims: list[Claim] = []
    seconds: dict[str, float] = {}
    found = proving.results(claims, options, facts, seconds)
    for name, more, took in proving.run(lab, options, say, time.monotonic):
        claims += more
        seconds[name] = round(took, 1)
        found = proving.results(claims, options, facts, seconds)
        path.write_text(found.as_json(), encoding="utf-8")
        path.with_suffix(".md").write_text(proving.markdown(found), encoding="utf-8")
    return found


def _options(only: str, numbers: dict[str, str], at: str, *, quick: bool) -> Options:
    from axon_tasks.lab.prove import PARTS, Options

    parts = _words(only) or PARTS
    told = {name: whole(text, name, digits=10) for name, text in numbers.items()}
    given: dict[str, Any] = {name: number for name, number in told.items() if number is not None}
    if not quick:
        return Options(parts, at=_words(at), **given)
    if at or set(given) - {"seed"}:
        raise UsageError("--quick has its own numbers.", hint="Leave those away, or --quick.")
    return Options.quickly(parts, **given)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(","))) if text else ()


def _results(out: Path) -> Path:
    """The file for the results, which can be written and is not its own table.

    Raises:
        UsageError: It cannot, or is.
    """
    table = out.with_suffix(".md")
    if out == table:
        raise UsageError(f"--out={out}: the table gets this name.", hint="Such as --out=results.json.")
    must_be_writable(out, out, table)
    return out

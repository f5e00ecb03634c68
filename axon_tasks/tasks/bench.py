"""`invoke bench`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, must_be_writable, say, task, whole

if TYPE_CHECKING:
    from axon_tasks.lab.bench import Options

#: What is written, and to be written before minutes are spent.
_JSON, _PAGE, _MARKDOWN = "results.json", "index.html", "tables.md"


@task(
    help={
        "only": "Parts to measure: deploy,floor,counts,batch,fanout,listing,output. Default: all.",
        "rtt": "Round-trip times of SSH in milliseconds, such as 0,50. Default: what each part needs.",
        "repeat": "Rounds per comparison, 1 to 50. Default: 4 to 11, as each part needs.",
        "quick": "One round of a little at no round-trip time: shows that all works, judges nothing.",
        "out": "Directory for the results. Default: benchmarks/ of the project.",
    }
)
def bench(
    _c: Context, only: str = "", rtt: str = "", repeat: str = "", quick: bool = False, out: str = ""
) -> None:
    """Measure speed in the lab, as ratios within a run.

    Starts the lab if needed. Deployments against the same plan one step after the other and against plain ssh, their
    round trips, batches against single calls, queries over up to 200 servers, the start of fab, large output. The
    contenders take turns and are checked; what counts is the median of the ratios. Writes results.json, index.html with
    charts, and tables.md. All of it takes a quarter of an hour. The lab's round-trip time is changed meanwhile, which
    breaks connections that others have to it, and put back at the end. Exit code 1 if a budget is missed.

    Examples:
      invoke bench
      invoke bench --only=deploy,floor --rtt=0,50 --repeat=15
      invoke bench --quick --out=quick-results
    """
    options = _options(only, rtt, repeat, quick=quick)
    from axon_tasks.lab import Lab
    from axon_tasks.lab import bench as measuring

    lab = Lab()
    folder = Path(out) if out else lab.root / "benchmarks"
    must_be_writable(folder, *(folder / name for name in (_JSON, _PAGE, _MARKDOWN)))
    facts = measuring.facts(lab.root, shlex.join(["invoke", *sys.argv[1:]]))
    found = measuring.results(measuring.run(lab, options, say), options, facts)
    texts = {_JSON: found.as_json(), _PAGE: measuring.page(found), _MARKDOWN: measuring.markdown(found)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    say(f"\n{measuring.table(found.figures)}\n\nResults: {folder / _JSON}, with charts: {folder / _PAGE}")
    if found.missed and not options.quick:
        raise AxonError(
            "Over budget: "
            + "; ".join(f"{figure.name}: {figure.value:.2f} ({figure.budget})" for figure in found.missed)
            + ".",
            hint="On a busy machine, try again with more --repeat.",
        )


def _options(only: str, rtt: str, repeat: str, *, quick: bool) -> Options:
    from axon_tasks.lab.bench import GROUPS, Options

    parts = tuple(dict.fromkeys(only.split(","))) if only else GROUPS
    if quick:
        if repeat or rtt:
            raise UsageError("--quick has its own --repeat and --rtt.", hint="Leave those away, or --quick.")
        return Options.quickly(parts)
    return Options(parts, repeat=whole(repeat, "repeat"), rtts=_rtts(rtt))


def _rtts(text: str) -> tuple[float, ...]:
    words = text.split(",") if text else []
    if not all(re.fullmatch(r"\d{1,4}(\.\d{1,3})?(ms)?", word, re.ASCII) for word in words):
        raise UsageError(f"--rtt={text}: numbers of milliseconds are needed, such as 0,50.")
    return tuple(dict.fromkeys(float(word.removesuffix("ms")) for word in words))

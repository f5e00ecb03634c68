"""`invoke bench`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, task

#: Each of them takes a minute or more.
MAX_RTTS = 5


@task(
    help={
        "repeat": "Rounds per comparison, 1 to 50. Default: 7.",
        "rtt": "Round-trip times of SSH in milliseconds, such as 0,50. Default: the one that the lab has.",
        "out": "JSON file for the results. Default: benchmarks/remote.json of the project.",
    }
)
def bench(_c: Context, repeat: str = "7", rtt: str = "", out: str = "") -> None:
    """Measure speed in the lab, as ratios within one run.

    Starts the lab if needed. Measures a batch against single calls, a section of 100 MB against `ssh host cat`, and
    the start of `fab --list` against a bare fabfile. The contenders take turns; what counts is the median of the
    ratios. With --rtt, the lab's round-trip time is changed meanwhile, which breaks connections that others have to
    it. Exit code 1 if one of the first two misses its budget.

    Examples:
      invoke bench
      invoke bench --rtt=0,50 --repeat=15
    """
    from axon_tasks.lab import Lab
    from axon_tasks.lab import bench as measuring

    options = measuring.Options(repeat=_repeat(repeat), rtts=_rtts(rtt))
    lab = Lab()
    path = _writable(Path(out) if out else lab.root / "benchmarks" / "remote.json")
    facts = measuring.facts(lab.root, shlex.join(["invoke", *sys.argv[1:]]))
    figures = measuring.run(lab, options, _say)
    path.write_text(measuring.document(figures, options, facts), encoding="utf-8")
    _say(f"\n{measuring.table(figures)}\n\nResults: {path}")
    missed = [f"{figure.what} / {figure.by}: {figure.ratio:.2f}" for figure in figures if figure.missed]
    if missed:
        raise AxonError(
            f"Over budget: {'; '.join(missed)}.", hint="On a busy machine, try again with more --repeat."
        )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _repeat(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII):
        raise UsageError(f"--repeat={text}: a whole number is needed.")
    return int(text)


def _rtts(text: str) -> tuple[float, ...]:
    words = text.split(",") if text else []
    if len(words) > MAX_RTTS or not all(
        re.fullmatch(r"\d{1,4}(\.\d{1,3})?(ms)?", word, re.ASCII) for word in words
    ):
        raise UsageError(f"--rtt={text}: up to {MAX_RTTS} numbers of milliseconds are needed, such as 0,50.")
    return tuple(dict.fromkeys(float(word.removesuffix("ms")) for word in words))


def _writable(path: Path) -> Path:
    """The file for the results: told before minutes are spent if it cannot be written.

    Raises:
        UsageError: It cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a", encoding="utf-8").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise UsageError(f"--out={path}: {error.strerror}.") from None
    return path

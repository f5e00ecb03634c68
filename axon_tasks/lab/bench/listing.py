"""The start of `fab --list`, against a bare fabfile with as many tasks."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.figures import Budget, Contender, Ratio, pairs, take_turns

if TYPE_CHECKING:
    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab

BUDGET = Budget(1.3, at_least=False)

#: What a project has beside its servers' settings: the tasks that we bring.
FABFILE = "from axon_tasks.tasks import namespace\n\nns = namespace()\n"


class Listing:
    """Nothing is contacted, so that one round-trip time is as good as any.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.repeat = options.rounds(11)
        self.rtts: tuple[float, ...] = ()

    def measure(self, _lab: Lab, say: Say) -> list[Figure]:
        """Measure it.

        Raises:
            AxonError: One of them does not list all tasks.
        """
        say("The start of fab --list")
        with tempfile.TemporaryDirectory(prefix="axon-bench-") as directory:
            ours, bare = Path(directory, "ours"), Path(directory, "bare")
            write_fabfile(ours)
            count = listed(fab_list(ours))
            bare.mkdir()
            (bare / "fabfile.py").write_text(bare_fabfile(count), encoding="utf-8")

            def check(text: str) -> None:
                if listed(text) != count:
                    raise AxonError(f"fab --list shows {listed(text)} tasks, not {count}:\n{text}")

            contenders = {
                "ours": Contender(lambda: fab_list(ours), check),
                "bare": Contender(lambda: fab_list(bare), check),
            }
            seconds = take_turns(contenders, self.repeat, warm_up=2)
        what, by = f"fab --list, {count} tasks", "a bare fabfile"
        return [Ratio("listing", what, None, BUDGET, "axon-tasks", by, pairs(seconds, "ours", "bare"))]


def write_fabfile(directory: Path) -> None:
    """A fabfile as a project of its own has it."""
    package = directory / "fabfile"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FABFILE, encoding="utf-8")


def bare_fabfile(count: int) -> str:
    """A fabfile with so many tasks and nothing else."""
    tasks = (
        f'@task\ndef task_{n}(c, env="", tag=None):\n    """Task number {n} of some."""\n'
        for n in range(count)
    )
    return "from fabric import task\n\n\n" + "\n\n".join(tasks)


def fab_list(directory: Path) -> str:
    """What `fab --list` prints there."""
    return local.run([*local.fab(), "--list"], cwd=directory)


def listed(text: str) -> int:
    """How many tasks a listing shows; a summary that was wrapped goes on further right."""
    return len(re.findall(r"(?m)^  \S", text))

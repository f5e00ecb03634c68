"""One query over many servers: ours, against Fabric's own group and against `xargs -P 32 ssh`."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.figures import Budget, Contender, Count, Ratio, pairs, take_turns
from axon_tasks.lab.bench.programs import QUERY
from axon_tasks.lab.many import many

if TYPE_CHECKING:
    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.many import Servers

#: Set for 100 servers; told for the other sizes, too.
BUDGET = Budget(1.5, at_least=False)
JUDGED_AT = 100
OURS, GROUP, XARGS = "axon-tasks", "ThreadingGroup", "xargs -P 32 ssh"
_LOOK_EVERY = 0.02


@dataclass(frozen=True)
class Ran:
    """What one run of a contender gave.

    Args:
        answers: What the servers said.
        seconds: Connecting, asking and closing: without the start of Python, with the start of xargs and ssh.
        threads: The most threads at a time, of all its processes.
        memory: The most memory at a time, of all its processes, in MB.
    """

    answers: tuple[str, ...]
    seconds: float
    threads: int
    memory: float


class Fanout:
    """Each contender is a program of its own. The servers run on the same machine, which all of them pay for.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.repeat = options.rounds(4)
        self.rtts: tuple[float, ...] = ()
        self.sizes = options.servers

    def measure(self, _lab: Lab, say: Say) -> list[Figure]:
        """Measure all sizes.

        Raises:
            AxonError: A server did not answer, or not as itself.
        """
        figures: list[Figure] = []
        for size in self.sizes:
            say(f"One query over {size} servers")
            with many(size) as servers, tempfile.TemporaryDirectory(prefix="axon-bench-") as directory:
                figures += self._one_size(servers, Path(directory))
        return figures

    def _one_size(self, servers: Servers, directory: Path) -> list[Figure]:
        commands = _commands(servers, directory)
        expected = tuple(sorted(servers.hosts))

        def check(ran: Ran) -> None:
            if ran.answers != expected:
                said = len(set(ran.answers) & set(expected))
                raise AxonError(f"{said} of {len(expected)} servers answered as themselves.")

        contenders = {
            name: Contender(functools.partial(_run, command), check, timed=lambda ran: ran.seconds)
            for name, command in commands.items()
        }
        # By themselves, because looking at a program slows it down; these are the rounds that do not count.
        seen = {name: _run(command, looking=True) for name, command in commands.items()}
        for ran in seen.values():
            check(ran)
        seconds = take_turns(contenders, self.repeat, warm_up=0)
        what = f"one query over {len(expected)} servers"
        budget = BUDGET if len(expected) == JUDGED_AT else None
        return [
            Ratio("fanout", what, None, budget, OURS, GROUP, pairs(seconds, OURS, GROUP)),
            Ratio("fanout", what, None, None, OURS, XARGS, pairs(seconds, OURS, XARGS)),
            *(_count(what, name, "threads", ran.threads) for name, ran in seen.items()),
            *(_count(what, name, "MB of memory", ran.memory) for name, ran in seen.items()),
        ]


def _count(what: str, who: str, unit: str, most: float) -> Count:
    return Count("fanout", what, None, None, who, unit, (float(most),))


def _commands(servers: Servers, directory: Path) -> dict[str, list[str]]:
    """The three contenders as programs."""
    work = directory / "work.json"
    content = {"hosts": servers.hosts, "key": str(servers.key), "known_hosts": str(servers.known_hosts)}
    work.write_text(json.dumps(content), encoding="utf-8")
    names = directory / "names"
    names.write_text("".join(f"{name}\n" for name in servers.hosts), encoding="utf-8")
    python = [sys.executable, "-m", "axon_tasks.lab.bench.programs"]
    each = ["ssh", "-F", str(servers.ssh_config), "{}", QUERY]
    return {
        OURS: [*python, "ours", str(work)],
        GROUP: [*python, "bare", str(work)],
        XARGS: ["xargs", "-a", str(names), "-P", "32", "-I", "{}", *each],
    }


def _run(command: list[str], *, looking: bool = False) -> Ran:
    """Run a contender.

    Raises:
        AxonError: It failed, or did not end.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=told,
            text=True,
            env=local.user_environment(),
        )
        try:
            threads, memory = _watch(process) if looking else (0, 0.0)
            process.wait(timeout=local.TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AxonError(f"`{command[0]}` did not end within {local.TIMEOUT:g} s.") from None
        finally:
            process.kill()
            process.wait()
        took = time.perf_counter() - began
        said.seek(0)
        told.seek(0)
        output = said.read()
        if process.returncode:
            raise AxonError(f"`{command[0]}` ended with exit code {process.returncode}: {told.read()[-800:]}")
    if command[0] == "xargs":
        return Ran(tuple(sorted(output.split())), took, threads, memory)
    content = json.loads(output)
    return Ran(tuple(content["answers"]), content["seconds"], threads, memory)


def _watch(process: subprocess.Popen[str]) -> tuple[int, float]:
    """The most threads and memory that a program and its children have, seen every few milliseconds."""
    threads, memory, deadline = 0, 0.0, time.monotonic() + local.TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        found = [_look(pid) for pid in _family(process.pid)]
        threads = max(threads, sum(one for one, _ in found))
        memory = max(memory, sum(other for _, other in found))
        time.sleep(_LOOK_EVERY)
    return threads, memory


def _family(pid: int) -> list[int]:
    """A process and all that descend from it (proc(5): /proc/PID/task/TID/children)."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        with contextlib.suppress(OSError):  # processes and threads go while they are looked at
            for path in list(Path(f"/proc/{found[-1]}/task").glob("*/children")):
                waiting += map(int, path.read_text(encoding="ascii").split())
    return found


def _look(pid: int) -> tuple[int, float]:
    """Threads, and memory in MB with shared pages counted once (proc(5): Pss), of one process; 0 if it is gone."""
    try:
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0, 0.0
    kilobytes = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return threads, kilobytes / 1000

"""Load that remembers which container answered when, in a process of its own, for as long as its starter lives.

Nothing is kept per request: per container there are the first and the last request, so that an hour of load takes as
much memory as a minute. All times are seconds of CLOCK_MONOTONIC, which is one clock for all processes of a machine
(clock_gettime(2)): they can be compared with when a deployment said something.

It ends when its standard input does, which happens at the latest when whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.hosts import EDGE
from axon_tasks.lab.load import REQUEST_TIMEOUT, Load, Request, Result, Settings, main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

    from axon_tasks.lab.load import Answer

#: Failed requests that are kept with their details.
MAX_FAULTS = 200
#: Containers that are told apart; more than that never serve in one run.
_MAX_SERVED = 5000
#: Seconds in which the first requests must have been answered.
_START_TIMEOUT = 60.0


@dataclass
class Served:
    """What one container has answered.

    Args:
        container: Its short id, as the application tells it.
        version: The version that it said it is.
        answers: How many whole answers it gave.
        first_begun: When the first of these requests was begun: before its connection was opened.
        last_begun: Same for the one that was begun last.
        first_answered: When the first answer was there.
        last_answered: When the last one was.
    """

    container: str
    version: str
    answers: int
    first_begun: float
    last_begun: float
    first_answered: float
    last_answered: float


@dataclass(frozen=True)
class Fault:
    """A request that failed.

    Args:
        begun: When it was begun.
        ended: When it had failed.
        kind: How.
        request: Its first line.
        used: Whether it was sent on a connection that had been used before.
    """

    begun: float
    ended: float
    kind: str
    request: str
    used: bool

    def __str__(self) -> str:
        used = " on a used connection" if self.used else ""
        return f"{self.request}: {self.kind}{used} after {(self.ended - self.begun) * 1000:.0f} ms"


@dataclass
class Tally(Result):
    """What came of it, by container.

    Args:
        origin: When it began.
        sorts: How many requests of each method were sent, and how many of them were slow on purpose.
        served: Per container and version, what it answered.
        faults: The first failed requests.
    """

    origin: float = 0.0
    sorts: dict[str, int] = field(default_factory=dict)
    served: dict[str, Served] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        """From the file that the program writes."""
        served = {key: Served(**one) for key, one in data["served"].items()}
        faults = [Fault(**one) for one in data["faults"]]
        own = {"origin", "sorts", "served", "faults"}
        plain = Result.from_json({key: value for key, value in data.items() if key not in own})
        return cls(**vars(plain), origin=data["origin"], sorts=data["sorts"], served=served, faults=faults)


class Traffic(Load):
    """One run of the generator, tallied by container.

    Args:
        settings: What to send.
        output: File that the tally goes to, rewritten while it runs.
    """

    def __init__(self, settings: Settings, output: Path | None = None) -> None:
        super().__init__(settings, output)
        self.tally = Tally()
        self.result = self.tally
        # By a tenth of a millisecond: as many entries as there are latencies that differ, not as there are answers.
        self.histogram: Counter[float] = Counter()

    async def run(self) -> Result:
        """Send, with the origin of all times noted first."""
        self.tally.origin = time.monotonic()
        return await super().run()

    def _choose(self, *, slow: bool, keep: bool) -> Request:
        request = super()._choose(slow=slow, keep=keep)
        for sort in (request.line.split()[0], *(("slow",) if slow else ())):
            self.tally.sorts[sort] = self.tally.sorts.get(sort, 0) + 1
        return request

    def _note(self, answer: Answer, sent_at: float, now: float, *, slow: bool) -> None:
        if not slow:
            self.histogram[round((now - sent_at) * 1000, 1)] += 1
        key = f"{answer.served_by} {answer.version}"
        one = self.tally.served.get(key)
        if one is None:
            if len(self.tally.served) < _MAX_SERVED:
                times = (sent_at, sent_at, now, now)
                self.tally.served[key] = Served(answer.served_by, answer.version, 1, *times)
            return
        one.answers += 1
        # Answers come in another order than their requests were begun.
        one.first_begun, one.last_begun = min(one.first_begun, sent_at), max(one.last_begun, sent_at)
        one.last_answered = now

    def _failed(self, kind: str, request: Request, sent_at: float, *, first: bool) -> None:
        super()._failed(kind, request, sent_at, first=first)
        if len(self.tally.faults) < MAX_FAULTS:
            self.tally.faults.append(Fault(sent_at, time.monotonic(), kind, request.line, not first))

    def _conclude(self) -> None:
        self.result.latency_ms = percentiles(self.histogram)


def percentiles(histogram: Counter[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, from how often each value was there."""
    total = sum(histogram.values())
    if not total:
        return {}
    wanted = {"p50": total // 2, "p99": total * 99 // 100, "max": total - 1}
    found: dict[str, float] = {}
    below = 0
    for value in sorted(histogram):
        below += histogram[value]
        found.update({name: value for name, rank in wanted.items() if name not in found and rank < below})
    return found


async def _until_told(settings: Settings, output: Path | None) -> Result:
    """Send until a signal comes, or until standard input ends."""
    traffic = Traffic(settings, output)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, traffic.stop)

    def ended() -> None:
        loop.remove_reader(sys.stdin)
        traffic.stop()

    loop.add_reader(sys.stdin, ended)
    return await traffic.run()


# --- the side that starts it -----------------------------------------------------------------------------------


class Generator:
    """A load generator at work.

    Args:
        process: Its process.
        path: The file that it writes.
        log: What it said when it failed.
    """

    def __init__(self, process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
        self._process = process
        self._path = path
        self._log = log

    def tally(self) -> Tally:
        """What came of it so far.

        Raises:
            AxonError: The generator has ended without a result.
        """
        try:
            return Tally.from_json(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self._process.poll() is not None:
                said = self._log.read_text(encoding="utf-8", errors="replace").strip()
                raise AxonError(
                    f"The load generator ended with exit code {self._process.returncode}: {said[-500:]}"
                ) from None
            return Tally()

    def wait_for(self, requests: int, deadline: float) -> Tally:
        """Wait until so many requests were sent, or until it is too late, or the load has ended.

        Args:
            requests: How many.
            deadline: In seconds of the monotonic clock.
        """
        tally = self.tally()
        while tally.sent < requests and time.monotonic() < deadline and self._process.poll() is None:
            time.sleep(0.1)
            tally = self.tally()
        return tally

    def finish(self) -> Tally:
        """Start no more requests, wait for the last answers, and give the final tally.

        Raises:
            AxonError: It does not end, or ended without a result.
        """
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout=REQUEST_TIMEOUT + 10)
        except subprocess.TimeoutExpired:
            raise AxonError("The load generator does not end.") from None
        tally = self.tally()
        if not tally.finished:
            raise AxonError(f"The load generator was killed (exit code {self._process.returncode}).")
        return tally


@contextlib.contextmanager
def traffic(settings: Settings, folder: Path) -> Iterator[Generator]:
    """A load generator in a process of its own, which has answers when this gives it, and is gone at the end.

    Args:
        settings: What it sends.
        folder: For its files.

    Raises:
        UsageError: The settings are out of bounds.
        AxonError: No request is answered.
    """
    settings.checked()
    path, log_file = folder / "traffic.json", folder / "traffic.log"
    path.unlink(missing_ok=True)
    with log_file.open("wb") as log:
        process = _start(settings, path, log)
        try:
            made = Generator(process, path, log_file)
            if not made.wait_for(1, time.monotonic() + _START_TIMEOUT).sent:
                raise AxonError(f"No request was sent within {_START_TIMEOUT:.0f} s.")
            yield made
        finally:
            assert process.stdin  # a pipe was asked for
            process.stdin.close()
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(settings: Settings, path: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in vars(settings).items()]
    return subprocess.Popen(
        [sys.executable, "-m", __spec__.name, *flags, f"--output={path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=log,
        # Ctrl-C reaches whoever started it; the tally is still wanted then.
        start_new_session=True,
    )


def towards(domain: str, *, seed: int, **more: Any) -> Settings:
    """Load through the lab's nginx.

    Args:
        domain: The domain that it asks for.
        seed: For the choice of requests.
        more: Other settings than the usual ones.
    """
    return Settings(EDGE.address, host=domain, seed=seed, **more)


if __name__ == "__main__":
    sys.exit(main(run=_until_told, program="axon_tasks.lab.prove.traffic"))

"""The engine: runs a graph of steps with as much at the same time as the graph allows.

A step says what it needs, on which servers it works, and what it reads and changes there. Two steps run at the same
time unless one needs the other or one changes what the other reads or changes. There are no threads in the steps.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from axon_tasks.remote import Batch, BatchResult


@dataclass(frozen=True)
class Report:
    """What a step has to tell when it is done.

    Attributes:
        note: One short line for people.
        servers: Seconds per server.
        parts: Seconds per server of parts that people know by their own names, such as the health check.
    """

    note: str = ""
    servers: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Report] = field(default_factory=dict)


def nothing() -> None:
    """What a step does before it sends something, if it does nothing."""


def no_batch(_server: str) -> Batch | None:
    """What a step sends that works on this machine alone."""
    return None


def no_check(_server: str, _result: BatchResult) -> None:
    """What a step does with one server's result, if all of them are judged together."""


def no_report(results: Mapping[str, BatchResult]) -> Report:
    """What a step tells that has nothing to say but how long it took."""
    return Report(servers={name: one.duration for name, one in results.items()})


def as_it_is(_server: str, error: AxonError) -> AxonError:
    """What an answer that did not arrive means, where it means nothing special."""
    return error


def raised(error: AxonError) -> Report:
    """What becomes of a failure where nothing can be done about it."""
    raise error


class Step(NamedTuple):
    """One node of a plan. The same object is run, printed by `--dry-run`, and asserted in tests.

    Attributes:
        name: Its name, also the one of its task.
        about: What it does, in one line for people.
        needs: The steps that must have ended well before.
        servers: Where it works; none means that it only decides.
        reads: What it relies on while it runs, as `SERVER:THING`.
        changes: What it changes; no other step that reads or changes the same runs meanwhile.
        otherwise: What becomes of it when another step fails while it runs: `abort` ends it, `finish` lets it end.
        commits: Whether the new state is in force once it has ended well. After that nothing is undone, a failure ends
            nothing, and the steps that must finish are run to the end even if the run is interrupted.
        prepare: Local checks and decisions right before something is sent; raises AxonError.
        batch: What one server is sent; None where there is nothing to do. It does no I/O.
        fail_fast: Whether a server stops at the first section that fails.
        timeout: Seconds that a server may take, decided when the step starts; None for no limit.
        condition: When a server is sent something, in words; empty for always.
        check: Judges one server's result as soon as it is there, also by asking that server more; raises AxonError.
        lost: What it means that a server's answer did not arrive.
        recover: What to do when it failed on at least one server: raises, or gives a report if that is no failure.
        learn: Takes what all servers said into the run, and tells people about it.
        undo: What takes back, on one server, what the step has started there; None if there is nothing to take back.
        listen: Is given the server and its lines of output while the step runs.
        holds: A line of output; the step has ended when a server says it, and the batch goes on until the run ends.
    """

    name: str
    about: str
    needs: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    changes: frozenset[str] = frozenset()
    otherwise: Literal["abort", "finish"] = "abort"
    commits: bool = False
    prepare: Callable[[], None] = nothing
    batch: Callable[[str], Batch | None] = no_batch
    fail_fast: bool = False
    timeout: Callable[[], float] | None = None
    condition: str = ""
    check: Callable[[str, BatchResult], None] = no_check
    lost: Callable[[str, AxonError], AxonError] = as_it_is
    recover: Callable[[AxonError], Report] = raised
    learn: Callable[[Mapping[str, BatchResult]], Report] = no_report
    undo: Callable[[str], Batch] | None = None
    listen: Callable[[str, str], None] | None = None
    holds: str = ""

    def conflicts(self, other: Step) -> bool:
        """Whether it must not run at the same time as another step."""
        return bool(
            self.changes & (other.reads | other.changes) or other.changes & (self.reads | self.changes)
        )


class Listener(Protocol):
    """Whoever shows the progress of a run."""

    def started(self, step: str, servers: Sequence[str] = ()) -> None:
        """A step has begun."""

    def finished(self, step: str, seconds: float, report: Report) -> None:
        """A step has ended well."""

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        """A step has failed, or was ended because another one had; its error is told at the end."""

    def server(self, step: str, server: str, state: str) -> None:
        """One server's part has begun (`running`) or ended (`ok`, `failed`)."""

    def message(self, server: str, text: str) -> None:
        """Something that people should know while they wait."""

    def progress(self, step: str, server: str, text: str) -> None:
        """How far one server's part is; replaces what was told before."""


class Performer(Protocol):
    """Whoever does what a step says; the engine only decides when."""

    def perform(self, step: Step) -> Report:
        """Run one step to its end; called in a thread of its own."""

    def abort(self) -> None:
        """End early what runs, except the steps that must finish."""


@dataclass
class Result:
    """How a plan ended.

    Attributes:
        errors: Every failure, in the order in which they happened; empty if all went well.
        interrupted: Whether somebody asked to stop.
        committed: Whether a step that commits has ended well.
        done: The names of the steps that ended well.
        begun: The steps that were begun, in that order: what undoing goes through backwards.
    """

    errors: list[AxonError] = field(default_factory=list)
    interrupted: bool = False
    committed: bool = False
    done: set[str] = field(default_factory=set)
    begun: list[Step] = field(default_factory=list)


class Engine:
    """Runs one plan.

    After a failure nothing new starts, what may be ended is ended, and every failure is reported. An interruption is
    a failure, too. Once a step that commits has ended well, the steps after it run to the end all the same.

    Args:
        steps: The plan; a need that is not in it counts as met.
        performer: Does the work.
        listener: Is told about the progress.
        sequential: One step at a time, in the order of the plan.
    """

    def __init__(
        self, steps: Sequence[Step], performer: Performer, listener: Listener, *, sequential: bool = False
    ) -> None:
        self._names = {step.name for step in steps}
        self._waiting = list(steps)
        self._performer = performer
        self._listener = listener
        self._limit = 1 if sequential else max(1, len(steps))
        self._events: queue.SimpleQueue[Future[Report] | None] = queue.SimpleQueue()
        self._running: dict[Future[Report], tuple[Step, float]] = {}
        self._aborted = False
        self.result = Result()

    def interrupt(self) -> None:
        """Ask to stop, from any thread: up to the commit everything is ended, after it everything is finished."""
        self._events.put(None)

    def run(self) -> Result:
        """Run the plan.

        Returns:
            How it ended.

        Raises:
            BaseException: A defect of a step; it is raised as it is, after the running steps have ended.
        """
        defect: BaseException | None = None
        with ThreadPoolExecutor(max_workers=self._limit, thread_name_prefix="step") as pool:
            while self._start(pool) or self._running:
                ended = self._events.get()
                if ended is None:
                    # Also after the commit: whoever only waits for something is let go, the rest is finished.
                    self.result.interrupted = True
                    self._performer.abort()
                else:
                    defect = self._take(ended) or defect
        if defect is not None:
            raise defect
        return self.result

    def _stopping(self) -> bool:
        return bool(self.result.errors) or self.result.interrupted or self._aborted

    def _start(self, pool: ThreadPoolExecutor) -> bool:
        """Start whatever may start now; tells whether anything was."""
        started = False
        for step in list(self._waiting):
            if len(self._running) < self._limit and self._may_start(step):
                self._waiting.remove(step)
                self.result.begun.append(step)
                self._listener.started(step.name, step.servers)
                future = pool.submit(self._performer.perform, step)
                self._running[future] = (step, time.monotonic())
                future.add_done_callback(self._events.put)
                started = True
        return started

    def _may_start(self, step: Step) -> bool:
        if not self.result.done.issuperset(set(step.needs) & self._names):
            return False
        if self._stopping() and not (self.result.committed and step.otherwise == "finish"):
            return False
        return not any(step.conflicts(other) for other, _ in self._running.values())

    def _take(self, future: Future[Report]) -> BaseException | None:
        """Note how a step has ended; gives the error if it is none that a user or a server can cause."""
        step, since = self._running.pop(future)
        took = time.monotonic() - since
        error = future.exception()
        if error is None:
            self.result.done.add(step.name)
            self.result.committed = self.result.committed or step.commits
            self._listener.finished(step.name, took, future.result())
            return None
        self._listener.failed(step.name, took, error)
        if isinstance(error, AxonError):
            self.result.errors.append(error)
        else:
            self._aborted = True
        if not self.result.committed:
            self._performer.abort()
        return None if isinstance(error, AxonError) else error


class Interruptible:
    """Work that may take long, in threads, while the main thread stays free for Ctrl-C.

    Args:
        stop: Called at the first Ctrl-C, from the main thread.
        kill: Called at the second one.
    """

    def __init__(self, stop: Callable[[], None], kill: Callable[[], None]) -> None:
        self._stop = stop
        self._kill = kill

    def run(self, work: Callable[[], object]) -> None:
        """Run it to its end.

        Raises:
            KeyboardInterrupt: A second Ctrl-C; the work has been told to end at once.
            BaseException: What the work raised.
        """
        failure: list[BaseException] = []
        ended = threading.Event()

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  (raised below, in the thread that waits for it)
                failure.append(error)
            finally:
                ended.set()

        thread = threading.Thread(target=guarded, name="axon-run", daemon=True)
        thread.start()
        self._wait(ended)
        if failure:
            raise failure[0]

    def _wait(self, ended: threading.Event) -> None:
        try:
            ended.wait()
        except KeyboardInterrupt:
            self._stop()
        try:
            ended.wait()
        except KeyboardInterrupt:
            self._kill()
            ended.wait(timeout=10)
            raise

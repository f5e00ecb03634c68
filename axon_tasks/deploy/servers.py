"""Steps to the servers of one run: started together, ended together, their failures told together."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.deploy.hold import Hold
from axon_tasks.errors import AxonError
from axon_tasks.remote import BatchResult, Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.engine import Listener, Report, Step
    from axon_tasks.remote import Batch, PendingBatch

    OnOutput = Callable[[str, str, bytes], None]

#: Threads per step, however many servers it has.
_THREADS = 32


class ServersFailedError(AxonError):
    """The same work failed on one or more servers."""

    def __init__(self, errors: Iterable[AxonError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)), code=self.errors[0].code)


class AbortedError(AxonError):
    """This work was ended because other work had failed; that failure is the one to tell."""


def flatten(errors: Iterable[BaseException]) -> list[AxonError]:
    """Every single failure once, without those that are only the consequence of another one."""
    single: list[BaseException] = []
    for error in errors:
        single += error.errors if isinstance(error, ServersFailedError) else (error,)
    told = {
        str(one): one for one in single if isinstance(one, AxonError) and not isinstance(one, AbortedError)
    }
    return list(told.values())


class _Current(NamedTuple):
    """What is being done in this thread: whose batch is recorded where, and whether it may be ended early."""

    span: int | None = None
    abortable: bool = True


#: Outside of any step.
_NOWHERE = _Current()
_CURRENT: contextvars.ContextVar[_Current] = contextvars.ContextVar("axon_step", default=_NOWHERE)


class Servers:
    """Performs the steps of one run, and can end all of them at once.

    Args:
        connections: One per server; runs that go on at the same time share them.
        listener: Is told when a server's part of a step begins and ends.
        environment: Whose run it is, for the recorder.
        span: The environment's own span there.
        sequential: One server after the other, and one command per round trip: for debugging, and to compare with.

    Attributes:
        begun: By step, the servers that were sent something.
        failed: By server, what went wrong there first; what was only ended early does not count.
        held: What goes on until the end of the run.
    """

    def __init__(
        self,
        connections: Connections,
        listener: Listener,
        *,
        environment: str = "",
        span: int | None = None,
        sequential: bool = False,
    ) -> None:
        self.begun: dict[str, set[str]] = {}
        self.failed: dict[str, AxonError] = {}
        self._listener = listener
        self._connections = connections
        self._recorder = connections.recorder
        self._environment = environment
        self._span = span
        self._sequential = sequential
        self.held: list[Hold] = []
        self._running: set[PendingBatch] = set()
        self._guard = threading.Lock()
        self._aborted = False

    def perform(self, step: Step) -> Report:
        """Run one step: decide, send each server its batch, judge, learn.

        Raises:
            ServersFailedError: It failed on at least one server; every failure is in it.
            AxonError: It failed before something was sent.
        """
        span = self._recorder.begin(
            "step", step.name, parent=self._span, environment=self._environment, needs=step.needs
        )
        token = _CURRENT.set(_Current(span, step.otherwise == "abort"))
        try:
            report = self._perform(step)
        except BaseException as error:
            outcome = "failed" if flatten([error]) or not isinstance(error, AxonError) else "ended early"
            self._recorder.end(span, outcome=outcome)
            raise
        finally:
            _CURRENT.reset(token)
        self._recorder.end(span, note=report.note)
        self._recorder.save_soon()
        return report

    def _perform(self, step: Step) -> Report:
        step.prepare()
        limit = step.timeout() if step.timeout is not None else None
        batches = {server: batch for server in step.servers if (batch := step.batch(server)) is not None}

        def work(server: str) -> BatchResult:
            self.begun.setdefault(step.name, set()).add(server)
            self._listener.server(step.name, server, "running")
            try:
                # What cannot be reached was sent nothing: that is no lost answer.
                _ = self._connections[server]
                result = self._answer(step, server, batches[server], limit)
                step.check(server, result)
            except AxonError as error:
                self._listener.server(step.name, server, "failed")
                if not isinstance(error, AbortedError):
                    self.failed.setdefault(server, error)
                raise
            self._listener.server(step.name, server, "ok")
            return result

        try:
            results = self.each(batches, work)
        except ServersFailedError as failed:
            return step.recover(failed)
        return step.learn(results)

    def _answer(self, step: Step, server: str, batch: Batch, limit: float | None) -> BatchResult:
        try:
            return self._send(step, server, batch, limit)
        except AbortedError:
            raise
        except AxonError as error:
            raise step.lost(server, error) from None

    def _send(self, step: Step, server: str, batch: Batch, limit: float | None) -> BatchResult:
        if step.holds:
            return self._hold(step, server, batch)
        on_output = None if step.listen is None else _lines(step.listen, server)
        return self.run(server, batch, fail_fast=step.fail_fast, timeout=limit, on_output=on_output)

    def abort(self) -> None:
        """End what runs, except what must not stop half-way; nothing new starts."""
        with self._guard:
            self._aborted = True
            running = tuple(self._running)
        for pending in running:
            pending.cancel()

    def resume(self) -> None:
        """Allow new batches again, for undoing."""
        self._aborted = False

    def waited(self, others: str) -> None:
        """Note that this environment's turn came only after that of others."""
        self._recorder.add(
            "wait", others, 0.0, self._recorder.now(), parent=self._span, environment=self._environment
        )

    def ended(self, outcome: str) -> None:
        """Note that the environment's work has ended."""
        if self._span is not None:
            self._recorder.end(self._span, outcome=outcome)

    def close(self) -> None:
        """Let go of what is held until the end of the run."""
        held, self.held = self.held, []
        for hold in held:
            hold.close()

    def run(
        self,
        server: str,
        batch: Batch,
        *,
        fail_fast: bool = False,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        abortable: bool | None = None,
    ) -> BatchResult:
        """Run one batch on one server.

        Args:
            server: Its name in `hosts.yml`.
            batch: What to run.
            fail_fast: Whether to stop at the first failing section.
            timeout: Seconds after which the batch is ended, or None.
            on_output: Is given the output as it arrives: label, stream, bytes.
            abortable: Whether `abort` ends it; None leaves it to the step. What is short and only looks may as well
                finish, because the message about the failure can then say what serves.

        Raises:
            AbortedError: `abort` was called.
            UnreachableError: The server cannot be reached, or the connection broke.
        """
        may_end = _CURRENT.get().abortable if abortable is None else abortable
        parts = batch.split() if self._sequential else [batch]
        results: list[BatchResult] = []
        for part in parts:
            results.append(
                self._run(
                    server, part, fail_fast=fail_fast, timeout=timeout, on_output=on_output, abortable=may_end
                )
            )
            if fail_fast and not results[-1].ok:
                break
        return results[0] if len(parts) == 1 else _joined(batch, server, results)

    def _run(
        self,
        server: str,
        batch: Batch,
        *,
        fail_fast: bool,
        timeout: float | None,
        on_output: OnOutput | None,
        abortable: bool,
    ) -> BatchResult:
        if self._aborted and abortable:
            raise AbortedError(f"{server}: not started")
        connection = self._connections[server]
        span = self._begin(batch, server)
        pending = batch.start(connection, fail_fast=fail_fast, timeout=timeout, on_output=on_output)
        try:
            with self._abortable(pending) if abortable else contextlib.nullcontext():
                result = pending.result()
        except AxonError as error:
            ended_early = self._aborted and abortable
            self._end(span, getattr(error, "partial", None), "ended early" if ended_early else "failed")
            if ended_early:
                raise AbortedError(f"{server}: {batch.name} was ended early") from None
            raise
        self._end(span, result, "ok" if result.ok else "failed")
        return result

    @contextlib.contextmanager
    def _abortable(self, pending: PendingBatch) -> Iterator[None]:
        """Have `abort` end a batch, also if it was called just before."""
        with self._guard:
            self._running.add(pending)
            aborted = self._aborted
        if aborted:
            pending.cancel()
        try:
            yield
        finally:
            with self._guard:
                self._running.discard(pending)

    def _begin(self, batch: Batch, server: str) -> int:
        parent = _CURRENT.get().span or self._span
        return self._recorder.begin(
            "batch", batch.name, parent=parent, environment=self._environment, server=server
        )

    def _end(self, span: int, result: BatchResult | None, outcome: str) -> None:
        """Note the end of a batch and, by the server's own clock, when its sections ran."""
        ended = self._recorder.now()
        if result is None:
            self._recorder.end(span, outcome=outcome)
            return
        self._recorder.hear(span, result.values())
        self._recorder.end(
            span,
            outcome=outcome,
            round_trips=result.round_trips,
            sent=result.bytes_sent,
            received=result.bytes_received,
            at=ended,
        )
        # What the server's clock does not tell is when its script began by ours: the last section ended just now.
        length = max((section.offset + section.duration for section in result.values()), default=0.0)
        began = max(ended - length, ended - result.duration)
        for section in result.values():
            if section.skipped:
                continue
            self._recorder.add(
                "section", section.label, began + section.offset, began + section.offset + section.duration,
                parent=span, environment=self._environment, server=result.server,
                outcome="ok" if section.ok else "failed",
                received=len(section.stdout_bytes) + len(section.stderr_bytes),
            )  # fmt: skip

    def _hold(self, step: Step, server: str, batch: Batch) -> BatchResult:
        """Start a batch that goes on until the run ends; gives what it said up to the line that is waited for."""
        if self._aborted:
            raise AbortedError(f"{server}: not started")
        connection = self._connections[server]
        listen = step.listen or _nobody
        span = self._begin(batch, server)
        began = time.monotonic()
        hold = Hold(batch, connection, step.holds, lambda line: listen(server, line))
        with self._abortable(hold.pending):
            holds = hold.wait()
        took = time.monotonic() - began
        outcome = "ok" if holds else "ended early" if self._aborted else "failed"
        self._recorder.end(span, outcome=outcome, round_trips=1, received=len(hold.said))
        if holds:
            with self._guard:
                self.held.append(hold)
            section = Section(batch.labels[0], stdout_bytes=hold.said, exit_code=0, duration=took)
            self._recorder.hear(span, [section])
            return BatchResult(batch.name, server, [section], duration=took, bytes_received=len(hold.said))
        try:
            result = hold.pending.result()
        except AxonError:
            if self._aborted:
                raise AbortedError(f"{server}: {batch.name} was ended early") from None
            raise
        self._recorder.hear(span, result.values())
        return result

    def each(self, names: Iterable[str], work: Callable[[str], BatchResult]) -> dict[str, BatchResult]:
        """Do the same on several servers at the same time.

        Args:
            names: The servers.
            work: Is called with each name, in a thread of its own.

        Raises:
            ServersFailedError: It failed on at least one; every failure is in it.
        """
        results, errors = self.attempt(names, work)
        if errors:
            raise ServersFailedError(errors.values())
        return results

    def attempt(
        self, names: Iterable[str], work: Callable[[str], BatchResult]
    ) -> tuple[dict[str, BatchResult], dict[str, AxonError]]:
        """Do the same on several servers at the same time; the parameters are those of `each`.

        Returns:
            The results, and why there are none of the other servers.
        """
        wanted = tuple(dict.fromkeys(names))
        errors: dict[str, AxonError] = {}
        results: dict[str, BatchResult] = {}
        workers = 1 if self._sequential else max(1, min(_THREADS, len(wanted)))
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="server") as pool:
            futures = {name: pool.submit(contextvars.copy_context().run, work, name) for name in wanted}
            for name, future in futures.items():
                try:
                    results[name] = future.result()
                except AxonError as error:
                    errors[name] = error
        return results, errors


def _nobody(_server: str, _line: str) -> None:
    """Who listens to a step that nobody listens to."""


def _lines(listen: Callable[[str, str], None], server: str) -> OnOutput:
    """Hand out the lines of standard output, each whole, however they arrive."""
    rest = bytearray()

    def take(_label: str, stream: str, chunk: bytes) -> None:
        if stream != "stdout":
            return
        rest.extend(chunk)
        *lines, last = rest.split(b"\n")
        rest[:] = last
        for line in lines:
            listen(server, line.decode(errors="replace"))

    return take


def _joined(batch: Batch, server: str, results: list[BatchResult]) -> BatchResult:
    """One result from those of the commands that were sent one by one; what was not sent was skipped."""
    sections = [section for one in results for section in one.values()]
    told = {section.label for section in sections}
    sections += [Section(label, skipped=True) for label in batch.labels if label not in told]
    return BatchResult(
        batch.name,
        server,
        sections,
        duration=sum(one.duration for one in results),
        bytes_received=sum(one.bytes_received for one in results),
        bytes_sent=sum(one.bytes_sent for one in results),
        round_trips=sum(one.round_trips for one in results),
    )

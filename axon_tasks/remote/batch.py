"""Many labelled commands, one remote script, labelled results.

    batch = Batch("app_check")
    batch.add("docker ps --format '{{json .}}'", label="containers")
    batch.add("test -f /srv/shop/.env", label="check_env")
    result = batch.run(connection)          # one round trip
    result["containers"].stdout

Output belongs to the section that is running when it arrives: a process that a command leaves in the
background should redirect its output, or better be a background job (`remote.jobs`).

A batch costs what one command costs, so everything that one server has to be asked or
told at one point of a deploy belongs into one batch.
"""

from __future__ import annotations

import atexit
import contextlib
import secrets
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axon_tasks.remote.script import Command, Options, Revealable, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType

    from typing_extensions import Self

    from axon_tasks.remote.connection import Connection
    from axon_tasks.remote.exchange import Exchange

    OnOutput = Callable[[str, str, bytes], None]


@dataclass(frozen=True)
class Section:
    """What one labelled command gave.

    Args:
        label: Its label in the batch.
        stdout_bytes: Standard output, unchanged.
        stderr_bytes: Standard error, unchanged.
        exit_code: Its exit code; None if it did not run to its end.
        duration: Seconds between its begin and its end, by the clock of the server.
        offset: Seconds between the begin of the script and its own, by the same clock.
        skipped: It was not started, because a section before it failed.
    """

    label: str
    stdout_bytes: bytes = field(default=b"", repr=False)
    stderr_bytes: bytes = field(default=b"", repr=False)
    exit_code: int | None = None
    duration: float = 0.0
    offset: float = 0.0
    skipped: bool = False

    @property
    def ok(self) -> bool:
        """Whether the command ran to its end and exited 0."""
        return self.exit_code == 0

    @property
    def stdout(self) -> str:
        """Standard output as text; what is not UTF-8 is replaced."""
        return self.stdout_bytes.decode("utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text; what is not UTF-8 is replaced."""
        return self.stderr_bytes.decode("utf-8", errors="replace")


class BatchResult(Mapping[str, Section]):
    """The sections of a batch by label, in the order in which they were added.

    Args:
        batch: The name of the batch.
        server: The name of the server.
        sections: What each command gave.
        duration: Seconds from sending the script to its last byte, by the local clock.
        bytes_received: Bytes of both streams, with the markers.
        bytes_sent: Bytes of the script that were sent.
        round_trips: How often the way to the server and back was waited for: once with a shell that
            was ready, up to three times if it had to be opened first, and not at all if nothing was sent.
    """

    def __init__(
        self,
        batch: str,
        server: str,
        sections: list[Section],
        *,
        duration: float,
        bytes_received: int,
        bytes_sent: int = 0,
        round_trips: int = 0,
    ) -> None:
        self.batch = batch
        self.server = server
        self.duration = duration
        self.bytes_received = bytes_received
        self.bytes_sent = bytes_sent
        self.round_trips = round_trips
        self._sections = {section.label: section for section in sections}

    @property
    def ok(self) -> bool:
        """Whether every section exited 0."""
        return all(section.ok for section in self.values())

    @property
    def failed(self) -> list[Section]:
        """The sections that ran and did not exit 0."""
        return [section for section in self.values() if not section.ok and not section.skipped]

    def __getitem__(self, label: str) -> Section:
        try:
            return self._sections[label]
        except KeyError:
            known = ", ".join(map(repr, self._sections)) or "none"
            msg = f"no section {label!r} in batch {self.batch!r}; its labels are {known}"
            raise KeyError(msg) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def __repr__(self) -> str:
        codes = ", ".join(
            f"{one.label}={'skipped' if one.skipped else one.exit_code}" for one in self.values()
        )
        return f"<BatchResult {self.batch} on {self.server}: {codes}>"


class Batch:
    """Commands that reach one server as one script.

    Args:
        name: What the batch is for; it stands in messages and timelines.
        sudo: Run the commands as root, unless `add` says otherwise.
        uninterruptible: Complete the script even if the connection breaks or the caller
            cancels; for what must not stop half-way.
        shell: The shell on the server that runs the script; bash, dash and busybox sh are known to work.

    Raises:
        ValueError: If `shell` is not made of plain words.
    """

    def __init__(
        self, name: str, *, sudo: bool = False, uninterruptible: bool = False, shell: str = "sh"
    ) -> None:
        self.name = name
        self.sudo = sudo
        self.uninterruptible = uninterruptible
        self.shell = shell
        self._commands: list[Command] = []
        self._nonce = secrets.token_hex(16)
        self._options(fail_fast=False)

    @property
    def labels(self) -> list[str]:
        """The labels, in order."""
        return [command.label for command in self._commands]

    @property
    def sections(self) -> tuple[Command, ...]:
        """What was added, in order; for showing it."""
        return tuple(self._commands)

    def split(self) -> list[Batch]:
        """Give one batch per section, each with the options and the name of this one."""
        alone = []
        for command in self._commands:
            one = Batch(self.name, sudo=self.sudo, uninterruptible=self.uninterruptible, shell=self.shell)
            one._commands.append(command)
            alone.append(one)
        return alone

    def add(
        self,
        command: str,
        label: str | None = None,
        *,
        timeout: float | None = None,
        stdin: str | bytes | Revealable | None = None,
        sudo: bool | None = None,
        listens: bool = False,
    ) -> Self:
        """Add a command.

        Args:
            command: POSIX shell text, any number of lines. It runs in a subshell of its own.
            label: The name of its section; `cmd_1`, `cmd_2` and so on if left out.
            timeout: Seconds after which it is terminated on the server (exit code 124; 143 where
                timeout(1) is busybox's), and killed 5 seconds later. Rounded up to whole seconds.
            stdin: What the command reads. Never visible in argv; masked when it is a Secret.
            sudo: Run it as root. None takes the batch's setting.
            listens: Leave its standard input open for `PendingBatch.send`. It must be the only section, and end when its
                input ends: that is all that cancelling it does.

        Returns:
            The batch, so that calls can be chained.

        Raises:
            ValueError: If the label is taken, the command contains a NUL byte, or a section that listens is not alone.
        """
        label = label if label is not None else f"cmd_{len(self._commands) + 1}"
        if label in self.labels:
            msg = f"batch {self.name!r} has a section {label!r} already"
            raise ValueError(msg)
        if "\0" in command:
            msg = f"the command of section {label!r} contains a NUL byte, which no shell can hold"
            raise ValueError(msg)
        if timeout is not None and not 0 < timeout < float("inf"):
            msg = f"the timeout of section {label!r} must be a positive number of seconds, not {timeout!r}"
            raise ValueError(msg)
        alone = not self._commands and not self.uninterruptible and stdin is None and timeout is None
        if any(one.listens for one in self._commands) or (listens and not alone):
            msg = f"section {label!r}: one that listens is alone in its batch, and has no other option than sudo"
            raise ValueError(msg)
        privileged = self.sudo if sudo is None else sudo
        self._commands.append(
            Command(label, command, timeout=timeout, stdin=stdin, sudo=privileged, listens=listens)
        )
        return self

    def script(self, *, masked: bool = False, fail_fast: bool = False) -> str:
        """Give exactly the text that the next run sends.

        Args:
            masked: Write `********` where a secret would stand.
            fail_fast: As given to that run.
        """
        return render(self._commands, self._options(fail_fast=fail_fast), self._nonce, masked=masked)

    def run(
        self,
        connection: Connection,
        *,
        fail_fast: bool = False,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        keep_output: bool = True,
        last: bool = False,
    ) -> BatchResult:
        """Run the commands on a server and wait for their results.

        Args:
            connection: An open connection.
            fail_fast: Skip the sections after the first one that failed.
            timeout: Seconds for the whole batch; then it is ended on the server.
            on_output: Called with label, `"stdout"` or `"stderr"`, and bytes, as they arrive.
            keep_output: False leaves the output out of the result, so that memory stays flat;
                for use with `on_output`.
            last: Have no shell made ready for another batch; for the only batch on a connection.

        Raises:
            BatchLostError: If the connection broke; what ran after that is unknown.
            ScriptKilledError: If the shell was ended on the server.
            BatchTimeoutError: If it took longer than `timeout`.
        """
        exchange = self._exchange(
            connection,
            fail_fast=fail_fast,
            timeout=timeout,
            on_output=on_output,
            keep_output=keep_output,
            last=last,
        )
        try:
            exchange.drive()
        except BaseException:
            exchange.cancel()
            raise
        return exchange.result()

    def start(
        self,
        connection: Connection,
        *,
        fail_fast: bool = False,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        keep_output: bool = True,
        last: bool = False,
    ) -> PendingBatch:
        """Start the commands on a server and return at once; the parameters are those of `run`.

        `on_output` is then called from another thread.
        """
        return PendingBatch(
            self._exchange(
                connection,
                fail_fast=fail_fast,
                timeout=timeout,
                on_output=on_output,
                keep_output=keep_output,
                last=last,
            )
        )

    def _options(self, *, fail_fast: bool) -> Options:
        return Options(shell=self.shell, uninterruptible=self.uninterruptible, fail_fast=fail_fast)

    def _exchange(self, connection: Connection, *, fail_fast: bool, **rest: Any) -> Exchange:
        from axon_tasks.remote.exchange import Exchange, Request

        nonce, script = self._nonce, self.script(fail_fast=fail_fast)
        self._nonce = secrets.token_hex(16)
        request = Request(
            batch=self.name,
            script=script,
            nonce=nonce,
            labels=tuple(self.labels),
            shell=self.shell,
            uninterruptible=self.uninterruptible,
            privileged=any(command.sudo for command in self._commands),
            listens=any(command.listens for command in self._commands),
            **rest,
        )
        return Exchange(connection, request)


class PendingBatch:
    """A batch that runs on a server while the caller does something else.

    It may be used in several threads. When nobody holds it any more, it is cancelled: no
    thread and no channel stays here, and no process on the server, unless the batch is
    uninterruptible. A listener (`on_output`) that refers to it holds it.

    Args:
        exchange: What was prepared; it is started in a thread of its own.
    """

    def __init__(self, exchange: Exchange) -> None:
        from concurrent.futures import Future

        self._exchange = exchange
        self._future: Future[BatchResult] = Future()
        # The thread knows the exchange and the future, and not this handle: it must not keep it alive.
        thread = threading.Thread(
            target=_drive,
            args=(exchange, self._future),
            name=f"axon-batch-{exchange.request.batch}",
            daemon=True,
        )
        _remember(exchange)
        try:
            thread.start()
        except BaseException:
            _underway.discard(exchange)
            raise
        # Nor may what ends it know the exchange, which keeps a failure, whose traceback leads to whoever has read it.
        weakref.finalize(self, exchange.wake.abandon).atexit = False

    @property
    def name(self) -> str:
        """The name of the batch."""
        return self._exchange.request.batch

    @property
    def server(self) -> str:
        """The name of the server."""
        return self._exchange.server

    def done(self) -> bool:
        """Whether the batch has ended, in whatever way."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> BatchResult:
        """Wait for the batch and give its results.

        Args:
            timeout: Seconds to wait at most; the batch itself goes on.

        Raises:
            TimeoutError: If it has not ended by then.
            AxonError: As `Batch.run`, and BatchCancelledError if it was cancelled.
        """
        self._await(timeout)
        return self._future.result()

    def error(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the batch and give what `result` would raise; None if there is a result.

        It is an AxonError, or what `on_output` has raised. A section that failed is no
        error: that is in the result.

        Args:
            timeout: Seconds to wait at most; the batch itself goes on.

        Raises:
            TimeoutError: If it has not ended by then.
        """
        self._await(timeout)
        return self._future.exception()

    def send(self, data: bytes) -> bool:
        """Give a section that listens something to read; nothing is waited for.

        Args:
            data: A few bytes.

        Returns:
            Whether it is on its way. What becomes of it, only the section can tell.
        """
        return not self.done() and self._exchange.send(data)

    def cancel(self, *, confirmed: bool = True) -> None:
        """Stop waiting, and end what still runs on the server unless the batch is uninterruptible.

        Args:
            confirmed: Whether to wait until the server has told its processes to end. Without, the order is on its way
                when this returns, over a shell that is ready; it costs no round trip, and closing the connection right
                after it does not stop it.
        """
        if not self.done() and not self._exchange.cancel(confirmed=confirmed):
            _settle(self._future, self._exchange.give_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _await(self, timeout: float | None) -> None:
        from concurrent.futures import wait as wait_for

        if not wait_for([self._future], timeout).done:
            msg = f"batch {self.name!r} on {self.server} has not ended within {timeout:g} s"
            raise TimeoutError(msg)


def wait(*pending: PendingBatch, timeout: float | None = None) -> bool:
    """Wait for all of several batches.

    Args:
        pending: What was started with `Batch.start`.
        timeout: Seconds for all of them together.

    Returns:
        True when every section of every batch exited 0; False otherwise, also when time is up.

    Raises:
        AxonError: After all have ended, what `result` raises for the first that has no result:
            a lost connection is not a failed command.
    """
    from concurrent.futures import wait as wait_for

    if wait_for(_futures(pending), timeout).not_done:
        return False
    results = [one.result() for one in pending]
    return all(result.ok for result in results)


def wait_any(*pending: PendingBatch, timeout: float | None = None) -> PendingBatch | None:
    """Wait for any of several batches.

    Args:
        pending: What was started with `Batch.start`.
        timeout: Seconds.

    Returns:
        The one that has ended first, with results or without; None if there is none when time is up.
    """
    from concurrent.futures import FIRST_COMPLETED
    from concurrent.futures import wait as wait_for

    wait_for(_futures(pending), timeout, FIRST_COMPLETED)
    return min((one for one in pending if one.done()), key=_when, default=None)


def as_completed(*pending: PendingBatch, timeout: float | None = None) -> Iterator[PendingBatch]:
    """Give batches one by one as they end.

    Args:
        pending: What was started with `Batch.start`.
        timeout: Seconds for all of them together.

    Yields:
        Each of them, with results or without.

    Raises:
        TimeoutError: If some have not ended by then.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    left = dict.fromkeys(pending)
    while left:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        one = wait_any(*left, timeout=remaining)
        if one is None:
            names = ", ".join(f"{late.name!r} on {late.server}" for late in left)
            msg = f"not ended within {timeout:g} s: {names}"
            raise TimeoutError(msg)
        del left[one]
        yield one


#: What is driven by a thread of its own.
_underway: set[Exchange] = set()


def _futures(pending: Iterable[PendingBatch]) -> list[Future[BatchResult]]:
    return [one._future for one in pending]  # noqa: SLF001 - of this module


def _when(pending: PendingBatch) -> float:
    ended = pending._exchange.ended  # noqa: SLF001 - of this module
    return time.monotonic() if ended is None else ended


def _remember(exchange: Exchange) -> None:
    """Note what the end of the interpreter has to end."""
    if not _underway:
        # Last in, first out: this has to run before Paramiko's own, which ends the connections, and so be noted later.
        atexit.unregister(_end_all)
        atexit.register(_end_all)
    _underway.add(exchange)


def _end_all() -> None:
    """Leave nothing behind when the interpreter ends: the threads that would see to it are about to be stopped."""
    exchanges = list(_underway)
    for exchange in exchanges:
        exchange.abandon()
    for exchange in exchanges:
        exchange.cancel()


def _drive(exchange: Exchange, future: Future[BatchResult]) -> None:
    """Drive a script to its end; what a thread does."""
    try:
        exchange.drive()
    except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
        exchange.cancel()
        exchange.fail(error)
    finally:
        _settle(future, exchange.result)
        _underway.discard(exchange)


def _settle(future: Future[BatchResult], outcome: Callable[[], BatchResult]) -> None:
    """Make an outcome known, unless there is one."""
    from concurrent.futures import InvalidStateError

    with contextlib.suppress(InvalidStateError):
        try:
            result = outcome()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)
        else:
            future.set_result(result)

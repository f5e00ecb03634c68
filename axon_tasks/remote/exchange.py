"""One script on its way through one channel: send, read both streams, decide how it ended."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import paramiko

from axon_tasks.remote.batch import BatchResult, Section
from axon_tasks.remote.failures import (
    BatchCancelledError,
    BatchLostError,
    BatchTimeoutError,
    ScriptKilledError,
)
from axon_tasks.remote.markers import StreamParser
from axon_tasks.remote.text import sanitize
from axon_tasks.remote.transport import BROKEN, Wake, close_quietly

if TYPE_CHECKING:
    from collections.abc import Callable

    from axon_tasks.remote.connection import Connection

#: More than any read gives: Paramiko's buffer is cheap to empty and dear to take a part of.
_READ = 64 * 1024 * 1024
#: Bytes that are handed to Paramiko at a time; a packet holds 32 KiB.
_CHUNK = 32 * 1024
#: Seconds of silence, after the outer shell has ended, until the server is asked whether the script still runs.
_SILENCE = 2.0
#: Seconds to wait for the exit status that explains the end of a stream.
_EXPLANATION = 5.0
#: Seconds for which a server may take no bytes, until it is asked whether the script is still wanted.
_STALL = 0.5
#: Seconds within which a cancelled script must be ended, or at least told to.
_CANCEL = 3.0


class Request(NamedTuple):
    """What one run of a batch is made of; see `Batch.run` for the parameters that stand there too.

    Args:
        batch: Name of the batch.
        script: What is sent.
        nonce: What its markers carry.
        labels: One per section.
        shell: The program that gets the script.
        uninterruptible: Leave it running on the server when it is cancelled.
        privileged: Something in it may run under sudo, so ending it may need sudo too.
        listens: Its input stays open for `Exchange.send`, and it ends when that ends.
        timeout: Seconds for the whole script.
        on_output: Called with label, stream and bytes.
        keep_output: Whether the result holds the output.
        last: No other batch follows on this connection.
    """

    batch: str
    script: str
    nonce: str
    labels: tuple[str, ...]
    shell: str = "sh"
    uninterruptible: bool = False
    privileged: bool = False
    listens: bool = False
    timeout: float | None = None
    on_output: Callable[[str, str, bytes], None] | None = None
    keep_output: bool = True
    last: bool = False


class Exchange:
    """Drive one script to its end.

    Args:
        connection: Where it runs.
        request: What runs.
    """

    def __init__(self, connection: Connection, request: Request) -> None:
        self.request = request
        self.server = connection.name
        self._connection = connection
        #: What the driver sleeps on; abandoning it ends the script.
        self.wake = Wake()
        self._stdout = self._parser("stdout")
        self._stderr = self._parser("stderr")
        self._channel: paramiko.Channel | None = None
        self._received = 0
        self._transmitted = 0
        self._round_trips = 0
        self._began = time.monotonic()
        self._ended: float | None = None
        self._failure: BaseException | None = None
        #: Set before the last bytes go: until then the script runs nothing, whatever happens.
        self._sent = False
        self._ending = False
        self._confirmed = True
        self._driver: threading.Thread | None = None
        self._driven = threading.Event()

    @property
    def ended(self) -> float | None:
        """When it ended, by the monotonic clock; None while it runs."""
        return self._ended

    def drive(self) -> None:
        """Send the script and read until it has ended; `result` tells how.

        Only what is not an outcome of the script is raised here, such as KeyboardInterrupt
        or an exception of `on_output`.
        """
        self._began = time.monotonic()
        self._driver = threading.current_thread()
        self._connection.exchanges.add(self)
        try:
            self._send()
            self._receive()
            if self.wake.abandoned and not self._is_finished():
                self._failure = self._failure or self._cancelled()
                self._end()
        except BROKEN as error:
            self._failure = self._failure or (
                self._cancelled()
                if self.wake.abandoned
                else self._lost(f"the connection broke ({_worded(error)})")
            )
        finally:
            self._ended = time.monotonic()
            self._connection.exchanges.discard(self)
            self._driver = None
            self._driven.set()
            if self._is_finished() or self._failure is not None:
                self._close_channel()

    def result(self) -> BatchResult:
        """Give the sections, or raise why there are none."""
        if self._failure is not None:
            raise self._failure
        return self._collect()

    def fail(self, error: BaseException) -> None:
        """Note an error as the outcome."""
        self._failure = error

    def send(self, data: bytes) -> bool:
        """Hand something to a script that listens; whether it is on its way. Any thread may call it."""
        channel = self._channel
        if channel is None or not self._sent or not self.request.listens:
            return False
        try:
            channel.sendall(data)
        except BROKEN:
            return False
        return True

    def abandon(self) -> None:
        """Have whoever drives the script end it, without waiting; the listener hears nothing more."""
        self._stdout.emit = self._stderr.emit = None
        self.wake.abandon()

    def cancel(self, *, confirmed: bool = True) -> bool:
        """Stop reading and end the script on the server; twice does no harm.

        Whoever drives the script ends it, because the end may come while it is being sent.

        Args:
            confirmed: Whether to wait for the server's word that its processes were told to end.

        Returns:
            Whether that is done; where a listener or a server that is gone keeps the driver, it comes later.
        """
        self._confirmed = confirmed
        self.abandon()
        if self._driver is None or self._driver is threading.current_thread():
            # It was interrupted and is not driven any more, or the listener calls, which is to return first.
            if not self._is_finished():
                self._end()
            return self._driven.is_set()
        return self._driven.wait(2 * _CANCEL)

    def give_up(self) -> NoReturn:
        """Raise the outcome of a script that was cancelled, though its driver has not come back yet."""
        raise self._cancelled()

    def _end(self) -> None:
        """End the script on the server, unless it must not stop half-way, and close the channel; once is enough."""
        if self._ending:
            return
        self._ending = True
        try:
            # What has not arrived whole runs nothing once the channel is closed, and what listens ends with its input.
            ends_itself = self.request.uninterruptible or self.request.listens
            session = self._await_session() if self._sent and not ends_itself else None
            if session is not None:
                self._end_session(session)
        finally:
            self._close_channel()

    def _end_session(self, session: int) -> None:
        try:
            self._connection.end_session(
                session, privileged=self.request.privileged, within=_CANCEL, confirmed=self._confirmed
            )
        except BROKEN:
            # No second session is to be had: sshd itself can signal what is in the shell's process group.
            with contextlib.suppress(*BROKEN):
                self._connection.transport.send_signal(self._open_channel(), "TERM")

    def _send(self) -> None:
        if self.wake.abandoned:
            return
        channel, distance = self._connection.ready_shell(self.request.shell, self.wake)
        self._channel = channel
        self._round_trips = distance
        if self.wake.abandoned:
            return
        channel.axon_wake = self.wake  # type: ignore[attr-defined]
        channel.in_buffer.set_event(self.wake)  # type: ignore[arg-type]
        channel.in_stderr_buffer.set_event(self.wake)  # type: ignore[arg-type]
        self._round_trips += 1
        self._transmit(channel)
        if not self.request.last:
            self._connection.refill()

    def _transmit(self, channel: paramiko.Channel) -> None:
        script = self.request.script.encode("utf-8", errors="surrogateescape")
        # A server that takes no more bytes must not keep us from hearing that the script is not wanted any more.
        channel.settimeout(_STALL)
        while self._transmitted < len(script) and not self.wake.abandoned and self._failure is None:
            chunk = script[self._transmitted : self._transmitted + _CHUNK]
            self._sent = self._transmitted + len(chunk) == len(script)
            try:
                self._transmitted += channel.send(chunk)
            except TimeoutError:
                self._sent = False
                self._check_deadline()
        self._sent = self._transmitted == len(script)
        if self._sent and not self.request.listens:
            channel.shutdown_write()

    def _receive(self) -> None:
        while not self._is_finished() and not self.wake.abandoned and self._failure is None:
            heard = self.wake.wait(self._patience())
            self.wake.rearm()
            closed = self._at_end()
            moved = self._drain()
            if self._is_finished() or self.wake.abandoned:
                return
            if closed:
                self._explain_end()
            elif self._check_deadline():
                return
            elif not heard and not moved and self._has_exited() and not self._runs_on():
                self._explain_end()

    @property
    def _deadline(self) -> float | None:
        return None if self.request.timeout is None else self._began + self.request.timeout

    def _patience(self) -> float | None:
        """Seconds to sleep: for ever, until the deadline, or until a silence must be explained."""
        limits = [_SILENCE] if self._has_exited() else []
        if self._deadline is not None:
            limits.append(max(0.0, self._deadline - time.monotonic()))
        return min(limits) if limits else None

    def _drain(self) -> bool:
        channel = self._open_channel()
        moved = False
        while channel.recv_ready():
            moved = True
            self._take(self._stdout, channel.recv(_READ))
        while channel.recv_stderr_ready():
            moved = True
            self._take(self._stderr, channel.recv_stderr(_READ))
        return moved

    def _take(self, parser: StreamParser, data: bytes) -> None:
        self._received += len(data)
        parser.feed(data)

    def _is_finished(self) -> bool:
        return self._stdout.finished and self._stderr.finished

    def _at_end(self) -> bool:
        channel = self._open_channel()
        return bool(channel.closed or channel.eof_received)

    def _has_exited(self) -> bool:
        """Whether the outer shell has ended; what it started may still run and report."""
        channel = self._open_channel()
        return channel.exit_status != -1 or _signal_of(channel) is not None

    def _runs_on(self) -> bool:
        """Ask the server whether the script still runs without its outer shell."""
        process = self._stdout.process
        return process is not None and self._connection.ask(f"[ -d /proc/{process} ]") in {0, None}

    def _explain_end(self) -> None:
        """The output ended without the final marker: find out why."""
        channel = self._open_channel()
        channel.status_event.wait(_EXPLANATION)
        self._stdout.close()
        self._stderr.close()
        signal = _signal_of(channel)
        if signal is not None:
            self._failure = self._killed(f"was killed by SIG{signal}")
        elif channel.exit_status != -1:
            self._failure = self._killed(f"ended with status {channel.exit_status} before the script did")
        else:
            self._failure = self._lost("the connection broke")

    def _killed(self, how: str) -> ScriptKilledError:
        what = (
            f"batch {self.request.batch!r}: its shell on {self.server} {how}{self._position()}{self._noise()}"
        )
        login = f"ssh {self._connection.destination} 'echo echo ok | {self.request.shell} -s'"
        hint = f"this should print ok: {login}" if self._stdout.process is None else None
        return ScriptKilledError(what, self._collect(), hint=hint)

    def _lost(self, how: str) -> BatchLostError:
        what = f"batch {self.request.batch!r} on {self.server}: {how}{self._position()}{self._noise()}"
        if not self._sent:
            return BatchLostError(what, self._collect(), hint="nothing ran: the script had not arrived whole")
        hint = (
            "the script runs on to its end on the server"
            if self.request.uninterruptible
            else "what ran after that is unknown; look at the server before you try again"
        )
        return BatchLostError(what, self._collect(), hint=hint)

    def _check_deadline(self) -> bool:
        """End the script if it has taken too long; whether it has."""
        if self._deadline is None or time.monotonic() < self._deadline:
            return False
        limit = self.request.timeout
        what = f"batch {self.request.batch!r} on {self.server} took longer than {limit:g} s{self._position()}"
        self._failure = BatchTimeoutError(what, self._collect())
        self._end()
        return True

    def _cancelled(self) -> BatchCancelledError:
        return BatchCancelledError(
            f"batch {self.request.batch!r} on {self.server} was cancelled", self._collect()
        )

    def _position(self) -> str:
        running = self._stdout.running
        if running is not None:
            return f" during section {self.request.labels[running]!r}"
        if self._stdout.process is None:
            return " before the script began"
        ended = sum(slot.code is not None for slot in self._stdout.slots)
        return f" after {ended} of {len(self.request.labels)} sections"

    def _noise(self) -> str:
        if self._stdout.process is not None:
            return ""
        said = sanitize((self._stdout.noise + self._stderr.noise).decode("utf-8", errors="replace")).strip()
        return f"; the server said: {said}" if said else ""

    def _collect(self) -> BatchResult:
        complete = self._is_finished()
        sections = [
            Section(
                label,
                stdout_bytes=b"".join(out.chunks),
                stderr_bytes=b"".join(err.chunks),
                exit_code=out.code,
                offset=_between(self._stdout.greeted, out.began),
                duration=_between(out.began, out.ended),
                skipped=complete and out.code is None,
            )
            for label, out, err in zip(
                self.request.labels, self._stdout.slots, self._stderr.slots, strict=True
            )
        ]
        duration = (self._ended or time.monotonic()) - self._began
        return BatchResult(
            self.request.batch,
            self.server,
            sections,
            duration=duration,
            bytes_received=self._received,
            bytes_sent=self._transmitted,
            round_trips=self._round_trips,
        )

    def _parser(self, stream: str) -> StreamParser:
        request = self.request
        parser = StreamParser(request.nonce, len(request.labels), keep=request.keep_output)
        hand_out = request.on_output
        if hand_out is not None:
            parser.emit = lambda index, chunk: hand_out(request.labels[index], stream, chunk)
        return parser

    def _await_session(self) -> int | None:
        """Give the session number that the script reports first; a script that was just sent needs a moment."""
        deadline = time.monotonic() + _CANCEL
        while self._stdout.session is None and time.monotonic() < deadline:
            if self._at_end() or not self._connection.is_connected:
                return None
            self._drain()
            if self._stdout.session is None:
                self.wake.wait(max(0.0, deadline - time.monotonic()))
                self.wake.rearm()
        return self._stdout.session

    def _open_channel(self) -> paramiko.Channel:
        if self._channel is None:
            msg = "no channel"
            raise paramiko.SSHException(msg)
        return self._channel

    def _close_channel(self) -> None:
        if self._channel is not None:
            close_quietly(self._channel)


def _between(begin: float | None, end: float | None) -> float:
    return round(end - begin, 2) if begin is not None and end is not None else 0.0


def _worded(error: Exception) -> str:
    return str(error) or type(error).__name__


def _signal_of(channel: paramiko.Channel) -> str | None:
    return getattr(channel, "axon_exit_signal", None)

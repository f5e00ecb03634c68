"""Paramiko's transport with what it lacks: socket options, exit signals, and session slots.

Paramiko never sets TCP_NODELAY, which costs about 40 ms on connect and on every channel;
it drops `exit-signal` (RFC 4254, section 6.10), so that a killed shell looks like a lost
connection; and it does not know that sshd grants only so many sessions at a time.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE, MSG_CHANNEL_REQUEST, cMSG_CHANNEL_OPEN, cMSG_CHANNEL_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds without an answer after which a peer counts as gone (tcp(7): TCP_USER_TIMEOUT, TCP_KEEP*).
PEER_TIMEOUT = 30
#: Sessions per connection; sshd grants 10 (sshd_config(5): MaxSessions). The rest is for sftp.
MAX_SESSIONS = 8
#: Round trips from asking for a session until its program can read: one for the answer, one for the window.
NEW = 2
#: Seconds that sshd has to open a channel.
CHANNEL_TIMEOUT = 15.0
#: Seconds for which sshd may go on counting a session whose channel is closed: until its process has ended, too
#: (OpenSSH, session.c: session_close_by_channel).
_LINGER = 5.0
_LINGER_STEP = 0.05
#: Bytes that may be on their way unread; at 50 ms round-trip time this allows 160 MB/s.
WINDOW = 8 * 1024 * 1024

#: What Paramiko raises when a connection breaks, wherever it is noticed.
BROKEN = (paramiko.SSHException, OSError, EOFError)

# Paramiko reports its own view of errors, with tracebacks, through logging's last resort:
# standard error. What people need to know is in the exceptions.
_logger = logging.getLogger("paramiko")
_logger.addHandler(logging.NullHandler())
_logger.propagate = False


class Wake:
    """What the reader of a script sleeps on; a `threading.Event` as far as Paramiko can see.

    Several buffers share it. Paramiko clears the event of a buffer when that one buffer is empty;
    data that waits in the other buffer would be forgotten, so `clear` does nothing. The reader
    calls `rearm` *before* it looks at the buffers and therefore never misses a wake-up.

    It takes no lock that Python code could hold: the finalizer of a dropped handle sets it, and the
    garbage collector runs finalizers in the middle of anything (queue: SimpleQueue.put is reentrant).
    """

    def __init__(self) -> None:
        #: Whoever sleeps on it shall give up what it does.
        self.abandoned = False
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Wake whoever sleeps, or who is going to."""
        if self._tokens.empty():
            self._tokens.put(None)

    def is_set(self) -> bool:
        """Whether the next `wait` returns at once."""
        return not self._tokens.empty()

    def clear(self) -> None:
        """Do nothing; see above."""

    def rearm(self) -> None:
        """Forget the wake-ups so far, before the buffers are read."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._tokens.get_nowait()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until it is set; False if the time is up before."""
        try:
            self._tokens.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def abandon(self) -> None:
        """Tell whoever sleeps on it to give up."""
        self.abandoned = True
        self._tokens.put(None)


class Opening(threading.Event):
    """A session that was asked for, and the answer, without a thread that waits for it.

    Paramiko sets it in its own thread when the answer is there, or when the connection has ended.

    Args:
        transport: The connection.
        channel: The channel that is to be.
        program: The shell that is to be started in it at once, if any.
    """

    def __init__(self, transport: Transport, channel: paramiko.Channel, program: str | None) -> None:
        super().__init__()
        self.channel = channel
        #: The shell that runs in it, or will; None is a session in which nothing runs.
        self.program = program
        self._transport = transport
        self._lock = threading.Lock()
        self._answered = False
        self._dropped = False

    @property
    def distance(self) -> int:
        """How many round trips it takes until a script can be sent."""
        if not self.is_set():
            return NEW
        # sshd opens the window when it has started the program.
        return 0 if self.channel.out_window_size else 1

    @property
    def usable(self) -> bool:
        """Whether the session was granted and is still there."""
        return bool(self.channel.active and not self.channel.closed and not self.channel.eof_received)

    def set(self) -> None:
        """Take note of the answer."""
        with self._lock:
            if not self._answered:
                self._answered = True
                self._transport.answered(self.channel)
                self._begin()
        super().set()

    def start(self, program: str) -> None:
        """Ask for a shell in the session, as soon as that is granted."""
        with self._lock:
            self.program = program
            if self._answered:
                self._execute(program)

    def drop(self) -> None:
        """Give it back; also one that is granted later."""
        self._dropped = True
        close_quietly(self.channel)

    def _begin(self) -> None:
        if self._dropped:
            close_quietly(self.channel)
        elif self.program is not None and self.usable:
            if self._transport.clear_to_send.is_set():
                self._execute(self.program)
            else:
                # It would wait for the end of a new key exchange, in the very thread that has to end it.
                self.program = None

    def _execute(self, program: str) -> None:
        with contextlib.suppress(*BROKEN):
            self._transport.execute(self.channel, f"exec {program} -s")


class Transport(paramiko.Transport):
    """One SSH connection.

    Args:
        sock: A connected socket, or a channel through a jump host.
    """

    def __init__(self, sock: Any) -> None:
        _tune(sock)
        super().__init__(sock, default_window_size=WINDOW)
        self.channel_timeout = CHANNEL_TIMEOUT
        self.slots = Slots(MAX_SESSIONS)
        # Paramiko forgets a channel that nobody holds, and then does not hear that the server has closed it.
        self._channels_held: dict[int, paramiko.Channel] = {}
        self._channels_granted = False
        #: Called when sessions are scarce; whoever holds one in reserve gives it up.
        self.on_scarcity: Callable[[], None] = lambda: None

    def run_in_session(
        self, command: str, *, wait: float | None = None, turn: Wake | None = None, beyond: int = 0
    ) -> paramiko.Channel:
        """Open a session and ask for a command, without waiting for the answer to the second request.

        Args:
            command: What sshd hands to the login shell; it can be seen by everybody on the server.
            wait: Seconds to wait for a free slot; None waits as long as it takes.
            turn: Ends the waiting when it is abandoned.
            beyond: How many sessions more than usual there may be, for what must not queue.

        Returns:
            The channel. If the server refuses the command, the channel is closed by it.

        Raises:
            paramiko.SSHException: If there is no free slot or no session.
        """
        channel = self.session(wait=wait, turn=turn, beyond=beyond)
        self.execute(channel, command)
        return channel

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """Ask for a command in an open session; waiting for the reply would cost one more round trip."""
        request = paramiko.Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(channel.remote_chanid)
        request.add_string("exec")
        request.add_boolean(True)
        request.add_string(command)
        self._send_user_message(request)  # type: ignore[attr-defined]

    def request_session(self, program: str | None, *, spare: int) -> Opening | None:
        """Ask for a session and do not wait for the answer.

        `paramiko.Transport.open_channel` does the same and then waits; with many servers that is a thread for each.

        Args:
            program: The shell to start in it as soon as it is granted.
            spare: How many more slots than this one must be free.

        Returns:
            What becomes of it; None if the slots are scarce or the connection has ended.
        """
        if not self.slots.try_take(spare):
            return None
        opening = self._enrol(program)
        request = paramiko.Message()
        request.add_byte(cMSG_CHANNEL_OPEN)
        request.add_string("session")
        request.add_int(opening.channel.chanid)
        request.add_int(opening.channel.in_window_size)
        request.add_int(opening.channel.in_max_packet_size)
        try:
            self._send_user_message(request)  # type: ignore[attr-defined]
        except BROKEN:
            opening.set()
        if not self.is_active():
            opening.set()
        return opening

    def answered(self, channel: paramiko.Channel) -> None:
        """Count a session that was asked for, or its refusal; called by Paramiko's thread."""
        if channel.active:
            self._hold(channel)
        elif self.is_active():
            # Paramiko keeps the error for whoever opens the next channel, who has nothing to do with it.
            self.saved_exception = None
            self.slots.lower()
        self.slots.settle([channel.chanid] if channel.active else [])

    def _hold(self, channel: paramiko.Channel) -> None:
        self._channels_held[channel.chanid] = channel
        self._channels_granted = True

    def _enrol(self, program: str | None) -> Opening:
        """Make a channel known to Paramiko, which sets the event when the server has answered."""
        with self.lock:
            number = self._next_channel()  # type: ignore[attr-defined]
            channel = paramiko.Channel(number)
            opening = Opening(self, channel, program)
            self._channels.put(number, channel)  # type: ignore[attr-defined]
            self.channel_events[number] = opening
            self.channels_seen[number] = True
            channel._set_transport(self)  # type: ignore[attr-defined]  # noqa: SLF001 - as open_channel does
            channel._set_window(WINDOW, self.default_max_packet_size)  # type: ignore[attr-defined]  # noqa: SLF001 - as open_channel does
        return opening

    def session(
        self, *, wait: float | None = None, turn: Wake | None = None, beyond: int = 0
    ) -> paramiko.Channel:
        """Open a session when a slot is free.

        A server with a lower MaxSessions than usual refuses; then what is open is the limit
        from now on, and the request waits for one of those to end.

        Args:
            wait: Seconds to wait for a free slot; None waits as long as it takes.
            turn: Ends the waiting when it is abandoned.
            beyond: How many sessions more than usual there may be; if one of those is refused, that is final.

        Raises:
            paramiko.SSHException: If there is no free slot or no session.
        """
        patience = time.monotonic() + _LINGER
        while True:
            if not self.slots.has_room(1):
                self.on_scarcity()
            with self.slots.reserved(wait, turn or Wake(), beyond) as slot:
                try:
                    channel = self.open_session(timeout=CHANNEL_TIMEOUT)
                except paramiko.SSHException as error:
                    if beyond or not self._is_refusal(error):
                        raise
                    if not self.slots.lower() and not self._lingers(patience):
                        raise
                else:
                    self._hold(channel)
                    slot.append(channel.chanid)
                    return channel
            self.on_scarcity()

    def _lingers(self, until: float) -> bool:
        """Whether a session that was closed may still count on the server; after a moment of waiting for it."""
        if not self._channels_granted or time.monotonic() > until:
            return False
        time.sleep(_LINGER_STEP)
        return True

    def send_signal(self, channel: paramiko.Channel, name: str) -> None:
        """Ask sshd to send a signal to the process group of a command (RFC 4254, section 6.9).

        Args:
            channel: Where the command runs.
            name: Such as `TERM`.
        """
        request = paramiko.Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(channel.remote_chanid)
        request.add_string("signal")
        request.add_boolean(False)
        request.add_string(name)
        self._send_user_message(request)  # type: ignore[attr-defined]

    def _is_refusal(self, error: paramiko.SSHException) -> bool:
        """Tell a session that was not granted from a broken connection.

        Paramiko keeps one error per connection: of two threads that are refused at the same
        time, one gets a plain "Unable to open channel."
        """
        refused = isinstance(error, paramiko.ChannelException) or str(error) == "Unable to open channel."
        return refused and self.is_active()

    def stop_thread(self) -> None:
        """End the thread of the transport, and wake whoever waits for a slot or a session."""
        self.slots.close()
        super().stop_thread()
        for event in list(self.channel_events.values()):
            event.set()

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)  # type: ignore[misc]
        self._channels_held.pop(chanid, None)

    def _on_channel_request(channel: paramiko.Channel, message: paramiko.Message) -> None:  # type: ignore[misc]  # noqa: N805 - called by Paramiko with the channel
        """Note an exit signal, let Paramiko handle the rest, and wake the reader of the channel."""
        position = message.packet.tell()
        if message.get_text() == "exit-signal":
            message.get_boolean()
            channel.axon_exit_signal = message.get_text()
        message.packet.seek(position)
        paramiko.Channel._handle_request(channel, message)  # type: ignore[attr-defined]  # noqa: SLF001 - the handler that this one stands in for
        wake = getattr(channel, "axon_wake", None)
        if wake is not None:
            wake.set()

    def _on_channel_close(channel: paramiko.Channel, message: paramiko.Message) -> None:  # type: ignore[misc]  # noqa: N805 - called by Paramiko with the channel
        """Let Paramiko answer the server's close, and only then free the slot.

        sshd counts a session until it has our close; a request that overtakes it is refused.
        """
        transport: Any = channel.transport
        paramiko.Channel._handle_close(channel, message)  # type: ignore[attr-defined]  # noqa: SLF001 - the handler that this one stands in for
        transport.slots.release(channel.chanid)

    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001 - the table has no other name
        MSG_CHANNEL_CLOSE: _on_channel_close,
        MSG_CHANNEL_REQUEST: _on_channel_request,
    }


class Slots:
    """Count the sessions of a connection as sshd does: from the request until its close.

    Who waits for a slot gets it in turn, and can be told to give up.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: set[int] = set()
        self._reserved = 0
        self._closed = False
        self._lock = threading.Lock()
        self._queue: list[tuple[Wake, int]] = []

    @contextlib.contextmanager
    def reserved(self, wait: float | None, turn: Wake, beyond: int = 0) -> Iterator[list[int]]:
        """Hold a slot for a session that is being opened.

        Args:
            wait: Seconds to wait for a free slot; None waits as long as it takes.
            turn: What to sleep on meanwhile.
            beyond: How many more than the limit there may be.

        Yields:
            A list to which the number of the opened channel is added.

        Raises:
            paramiko.SSHException: If no slot was free in time, or the connection has ended.
        """
        self._await(wait, turn, beyond)
        opened: list[int] = []
        try:
            yield opened
        finally:
            self.settle(opened)

    def try_take(self, spare: int) -> bool:
        """Hold a slot if `spare` more would still be free; `settle` ends that."""
        with self._lock:
            if self._closed or self._used() + 1 + spare > self.limit:
                return False
            self._reserved += 1
            return True

    def settle(self, opened: list[int]) -> None:
        """Turn a slot that is held into an open session, or free it."""
        with self._lock:
            self._reserved -= 1
            self._open.update(opened)
            self._wake_next()

    def lower(self) -> bool:
        """Take the other sessions that are open or under way for the limit; False if there is none.

        To be called while a slot is reserved for the session that was refused.
        """
        with self._lock:
            others = self._used() - 1
            if others == 0:
                return False
            self.limit = min(self.limit, others)
            return True

    def has_room(self, spare: int) -> bool:
        """Whether `spare` more sessions could be opened now."""
        with self._lock:
            return self._used() + spare <= self.limit

    def release(self, number: int) -> None:
        """Free the slot of a channel that the server has closed."""
        with self._lock:
            self._open.discard(number)
            self._wake_next()

    def close(self) -> None:
        """Wake everybody: there will be no more slots."""
        with self._lock:
            self._closed = True
            for turn, _ in self._queue:
                turn.set()

    def _await(self, wait: float | None, turn: Wake, beyond: int) -> None:
        deadline = None if wait is None else time.monotonic() + wait
        entry = (turn, beyond)
        with self._lock:
            self._queue.append(entry)
        try:
            while not self._admits(entry):
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                if turn.abandoned or not turn.wait(remaining):
                    msg = "no free session"
                    raise paramiko.SSHException(msg)
                turn.rearm()
        finally:
            with self._lock:
                self._queue.remove(entry)
                self._wake_next()

    def _admits(self, entry: tuple[Wake, int]) -> bool:
        """Hold a slot for the one whose turn it is, if there is one."""
        with self._lock:
            if self._closed:
                msg = "connection closed"
                raise paramiko.SSHException(msg)
            if self._next() is not entry:
                return False
            self._reserved += 1
            return True

    def _next(self) -> tuple[Wake, int] | None:
        """The first that may have a slot now; those that may go beyond the limit overtake those that may not."""
        return next((entry for entry in self._queue if self._used() < self.limit + entry[1]), None)

    def _wake_next(self) -> None:
        entry = self._next()
        if entry is not None:
            entry[0].set()

    def _used(self) -> int:
        return len(self._open) + self._reserved


def close_quietly(channel: paramiko.Channel) -> None:
    """Close a channel; on a connection that is gone there is nothing to close."""
    with contextlib.suppress(*BROKEN):
        channel.close()


def connect(host: str, port: int, timeout: float, note: Callable[[socket.socket], None]) -> socket.socket:
    """Open a TCP connection to the first address that answers.

    Args:
        host: Name or address.
        port: TCP port.
        timeout: Seconds for the name and all addresses together.
        note: Called with each socket before it is connected, so that another thread can shut it down.

    Raises:
        OSError: If there is no such name, or no address answers in time.
    """
    deadline = time.monotonic() + timeout
    error: OSError = TimeoutError("timed out")
    addresses = _addresses(host, port, timeout)
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        # One address that does not answer leaves time for the others.
        sock.settimeout(remaining / (len(addresses) - index))
        try:
            note(sock)
            sock.connect(address)
        except OSError as failure:
            sock.close()
            error = failure
        else:
            return sock
    raise error


def _addresses(host: str, port: int, timeout: float) -> list[tuple[Any, ...]]:
    """Look a name up; the resolver knows no deadline, so it is left behind when it takes too long."""
    with contextlib.suppress(OSError, UnicodeError):
        # An address needs no resolver, and no thread that waits for one. As bytes it is not encoded as a domain name
        # either, which would import the tables of Unicode while a server is waited for.
        return socket.getaddrinfo(
            host.encode("ascii"), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    found: list[tuple[Any, ...]] = []
    failure: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failure.append(error)
        except UnicodeError:
            failure.append(socket.gaierror(socket.EAI_NONAME, "not a host name"))

    thread = threading.Thread(target=look_up, name=f"resolve-{host}", daemon=True)
    thread.start()
    thread.join(timeout)
    if failure:
        raise failure[0]
    if not found:
        raise socket.gaierror(socket.EAI_AGAIN, "the name was not resolved in time")
    return found


#: Bytes that a connection can take from the start; without it, Linux begins with about 64 KiB and doubles only as
#: fast as this process reads, so that the first large output of a connection takes twice as long.
_RECEIVE_WINDOW = 2 * 1024 * 1024


def _tune(sock: Any) -> None:
    """Set the socket options; a channel through a jump host has none."""
    if not isinstance(sock, socket.socket) or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # SO_RCVLOWAT makes room without switching the kernel's own tuning off, as SO_RCVBUF would (tcp(7), socket(7)).
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _RECEIVE_WINDOW)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    options = {
        "TCP_KEEPIDLE": PEER_TIMEOUT // 2,
        "TCP_KEEPINTVL": PEER_TIMEOUT // 6,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": PEER_TIMEOUT * 1000,
    }
    for name, value in options.items():
        option = getattr(socket, name, None)  # some systems lack some of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

"""Paramiko's transport with what it lacks: socket options, exit signals, and session slots.

Paramiko never sets TCP_NODELAY, which costs about 40 ms on connect and on every channel;
it drops `exit-signal` (RFC 4254, section 6.10), so that a killed shell looks like a lost
connection; and it does not know that sshd grants only so many sessions at a time.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST, cMSG_CHANNEL_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds without an answer after which a peer counts as gone (tcp(7): TCP_USER_TIMEOUT, TCP_KEEP*).
PEER_TIMEOUT = 30
#: Sessions per connection; sshd grants 10 (sshd_config(5): MaxSessions). The rest is for sftp.
MAX_SESSIONS = 8
#: Seconds that sshd has to open a channel.
CHANNEL_TIMEOUT = 15.0
#: Bytes that may be on their way unread; at 50 ms round-trip time this allows 160 MB/s.
WINDOW = 8 * 1024 * 1024

#: What Paramiko raises when a connection breaks, wherever it is noticed.
BROKEN = (paramiko.SSHException, OSError, EOFError)

# Paramiko reports its own view of errors, with tracebacks, through logging's last resort:
# standard error. What people need to know is in the exceptions.
_logger = logging.getLogger("paramiko")
_logger.addHandler(logging.NullHandler())
_logger.propagate = False


class Wake(threading.Event):
    """An event that several buffers share.

    Paramiko clears the event of a buffer when that one buffer is empty. Data that waits in
    the other buffer would be forgotten, so `clear` does nothing; the reader calls `rearm`
    *before* it looks at the buffers and therefore never misses a wake-up.
    """

    def clear(self) -> None:
        """Do nothing; see above."""

    def rearm(self) -> None:
        """Clear the event, before the buffers are read."""
        super().clear()


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
        #: Called when sessions are scarce; whoever holds one in reserve gives it up.
        self.on_scarcity: Callable[[], None] = lambda: None

    def run_in_session(self, command: str, *, wait: float | None = None) -> paramiko.Channel:
        """Open a session and ask for a command, without waiting for the answer to the second request.

        Args:
            command: What sshd hands to the login shell; it can be seen by everybody on the server.
            wait: Seconds to wait for a free slot; None waits as long as it takes.

        Returns:
            The channel. If the server refuses the command, the channel is closed by it.

        Raises:
            paramiko.SSHException: If there is no free slot or no session.
        """
        channel = self.session(wait=wait)
        request = paramiko.Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(channel.remote_chanid)
        request.add_string("exec")
        request.add_boolean(True)
        request.add_string(command)
        # Waiting for the reply would cost one more round trip before the script can be sent.
        self._send_user_message(request)  # type: ignore[attr-defined]
        return channel

    def session(self, *, wait: float | None = None) -> paramiko.Channel:
        """Open a session when a slot is free.

        A server with a lower MaxSessions than usual refuses; then what is open is the limit
        from now on, and the request waits for one of those to end.

        Args:
            wait: Seconds to wait for a free slot; None waits as long as it takes.

        Raises:
            paramiko.SSHException: If there is no free slot or no session.
        """
        while True:
            if not self.slots.has_room(1):
                self.on_scarcity()
            with self.slots.reserved(wait) as slot:
                try:
                    channel = self.open_session(timeout=CHANNEL_TIMEOUT)
                except paramiko.SSHException as error:
                    if not self._is_refusal(error) or not self.slots.lower():
                        raise
                else:
                    slot.append(channel.chanid)
                    return channel
            self.on_scarcity()

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
        """End the thread of the transport, and whoever waits for a slot."""
        self.slots.close()
        super().stop_thread()

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)  # type: ignore[misc]
        self.slots.release(chanid)

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

    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # noqa: SLF001 - the table has no other name
        MSG_CHANNEL_REQUEST: _on_channel_request,
    }


class Slots:
    """Count the sessions of a connection as sshd does: from the request until its close.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: set[int] = set()
        self._reserved = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserved(self, wait: float | None) -> Iterator[list[int]]:
        """Hold a slot for a session that is being opened.

        Args:
            wait: Seconds to wait for a free slot; None waits as long as it takes.

        Yields:
            A list to which the number of the opened channel is added.

        Raises:
            paramiko.SSHException: If no slot was free in time, or the connection has ended.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_decided, wait) or self._closed:
                msg = "connection closed" if self._closed else "no free session"
                raise paramiko.SSHException(msg)
            self._reserved += 1
        opened: list[int] = []
        try:
            yield opened
        finally:
            with self._changed:
                self._reserved -= 1
                self._open.update(opened)
                self._changed.notify_all()

    def lower(self) -> bool:
        """Take the other sessions that are open or under way for the limit; False if there is none.

        To be called while a slot is reserved for the session that was refused.
        """
        with self._changed:
            others = len(self._open) + self._reserved - 1
            if others == 0:
                return False
            self.limit = min(self.limit, others)
            return True

    def has_room(self, spare: int) -> bool:
        """Whether `spare` more sessions could be opened now."""
        with self._changed:
            return len(self._open) + self._reserved + spare <= self.limit

    def release(self, number: int) -> None:
        """Free the slot of a channel that the server has closed."""
        with self._changed:
            self._open.discard(number)
            self._changed.notify_all()

    def close(self) -> None:
        """Wake everybody: there will be no more slots."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_decided(self) -> bool:
        return self._closed or len(self._open) + self._reserved < self.limit


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
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": PEER_TIMEOUT * 1000,
    }
    for name, value in options.items():
        option = getattr(socket, name, None)  # some systems lack some of them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

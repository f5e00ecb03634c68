"""One command on a server that reads a stream from this machine, however long it is.

A batch carries what its commands read inside of its script, which is held in memory. Here the command is given on the
command line of the session instead, so that the whole of its standard input is left for the stream: it must hold no
secret, because everybody on the server can see it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.errors import AxonError, ConnectionLostError
from axon_tasks.remote.script import single
from axon_tasks.remote.transport import BROKEN, close_quietly

if TYPE_CHECKING:
    from collections.abc import Iterable

    import paramiko

    from axon_tasks.remote.connection import Connection

#: Bytes that are handed to Paramiko at a time; a packet holds 32 KiB.
_CHUNK = 32 * 1024
#: Seconds after which it is looked whether the command has ended, while it takes nothing.
_LOOK = 1.0
#: Seconds for which a command may take nothing of what it is to read.
_STALL = 300.0
#: Seconds to wait for the exit status once the output has ended.
_EXPLANATION = 5.0
#: Bytes of output that are kept of each stream.
_MOST = 1024 * 1024


class Fed(NamedTuple):
    """What became of the command.

    Attributes:
        exit_code: Its exit code.
        stdout: Its output, as text.
        stderr: Its errors, as text.
        sent: How many bytes it was sent.
    """

    exit_code: int
    stdout: str
    stderr: str
    sent: int


def feed(
    connection: Connection,
    command: str,
    pieces: Iterable[bytes],
    *,
    timeout: float,
) -> Fed:
    """Run a command that reads pieces of a stream as they come; no more than a few of them are in memory.

    A command that ends before it has read everything is no error here: its exit code tells. If the connection is closed
    meanwhile, its input ends, so that it must be able to tell a stream that was cut from a whole one.

    Args:
        connection: Where.
        command: Shell text without secrets.
        pieces: What it reads.
        timeout: Seconds that it may take once it has been sent everything.

    Raises:
        UnreachableError: The server grants no session.
        ConnectionLostError: The connection broke.
        AxonError: It took nothing for too long, or too long for its end.
    """
    channel = connection.create_session()
    try:
        connection.transport.execute(channel, single(command))
        sent = _send(connection, channel, pieces)
        return _end(connection, channel, sent, timeout)
    except TimeoutError:
        raise AxonError(f"{connection.name}: a command that was sent data has not ended in time") from None
    except BROKEN as error:
        raise _lost(connection, str(error)) from error
    finally:
        close_quietly(channel)


def _send(
    connection: Connection,
    channel: paramiko.Channel,
    pieces: Iterable[bytes],
) -> int:
    """Send everything, or as much as the command reads; gives how much that was."""
    channel.settimeout(_LOOK)
    sent = 0
    for piece in pieces:
        for begin in range(0, len(piece), _CHUNK):
            if not _pass_on(connection, channel, piece[begin : begin + _CHUNK]):
                return sent
            sent += len(piece[begin : begin + _CHUNK])
    channel.shutdown_write()
    return sent


def _pass_on(connection: Connection, channel: paramiko.Channel, chunk: bytes) -> bool:
    """Send a few bytes; False if the command does not read any more."""
    patience = time.monotonic() + _STALL
    while chunk:
        try:
            gone = channel.send(chunk)
        except TimeoutError:
            gone = 0
        except OSError:
            # The server has closed it, which is how a command that has ended looks from here.
            if connection.is_connected:
                return False
            raise
        if gone:
            chunk, patience = chunk[gone:], time.monotonic() + _STALL
        elif channel.exit_status_ready() or channel.closed:
            return False
        elif time.monotonic() > patience:
            raise AxonError(
                f"{connection.name}: a command has taken nothing of what it was sent for {_STALL:g} s"
            )
    return True


def _end(connection: Connection, channel: paramiko.Channel, sent: int, timeout: float) -> Fed:
    """Read what the command says, to its end."""
    deadline = time.monotonic() + timeout
    said, complaints = bytearray(), bytearray()
    channel.settimeout(_LOOK)
    while True:
        try:
            piece = channel.recv(_CHUNK)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
            piece = None
        while channel.recv_stderr_ready():
            complaints += channel.recv_stderr(_CHUNK)
            del complaints[:-_MOST]
        if piece:
            said += piece
            del said[:-_MOST]
        elif piece is not None:
            break
    channel.status_event.wait(_EXPLANATION)
    while rest := channel.recv_stderr(_CHUNK):
        complaints += rest
        del complaints[:-_MOST]
    killed = getattr(channel, "axon_exit_signal", None)
    if channel.exit_status == -1 and killed is None:
        raise _lost(connection, "the connection broke")
    if killed is not None:
        complaints += f"it was killed by SIG{killed}".encode()
    code = 128 if killed is not None else int(channel.exit_status)
    return Fed(code, _text(said), _text(complaints), sent)


def _text(data: bytearray) -> str:
    return data.decode("utf-8", errors="replace")


def _lost(connection: Connection, why: str) -> ConnectionLostError:
    return ConnectionLostError(f"{connection.name}: the connection was lost while data was sent: {why}")

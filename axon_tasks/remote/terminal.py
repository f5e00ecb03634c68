"""A program on a server with this terminal as its screen and keyboard, as `ssh -t` does it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from axon_tasks.errors import ConnectionLostError, UsageError
from axon_tasks.remote.transport import BROKEN, close_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator

    import paramiko

    from axon_tasks.remote.connection import Connection

_PIECE = 32 * 1024


def must_be_terminal() -> None:
    """Refuse where there is no terminal.

    Raises:
        UsageError: Standard input or output is none.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "A terminal is needed, and standard input or output is none.",
            hint="Leave --interactive away, or call it from a terminal.",
        )


def attach(connection: Connection, command: str) -> int:
    """Run a command on a terminal of its own on the server, and give its exit status.

    Keys go there as they are, Ctrl-C too; the terminal's size follows this one's.

    Args:
        connection: Where.
        command: What the login shell there runs.

    Raises:
        UnreachableError: The server grants no session.
        ConnectionLostError: The connection broke.
    """
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    channel = connection.create_session()
    try:
        size = os.get_terminal_size(screen)
        channel.get_pty(os.environ.get("TERM", "xterm"), size.columns, size.lines)
        channel.exec_command(command)
        with _raw(keyboard), _resizing() as resized:
            _copy(channel, keyboard, screen, resized)
        return _status(connection, channel)
    except ConnectionLostError:
        raise
    except BROKEN as error:
        raise _lost(connection, str(error)) from error
    finally:
        close_quietly(channel)


def _status(connection: Connection, channel: paramiko.Channel) -> int:
    """How the program has ended, as a shell would say it: 128 and more for a signal.

    Raises:
        ConnectionLostError: Nobody says so.
    """
    killed = getattr(channel, "axon_exit_signal", None)
    if killed is not None:
        number = getattr(signal, f"SIG{killed}", None)
        return 128 + number if number else 255
    if channel.exit_status == -1:
        raise _lost(connection, "it was closed")
    # What a server says can be any number, of which only the last byte would count: 256 must not become 0.
    return channel.exit_status if 0 <= channel.exit_status <= 255 else 255  # noqa: PLR2004  (a byte)


def _lost(connection: Connection, how: str) -> ConnectionLostError:
    return ConnectionLostError(f"{connection.name}: the connection broke: {how}")


def _copy(channel: paramiko.Channel, keyboard: int, screen: int, resized: list[bool]) -> None:
    """Pass on keys, output and the terminal's size until the program has ended."""
    sources = [channel.fileno(), keyboard]
    while not channel.closed:
        readable, _, _ = select.select(sources, [], [], 1.0)
        if resized:
            resized.clear()
            size = os.get_terminal_size(screen)
            channel.resize_pty(size.columns, size.lines)
        if channel.recv_ready() or channel.eof_received:
            data = channel.recv(_PIECE)
            if not data:
                channel.status_event.wait(2)
                return
            _write(screen, data)
        if keyboard in readable:
            keys = os.read(keyboard, _PIECE)
            if keys:
                channel.sendall(keys)
            else:
                sources.remove(keyboard)
                channel.shutdown_write()


def _write(screen: int, data: bytes) -> None:
    while data:
        data = data[os.write(screen, data) :]


@contextlib.contextmanager
def _raw(keyboard: int) -> Iterator[None]:
    """Have each key arrive as it is pressed, and none obeyed here (termios(3))."""
    import termios
    import tty

    before = termios.tcgetattr(keyboard)
    try:
        tty.setraw(keyboard)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing() -> Iterator[list[bool]]:
    """Note when this terminal's size changes. It is not told from here: Paramiko may be in the middle of something."""
    resized: list[bool] = []
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: resized.append(True))
    try:
        yield resized
    finally:
        signal.signal(signal.SIGWINCH, before)

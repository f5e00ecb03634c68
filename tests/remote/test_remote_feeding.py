"""Streams to a command on a server."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from axon_tasks.errors import AxonError, ConnectionLostError
from axon_tasks.remote import feeding
from axon_tasks.remote.feeding import feed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.remote import Connection, Fleet

_PIECE = bytes(range(256)) * 1024


@pytest.fixture
def connection(fleet: Fleet) -> Connection:
    return fleet["app1"]


def test_a_stream_arrives_as_it_is(connection: Connection) -> None:
    """Every byte, however many there are, with no more than a few pieces in memory."""
    pieces = 200
    tracemalloc.start()
    fed = feed(
        connection,
        "sha256sum; echo done >&2; exit 3",
        (_PIECE for _ in range(pieces)),
        timeout=60,
    )
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = hashlib.sha256(_PIECE * pieces).hexdigest()
    assert (3, f"{whole}  -\n", "done\n", pieces * len(_PIECE)) == fed
    assert most < 20 * 1024 * 1024


def test_the_command_is_text_for_a_posix_shell(connection: Connection) -> None:
    """Quotes, newlines and variables in it are its own; nothing of it is done by the login shell."""
    fed = feed(
        connection, "x='a \"b\"'\nprintf '%s' \"$x$HOME\" 'it'\\''s'; cat >/dev/null", [b"x"], timeout=60
    )
    assert (0, True, True) == (fed.exit_code, fed.stdout.startswith('a "b"'), fed.stdout.endswith("it's"))


def test_a_command_that_has_enough(connection: Connection) -> None:
    """One that ends before it has read everything is judged by its exit code; nothing waits for the rest."""

    def endless() -> Iterator[bytes]:
        while True:
            yield _PIECE

    fed = feed(connection, "head -c 3 >/dev/null; echo enough >&2; exit 9", endless(), timeout=60)
    assert (9, "enough\n") == (fed.exit_code, fed.stderr)


def test_a_command_that_takes_nothing(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still is given up after a time, and its end, too."""
    monkeypatch.setattr(feeding, "_STALL", 0.5)
    monkeypatch.setattr(feeding, "_LOOK", 0.2)
    with pytest.raises(AxonError, match="has taken nothing"):
        feed(connection, "exec sleep 60", (_PIECE for _ in range(1000)), timeout=60)
    with pytest.raises(AxonError, match="has not ended in time"):
        feed(connection, "exec sleep 60", [b"x"], timeout=0.1)


def test_a_command_that_is_killed(connection: Connection) -> None:
    """A signal is a failure that is told."""
    fed = feed(connection, "kill -9 $$", [b"x"], timeout=60)
    assert (128, True) == (fed.exit_code, "SIGKILL" in fed.stderr)


def test_a_connection_that_breaks(connection: Connection) -> None:
    """It is told as such, and is no failure of the command."""

    def cut() -> Iterator[bytes]:
        yield _PIECE
        threading.Thread(target=connection.transport.close).start()
        while True:
            yield _PIECE

    with pytest.raises(ConnectionLostError, match="app1: the connection was lost"):
        feed(connection, "cat >/dev/null", cut(), timeout=60)

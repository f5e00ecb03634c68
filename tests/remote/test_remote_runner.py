"""`Connection.run`, which tasks of other people use: each claim is an open issue of Invoke or Fabric."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from invoke import CommandTimedOut, Responder, UnexpectedExit

from axon_tasks.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from axon_tasks.remote import Fleet


def test_a_character_across_two_chunks_is_whole(fleet: Fleet) -> None:
    """UTF-8 is decoded across the borders of chunks (invoke #1032)."""
    command = "printf x; i=0; while [ $i -lt 3000 ]; do printf '\\303\\251\\342\\202\\254'; i=$((i+1)); done"
    assert "x" + "é€" * 3000 == fleet["app1"].run(command).stdout


def test_much_output_is_not_joined_again_and_again(fleet: Fleet) -> None:
    """Forty megabytes come through (invoke #1079)."""
    assert 40_000_000 == len(fleet["app1"].run("head -c 40000000 /dev/zero").stdout)


def test_input_is_written_at_once(fleet: Fleet) -> None:
    """A megabyte of input arrives, with its end (invoke #774)."""
    assert "1000000\n" == fleet["app1"].run("wc -c", in_stream=io.StringIO("x" * 1_000_000)).stdout


def test_a_command_that_reads_finds_the_end(fleet: Fleet) -> None:
    """Without an input, a command that reads does not hang."""
    assert "" == fleet["app1"].run("cat").stdout


def test_watchers_still_answer(fleet: Fleet) -> None:
    """A watcher that answers a question works as ever."""
    answer = Responder(re.escape("name? "), "shop\n")
    result = fleet["app1"].run("printf 'name? '; read name; echo hello $name", watchers=[answer])
    assert result.stdout.endswith("hello shop\n")


def test_variables_are_quoted(fleet: Fleet) -> None:
    """A variable's value is not run (fabric #2364); a name that is none is refused."""
    value = "x y; echo injected $(echo no) 'q' \"d\""
    assert f"{value}\n" == fleet["app1"].run('printf "%s\\n" "$A"', env={"A": value}).stdout
    with pytest.raises(ValueError, match="not a name"):
        fleet["app1"].run("true", env={"A;reboot": "1"})


def test_a_timeout_ends_the_command_too(
    fleet: Fleet, wait_until: Callable[..., bool], tmp_path: Path
) -> None:
    """After a timeout the command does not go on on the server (fabric #2261)."""
    begun = tmp_path / "pid"
    for seconds in (1, 5, 25):  # a busy machine may not even begin within one second
        with pytest.raises(CommandTimedOut):
            fleet["app1"].run(f"echo $$ >{begun}; exec sleep 4713001", timeout=seconds)
        if begun.exists() and begun.read_text():
            break
    pid = int(begun.read_text())
    assert wait_until(lambda: not _alive(pid))


def test_a_failed_command_is_that(fleet: Fleet) -> None:
    """A non-zero exit status is an error with that status; a signal counts as in a shell."""
    with pytest.raises(UnexpectedExit) as caught:
        fleet["app1"].run("exit 3")
    assert 3 == caught.value.result.exited
    assert 137 == fleet["app1"].run("kill -9 $$", warn=True).exited


def test_a_lost_connection_is_no_failed_command(own_sshd: Callable[..., Any]) -> None:
    """A connection that breaks is told as that, even with `warn=True`."""
    server = own_sshd()
    with server.fleet() as fleet:
        connection = fleet["app1"]
        killer = threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGKILL) for pid in server.sessions()])
        killer.start()
        with pytest.raises(ConnectionLostError):
            connection.run("sleep 20", warn=True)


def test_files_can_be_moved(fleet: Fleet, tmp_path: Path) -> None:
    """`put` and `get` work over the same connection."""
    (tmp_path / "a").write_text("hello")
    fleet["app1"].put(str(tmp_path / "a"), str(tmp_path / "b"))
    fleet["app1"].get(str(tmp_path / "b"), str(tmp_path / "c"))
    assert "hello" == (tmp_path / "c").read_text()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

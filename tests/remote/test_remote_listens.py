"""Sections that are talked to while they run."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.remote import Batch, BatchCancelledError
from axon_tasks.remote.markers import StreamParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from axon_tasks.remote import Connection, Fleet, PendingBatch

SHELLS = {"bash": ["bash"], "dash": ["dash"], "busybox": ["busybox", "sh"]}
#: Sends back what comes in; `end` ends it, and so does the end of its input.
ECHO = 'echo begun; while read -r line; do echo "heard $line"; [ "$line" != end ] || exit 7; done; exit 4'


def a_batch(command: str = ECHO, **options: Any) -> Batch:
    return Batch("b", sudo=os.getuid() == 0).add(command, "a", listens=True, **options)


class Talk:
    """A script that a shell of this machine runs, and its input."""

    def __init__(self, batch: Batch, shell: str) -> None:
        batch.shell = " ".join(SHELLS[shell])
        self.parser = StreamParser(batch._nonce, 1)
        self.process = subprocess.Popen(
            [*SHELLS[shell], "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.send(batch.script())

    def send(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def until(self, text: bytes) -> None:
        assert self.process.stdout is not None
        while text not in b"".join(self.parser.slots[0].chunks):
            line = self.process.stdout.readline()
            assert line, text
            self.parser.feed(line)

    def until_finished(self) -> int | None:
        assert self.process.stdout is not None
        while not self.parser.finished:
            line = self.process.stdout.readline()
            assert line
            self.parser.feed(line)
        return self.parser.slots[0].code

    def end(self) -> int:
        self.process.communicate(timeout=20)
        return self.process.returncode


def test_it_reads_what_is_sent_while_it_runs(shell: str) -> None:
    """What is sent after the script reaches the command, line by line, and its end is told before the input ends."""
    talk = Talk(a_batch(), shell)
    talk.until(b"begun\n")
    talk.send("one\n")
    talk.until(b"heard one\n")
    talk.send("end\n")
    assert 7 == talk.until_finished()
    assert b"begun\nheard one\nheard end\n" == b"".join(talk.parser.slots[0].chunks)
    assert 0 == talk.end()


def test_it_hears_of_the_end_of_its_input(shell: str) -> None:
    """When nobody can send anything any more, the command is told so."""
    talk = Talk(a_batch(), shell)
    talk.until(b"begun\n")
    assert talk.process.stdin is not None
    talk.process.stdin.close()
    assert 4 == talk.until_finished()
    talk.process.stdin = None
    assert 0 == talk.end()


def test_what_nobody_reads_is_no_command(shell: str, tmp_path: Path) -> None:
    """What comes in after the end is read by no shell as if it were a script."""
    talk = Talk(a_batch("echo begun; exit 3"), shell)
    talk.until(b"begun\n")
    assert 3 == talk.until_finished()
    talk.send(f"touch {tmp_path}/ran\n" * 3)
    assert 0 == talk.end()
    assert [] == list(tmp_path.iterdir())


def test_a_cut_script_runs_nothing(shell: str, tmp_path: Path) -> None:
    """Every proper beginning of it, up to the last brace, runs nothing at all."""
    script = a_batch(f"touch {tmp_path}/ran").script()
    assert script.endswith("}\n")
    for cut in [*range(0, len(script) - 60, 97), *range(len(script) - 60, len(script) - 1)]:
        subprocess.run([*SHELLS[shell], "-s"], input=script[:cut].encode(), capture_output=True, check=False)
        assert [] == list(tmp_path.iterdir()), script[:cut]
    subprocess.run([*SHELLS[shell], "-s"], input=script.encode(), capture_output=True, check=False)
    assert ["ran"] == [path.name for path in tmp_path.iterdir()]


def test_the_script_is_clean_shell() -> None:
    """Shellcheck finds nothing wrong in what is sent, as POSIX sh."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(Batch("b", sudo=True).add(ECHO, "a", listens=True).script())
        file.flush()
        # SC2016: what stands in single quotes is for another shell; SC2086: words are split on purpose; SC2317: called
        # at the end; SC2030, SC2031: subshells are the point; SC2034: a variable for what is not there.
        done = subprocess.run(
            ["shellcheck", "-s", "sh", "-e", "SC2016,SC2086,SC2317,SC2030,SC2031,SC2034,SC2119,SC2120", file.name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "" == done.stdout


def test_it_is_alone() -> None:
    """A section that listens stands alone in its batch, can be completed by nobody else, and has one input."""
    with pytest.raises(ValueError, match="alone in its batch"):
        Batch("b").add("true").add(ECHO, listens=True)
    with pytest.raises(ValueError, match="alone in its batch"):
        a_batch().add("true")
    with pytest.raises(ValueError, match="alone in its batch"):
        Batch("b", uninterruptible=True).add(ECHO, listens=True)
    for options in ({"stdin": "x"}, {"timeout": 5}):
        with pytest.raises(ValueError, match="alone in its batch"):
            a_batch(**options)


# --- over SSH ------------------------------------------------------------------------------------------------------


class Heard:
    """Waits for what a section says."""

    def __init__(self) -> None:
        self.said = b""
        self.more = threading.Condition()

    def take(self, _label: str, _stream: str, chunk: bytes) -> None:
        with self.more:
            self.said += chunk
            self.more.notify_all()

    def wait_for(self, text: bytes) -> bool:
        with self.more:
            return self.more.wait_for(lambda: text in self.said, 20)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def connection(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[..., list[int]]
) -> Iterator[Connection]:
    """A connection on which nothing of a section that listens may be left."""
    opened = fleet["app1"]
    yield opened
    assert wait_until(lambda: not running("canary-listens"))
    assert not opened.exchanges


def begun(connection: Connection, heard: Heard, end: str = "exit 4") -> PendingBatch:
    """A section that has begun, with a process that can be found."""
    command = f"echo begun; sh -c 'while read -r line; do :; done; {end}' canary-listens"
    pending = a_batch(command).start(connection, on_output=heard.take)
    assert heard.wait_for(b"begun\n")
    return pending


def test_sending_over_a_connection(connection: Connection, heard: Heard) -> None:
    """What is sent reaches the section at once, in order; the result tells how it ended."""
    pending = a_batch().start(connection, on_output=heard.take)
    assert heard.wait_for(b"begun\n")
    for word in ("one", "two"):
        assert pending.send(f"{word}\n".encode())
        assert heard.wait_for(f"heard {word}\n".encode())
    assert pending.send(b"end\n")
    result = pending.result(20)
    assert (7, "begun\nheard one\nheard two\nheard end\n") == (result["a"].exit_code, result["a"].stdout)
    assert not pending.send(b"more\n")


def test_cancelling_ends_its_input(
    connection: Connection, heard: Heard, tmp_path: Path, wait_until: Callable[..., bool]
) -> None:
    """A cancelled section reads what was sent before, then the end; as long as it says nothing, it can finish."""
    pending = begun(connection, heard, f"touch {tmp_path}/finished")
    assert pending.send(b"last\n")
    pending.cancel(confirmed=False)
    with pytest.raises(BatchCancelledError):
        pending.result(20)
    assert wait_until((tmp_path / "finished").exists)


def test_what_was_sent_last_arrives_before_the_end(
    connection: Connection, heard: Heard, tmp_path: Path, wait_until: Callable[..., bool]
) -> None:
    """A word that is sent right before the connection is closed is read: who says goodbye need not wait for an answer."""
    pending = a_batch(f"echo begun; read -r line; echo $line >{tmp_path}/word").start(
        connection, on_output=heard.take
    )
    assert heard.wait_for(b"begun\n")
    pending.send(b"bye\n")
    pending.cancel(confirmed=False)
    connection.close()
    assert wait_until(lambda: (tmp_path / "word").exists() and "bye\n" == (tmp_path / "word").read_text())


def test_a_dropped_handle_ends_it(connection: Connection, heard: Heard) -> None:
    """Nobody holds it any more: its input ends, and so does it."""
    pending = begun(connection, heard)
    del pending


def test_it_needs_no_other_session(own_sshd: Callable[..., Any], heard: Heard) -> None:
    """Where the server grants a single session, it can be talked to and cancelled all the same."""
    with own_sshd("MaxSessions 1").fleet() as fleet:
        pending = a_batch().start(fleet["app1"], on_output=heard.take)
        assert heard.wait_for(b"begun\n")
        assert pending.send(b"one\n")
        assert heard.wait_for(b"heard one\n")
        pending.cancel()
        assert Batch("b").add("echo next").run(fleet["app1"], timeout=30).ok

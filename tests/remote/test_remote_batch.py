"""Batches over a real sshd."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.errors import AxonError, ConnectionLostError
from axon_tasks.remote import (
    Batch,
    BatchCancelledError,
    BatchLostError,
    BatchTimeoutError,
    ScriptKilledError,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from axon_tasks.remote import Fleet


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_sections_come_back_by_label(fleet: Fleet, shell: str) -> None:
    """Each label has its output, its error output, its exit code and its duration."""
    batch = Batch("b", shell=shell).add("echo out; echo err >&2; exit 3", "a").add("sleep 0.3", "b")
    result = batch.run(fleet["app1"])
    assert ("out\n", "err\n", 3, False) == (
        result["a"].stdout,
        result["a"].stderr,
        result["a"].exit_code,
        result["a"].ok,
    )
    assert result["b"].duration >= 0.25
    assert [result["a"]] == result.failed
    assert not result.ok
    assert "app1" == result.server
    assert ["a", "b"] == list(result)
    assert result.bytes_received > len("out\nerr\n")


def test_a_result_tells_when_and_how_much(fleet: Fleet, wait_until: Callable[..., bool]) -> None:
    """Sections tell when they began, by the server's clock; the batch tells its bytes and round trips."""
    connection = fleet["app1"]
    assert wait_until(lambda: connection._shells._spares[0].distance == 0)
    batch = Batch("b").add("sleep 0.3", "a").add("sleep 0.2", "b").add("true", "c")
    size = len(batch.script())
    result = batch.run(connection)
    assert sorted(section.offset for section in result.values()) == [one.offset for one in result.values()]
    assert 0.25 <= result["b"].offset
    assert 0.45 <= result["c"].offset
    assert (size, 1) == (result.bytes_sent, result.round_trips)


def test_a_failure_tells_how_much(fleet: Fleet) -> None:
    """What a failed batch had sent and waited for, and when its sections began, is in the error."""
    batch = Batch("b", shell="dash").add("sleep 0.3", "a").add("sleep 4711", "b").add("true", "c")
    for seconds in (1, 5, 25):  # a busy machine may not even reach the second section within one second
        with pytest.raises(BatchTimeoutError) as caught:
            batch.run(fleet["app1"], timeout=seconds)
        partial = caught.value.partial
        if partial["b"].offset:
            break
    assert partial["b"].offset >= 0.25
    assert 0.0 == partial["c"].offset
    assert partial.round_trips >= 1
    assert partial.bytes_sent > len("sleep 4711")


def test_an_unknown_label_lists_the_labels(fleet: Fleet) -> None:
    """The KeyError of an unknown label says which labels there are."""
    result = Batch("check").add("true", "containers").run(fleet["app1"])
    with pytest.raises(
        KeyError, match="no section 'container' in batch 'check'; its labels are 'containers'"
    ):
        result["container"]


def test_broken_text_is_replaced_and_the_bytes_are_kept(fleet: Fleet) -> None:
    """Output that is not UTF-8 can still be read, and its bytes are there."""
    section = Batch("b").add(r"printf '\303\244\377'", "a").run(fleet["app1"])["a"]
    assert "ä\ufffd" == section.stdout
    assert b"\xc3\xa4\xff" == section.stdout_bytes


def test_fail_fast_reports_the_rest_as_skipped(fleet: Fleet) -> None:
    """Sections after the first failure are skipped, which is not the same as failed."""
    batch = Batch("b").add("false", "a").add("true", "b")
    result = batch.run(fleet["app1"], fail_fast=True)
    assert [False, True] == [section.skipped for section in result.values()]
    assert ["a"] == [section.label for section in result.failed]
    assert not result.ok


def test_output_is_handed_out_while_it_arrives(fleet: Fleet) -> None:
    """A listener gets label, stream and bytes before the batch has ended; nothing is kept when nothing is to be."""
    first = threading.Event()
    seen = []

    def listen(label: str, stream: str, data: bytes) -> None:
        seen.append((label, stream, data))
        first.set()

    batch = Batch("b").add("echo one; exec sleep 3", "a")
    pending = batch.start(fleet["app1"], on_output=listen, keep_output=False)
    assert first.wait(20)
    assert not pending.done()
    assert [("a", "stdout", b"one\n")] == seen
    assert "" == pending.result()["a"].stdout


def test_a_listener_that_raises_ends_the_batch(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[[str], list[int]]
) -> None:
    """An exception of the listener reaches the caller, and the command does not go on."""

    def listen(*_: object) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        Batch("b").add("echo x; exec sleep 4711001", "a").run(fleet["app1"], on_output=listen)
    assert wait_until(lambda: not running("4711001"))


def test_a_hundred_megabytes_arrive_whole(fleet: Fleet) -> None:
    """A section of 100 MB is complete, on both streams."""
    command = "head -c 100000000 /dev/zero; head -c 1000000 /dev/zero >&2; printf end"
    section = Batch("big").add(command, "a").run(fleet["app1"], timeout=120)["a"]
    assert 100_000_003 == len(section.stdout_bytes)
    assert section.stdout_bytes.endswith(b"\0end")
    assert 1_000_000 == len(section.stderr_bytes)


def test_a_process_in_the_background_is_not_waited_for(fleet: Fleet) -> None:
    """A batch ends with its last section, though what it left behind holds the channel open."""
    result = Batch("b").add("sleep 20 & echo started", "a").run(fleet["app1"], timeout=15)
    assert "started\n" == result["a"].stdout


def test_many_batches_share_a_connection(fleet: Fleet) -> None:
    """More batches than sshd grants sessions wait for each other; all of them succeed."""
    connection = fleet["app1"]
    pending = [
        Batch(f"b{number}").add(f"sleep 0.2; echo {number}", "a").start(connection) for number in range(20)
    ]
    assert wait(*pending)
    assert [f"{number}\n" for number in range(20)] == [one.result()["a"].stdout for one in pending]


def test_a_server_with_few_sessions_is_served(own_sshd: Callable[..., Any]) -> None:
    """Where sshd grants only one session at a time, batches take turns instead of failing."""
    with own_sshd("MaxSessions 1").fleet() as fleet:
        connection = fleet["app1"]
        pending = [Batch("b").add("sleep 0.1; echo ok", "a").start(connection) for _ in range(4)]
        assert wait(*pending, timeout=60)


def test_wait_tells_failure_from_success(fleet: Fleet) -> None:
    """Waiting gives True only if every section of every batch exited 0."""
    connection = fleet["app1"]
    assert wait(Batch("a").add("true").start(connection), Batch("b").add("true").start(connection))
    assert not wait(Batch("a").add("true").start(connection), Batch("b").add("false").start(connection))


def test_waiting_has_an_end(fleet: Fleet) -> None:
    """A result that is not there in time is a TimeoutError, and the batch goes on."""
    with Batch("b").add("sleep 4711", "a").start(fleet["app1"]) as pending:
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.1 s"):
            pending.result(timeout=0.1)
        assert not wait(pending, timeout=0.1)
        assert not pending.done()


def test_leaving_the_block_ends_what_runs(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[[str], list[int]]
) -> None:
    """A pending batch that is left is ended on the server, with children in process groups of their own."""
    batch = Batch("b").add("timeout 4711 sleep 4711002", "a").add("sleep 4711002", "b")
    with batch.start(fleet["app1"]) as pending:
        assert wait_until(lambda: running("4711002"))
    assert wait_until(lambda: not running("4711002"))
    with pytest.raises(BatchCancelledError) as caught:
        pending.result()
    assert 130 == caught.value.code


def test_a_stubborn_command_is_killed(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[[str], list[int]]
) -> None:
    """A command that ignores TERM is killed after the grace."""
    batch = Batch("b").add("trap '' TERM; sleep 4711003; sleep 4711003", "a")
    with batch.start(fleet["app1"]):
        assert wait_until(lambda: running("4711003"))
    assert wait_until(lambda: not running("4711003"))


def test_cancelling_at_once_leaves_nothing(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[[str], list[int]]
) -> None:
    """A batch that is cancelled before it has said anything does not run on."""
    for _ in range(5):
        Batch("b").add("sleep 4711004", "a").start(fleet["app1"]).cancel()
    assert wait_until(lambda: not running("4711004"))


def test_an_uninterruptible_batch_runs_on(
    fleet: Fleet, tmp_path: Path, wait_until: Callable[..., bool]
) -> None:
    """Cancelling stops the waiting and not the script."""
    batch = (
        Batch("b", uninterruptible=True).add("echo begun", "a").add(f"sleep 0.5; touch {tmp_path}/done", "b")
    )
    begun = threading.Event()
    pending = batch.start(fleet["app1"], on_output=lambda *_: begun.set())
    assert begun.wait(20)
    pending.cancel()
    with pytest.raises(BatchCancelledError):
        pending.result()
    assert wait_until((tmp_path / "done").exists)


def test_a_batch_may_have_a_time_limit(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[[str], list[int]]
) -> None:
    """A batch that takes too long is ended on the server; what it had said is in the error."""
    batch = Batch("slow").add("echo one", "a").add("echo two; exec sleep 4711005", "b")
    with pytest.raises(BatchTimeoutError, match=r"took longer than 5 s during section 'b'") as caught:
        batch.run(fleet["app1"], timeout=5)
    assert ("one\n", 0) == (caught.value.partial["a"].stdout, caught.value.partial["a"].exit_code)
    assert ("two\n", None) == (caught.value.partial["b"].stdout, caught.value.partial["b"].exit_code)
    assert wait_until(lambda: not running("4711005"))


def test_a_lost_connection_is_no_failed_command(
    own_sshd: Callable[..., Any], wait_until: Callable[..., bool]
) -> None:
    """When the connection dies half-way, the error says so, and names what had ended and what was running."""
    server = own_sshd()
    begun = threading.Event()
    with server.fleet() as fleet:
        batch = Batch("half").add("echo one", "a").add("echo two; sleep 5", "b").add("true", "c")
        pending = batch.start(fleet["app1"], on_output=lambda label, *_: label == "b" and begun.set())
        assert begun.wait(20)
        for session in server.sessions():
            os.kill(session, signal.SIGKILL)
        with pytest.raises(BatchLostError, match=r"broke.* during section 'b'") as caught:
            pending.result(timeout=30)
        assert isinstance(caught.value, ConnectionLostError)
        assert 4 == caught.value.code
        assert [0, None, None] == [section.exit_code for section in caught.value.partial.values()]
        assert "two\n" == caught.value.partial["b"].stdout
        with pytest.raises(ConnectionLostError):
            wait(pending)


def test_a_killed_script_is_no_lost_connection(fleet: Fleet) -> None:
    """When the whole script is killed on the server, that is what the error says, with the signal."""
    batch = Batch("b").add("echo one", "a").add("kill -9 0", "b")
    with pytest.raises(ScriptKilledError, match="killed by SIGKILL during section 'b'") as caught:
        batch.run(fleet["app1"])
    assert not isinstance(caught.value, ConnectionLostError)
    assert 1 == caught.value.code
    assert "one\n" == caught.value.partial["a"].stdout


def test_killing_the_outer_shell_tears_nothing(fleet: Fleet) -> None:
    """A command that kills `$$` loses nothing of itself or of what comes after, however long that takes."""
    batch = Batch("b").add("kill -9 $$; echo still", "a").add("sleep 4; echo here", "b")
    result = batch.run(fleet["app1"], timeout=60)
    assert ["still\n", "here\n"] == [section.stdout for section in result.values()]


def test_the_rest_dies_silently_after_the_outer_shell(fleet: Fleet) -> None:
    """When both shells of a script are dead and a left-over process holds the channel, the batch still ends."""
    orphan = (
        "setsid sleep 30 & kill -9 $$; sleep 0.2; read -r pid rest </proc/self/stat; set -- $rest; kill -9 $3"
    )
    with pytest.raises(ScriptKilledError, match="killed by SIGKILL"):
        Batch("b").add(orphan, "a").run(fleet["app1"], timeout=60)


def test_a_server_without_the_shell_says_so(fleet: Fleet) -> None:
    """A shell that is not there gives the server's own words, and no results."""
    with pytest.raises(
        ScriptKilledError, match=r"ended with status 127 .*before the script began.*no_such_shell"
    ):
        Batch("b", shell="no_such_shell").add("true").run(fleet["app1"])


def test_a_noisy_login_disturbs_nothing(
    own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path
) -> None:
    """What a login prints before the script, on both streams, is in no section."""
    server = own_sshd()
    key = make_key(tmp_path / "noisy")
    noise = "echo WELCOME; printf 'no newline' >&2; "
    server.authorize(key, f'command="{noise}eval \\"$SSH_ORIGINAL_COMMAND\\""')
    with server.fleet(server.host(key=key)) as fleet:
        section = Batch("b").add("echo out; echo err >&2", "a").run(fleet["app1"])["a"]
    assert ("out\n", "err\n") == (section.stdout, section.stderr)


def test_a_login_that_runs_nothing_is_told(
    own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path
) -> None:
    """An account that only prints a message is an error with that message."""
    server = own_sshd()
    key = make_key(tmp_path / "closed")
    server.authorize(key, 'command="echo This account is closed; exit 1"')
    with (
        server.fleet(server.host(key=key)) as fleet,
        pytest.raises(AxonError, match="This account is closed"),
    ):
        Batch("b").add("true").run(fleet["app1"])


def test_nothing_is_left_behind(
    own_sshd: Callable[..., Any],
    wait_until: Callable[..., bool],
    open_files: Callable[[], int],
    running: Callable[[str], list[int]],
) -> None:
    """After the block there is no thread and no descriptor more than before, and the server has no session."""
    server = own_sshd()
    threads, files = threading.active_count(), open_files()
    with server.fleet() as fleet:
        connection = fleet["app1"]
        Batch("b").add("echo x").run(connection)
        Batch("b").add("sleep 4711006").start(connection)
        assert wait_until(lambda: running("4711006"))
    assert wait_until(lambda: not running("4711006"))
    assert wait_until(lambda: threads == threading.active_count())
    assert files == open_files()
    assert wait_until(lambda: not server.sessions())

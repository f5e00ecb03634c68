"""Handles of batches that run: waited for in any way, dropped in any way, and nothing left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import paramiko
import pytest

from axon_tasks.errors import ConnectionLostError
from axon_tasks.remote import (
    Batch,
    BatchCancelledError,
    BatchLostError,
    BatchTimeoutError,
    Connection,
    as_completed,
    wait,
    wait_any,
)
from axon_tasks.remote.transport import Slots, Wake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from axon_tasks.remote import Fleet, PendingBatch

#: More than the windows of sshd and of a pipe hold, so that sending it takes until somebody reads.
LARGE = "x" * 6_000_000


def drivers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("axon-batch-")]


def channels(connection: Connection) -> set[int]:
    """The sessions that are open for more than being in reserve."""
    slots, shells = connection.transport.slots, connection._shells
    assert shells is not None
    held: set[int] = slots._open
    return held - {spare.channel.chanid for spare in shells._spares}


@pytest.fixture
def connection(
    fleet: Fleet, wait_until: Callable[..., bool], running: Callable[[str], list[int]]
) -> Iterator[Connection]:
    """A connection on which nothing may be left: no thread, no exchange, no session, no process."""
    opened = fleet["app1"]
    yield opened
    gc.collect()
    assert wait_until(lambda: not drivers())
    assert wait_until(lambda: not channels(opened))
    assert wait_until(lambda: not running("4712001"))
    assert not opened.exchanges


def started(connection: Connection, name: str = "b", seconds: int = 4712001) -> PendingBatch:
    """A batch that runs for ever, and has begun."""
    begun = threading.Event()
    batch = Batch(name).add(f"echo begun; exec sleep {seconds}", "a")
    pending = batch.start(connection, on_output=lambda *_: begun.set())
    assert begun.wait(20)
    return pending


class TestDropping:
    """What nobody holds any more does not run any more."""

    def test_a_name_that_is_deleted(self, connection: Connection) -> None:
        """Deleting the last reference ends the batch, here and on the server."""
        pending = started(connection)
        del pending

    def test_an_exception_between_start_and_wait(self, connection: Connection) -> None:
        """When the task that started a batch fails, the batch ends with it."""

        def task() -> None:
            pending = started(connection)
            raise LookupError(pending.name)

        with pytest.raises(LookupError) as caught:
            task()
        del caught

    def test_a_handle_in_a_cycle(self, connection: Connection) -> None:
        """A handle that only the garbage collector can find is ended when it does."""
        loop: list[Any] = [started(connection)]
        loop.append(loop)
        del loop
        gc.collect()

    def test_before_it_has_begun(self, connection: Connection) -> None:
        """Batches that are dropped as soon as they are started do not run on."""
        for _ in range(5):
            Batch("b").add("exec sleep 4712001").start(connection)

    def test_while_others_hold_all_sessions(
        self, connection: Connection, wait_until: Callable[..., bool]
    ) -> None:
        """A batch that still waits for a free session gives up at once, and never reaches the server."""
        busy = [started(connection, f"busy{number}") for number in range(8)]
        queued = Batch("queued").add("exec sleep 4712001").start(connection)
        assert wait_until(lambda: connection.transport.slots._queue)
        del queued
        assert wait_until(lambda: "axon-batch-queued" not in drivers())
        assert not any(one.done() for one in busy)

    def test_many_on_a_server_that_is_slow_to_start_a_shell(
        self, own_sshd: Callable[..., Any], running: Callable[[str], list[int]], wait_until: Any
    ) -> None:
        """However long each order to end waits for its turn, all batches are ended."""
        server = own_sshd('ForceCommand sleep 1.5; eval "$SSH_ORIGINAL_COMMAND"')
        with server.fleet() as fleet:
            busy = [Batch("busy").add("exec sleep 4712004").start(fleet["app1"]) for _ in range(8)]
            assert wait_until(lambda: 8 == len(running("4712004")))
            busy.clear()
            assert wait_until(lambda: not running("4712004"))
            assert wait_until(lambda: not channels(fleet["app1"]))

    def test_an_uninterruptible_one(
        self, connection: Connection, tmp_path: Path, wait_until: Callable[..., bool]
    ) -> None:
        """What must not stop half-way runs to its end on the server though its handle is dropped."""
        begun = threading.Event()
        batch = Batch("b", uninterruptible=True).add(f"echo begun; sleep 0.5; touch {tmp_path}/done", "a")
        pending = batch.start(connection, on_output=lambda *_: begun.set())
        assert begun.wait(20)
        del pending
        assert wait_until((tmp_path / "done").exists)

    def test_one_that_has_ended(self, connection: Connection) -> None:
        """Results outlive the handle."""
        result = Batch("b").add("echo out", "a").start(connection).result()
        gc.collect()
        assert "out\n" == result["a"].stdout


class TestSending:
    """A script that the server does not read."""

    @pytest.fixture
    def deaf(
        self,
        connection: Connection,
        tmp_path: Path,
        wait_until: Callable[..., bool],
        running: Callable[[str], list[int]],
    ) -> Iterator[Callable[..., PendingBatch]]:
        """Start a batch whose shell sleeps before it reads, so that it is stuck while it is being sent; it runs nothing."""
        shell = tmp_path / "deaf"
        shell.write_text("#!/bin/sh\nsleep 4\nexec sh -s\n")
        shell.chmod(0o755)

        def start(**options: Any) -> PendingBatch:
            batch = Batch("deaf", shell=str(shell)).add(f"touch {tmp_path}/ran; cat", "a", stdin=LARGE)
            pending = batch.start(connection, **options)
            assert wait_until(lambda: pending._exchange._transmitted)
            return pending

        yield start
        assert wait_until(lambda: not running(str(shell)))
        assert not (tmp_path / "ran").exists()

    def test_cancelling(self, deaf: Callable[..., PendingBatch]) -> None:
        """Cancelling ends the sending, and the result says how much was sent."""
        pending = deaf()
        pending.cancel()
        with pytest.raises(BatchCancelledError) as caught:
            pending.result()
        assert 0 < caught.value.partial.bytes_sent < len(LARGE)
        assert caught.value.partial["a"].exit_code is None

    def test_dropping(self, deaf: Callable[..., PendingBatch]) -> None:
        """A handle may be dropped while its script is being sent."""
        pending = deaf()
        del pending

    def test_a_time_limit(self, deaf: Callable[..., PendingBatch]) -> None:
        """The time limit of a batch holds while it is being sent."""
        with pytest.raises(BatchTimeoutError, match="before the script began"):
            deaf(timeout=1).result()

    def test_a_cut_script_runs_nothing(self, own_sshd: Callable[..., Any], tmp_path: Path) -> None:
        """When the connection breaks while a script is being sent, nothing has run, and the error says so."""
        server = own_sshd()
        shell = tmp_path / "slow"
        shell.write_text("#!/bin/sh\nsleep 2\nexec sh -s\n")
        shell.chmod(0o755)
        with server.fleet() as fleet:
            batch = Batch("cut", shell=str(shell)).add(f"touch {tmp_path}/ran", "a", stdin=LARGE)
            pending = batch.start(fleet["app1"])
            while not pending._exchange._transmitted:
                pass
            for session in server.sessions():
                os.kill(session, signal.SIGKILL)
            with pytest.raises(BatchLostError) as caught:
                pending.result(30)
        assert caught.value.hint == "nothing ran: the script had not arrived whole"
        assert not (tmp_path / "ran").exists()


class TestWaiting:
    """For all, for any, with a deadline, and from anywhere."""

    def test_any(self, connection: Connection) -> None:
        """The first that ends is given, and the others go on."""
        slow = started(connection, "slow")
        quick = Batch("quick").add("true").start(connection)
        assert quick is wait_any(slow, quick)
        assert not slow.done()

    def test_any_of_several_that_have_ended(self, connection: Connection, tmp_path: Path) -> None:
        """Of several that have ended, the one that ended first is given, whatever their order."""
        first, second = (
            Batch("first").add("true").start(connection),
            Batch("second").add(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done").start(connection),
        )
        first.result(30)
        (tmp_path / "go").touch()
        assert wait(first, second)
        assert [first, first] == [wait_any(second, first), wait_any(first, second)]

    def test_any_with_a_deadline(self, connection: Connection) -> None:
        """When none has ended in time, or there is none, nothing is given."""
        slow = started(connection)
        assert wait_any(slow, timeout=0.1) is None
        assert wait_any(timeout=0.1) is None
        assert not slow.done()

    def test_any_with_a_dead_connection(self, own_sshd: Callable[..., Any], connection: Connection) -> None:
        """A batch that lost its connection has ended, too; what became of the others can still be read."""
        server = own_sshd()
        with server.fleet() as other:
            lost, fine = started(other["app1"], "lost", 60), started(connection, "fine")
            for session in server.sessions():
                os.kill(session, signal.SIGKILL)
            assert lost is wait_any(fine, lost, timeout=30)
            assert isinstance(lost.error(), ConnectionLostError)
            assert not fine.done()
            good = Batch("good").add("exit 3", "a").start(connection)
            with pytest.raises(ConnectionLostError):
                wait(lost, good)
            assert good.error() is None
            assert 3 == good.result()["a"].exit_code

    def test_as_completed(self, connection: Connection, tmp_path: Path) -> None:
        """Batches come in the order in which they end, also those that failed."""
        # Each ends only once it is let go, after the one before it has come: no clock decides.
        pending = [
            Batch(f"b{number}")
            .add(f"until [ -e {tmp_path}/{number} ]; do sleep 0.1; done; exit {number}")
            .start(connection)
            for number in (2, 0, 1)
        ]
        came = []
        (tmp_path / "0").touch()
        for one in as_completed(*pending, timeout=60):
            came.append(one.name)
            (tmp_path / f"{len(came)}").touch()
        assert ["b0", "b1", "b2"] == came

    def test_as_completed_with_a_deadline(self, connection: Connection) -> None:
        """Those that are too late are named."""
        quick, slow = Batch("quick").add("true").start(connection), started(connection, "slow")
        found = as_completed(quick, slow, timeout=2)
        assert quick is next(found)
        with pytest.raises(TimeoutError, match=r"not ended within 2 s: 'slow' on app1$"):
            next(found)

    def test_an_error_can_be_read_without_being_raised(self, connection: Connection) -> None:
        """The error of a batch is there to be looked at; a failed section is a result."""
        pending = started(connection)
        with pytest.raises(TimeoutError):
            pending.error(0.1)
        pending.cancel()
        assert isinstance(pending.error(), BatchCancelledError)
        assert Batch("b").add("false").start(connection).error() is None

    def test_fifty_at_once(self, connection: Connection) -> None:
        """Fifty batches on one connection take turns, and each gives its own result."""
        pending = [Batch(f"b{number}").add(f"echo {number}", "a").start(connection) for number in range(50)]
        assert wait(*pending, timeout=120)
        assert [f"{number}\n" for number in range(50)] == [one.result()["a"].stdout for one in pending]

    def test_handles_belong_to_no_thread(self, connection: Connection) -> None:
        """A handle that one thread has made can be waited for by several others, and cancelled by another."""
        pending, seen = started(connection), []
        waiting = [threading.Thread(target=lambda: seen.append(pending.error())) for _ in range(4)]
        for thread in waiting:
            thread.start()
        canceller = threading.Thread(target=pending.cancel)
        canceller.start()
        for thread in (*waiting, canceller):
            thread.join(20)
        assert [BatchCancelledError] * 4 == [type(error) for error in seen]
        del waiting, canceller

    def test_a_listener_may_cancel(self, connection: Connection) -> None:
        """A batch can be cancelled from what listens to it, by what it says."""
        handle: list[PendingBatch] = []
        there = threading.Event()

        def listen(*_: object) -> None:
            there.wait(20)
            handle[0].cancel()

        handle.append(
            Batch("b").add("echo begun; exec sleep 4712001", "a").start(connection, on_output=listen)
        )
        there.set()
        assert isinstance(handle[0].error(20), BatchCancelledError)
        handle.clear()

    def test_an_interrupt_is_heard_at_once(self, connection: Connection) -> None:
        """Ctrl-C while batches are waited for reaches the caller; the batches end when the handles are dropped."""

        def task() -> None:
            pending = started(connection, "one"), started(connection, "two")
            main = threading.main_thread().ident
            assert main is not None
            timer = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT])
            timer.start()
            wait(*pending)

        with pytest.raises(KeyboardInterrupt) as caught:
            task()
        del caught


class TestClosing:
    """The end of connections, and of the program."""

    def test_closing_ends_all(
        self, own_sshd: Callable[..., Any], running: Callable[[str], list[int]], wait_until: Any
    ) -> None:
        """Closing a connection ends those that run and those that wait for a session, and leaves no thread."""
        server, before = own_sshd(), threading.active_count()
        with server.fleet() as fleet:
            pending = [
                Batch(f"b{number}").add("exec sleep 4712002").start(fleet["app1"]) for number in range(20)
            ]
            assert wait_until(lambda: len(running("4712002")) == 8)
        assert {BatchCancelledError} == {type(one.error(0)) for one in pending}
        assert wait_until(lambda: not running("4712002"))
        assert wait_until(lambda: before == threading.active_count())
        assert wait_until(lambda: not server.sessions())

    @pytest.mark.parametrize("handle", ["kept = ", ""])
    def test_the_end_of_the_program(
        self,
        sshd: Any,
        fleet: Fleet,
        running: Callable[[str], list[int]],
        wait_until: Any,
        handle: str,
        tmp_path: Path,
    ) -> None:
        """A program that ends without closing anything leaves nothing on the server, whether it holds the handle or not."""
        assert fleet["app1"].is_connected
        program = f"""
import sys, time
from pathlib import Path
from axon_tasks.remote import Batch, Fleet
from axon_tasks.remote.fleet import AdHocHost
class Project:
    hosts = {{"app1": AdHocHost("app1", "127.0.0.1", {sshd.host().user!r}, {sshd.port}, Path({str(sshd.key)!r}))}}
    known_hosts = None
fleet = Fleet(Project(), ssh_config=Path({str(sshd.ssh_config)!r}))
batch = Batch("b").add("touch {tmp_path}/begun; timeout 100 sleep 4712003", "a").add("sleep 4712003", "b")
{handle}batch.start(fleet["app1"])
if {bool(handle)}:
    while not Path("{tmp_path}/begun").exists():
        time.sleep(0.02)
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
        assert bool(handle) <= (tmp_path / "begun").exists()
        assert wait_until(lambda: not running("4712003"))


class TestReserve:
    """Shells that are there before they are needed."""

    def test_batches_in_a_row_find_a_shell_ready(self, connection: Connection, wait_until: Any) -> None:
        """While a connection is idle, two shells are started, and a batch takes one of them."""
        Batch("b").add("true").run(connection)
        Batch("b").add("true").run(connection)
        shells = connection._shells
        assert shells is not None
        assert wait_until(lambda: [0, 0] == [spare.distance for spare in shells._spares])
        spares = {spare.channel.chanid for spare in shells._spares}
        assert 1 == Batch("b").add("true").run(connection).round_trips
        assert 1 == len(spares & {spare.channel.chanid for spare in shells._spares})

    def test_as_many_as_asked_for_are_started(self, connection: Connection, wait_until: Any) -> None:
        """Two batches at the same time find a shell each where that was asked for; the next one's is begun."""
        connection.refill(started=2)
        shells = connection._shells
        assert shells is not None
        assert wait_until(lambda: [0, 0, 1] == [spare.distance for spare in shells._spares])
        pending = [Batch("b").add("true").start(connection) for _ in range(2)]
        assert [1, 1] == [one.result().round_trips for one in pending]

    def test_the_last_batch_prepares_nothing(self, connection: Connection, wait_until: Any) -> None:
        """After a batch that is said to be the last, no other shell is started on the server."""
        shells = connection._shells
        assert shells is not None
        assert wait_until(lambda: ["sh", None] == [one.program for one in shells._spares if one.distance < 2])
        Batch("b").add("true").run(connection, last=True)
        assert [None] == [one.program for one in shells._spares]

    def test_another_shell_takes_the_empty_session(self, connection: Connection, wait_until: Any) -> None:
        """A batch for another shell than sh uses the session in which nothing runs yet."""
        shells = connection._shells
        assert shells is not None
        assert wait_until(lambda: ["sh", None] == [one.program for one in shells._spares if one.distance < 2])
        empty = shells._spares[1].channel
        channel, distance = connection.ready_shell("bash")
        assert empty is channel
        assert 1 == distance
        channel.close()

    def test_a_fan_out_starts_no_threads(self, own_sshd: Callable[..., Any]) -> None:
        """A connection has one thread, Paramiko's own, however many shells are prepared."""
        server, before = own_sshd(), threading.active_count()
        with server.fleet(*(server.host(name=f"app{number}") for number in range(10))) as fleet:
            opened = fleet.open([f"app{number}" for number in range(10)])
            for connection in opened.values():
                connection.refill(started=2)
            assert before + 10 == threading.active_count()

    def test_a_refused_spare_harms_nobody(self, own_sshd: Callable[..., Any], wait_until: Any) -> None:
        """Where the server grants fewer sessions than there are spares, the limit is learnt and nothing fails."""
        with own_sshd("MaxSessions 1").fleet() as fleet:
            connection = fleet["app1"]
            assert wait_until(lambda: 1 == connection.transport.slots.limit)
            for _ in range(3):
                assert Batch("b").add("true").run(connection, timeout=30).ok


class TestSlots:
    """The sessions of a connection are handed out in turn."""

    def test_whoever_waits_longer_comes_first(self, wait_until: Any) -> None:
        """Slots go to those who wait, in the order in which they came."""
        slots, order = Slots(1), []

        def take(number: int) -> None:
            with slots.reserved(20, Wake()):
                order.append(number)

        with slots.reserved(1, Wake()):
            threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
            for index, thread in enumerate(threads, 1):
                thread.start()
                assert wait_until(lambda: len(slots._queue) == index)  # noqa: B023 - called before the next round
        for thread in threads:
            thread.join(20)
        assert [0, 1, 2, 3, 4] == order

    def test_whoever_gives_up_lets_the_next_one_in(self, wait_until: Any) -> None:
        """A waiter that was told to give up does not hold up those behind it."""
        slots, gone, seen = Slots(1), Wake(), []

        def take(turn: Wake) -> None:
            try:
                with slots.reserved(20, turn):
                    seen.append("got it")
            except paramiko.SSHException as error:
                seen.append(str(error))

        with slots.reserved(1, Wake()):
            threads = [threading.Thread(target=take, args=(turn,)) for turn in (gone, Wake())]
            for index, thread in enumerate(threads, 1):
                thread.start()
                assert wait_until(lambda: len(slots._queue) == index)  # noqa: B023 - called before the next round
            gone.abandon()
            threads[0].join(20)
        threads[1].join(20)
        assert ["no free session", "got it"] == seen

    def test_what_must_not_queue_goes_beyond_the_limit(self) -> None:
        """One session more than usual is there for ending the others."""
        slots = Slots(1)
        with slots.reserved(0, Wake()), slots.reserved(0, Wake(), 1):
            assert not slots.try_take(0)


class TestWake:
    """What a reader sleeps on."""

    def test_it_is_set_once(self) -> None:
        """Set several times it wakes once, and clearing it is left to the reader."""
        wake = Wake()
        for _ in range(3):
            wake.set()
        wake.clear()
        assert wake.is_set()
        assert [True, False] == [wake.wait(0), wake.wait(0)]

    def test_a_finalizer_may_use_it_anywhere(self) -> None:
        """It can be set by a finalizer that interrupts its own thread in the middle of waiting for it."""
        wake = Wake()
        previous = signal.signal(signal.SIGALRM, lambda *_: wake.abandon())
        try:
            for _ in range(50):
                wake.rearm()
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                assert wake.wait(20)
        finally:
            signal.signal(signal.SIGALRM, previous)

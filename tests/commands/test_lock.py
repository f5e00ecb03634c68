"""The lock's shell functions, run by every shell that servers have: one owner, who is known, alive, or told to be gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands.shell import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Run = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")

A, B = "a1a1a1a1", "b2b2b2b2"


@dataclass
class Holder:
    """A script that takes the lock, and what it is told and says."""

    process: subprocess.Popen[str]

    def until(self, key: str) -> list[str]:
        """Read what it says up to the first line with this key."""
        assert self.process.stdout is not None
        said: list[str] = []
        for line in self.process.stdout:
            said.append(line.rstrip("\n"))
            if line.startswith(f"{key}="):
                return said
        raise AssertionError(said)

    def rest(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def said_at_last(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().splitlines()[-1]

    def send(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def hang_up(self) -> int:
        """End its input, as a connection that breaks does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)

    def end(self) -> None:
        """Leave no process and no pipe: what the shell has started ends with its input."""
        self.process.kill()
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@dataclass
class Lock:
    """One environment's lock."""

    state: Path
    shell: list[str]
    holders: list[Holder]

    @property
    def note(self) -> dict[str, Any]:
        return json.loads((self.state / "lock.owner").read_text())  # type: ignore[no-any-return]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.state.iterdir())

    @property
    def is_free(self) -> bool:
        return subprocess.run(["flock", "-n", str(self.state / "lock"), "true"], check=False).returncode == 0

    def begin(self, token: str, *, wait: int = 0, expiry: int = 60) -> Holder:
        text = script(
            "lock_hold",
            ("lock",),
            state=str(self.state),
            flag=str(self.state / "slot_b"),
            owner=json.dumps({"who": f"user-{token}", "token": token}),
            heeds=1,
            lock_wait=wait,
            lock_expiry=expiry,
        )
        made = Holder(
            subprocess.Popen(
                [*self.shell, "-c", text],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        self.holders.append(made)
        return made

    def held(self, token: str, **more: int) -> Holder:
        made = self.begin(token, **more)
        made.until("locked")
        return made

    def take_away(self, token: str) -> str:
        return script(
            "lock_break && audit", ("lock", "records"),
            state=str(self.state), token=token, line="2026-11-25T14:00:00Z bob@desk lock.break",
        )  # fmt: skip

    def acquire(self, who: str = "ann") -> str:
        """The script that holds the environment for longer than it lives."""
        return script(
            "lock_acquire && audit", ("lock", "records"), state=str(self.state), heeds=1, lock_wait=0,
            note=json.dumps({"who": who, "message": "a freeze"}), line=f"{who} lock.acquire",
        )  # fmt: skip

    def release(self) -> str:
        return script(
            "lock_release && audit", ("lock", "records"), state=str(self.state), heeds=0, lock_wait=0, line="lock.release"
        )  # fmt: skip

    def look(self) -> str:
        return script("tell_lock", ("lock",), state=str(self.state))


@pytest.fixture
def lock(shell: list[str], tmp_path: Path) -> Iterator[Lock]:
    (tmp_path / "prod").mkdir()
    made = Lock(tmp_path / "prod", shell, [])
    yield made
    for holder in made.holders:
        holder.end()


def told(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def noted(value: str) -> dict[str, Any]:
    """The note behind its age."""
    age, _, note = value.partition(" ")
    assert age.isdecimal()
    return json.loads(note)  # type: ignore[no-any-return]


def test_the_owner_knows_what_serves_under_the_lock(lock: Lock) -> None:
    """Whoever gets the lock is told slot, current release and fencing number, and stands beside it with its process."""
    (lock.state / "slot_b").touch()
    (lock.state / "current").write_text("1764000000\n")
    holder = lock.begin(A)
    said = holder.until("locked")
    assert ["fence=1", "slot=b", "current=1764000000", "locked=yes"] == said
    note = lock.note
    pid, start, boot = note.pop("holder").split(" ")
    assert {"who": f"user-{A}", "token": A, "fence": 1} == note
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    assert (start, boot) == (fields[19], Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def test_there_is_one_owner_and_the_others_are_told_who(lock: Lock) -> None:
    """A second one exits with 75 and the owner's note, and leaves lock and note as they are."""
    first = lock.held(A)
    second = lock.begin(B)
    said = told(second.rest())
    assert (75, A, A) == (second.process.wait(20), noted(said["owner"])["token"], lock.note["token"])
    assert (None, False) == (first.process.poll(), lock.is_free)


def test_who_gives_it_back_leaves_nothing(lock: Lock) -> None:
    """After `bye` the lock is free and no note stands beside it; the next owner is told of nobody."""
    first = lock.held(A)
    first.send("bye\n")
    assert (0, ["lock"], True) == (first.process.wait(20), lock.files, lock.is_free)
    assert "stale" not in told("\n".join(lock.begin(B).until("locked")))


def test_who_hears_no_more_can_give_it_back(lock: Lock) -> None:
    """A sign of life whose answer nobody reads keeps nobody from giving the lock back after it."""
    first = lock.held(A)
    assert first.process.stdout is not None
    first.process.stdout.close()
    first.send("12.50\nbye\n")
    assert (0, ["lock"]) == (first.process.wait(20), lock.files)


def test_who_vanishes_frees_the_lock_and_is_remembered(lock: Lock) -> None:
    """When the connection breaks the lock is free at once, and the next owner is told who has not finished."""
    first = lock.held(A)
    assert (1, True) == (first.hang_up(), lock.is_free)
    said = told("\n".join(lock.begin(B).until("locked")))
    assert (A, "2", B) == (noted(said["stale"])["token"], said["fence"], lock.note["token"])


def test_a_holder_that_is_killed_is_remembered(lock: Lock) -> None:
    """So it is when the process on the server is killed."""
    first = lock.held(A)
    os.kill(int(lock.note["holder"].split(" ")[0]), 9)
    first.process.wait(20)
    assert A == noted(told("\n".join(lock.begin(B).until("locked")))["stale"])["token"]


def test_who_is_silent_loses_the_lock(lock: Lock) -> None:
    """Without a sign of life the lock is let go after the time that was set, though the connection still stands."""
    first = lock.held(A, expiry=1)
    assert (76, "nothing was heard for 1 s") == (
        first.process.wait(20),
        first.said_at_last(),
    )
    assert (True, A) == (lock.is_free, lock.note["token"])


def test_signs_of_life_come_back(lock: Lock) -> None:
    """Each line is sent back, so that both sides know of each other."""
    first = lock.held(A)
    for moment in ("12.50", "17.51"):
        first.send(f"{moment}\n")
        assert [f"alive={moment}"] == first.until("alive")
    assert not lock.is_free


def test_who_waits_says_for_whom_once_and_gets_it(lock: Lock) -> None:
    """A waiting one tells the owner once, and has the lock when it is given back; it knows that it has waited."""
    first = lock.held(A)
    second = lock.begin(B, wait=6000)
    before = second.until("waiting")
    first.send("bye\n")
    after = second.until("locked")
    assert (A, "yes") == (
        noted(told("\n".join(before))["waiting"])["token"],
        told("\n".join(before))["waited"],
    )
    assert {"fence", "slot", "current", "locked"} == set(told("\n".join(after)))
    assert B == lock.note["token"]


def test_waiting_has_an_end(lock: Lock) -> None:
    """When the time is over, the owner is told as if nobody had waited."""
    lock.held(A)
    second = lock.begin(B, wait=50)
    said = told(second.rest())
    assert (75, A) == (second.process.wait(20), noted(said["owner"])["token"])


def test_a_waiting_one_that_nobody_reads_ends(lock: Lock) -> None:
    """Whoever is not wanted any more does not wait on, and does not take the lock later."""
    first = lock.held(A)
    second = lock.begin(B, wait=6000)
    second.until("waiting")
    assert second.process.stdout is not None
    second.process.stdout.close()
    second.process.wait(20)
    first.send("bye\n")
    first.process.wait(20)
    assert (True, ["lock"]) == (lock.is_free, lock.files)


def test_fencing_numbers_only_grow(lock: Lock) -> None:
    """Each owner's number is greater than all before, also when one has vanished and when its note is gone."""
    seen = []
    for number in range(4):
        holder = lock.held(A)
        seen.append(lock.note["fence"])
        if number % 2:
            holder.hang_up()
        else:
            holder.send("bye\n")
            holder.process.wait(20)
        (lock.state / "lock.owner").unlink(missing_ok=True)
    assert [1, 2, 3, 4] == seen


HOSTILE = {
    "lines": b"{}\nlocked=yes\nslot=b\n",
    "binary": bytes(range(256)) * 20,
    "huge": b"x" * 1_000_000,
    "escapes": b'{"who": "\x1b[2J\x07"}\n',
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_note_is_one_line_of_plain_text(lock: Lock, run: Run, name: str) -> None:
    """Whatever stands beside the lock, it forges no answer, reaches no terminal, and keeps nobody from working."""
    (lock.state / "lock").touch()
    (lock.state / "lock.owner").write_bytes(HOSTILE[name])
    looked = run(lock.look()).stdout
    said = lock.begin(A).until("locked")
    assert re.fullmatch(r"stale=\d+ [ -~]{0,4000}\n", looked)
    assert ["stale", "fence", "slot", "current", "locked"] == [line.partition("=")[0] for line in said]
    assert ("slot=a", A) == (said[2], lock.note["token"])


def test_a_look_takes_nothing(lock: Lock, run: Run) -> None:
    """A look tells a held lock from one that is free, from one whose owner has not finished, and from none."""
    assert "" == run(lock.look()).stdout
    first = lock.held(A)
    held = told(run(lock.look()).stdout)
    first.hang_up()
    left = told(run(lock.look()).stdout)
    (lock.state / "lock.owner").unlink()
    assert (["locked"], ["stale"], "") == (list(held), list(left), run(lock.look()).stdout)
    assert (A, A) == (noted(held["locked"])["token"], noted(left["stale"])["token"])


# --- breaking ----------------------------------------------------------------------------------------------------------


def test_breaking_ends_the_holder_and_is_noted(lock: Lock, run: Run) -> None:
    """With the owner's token its process is ended, the lock is free without a trace, and the audit log says who and whom."""
    first = lock.held(A)
    holder = lock.note["holder"].split(" ")[0]
    done = run(lock.take_away(A))
    assert (0, holder, "") == (done.returncode, told(done.stdout)["ended"], done.stderr)
    assert A == noted(told(done.stdout)["owner"])["token"]
    first.process.wait(20)
    assert (True, ["audit.log", "lock"]) == (lock.is_free, lock.files)
    line = (lock.state / "audit.log").read_text()
    assert line.startswith("2026-11-25T14:00:00Z bob@desk lock.break {")
    assert A in line


@pytest.mark.parametrize("token", [B, "", "a1a1a1a"])
def test_breaking_with_another_token_changes_nothing(lock: Lock, run: Run, token: str) -> None:
    """Whoever means another owner is told who has the lock, with exit code 77."""
    first = lock.held(A)
    done = run(lock.take_away(token))
    assert (77, A, None) == (
        done.returncode,
        noted(told(done.stdout)["locked"])["token"],
        first.process.poll(),
    )
    assert ["lock", "lock.owner"] == lock.files


@pytest.mark.parametrize("change", [("pid", 0, "1"), ("start", 1, "1"), ("boot", 2, "0-0"), ("none", 0, "")])
def test_nobody_else_is_ended(lock: Lock, run: Run, change: tuple[str, int, str]) -> None:
    """A process is ended only if number, start time and boot are those of the owner; else nothing is changed, exit code 78."""
    first = lock.held(A)
    note = lock.note
    words = note["holder"].split(" ")
    words[change[1]] = change[2]
    note["holder"] = " ".join(words)
    (lock.state / "lock.owner").write_text(json.dumps(note) + "\n")
    done = run(lock.take_away(A))
    assert (78, None) == (done.returncode, first.process.poll())
    assert "not by the process that stands in lock.owner" in done.stderr
    assert ["lock", "lock.owner"] == lock.files


def test_a_note_that_was_left_is_removed(lock: Lock, run: Run) -> None:
    """Where nobody holds the lock any more, breaking it removes the note and ends nothing."""
    lock.held(A).hang_up()
    done = run(lock.take_away(A))
    assert (0, ["owner"]) == (done.returncode, list(told(done.stdout)))
    assert ["audit.log", "lock"] == lock.files


def test_breaking_where_there_is_no_lock(lock: Lock, run: Run) -> None:
    """Nothing is told, and nothing is made."""
    done = run(lock.take_away(A))
    assert (77, "", []) == (done.returncode, done.stdout, lock.files)


def test_a_waiting_one_keeps_what_it_gets_by_a_breaking(lock: Lock, run: Run) -> None:
    """When a lock is broken for which somebody waits, that one has it, and its note stays."""
    lock.held(A)
    second = lock.begin(B, wait=6000)
    second.until("waiting")
    assert 0 == run(lock.take_away(A)).returncode
    second.until("locked")
    assert (B, False) == (lock.note["token"], lock.is_free)


# --- held for longer than a command lives --------------------------------------------------------------------------------


def test_nobody_gets_the_lock_of_what_is_held(lock: Lock, run: Run) -> None:
    """Whoever takes the lock is told who holds the environment, exit code 79, and leaves no note; the look tells it, too."""
    assert (0, "") == (run(lock.acquire()).returncode, run(lock.acquire()).stderr)
    refused = lock.begin(A)
    said = told(refused.rest())
    assert (79, "ann") == (refused.process.wait(20), noted(said["held"])["who"])
    assert ("ann", True) == (noted(told(run(lock.look()).stdout)["held"])["who"], lock.is_free)
    assert ["audit.log", "held", "lock"] == lock.files


def test_what_is_released_can_be_had(lock: Lock, run: Run) -> None:
    """Releasing tells who held it; after that the lock is had as ever, and the audit log has both."""
    run(lock.acquire())
    done = run(lock.release())
    assert (0, "ann") == (done.returncode, noted(told(done.stdout)["held"])["who"])
    lock.held(A)
    assert "ann lock.acquire\nlock.release\n" == (lock.state / "audit.log").read_text()


def test_nothing_is_released_that_nobody_holds(lock: Lock, run: Run) -> None:
    """It exits with 80, and nothing is made, also where there is no state at all."""
    done = run(lock.release())
    assert (80, "", []) == (done.returncode, done.stdout, lock.files)
    lock.state.rmdir()
    assert (80, False) == (run(lock.release()).returncode, lock.state.exists())


def test_one_holds_it_and_the_others_are_told_who(lock: Lock, run: Run) -> None:
    """A second one exits with 79 and the first one's note, which stays."""
    run(lock.acquire())
    second = run(lock.acquire("bob"))
    assert (79, "ann") == (second.returncode, noted(told(second.stdout)["held"])["who"])
    assert "ann" == json.loads((lock.state / "held").read_text())["who"]


def test_nobody_holds_what_a_run_works_on(lock: Lock, run: Run) -> None:
    """While a run has the lock, holding and releasing exit with 75 and tell whose run it is; the run goes on."""
    first = lock.held(A)
    refused = run(lock.acquire())
    assert (75, A) == (refused.returncode, noted(told(refused.stdout)["owner"])["token"])
    (lock.state / "held").write_text("{}\n")
    assert 75 == run(lock.release()).returncode
    assert (None, True) == (first.process.poll(), (lock.state / "held").exists())


def test_who_waits_for_what_is_held_gets_it_when_it_is_released(lock: Lock, run: Run) -> None:
    """A waiting one says for whom, once, and does not have the lock meanwhile."""
    run(lock.acquire())
    waiting = lock.begin(A, wait=6000)
    said = waiting.until("waiting_held")
    assert "ann" == noted(told("\n".join(said))["waiting_held"])["who"]
    assert lock.is_free
    assert 0 == run(lock.release()).returncode
    waiting.until("locked")
    assert A == lock.note["token"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_hold_is_one_line_of_plain_text(lock: Lock, run: Run, name: str) -> None:
    """Whatever stands in that file, it is a hold, it forges no answer, and it can be released."""
    (lock.state / "held").write_bytes(HOSTILE[name])
    looked = run(lock.look()).stdout
    assert re.fullmatch(r"held=\d+ [ -~]{0,4000}\n", looked)
    refused = lock.begin(A)
    assert ["held"] == [
        line.partition("=")[0] for line in refused.rest().splitlines() if line != "waited=yes"
    ]
    assert 79 == refused.process.wait(20)
    assert (0, False) == (run(lock.release()).returncode, (lock.state / "held").exists())


def test_a_lock_whose_directory_is_deleted_is_another_one(lock: Lock) -> None:
    """Who waits for the lock of an environment that is deleted gets that of the new directory, and not the old one."""
    first = lock.held(A)
    second = lock.begin(B, wait=6000)
    second.until("waiting")
    lock.state.rename(lock.state.with_name("gone"))
    first.hang_up()
    second.until("locked")
    assert (B, False) == (lock.note["token"], lock.is_free)

"""Background jobs that outlive the connection that started them."""

from __future__ import annotations

import os
import shlex
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.errors import UsageError
from axon_tasks.remote import Batch, jobs

if TYPE_CHECKING:
    from collections.abc import Callable


def one(locally: Callable[..., Any], shell: str, text: str) -> tuple[list[jobs.Job], str, int | None]:
    """Run one script of the module in a shell, and read the jobs that it shows."""
    out, err, code = locally(Batch("b").add(text, "a"), shell)["a"]
    return jobs.parse(out.decode()), err.decode(), code


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "jobs dir")


def test_a_job_runs_to_its_end(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """Exit code and log are kept, and the files are for their owner only."""
    assert ([], "", 0) == one(
        locally, shell, jobs.start_script(folder, "j1", "echo out; echo err >&2; exit 3")
    )
    (job,), _, code = one(locally, shell, jobs.wait_script(folder, "j1", 20))
    assert ("j1", "done", 3, "out\nerr\n", 0) == (job.id, job.state, job.exit_code, job.log_tail, code)
    assert job.started is not None
    home = Path(folder, "j1")
    assert 0o700 == stat.S_IMODE(home.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()}


def test_an_id_is_used_once(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """Starting a job under an id that is taken fails and changes nothing."""
    one(locally, shell, jobs.start_script(folder, "j1", "exit 3"))
    one(locally, shell, jobs.wait_script(folder, "j1", 20))
    assert jobs.ID_TAKEN == one(locally, shell, jobs.start_script(folder, "j1", "exit 4"))[2]
    assert 3 == one(locally, shell, jobs.show_script(folder, "j1"))[0][0].exit_code


def test_waiting_has_an_end(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """A job that takes longer than one waits is shown as running, and runs on."""
    one(locally, shell, jobs.start_script(folder, "j1", "echo begun; sleep 60"))
    (job,), _, code = one(locally, shell, jobs.wait_script(folder, "j1", 1))
    assert ("running", None, 0) == (job.state, job.exit_code, code)
    one(locally, shell, jobs.cancel_script(folder, "j1"))


def test_cancelling_ends_all_of_it(
    locally: Callable[..., Any],
    shell: str,
    folder: str,
    wait_until: Callable[..., bool],
    running: Callable[[str], list[int]],
) -> None:
    """Cancelling ends the job and its children; its exit code says so."""
    one(
        locally,
        shell,
        jobs.start_script(folder, "j1", "sleep 4715001 & sh -c 'sleep 4715001; true'; echo no"),
    )
    (job,), _, _ = one(locally, shell, jobs.cancel_script(folder, "j1"))
    assert ("done", 143, "") == (job.state, job.exit_code, job.log_tail)
    assert wait_until(lambda: not running("4715001"))


def test_cancelling_kills_what_does_not_listen(
    locally: Callable[..., Any],
    shell: str,
    folder: str,
    wait_until: Callable[..., bool],
    running: Callable[[str], list[int]],
) -> None:
    """A job that ignores TERM is killed after the grace."""
    one(locally, shell, jobs.start_script(folder, "j1", "trap '' TERM; sleep 4715002; sleep 4715002"))
    assert wait_until(lambda: bool(running("4715002")))  # it listens until it has said that it does not
    (job,), _, _ = one(locally, shell, jobs.cancel_script(folder, "j1", grace=0.3))
    assert ("done", 137) == (job.state, job.exit_code)
    assert wait_until(lambda: not running("4715002"))


def test_all_that_begin_alike_are_cancelled(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """Those that run and whose ids begin so are ended and shown; others, and those that have ended, are left alone."""
    for job in ("retire-1", "retire-2", "other"):
        one(locally, shell, jobs.start_script(folder, job, "sleep 60"))
    one(locally, shell, jobs.start_script(folder, "retire-0", "exit 3"))
    one(locally, shell, jobs.wait_script(folder, "retire-0", 20))
    found, said, code = one(locally, shell, jobs.cancel_all_script(folder, "retire-"))
    assert ("", 0, ["retire-1", "retire-2"]) == (said, code, [job.id for job in found])
    assert {("done", 143)} == {(job.state, job.exit_code) for job in found}
    assert "running" == one(locally, shell, jobs.show_script(folder, "other"))[0][0].state
    one(locally, shell, jobs.cancel_script(folder, "other"))
    assert ([], "", 0) == one(locally, shell, jobs.cancel_all_script(f"{folder}/none", "retire-"))


def test_a_killed_recorder_is_a_lost_job(
    locally: Callable[..., Any], shell: str, folder: str, wait_until: Callable[..., bool]
) -> None:
    """A job whose recorder was killed is lost, not running for ever."""
    one(locally, shell, jobs.start_script(folder, "j1", "sleep 4715003"))
    recorder = int(Path(folder, "j1", "pid").read_text().split()[0])
    os.killpg(recorder, signal.SIGKILL)
    assert wait_until(lambda: one(locally, shell, jobs.show_script(folder, "j1"))[0][0].state == "lost")


def test_somebody_elses_process_is_not_the_job(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """A process with the number of a job, but another start time, is not taken for it."""
    one(locally, shell, jobs.start_script(folder, "j1", "exit 0"))
    one(locally, shell, jobs.wait_script(folder, "j1", 20))
    home = Path(folder, "j1")
    (home / "rc").unlink()
    _, start, boot = (home / "pid").read_text().split()
    (home / "pid").write_text(f"{os.getpid()} {start} {boot}\n")
    assert "lost" == one(locally, shell, jobs.show_script(folder, "j1"))[0][0].state


def test_all_jobs_are_listed(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """The list shows each job with the last lines of its log; a directory that is not there has none."""
    assert ([], "", 0) == one(locally, shell, jobs.list_script(folder))
    for name, body in {"a": "echo 1; echo 2; printf 3", "b": "exit 1"}.items():
        one(locally, shell, jobs.start_script(folder, name, body))
        one(locally, shell, jobs.wait_script(folder, name, 20))
    listed, _, code = one(locally, shell, jobs.list_script(folder, lines=2))
    assert 0 == code
    assert [("a", 0, "2\n3\n"), ("b", 1, "")] == [(job.id, job.exit_code, job.log_tail) for job in listed]


def test_an_unknown_job_is_told(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """Show, wait and cancel of a job that is not there exit with a code of their own."""
    for text in (
        jobs.show_script(folder, "x"),
        jobs.wait_script(folder, "x", 1),
        jobs.cancel_script(folder, "x"),
    ):
        assert jobs.NO_SUCH_JOB == one(locally, shell, text)[2]


def test_old_jobs_are_pruned(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """Pruning removes what ended long ago; what runs and what is recent stays."""
    for name in ("old", "long", "recent", "running"):
        one(locally, shell, jobs.start_script(folder, name, "sleep 60" if name == "running" else "true"))
        one(locally, shell, jobs.wait_script(folder, name, 0 if name == "running" else 20))
    for name in ("long", "running"):  # started long ago, but their logs are still wanted
        Path(folder, name, "started").write_text("1000000000\n")
    os.utime(Path(folder, "old", "rc"), (1_000_000_000, 1_000_000_000))
    Path(folder, "never-begun").mkdir()
    os.utime(Path(folder, "never-begun"), (1_000_000_000, 1_000_000_000))
    for dry_run in (True, False, False):
        out, err, code = locally(Batch("b").add(jobs.prune_script(folder, 7, dry_run=dry_run), "a"), shell)[
            "a"
        ]
        gone = (
            "" if len(list(Path(folder).iterdir())) == 3 and not out else "pruned never-begun\npruned old\n"
        )
        assert (gone, "", 0) == (out.decode(), err.decode(), code)
    assert ["long", "recent", "running"] == sorted(entry.name for entry in Path(folder).iterdir())
    one(locally, shell, jobs.cancel_script(folder, "running"))


def test_a_job_survives_its_connection(
    own_sshd: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., bool]
) -> None:
    """A job that was started over SSH goes on when the connection is gone, and its end is recorded."""
    server = own_sshd()
    folder = str(tmp_path / "jobs")
    with server.fleet() as fleet:
        script = jobs.start_script(folder, "j1", f"sleep 0.5; touch {tmp_path}/done; exit 5")
        assert Batch("b").add(script).run(fleet["app1"], timeout=20).ok
        for session in server.sessions():
            os.kill(session, signal.SIGKILL)
    assert wait_until((tmp_path / "done").exists)
    assert wait_until(Path(folder, "j1", "rc").exists)
    assert "5\n" == Path(folder, "j1", "rc").read_text()


@pytest.mark.parametrize(
    "name", ["", "../evil", "a/b", ".hidden", "-rf", "a b", "a\n", "x" * 101, "ä", "$(id)"]
)
def test_hostile_ids_are_refused(name: str) -> None:
    """What is no plain name does not reach a shell."""
    for make in (jobs.show_script, jobs.cancel_script):
        with pytest.raises(UsageError, match="not the id of a background job"):
            make("/var/lib/axon", name)


@pytest.mark.parametrize("folder_", ["", "relative", "/a/../b", "/a\nb", "-x"])
def test_hostile_directories_are_refused(folder_: str) -> None:
    """The directory of the jobs is an absolute path without tricks."""
    with pytest.raises(UsageError, match="not an absolute path"):
        jobs.list_script(folder_)


def test_a_log_cannot_forge_a_job() -> None:
    """A log line that looks like a job is a log line."""
    text = "job a done 0 12\n| job b running - 1\n| | x\n\n"
    assert [jobs.Job("a", "done", 0, 12, "job b running - 1\n| x\n")] == jobs.parse(text)


def test_a_job_says_what_it_does_and_when(locally: Callable[..., Any], shell: str, folder: str) -> None:
    """A title comes back as it was given, a job without one has none, and the server's own clock tells its age."""
    title = "it's a $(title); with `tricks`"
    one(locally, shell, jobs.start_script(folder, "a", "true", title=title))
    one(locally, shell, jobs.start_script(folder, "b", "echo title forged; sleep 60"))
    (first,), _, _ = one(locally, shell, jobs.wait_script(folder, "a", 20))
    (second,), _, _ = one(locally, shell, jobs.wait_script(folder, "b", 0))
    one(locally, shell, jobs.cancel_script(folder, "b"))
    assert (title, "") == (first.title, second.title)
    assert first.ended is not None
    assert second.ended is None
    assert 0 <= (first.age if first.age is not None else -1) < 3600


def test_a_title_is_one_line() -> None:
    """What would be a line of its own in the answer is no title."""
    with pytest.raises(UsageError, match="not a title"):
        jobs.start_script("/var/lib/axon", "j1", "true", title="a\njob b running - 1")


def test_of_many_who_start_one_job_at_the_same_moment_one_does(
    locally: Callable[..., Any], shell: str, folder: str
) -> None:
    """In 20 races of two starts with the same id one wins, the other one is refused, and the job runs once."""
    with ThreadPoolExecutor(2) as pool:
        for race in range(20):
            script = jobs.start_script(folder, f"j{race}", f"echo once >>{shlex.quote(folder)}.ran")
            codes = list(pool.map(lambda text: one(locally, shell, text)[2], [script, script]))
            assert [0, jobs.ID_TAKEN] == sorted(code or 0 for code in codes)
            one(locally, shell, jobs.wait_script(folder, f"j{race}", 20))
    assert ["once"] * 20 == Path(f"{folder}.ran").read_text().splitlines()

"""The switch on a system server, run by every shell: the flag, the proof, the way back, and the journal."""

from __future__ import annotations

import http.server
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands import docker
from axon_tasks.commands.shell import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from axon_tasks.config import Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")

TARGETS = {"a": "10.0.0.21:30000", "b": "10.0.0.21:30001"}
RECORD = '{"id": "200", "image": "registry.test/it\'s"}'


class Nginx:
    """What nginx does on a system server: it looks for the flag at each request."""

    def __init__(self, state: Path) -> None:
        self.state = state
        #: The status of the answers of slot b; 0 never answers.
        self.status = 200
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                slot = "b" if (served.state / "slot_b").exists() else "a"
                while slot == "b" and served.status == 0:
                    time.sleep(0.02)
                self.send_response(served.status if slot == "b" else 200)
                self.send_header("X-Axon-Upstream", TARGETS[slot])
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """A system server on which release 100 serves from slot a."""
    state = tmp_path / "axon/shop/prod"
    state.mkdir(parents=True)
    (state / "current").write_text("100\n")
    made = Nginx(state)
    yield made
    made.status = 200
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def switch(nginx: Nginx, project: Project) -> Callable[..., str]:
    """The script that switches from release 100 in slot a to release 200 in slot b."""

    def text(**changes: Any) -> str:
        values: dict[str, Any] = {
            "state": str(nginx.state),
            "flag": str(nginx.state / "slot_b"),
            "name": "shop-prod",
            "release": "200",
            "slot": "b",
            "previous": "a",
            "targets": TARGETS["b"],
            "install": 0,
            "expected_current": "100",
            "run": "20261125-120000-1",
            "record": RECORD,
            "http_port": nginx.server.server_address[1],
            "probe_path": "/",
            "domain": "shop.test",
            **docker.probe_values(project.environments["prod"]),
        }
        return script("switch_slots", ("http", "nginx", "switch"), **values | changes)

    return text


def settled(nginx: Nginx) -> str:
    return script("settle_journal", ("records",), state=str(nginx.state))


def files(nginx: Nginx) -> dict[str, str]:
    """What stands in the state directory, but for the file that is only locked."""
    found = {path.name: path.read_text() for path in nginx.state.rglob("*") if path.is_file()}
    found.pop("switch.lock", None)
    return found


def test_a_switch_leaves_its_journal_for_the_record(
    run: Any, nginx: Nginx, switch: Callable[..., str]
) -> None:
    """The new release serves, and who was switching to what, with the record, stands there until that is written."""
    done = run(switch())
    assert (0, "serves=200\n") == (done.returncode, done.stdout), done.stderr
    assert {
        "current": "200\n",
        "slot_b": "200\n",
        "journal": f"20261125-120000-1 200 b a\n{RECORD}\n",
    } == files(nginx)


def test_writing_the_record_ends_the_journal(run: Any, nginx: Nginx, switch: Callable[..., str]) -> None:
    """With the record in its place nothing is left to be known."""
    run(switch())
    values = {"state": str(nginx.state), "release": "200", "record": RECORD}
    assert 0 == run(script("write_release", ("records",), **values)).returncode
    assert {"current": "200\n", "slot_b": "200\n", "200.json": f"{RECORD}\n"} == files(nginx)


def test_a_switch_that_is_not_proven_leaves_nothing(
    run: Any, nginx: Nginx, switch: Callable[..., str]
) -> None:
    """When nginx answers with an error, the old release serves again, and there is no journal."""
    nginx.status = 500
    done = run(switch())
    assert (62, True) == (done.returncode, "everything is as it was before" in done.stderr)
    assert {"current": "100\n"} == files(nginx)


def test_somebody_else_was_faster(run: Any, nginx: Nginx, switch: Callable[..., str]) -> None:
    """A switch from a release that is not the current one any more changes nothing."""
    done = run(switch(expected_current="99"))
    assert (60, {"current": "100\n"}) == (done.returncode, files(nginx))


def test_the_way_back_needs_no_journal(run: Any, nginx: Nginx, switch: Callable[..., str]) -> None:
    """Where there is no record to be written, the journal ends with the switch."""
    assert 0 == run(switch(record="")).returncode
    assert {"current": "200\n", "slot_b": "200\n"} == files(nginx)


def test_current_must_be_written(run: Any, nginx: Nginx, switch: Callable[..., str]) -> None:
    """A switch after which `current` says something else is no success; the journal stays to tell of it."""
    (nginx.state / "current").unlink()
    (nginx.state / "current").mkdir()
    (nginx.state / "current/full").touch()
    done = run(switch(expected_current="any"))
    assert (64, True) == (done.returncode, "current cannot be written" in done.stderr)
    assert "journal" in files(nginx)


def begun(shell: list[str], text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*shell, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_killed_after_its_flip_is_recorded_by_the_next_run(
    shell: list[str], run: Any, nginx: Nginx, switch: Callable[..., str]
) -> None:
    """A switch that was complete when its run died gets its record; the journal is then gone."""
    run(switch())
    done = run(settled(nginx))
    assert (0, "settled=20261125-120000-1\n") == (done.returncode, done.stdout)
    assert {"current": "200\n", "slot_b": "200\n", "200.json": f"{RECORD}\n"} == files(nginx)


def test_what_was_killed_before_its_proof_is_not_recorded(
    shell: list[str], run: Any, nginx: Nginx, switch: Callable[..., str]
) -> None:
    """A script that died between flip and proof leaves its journal; whoever settles it makes no release of it."""
    nginx.status = 0
    process = begun(shell, switch())
    wait_for(nginx.state / "slot_b")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "journal" in files(nginx)
    nginx.status = 200
    assert 0 == run(settled(nginx)).returncode
    assert {"current": "100\n", "slot_b": "200\n"} == files(nginx)


@pytest.mark.parametrize(
    "text", ["", "\n", "x\n", "a b c d\n{}\n", "r 100; b a\n{}\n", "r ../../x b a\n{}\n"]
)
def test_a_journal_that_makes_no_sense_is_removed(run: Any, nginx: Nginx, text: str) -> None:
    """Whatever stands in it, nothing else is written."""
    (nginx.state / "journal").write_text(text)
    assert 0 == run(settled(nginx)).returncode
    assert {"current": "100\n"} == files(nginx)


def test_a_second_switch_waits_for_the_first(
    shell: list[str], run: Any, nginx: Nginx, switch: Callable[..., str]
) -> None:
    """While a switch is not proven no other one begins, and then it finds what the first one has made."""
    nginx.status = 0
    first = begun(shell, switch())
    wait_for(nginx.state / "slot_b")
    second = begun(shell, switch(release="300", run="20261125-120001-2"))
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=0.5)
    assert nginx.state.joinpath("journal").read_text().startswith("20261125-120000-1 200 ")
    nginx.status = 200
    first.communicate(timeout=30)
    _, errors = second.communicate(timeout=30)
    assert (0, 60, True) == (first.returncode, second.returncode, "somebody else has deployed" in errors)

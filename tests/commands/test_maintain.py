"""Turning maintenance on and off on a system server, run by every shell: the flag, the page, the proof, and the way back."""

from __future__ import annotations

import http.server
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands.shell import script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")


class Server:
    """A system server: its state, and an nginx that looks for the flag, or is blind."""

    def __init__(self, state: Path) -> None:
        self.state, self.is_blind = state, False
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen = (served.state / "maintenance").exists() and not served.is_blind
                self.send_response(200 if seen else 404)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def script(self, call: str = "maintain", note: str = "", text: str = "", run: str = "r-1") -> str:
        return script(
            call, ("http", "nginx", "maintain"), state=str(self.state), maintenance_page="maintenance.html", run=run,
            http_port=self.server.server_address[1], probe_path="/flag", probe_timeout="2", domain="shop.test",
            maintenance_note=note, maintenance_text=text,
        )  # fmt: skip

    @property
    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.state.rglob("*") if path.is_file()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "shop/prod")
    made.state.mkdir(parents=True)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_it_is_turned_on_and_off(run: Any, server: Server) -> None:
    """The flag has the note, the page its text, and after the last step nothing else is left; off leaves the page."""
    on = run(server.script(note='{"who": "ann"}', text="it's\n<p>"))
    assert (0, "maintenance=on\n") == (on.returncode, on.stdout), on.stderr
    run(server.script("maintain_forget"))
    assert {"maintenance": '{"who": "ann"}\n', "maintenance.html": "it's\n<p>"} == server.files
    assert [0o644, 0o644] == [(server.state / name).stat().st_mode & 0o777 for name in server.files]
    off = run(server.script())
    run(server.script("maintain_forget"))
    assert (0, "maintenance=off\n", ["maintenance.html"]) == (off.returncode, off.stdout, list(server.files))


@pytest.mark.parametrize("before", [{}, {"maintenance": "old\n", "maintenance.html": "old page"}])
def test_it_is_as_before_if_nginx_does_not_see_it(run: Any, server: Server, before: dict[str, str]) -> None:
    """Where nginx does not see the flag, note and page are what they were, byte for byte, and it is said."""
    for name, text in before.items():
        (server.state / name).write_text(text)
    server.is_blind = True
    done = run(server.script(note="{}", text="new"))
    assert (62, True) == (done.returncode, "does not see that maintenance is on" in done.stderr), done.stderr
    left = (
        server.files
        if before
        else {key: value for key, value in server.files.items() if key != "maintenance.html"}
    )
    assert before == left


def test_a_run_takes_back_only_what_it_has_done(run: Any, server: Server) -> None:
    """What another run has kept is not put back by this one."""
    (server.state / "maintenance").write_text("old\n")
    run(server.script(note="{}", text="new"))
    assert 0 == run(server.script("maintain_back", run="r-2")).returncode
    assert "{}\n" == server.files["maintenance"]
    assert 0 == run(server.script("maintain_back")).returncode
    assert "old\n" == server.files["maintenance"]
    assert 0 == run(server.script("maintain_back")).returncode
    assert "old\n" == server.files["maintenance"]


def test_a_directory_in_its_place_is_told(run: Any, server: Server) -> None:
    """What cannot be written fails with a message, and nothing is changed."""
    (server.state / "maintenance").mkdir()
    done = run(server.script(note="{}", text="new"))
    assert (61, True) == (done.returncode, "nothing was changed" in done.stderr), done.stderr

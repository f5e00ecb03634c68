"""The shell functions, run by every shell that servers have."""

from __future__ import annotations

import fcntl
import http.server
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.commands import docker
from axon_tasks.commands.registry import Login
from axon_tasks.commands.shell import Learnt, Var, centiseconds, command, script, text, word
from axon_tasks.config import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.config import Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")

Run = "Callable[..., subprocess.CompletedProcess[str]]"


@given(st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_values_survive_the_shell(value: str) -> None:
    """A value of any text arrives in the shell as it is, whatever it contains."""
    said = subprocess.run(
        ["dash", "-s"],
        input=script('printf "%s" "$value"', (), value=value).encode(),
        capture_output=True,
        check=True,
    )
    assert value.encode() == said.stdout


def test_command_quotes_each_word() -> None:
    """A command line is built from words and never from text."""
    assert "docker run 'a b' '$(id)'" == command("docker", "run", "a b", "$(id)")


def test_a_word_with_a_variable_is_one_argument(run: Run) -> None:
    """Text around a variable is quoted, the variable's value is not split, and both readings agree."""
    parts = ("a b$(id)", Var("value"), "'c")
    said = run(script(f"printf '%s|' {word(parts)}", (), value="x  *\ny"))
    assert "a b$(id)x  *\ny'c|" == said.stdout
    assert said.stdout == text(parts, {"value": "x  *\ny"}) + "|"


def test_what_is_learnt_is_asked_for(run: Run) -> None:
    """A script of a plan that asked nobody stops with the variable's name, and runs once it is exported."""
    planned = script('printf %s "$slot"', (), slot=Learnt("slot", "plan"))
    refused = run(planned)
    assert (True, "") == (refused.returncode != 0, refused.stdout)
    assert "slot: the step plan learns it" in refused.stderr
    assert "b" == run(planned, env={**os.environ, "slot": "b"}).stdout


def test_a_script_has_the_functions_that_it_needs() -> None:
    """Functions that are called through others are there; those that nobody calls are not."""
    made = script("make_state", ("drain", "http"), state="/x")
    assert ("fail() {" in made, "retire() {" in made, "http_get() {" in made) == (True, False, False)


def test_centiseconds() -> None:
    """Seconds become the unit of /proc/uptime."""
    assert 150 == centiseconds(1.5)


def test_replace_file_is_complete_and_has_its_mode(run: Run, tmp_path: Path) -> None:
    """A replaced file has the new content and the mode that was asked for, and no temporary file stays."""
    target = tmp_path / "current"
    target.write_text("old")
    result = run(script('printf new | replace_file "$target" 640', (), target=str(target)))
    assert (0, "new", 0o640) == (result.returncode, target.read_text(), stat.S_IMODE(target.stat().st_mode))
    assert ["current"] == [one.name for one in tmp_path.iterdir()]


def test_replace_file_keeps_the_old_one_if_it_fails(run: Run, tmp_path: Path) -> None:
    """A file that cannot be replaced stays as it was, and the failure is told."""
    result = run(
        script('printf new | replace_file "$target" 640 2>/dev/null', (), target=str(tmp_path / "no" / "x"))
    )
    assert 1 == result.returncode


class _App(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host = self.headers["Host"]
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/up")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/up" else 503)
        self.send_header("X-Axon-Upstream", "10.0.0.21:30000")
        self.end_headers()
        self.wfile.write(f"hello {host}\nsecond line".encode())

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A small HTTP application."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["curl", "bash", "wget"])
def only_client(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A PATH with one HTTP client and what the scripts need besides."""
    if shutil.which(str(request.param)) is None:
        pytest.skip(f"NOT RUN: {request.param} is not installed")
    tools = "cat head tail sed tr grep awk timeout sleep mv rm chmod sync printf"
    for name in [*tools.split(), str(request.param)]:
        found = shutil.which(name)
        if found:
            (tmp_path / name).symlink_to(found)
    return {"PATH": str(tmp_path)}


@pytest.fixture
def absolute(shell: list[str], run: Run) -> Run:
    """Run with a PATH of our choice; the shell itself is found before."""
    where = shutil.which(shell[0])
    assert where is not None

    def runner(text: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [where, *shell[1:], "-s"],
            input=text,
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
            check=False,
        )

    return runner


GET = 'http_get 127.0.0.1 "$port" "$path" shop.test 5; printf "%s|%s|%s|%s" "$http_status" "$(http_header x-axon-upstream)" "$(http_told)" "$http_body"'


def test_http_get_tells_status_header_and_body(absolute: Run, only_client: dict[str, str], port: int) -> None:
    """Whichever client a server has, a probe learns status, header and the whole body, and sends the Host header."""
    result = absolute(script(GET, ("http",), port=port, path="/up"), only_client)
    status, upstream, told, body = result.stdout.split("|", 3)
    assert ("200", "10.0.0.21:30000", "HTTP 200") == (status, upstream, told)
    assert body.endswith("hello shop.test\nsecond line")


def test_http_get_tells_a_refusal_of_the_application(
    absolute: Run, only_client: dict[str, str], port: int
) -> None:
    """A status that is no success is an answer, not a missing one."""
    result = absolute(script(GET, ("http",), port=port, path="/down"), only_client)
    assert "HTTP 503" == result.stdout.split("|")[2]


def test_http_get_tells_that_nobody_listens(absolute: Run, only_client: dict[str, str]) -> None:
    """A refused connection gives no status and says so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    result = absolute(script(GET, ("http",), port=closed, path="/up"), only_client)
    status, _, told, _ = result.stdout.split("|", 3)
    assert "" == status
    assert "refused" in told.lower() or "can't connect" in told.lower() or told


def test_http_get_follows_no_redirect(run: Run, port: int) -> None:
    """A redirect is told as one, because following it would check another page."""
    result = run(script(GET, ("http",), port=port, path="/moved"))
    assert "302" == result.stdout.split("|")[0]


@pytest.mark.parametrize(
    ("statuses", "body", "code"),
    [("200", "", 0), ("200", "second", 0), ("200", "third", 1), ("204 301", "", 1), ("503 200", "", 0)],
)
def test_http_expected(run: Run, port: int, statuses: str, body: str, code: int) -> None:
    """An answer is expected if its status is listed and its body contains what is asked for."""
    text = 'http_get 127.0.0.1 "$port" /up shop.test 5; http_expected'
    assert (
        code == run(script(text, ("http",), port=port, expect_status=statuses, expect_body=body)).returncode
    )


FAKE_DOCKER = """#!/bin/sh
case "$1" in
    ps) echo c1 ;;
    inspect) echo 30001 ;;
esac
"""


def with_docker(tmp_path: Path, text: str) -> dict[str, str]:
    """An environment in which this script is docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(text)
    (folder / "docker").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def fake_docker(tmp_path: Path) -> dict[str, str]:
    """A docker that knows one container, which publishes port 30001."""
    return with_docker(tmp_path, FAKE_DOCKER)


def _reserve(root: Path, environment: str, first: int = 30000, last: int = 32767) -> str:
    return script(
        "reserve_ports",
        ("ports",),
        product="shop",
        environment=environment,
        axon_root=str(root),
        state=f"{root}/shop/{environment}",
        first_port=first,
        last_port=last,
    )


def test_ports_are_chosen_once_and_kept(run: Run, tmp_path: Path, fake_docker: dict[str, str]) -> None:
    """An environment has two ports on a server, none of which a container publishes, and keeps them."""
    root = tmp_path / "axon"
    first = run(_reserve(root, "prod"), env=fake_docker)
    again = run(_reserve(root, "prod", first=31000), env=fake_docker)
    assert ("30000 30002\n", "30000 30002\n") == (first.stdout, again.stdout), first.stderr


def test_two_environments_never_share_a_port(run: Run, tmp_path: Path, fake_docker: dict[str, str]) -> None:
    """What one environment has reserved is not given to another, even while nothing listens there."""
    root = tmp_path / "axon"
    first = run(_reserve(root, "prod"), env=fake_docker).stdout.split()
    second = run(_reserve(root, "staging"), env=fake_docker).stdout.split()
    assert (["30000", "30002"], ["30003", "30004"]) == (first, second)


def test_a_port_that_is_listened_on_is_not_chosen(
    run: Run, tmp_path: Path, fake_docker: dict[str, str]
) -> None:
    """A process of somebody else's keeps its port."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        chosen = run(_reserve(tmp_path / "axon", "prod", taken, taken + 40), env=fake_docker).stdout.split()
    assert 2 == len(chosen)
    assert str(taken) not in chosen


def test_a_full_port_range_is_told(run: Run, tmp_path: Path, fake_docker: dict[str, str]) -> None:
    """A range without two free ports fails with a sentence, and reserves nothing."""
    result = run(_reserve(tmp_path / "axon", "prod", 30001, 30002), env=fake_docker)
    assert (31, "no two free ports left between 30001 and 30002\n") == (result.returncode, result.stderr)
    assert not (tmp_path / "axon/shop/prod/ports").exists()


def test_a_container_that_somebody_else_removes_is_not_waited_for(run: Run, tmp_path: Path) -> None:
    """Where two drain the same container, the slower one ends when it is gone, and not with the drain time."""
    # It is there at the first look, and for nobody who asks later.
    docker_says = f"#!/bin/sh\n[ ! -e {tmp_path}/seen ] && touch {tmp_path}/seen\n"
    done = run(
        script("retire c1", ("drain",), drain_time=100 * 3600, stop_time=1),
        env=with_docker(tmp_path, docker_says),
    )
    assert (0, "c1: removed meanwhile\n") == (done.returncode, done.stdout)


def test_scripts_contain_no_comment(project: Project) -> None:
    """What is sent is code: comments are for the repository's readers."""
    lines = docker.reserve_ports(project.environment("prod")).splitlines()
    assert [] == [line for line in lines if line.lstrip().startswith("#")]


def test_env_file_check(run: Run, tmp_path: Path) -> None:
    """A missing environment file is told apart from one that is there."""
    there = tmp_path / ".env it's"
    there.write_text("A=1")
    assert ("ok\n", "missing\n") == (
        run(docker.env_file(str(there))).stdout,
        run(docker.env_file(str(tmp_path / "none"))).stdout,
    )


def test_shellcheck_is_content() -> None:
    """The shell files have no finding of shellcheck."""
    if shutil.which("shellcheck") is None:
        pytest.skip("NOT RUN: shellcheck is not installed: apt-get install shellcheck")
    folder = Path(docker.__file__).parent / "sh"
    said = subprocess.run(
        ["shellcheck", "-s", "sh", *map(str, sorted(folder.glob("*.sh")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == said.stdout


#: A docker with two images, one of which goes away while it is looked at, and which takes an archive that has enough.
LOADING_DOCKER = """#!/bin/sh
case "$1 $2" in
    "info --format") [ "@STORE@" = none ] || echo '[["driver-type","@STORE@"]]' ;;
    "version --format") echo 'Cannot connect to the Docker daemon' >&2; exit 1 ;;
    "image ls") printf 'sha256:b\\nsha256:a\\nsha256:b\\n' ;;
    "image inspect")
        case $# in
            5) echo "sha256:$5" ;;
            *) echo 'sha256:a ["sha256:1"]'; echo 'Error: No such image: sha256:b' >&2; exit 1 ;;
        esac ;;
    "load ") [ "$(cat)" = whole ] && echo 'Loaded image: x' || { echo 'unexpected EOF' >&2; exit 1; } ;;
esac
"""


@pytest.mark.parametrize(
    ("store", "expected"), [("overlay2", "classic"), ("io.containerd.snapshotter.v1", "containerd")]
)
def test_the_layers_that_a_server_has(run: Run, tmp_path: Path, store: str, expected: str) -> None:
    """Where images are kept is told, and the layers of those that are there; one that goes away is no failure."""
    result = run(docker.images(), env=with_docker(tmp_path, LOADING_DOCKER.replace("@STORE@", store)))
    assert (0, f'store={expected}\nsha256:a ["sha256:1"]\n') == (result.returncode, result.stdout)


def test_a_docker_that_does_not_answer_says_why(run: Run, tmp_path: Path) -> None:
    """What is passed on is the daemon's absence, and not the template that `docker info` could not fill."""
    result = run(docker.images(), env=with_docker(tmp_path, LOADING_DOCKER.replace("@STORE@", "none")))
    assert (40, "", "Cannot connect to the Docker daemon\n") == (
        result.returncode, result.stdout, result.stderr,
    )  # fmt: skip


def test_an_archive_is_loaded(run: Run, tmp_path: Path) -> None:
    """The image's id is all that is told on stdout, and a cut archive is a failure of its own."""
    env = with_docker(tmp_path, LOADING_DOCKER)
    text = docker.load("r.test/shop:v1")
    result = run(f"printf %s whole | (\n{text}\n)", env=env)
    assert (0, "sha256:r.test/shop:v1\n") == (result.returncode, result.stdout), result.stderr
    result = run(f"printf %s who | (\n{text}\n)", env=env)
    assert (37, "", True) == (result.returncode, result.stdout, "unexpected EOF" in result.stderr)


#: A docker whose login writes down what Docker's does, and whose pull tells what is there meanwhile.
LOGIN_DOCKER = """#!/bin/sh
case "$1" in
    login) cat >"$DOCKER_CONFIG/config.json" ;;
    pull) ls -d /tmp/axon-login.???????? | tr '\\n' ' '; stat -c %a "${DOCKER_CONFIG:-/}" ;;
esac
"""


@pytest.fixture
def login_docker(tmp_path: Path) -> dict[str, str]:
    """A PATH with that docker."""
    return with_docker(tmp_path, LOGIN_DOCKER)


@pytest.fixture
def logins() -> Iterator[dict[str, Path]]:
    """Directories of logins in /tmp: an abandoned one, one that somebody pulls with, a link to a third one's."""
    made = {
        name: Path(tempfile.mkdtemp(prefix="axon-login.", dir="/tmp"))
        for name in ("abandoned", "busy", "new")
    }
    target = Path(tempfile.mkdtemp(prefix="axon-not-ours-"))
    link = Path("/tmp", f"axon-login.{os.getpid() % 10**8:08d}")
    link.symlink_to(target)
    for path in (made["abandoned"], made["busy"], target):
        (path / "pull.lock").touch()
        (path / "config.json").write_text("secret")
    with (made["busy"] / "pull.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield {**made, "target": target}
    link.unlink()
    for path in (*made.values(), target):
        shutil.rmtree(path, ignore_errors=True)


def test_an_abandoned_login_is_removed_by_the_next_pull(
    run: Run, login_docker: dict[str, str], logins: dict[str, Path]
) -> None:
    """What a killed pull left goes; what a running one uses, one that was just made, and what is behind a link stay."""
    text = docker.pull("r.test/shop:v1", None)
    result = run(text, env=login_docker)
    there = {name for name, path in logins.items() if path.exists()}
    assert (0, {"busy", "new", "target"}) == (result.returncode, there), result.stderr
    assert (logins["target"] / "config.json").exists()


def test_a_login_is_private_and_gone_afterwards(run: Run, login_docker: dict[str, str]) -> None:
    """During a pull the login is in a directory that nobody else may enter, and after it there is none."""
    login = Login("r.test", "deploy", Secret("hunter2"))
    text = docker.pull("r.test/shop:v1", login)
    result = run(text, env=login_docker)
    path, mode = result.stdout.split()[-2:]
    assert (0, "700", False) == (result.returncode, mode, Path(path).exists()), result.stderr

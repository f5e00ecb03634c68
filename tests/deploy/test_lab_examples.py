"""The examples in the help of tasks that change something, typed as they stand there, against one real product."""

from __future__ import annotations

import inspect
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from products import a_product
from reading import examples
from schemas import conforming

from axon_tasks.tasks import namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

    from axon_tasks.lab import Lab

pytestmark = pytest.mark.lab

#: In this order: what a task needs has been done by those before it.
ORDER = (
    "deploy", "restart", "jobs.show", "jobs.wait", "jobs.cancel", "env.push", "env.edit", "env.set", "exec", "rollback",
    "maintenance", "sync", "steps.pull", "steps.start", "steps.health", "steps.switch", "steps.record", "steps.retire",
    "lock.acquire", "lock.release", "lock.break", "cleanup", "delete",
)  # fmt: skip
#: What is asked on a terminal, and what somebody types then.
KEYS = (
    (r"TOKEN: $", "s3cret-7\n"),
    (r"\[y/N\] $", "y\n"),
    (r"To go on, type (\S+): $", "\\1\n"),
    (r"\S*[#$] $", "exit\n"),
)
#: What has no example: what only looks beside changing something, and what is no task for a deployed product.
LOCAL = ("config.", "lab.", "bench", "prove", "demo", "timeline")
#: Where they need more than a deployed product: a working directory (test_lab_ship.py), a new server (test_lab_servers.py).
ELSEWHERE = {"build", "push", "ship", "servers.setup"}


def test_every_task_that_changes_something_is_tried() -> None:
    """Whatever has a dry run, or runs a command, stands in the list."""
    tasks = namespace()
    changing = {
        name
        for name in tasks.task_names
        if "dry_run" in inspect.signature(tasks[name].body).parameters and not name.startswith(LOCAL)
    }
    assert ELSEWHERE == changing - set(ORDER)
    assert 40 < sum(len(examples(name)) for name in ORDER)


class Desk:
    """Somebody who types examples, in the folder of a project with a fabfile of its own."""

    def __init__(self, product: Product) -> None:
        self.product, self.folder = product, product.folder
        lines = "from axon_tasks.tasks import namespace\nns = namespace()\n"
        for name in ("fabfile.py", "tasks.py"):
            (self.folder / name).write_text(lines)
        (self.folder / ".env.prod").write_text("A=1\nOLD=2\n")
        # Programs that need somebody's keys, or a keyboard.
        programs = self.folder / "bin"
        programs.mkdir()
        for name, text in {
            "pass": "echo piped-7",
            "gpg": "printf 'A=2\\nOLD=3\\n'",
            "nano": 'echo "EDITED=yes" >>"$1"',
            "editor": 'echo "B=$$" >>"$1"',
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        self.variables = {
            **os.environ, "NO_COLOR": "1", "TERM": "xterm", "EDITOR": "editor",
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip

    def type(self, line: str) -> tuple[int, str]:
        """Type one line, answer what is asked, and tell how it ended and what was said."""
        self.product.write()
        if not needs_keys(line):
            done = subprocess.run(
                ["sh", "-c", line], cwd=self.folder, env=self.variables, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=180, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout + done.stderr
        return self._on_a_terminal(line)

    def _on_a_terminal(self, line: str) -> tuple[int, str]:
        master, slave = pty.openpty()
        running = subprocess.Popen(
            ["sh", "-c", line], cwd=self.folder, env=self.variables, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        said: list[str] = []
        answering = threading.Thread(target=_answer, args=(master, said), daemon=True)
        answering.start()
        code = running.wait(180)
        answering.join(10)
        return code, "".join(said)

    def fact(self, *words: str) -> Any:
        """What a task tells as JSON."""
        return json.loads(self.product.fab(*words, "--json").stdout)


def needs_keys(line: str) -> bool:
    """Whether somebody is asked something, or has a shell."""
    asks = "env.edit" in line or ("delete" in line and "--yes" not in line and "--dry-run" not in line)
    return (
        asks
        or "--interactive" in line
        or line in {"fab env.set --env=prod --key=TOKEN", "fab env.push --env=prod --file=.env.prod"}
    )


def _answer(terminal: int, said: list[str]) -> None:
    """Read what is said and type what it asks for, until nobody writes to the terminal any more."""
    answered = 0
    try:
        while piece := os.read(terminal, 65536):
            said.append(piece.decode(errors="replace").replace("\r", ""))
            text = "".join(said)[answered:]
            last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.rpartition("\n")[2])
            for asked, keys in KEYS:
                found = re.search(asked, last)
                if found:
                    answered += len(text)
                    os.write(terminal, found.expand(keys).encode())
                    break
    except OSError:  # Linux's way of saying that the other side is closed (EIO)
        return


@pytest.fixture(scope="module")
def desk(images: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A product with prod and staging, as the examples suppose it."""
    from axon_tasks.lab.images import build_sample

    build_sample(images, "v3", "ok")
    product = a_product(images, tmp_path_factory.mktemp("desk"), "examples")
    file = f"/srv/{product.name}.env"
    product.settings["defaults"]["tag"] = "v1"
    product.settings["environments"]["prod"]["env_file"] = file
    product.settings["environments"]["staging"] = {
        "system": ["edge1"],
        "app": ["app1"],
        "domain": f"staging.{product.name}.test",
    }
    for server in ("app1", "app2"):
        images.exec(server, f"echo OLD=1 >{file}")
    yield Desk(product)
    product.remove()
    for server in ("app1", "app2"):
        images.exec(server, ["rm", "-f", file])


def real(desk: Desk, line: str) -> str:
    """The same line with ids that there are instead of those of the example."""
    if "--job=" in line:
        jobs = [one["id"] for one in desk.fact("jobs.list", "--env=prod")["jobs"]]
        line = re.sub(r"--job=\S+", f"--job={max(jobs)}", line)
    releases = (
        [one["id"] for one in desk.fact("history", "--env=prod")["releases"]]
        if re.search("--(to|release)=", line)
        else []
    )
    if "--to=" in line:
        line = re.sub(r"--to=\S+", f"--to={releases[-1]}", line)
    if "--release=" in line:
        current = next(one["id"] for one in desk.fact("history", "--env=prod")["releases"] if one["current"])
        line = re.sub(r"--release=\S+", f"--release={current}", line)
    return line


def promised(  # noqa: PLR0911  (one return per kind of example reads best)
    desk: Desk, line: str, said: str
) -> tuple[object, object]:
    """What must be so after an example, and what is so."""
    product = desk.product
    tag = re.search(r"--tag=(v\d)", line)
    if line.startswith("fab deploy") and "--dry-run" not in line and "prod" in line:
        return (200, tag[1] if tag else "v1"), product.get()
    if "--dry-run" in line:
        return (
            True,
            "Nothing was contacted" in said
            or "would be sent" in said
            or "nothing was changed" in said
            or "Nothing" in said
            or "sh <<" in said,
        )
    if "maintenance --env=prod --on" in line:
        return 503, product.get()[0]
    if line.startswith(
        ("fab maintenance --env=prod --off", "fab sync", "fab rollback", "fab restart", "fab steps.switch")
    ):
        return 200, product.get()[0]
    if "env.set" in line and "TOKEN" in line:
        value = "piped-7" if "pass " in line else "s3cret-7"
        files = [
            product.lab.exec(one, f"grep TOKEN /srv/{product.name}.env").stdout for one in ("app1", "app2")
        ]
        return ([f"TOKEN={value}\n"] * 2, False), (files, value in said.replace(f"pass {value}", ""))
    if "--unset" in line:
        return "", product.lab.exec("app1", f"grep OLD /srv/{product.name}.env", check=False).stdout
    if "lock.acquire" in line:
        return 3, product.deploy("v2").returncode
    if line == "fab delete --env=staging":
        return ("", True), (
            product.lab.exec(
                "app1",
                f"docker ps -aq --filter label=axon.product={product.name} --filter label=axon.environment=staging",
            ).stdout,
            f"{product.name}-staging is no more" in said,
        )
    return 0, 0


@pytest.mark.parametrize("name", ORDER)
def test_the_examples_of_the_help(desk: Desk, name: str) -> None:
    """Each line ends with 0 and does what it says it does; ids are real ones, and somebody answers what is asked."""
    if name == "exec":
        # The sample's image has one program: it is given the others.
        more = (
            "/app/busybox mkdir -p /bin; /app/busybox --install -s /bin; export PATH=/bin;"
            r" rm -f /bin/printenv; printf '#!/bin/sh\neval echo $%s\n' 1 >/bin/printenv; chmod +x /bin/printenv"
        )
        for server in ("app1", "app2"):
            for one in serving(desk, server):
                desk.product.lab.exec(server, ["docker", "exec", one, "/app/busybox", "sh", "-c", more])
    if name == "lock.break":
        breaking(desk)
        return
    for line in examples(name):
        code, said = desk.type(real(desk, line))
        assert 0 == code, (line, said)
        expected, actual = promised(desk, line, said)
        assert expected == actual, (line, said)


def serving(desk: Desk, server: str) -> list[str]:
    """The containers that get traffic on a server."""
    [seen] = desk.fact("status", "--env=prod")["environments"]
    return [
        one["name"]
        for app in seen["app"]
        if app["server"] == server
        for one in app["containers"]
        if one["traffic"]
    ]


def breaking(desk: Desk) -> None:
    """The two examples of lock.break, with a run that does not end."""
    first, second = examples("lock.break")
    running = desk.product.begin("deploy", "--env=prod", "--tag=sick")
    try:
        deadline = time.monotonic() + 60
        while (standing := desk.fact("lock.status", "--env=prod"))["state"] != "locked":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        token = standing["owner"]["token"]
        code, said = desk.type(first)
        # It is no example of something that is done: it says what to type.
        assert (2, True) == (code, f"--token={token}" in said), said
        code, said = desk.type(re.sub(r"--token=\S+", f"--token={token}", second))
        assert (0, True) == (code, "the lock was taken from" in said), said
    finally:
        running.communicate(timeout=60)
    desk.product.settle(servers=("app2",))


def test_what_is_printed_as_json_has_its_shape(desk: Desk) -> None:
    """The run of a real deploy, the list of runs, the settings in force, and what a clean-up would do."""
    fab = desk.product.fab
    for name, words in {
        "timeline": ("timeline",),
        "config.show": ("config.show", "--env=prod"),
        "cleanup": ("cleanup", "--dry-run"),
        "maintenance": ("maintenance", "--env=prod"),
        "lock": ("lock.status", "--env=prod"),
    }.items():
        done = fab(*words, "--json")
        assert 0 == done.returncode, done.stderr
        conforming(name, done.stdout)
    assert len(conforming("timeline", fab("timeline", "--list", "--json").stdout)) > 5

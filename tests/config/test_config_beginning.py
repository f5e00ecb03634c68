"""The first `hosts.yml`: what is made of answers is valid, and wrong ones are told before anything is written."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from axon_tasks.config import load

PROJECT = Path(__file__).resolve().parents[2]
FLAGS = {
    "product": "shop",
    "image": "ghcr.io/me/shop",
    "domain": "shop.example.com",
    "system": "edge1=203.0.113.10",
    "app": "app1=203.0.113.21,app2=203.0.113.22",
}


def init(folder: Path, **flags: str) -> subprocess.CompletedProcess[str]:
    """Run `invoke config.init` where nobody can be asked."""
    (folder / "tasks.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    words = [f"--{name}={value}" for name, value in {**FLAGS, **flags}.items() if value]
    return subprocess.run(
        [str(Path(sys.executable).parent / "invoke"), "config.init", *words],
        cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def test_what_is_written_is_valid(tmp_path: Path) -> None:
    """The flags give a file that loads, with what is usual for the rest; the next steps are named."""
    done = init(tmp_path, user="deploy", port="8080")
    assert (0, True) == (done.returncode, "fab doctor --env=prod" in done.stdout), done.stderr
    project = load(tmp_path / "hosts.yml")
    prod = project.environment("prod")
    assert ("shop", ("edge1",), ("app1", "app2"), "shop.example.com", 8080, "/health") == (
        project.product, prod.system, prod.app, prod.domain, prod.container.port, prod.health.path,
    )  # fmt: skip
    assert ("203.0.113.22", "deploy") == (project.hosts["app2"].address, project.hosts["app2"].user)


def test_one_machine_for_both(tmp_path: Path) -> None:
    """A server may be both; its user is left to ssh_config if none is named."""
    assert 0 == init(tmp_path, system="box=203.0.113.9", app="box=203.0.113.9").returncode
    project = load(tmp_path / "hosts.yml")
    assert (["box"], None) == (list(project.hosts), project.hosts["box"].user)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"domain": ""}, "--domain is missing"),
        ({"product": "My Shop"}, "product"),
        ({"image": "shop/Case"}, "image"),
        ({"port": "http"}, "port"),
        ({"port": "\u0663"}, "port"),
        ({"health": "health"}, "health"),
        ({"system": "203.0.113.10"}, "NAME=ADDRESS is needed"),
        ({"app": "a=1.2.3.4,a=1.2.3.5"}, "each name once"),
        ({"app": ","}, "at least one server"),
        ({"app": "edge1=203.0.113.99"}, "edge1 has two addresses"),
        ({"domain": "shop.example.com\nx: y"}, "domain"),
        ({"environment": "${HOME}"}, "environment"),
        ({"out": "none/hosts.yml"}, "Cannot write"),
    ],
)
def test_wrong_answers(tmp_path: Path, flags: dict[str, str], words: str) -> None:
    """They end with 2 and say which one it is; no file is written."""
    done = init(tmp_path, **flags)
    assert (2, True) == (done.returncode, words in done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "hosts.yml").exists()


def test_a_file_that_is_there(tmp_path: Path) -> None:
    """It is never overwritten."""
    (tmp_path / "hosts.yml").write_text("mine")
    done = init(tmp_path)
    assert (2, "mine") == (done.returncode, (tmp_path / "hosts.yml").read_text())


def test_questions(tmp_path: Path) -> None:
    """On a terminal, what no flag says is asked; nothing typed takes what is usual."""
    (tmp_path / "tasks.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    master, slave = pty.openpty()
    running = subprocess.Popen(
        [str(Path(sys.executable).parent / "invoke"), "config.init", "--product=shop", "--image=shop"],
        cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    said: list[bytes] = []
    threading.Thread(target=lambda: _collect(master, said), daemon=True).start()
    os.write(master, b"\nshop.example.com\ne1=203.0.113.10\na1=203.0.113.21\n\n\n/up\n")
    assert 0 == running.wait(60), said
    prod = load(tmp_path / "hosts.yml").environment("prod")
    assert ("shop.example.com", 3000, "/up") == (prod.domain, prod.container.port, prod.health.path)
    assert b"Name of the first environment [prod]: " in b"".join(said)


def _collect(terminal: int, said: list[bytes]) -> None:
    try:
        while piece := os.read(terminal, 4096):
            said.append(piece)
    except OSError:
        return

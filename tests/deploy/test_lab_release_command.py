"""The release command in the lab: once per deploy, before anything is started, and whatever becomes of it."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = pytest.mark.lab


@pytest.fixture
def folder(product: Product) -> Iterator[str]:
    """A folder of app1 and app2 that is mounted into the containers at /data."""
    path = f"/srv/{product.name}"
    for server in ("app1", "app2"):
        product.lab.exec(server, ["mkdir", "-p", path])
    product.settings["defaults"]["container"] |= {"volumes": [f"{path}:/data"], "env": {"TOKEN": "a b"}}
    yield path
    for server in ("app1", "app2"):
        product.lab.exec(server, ["rm", "-rf", path])


def command(prod: dict[str, Any], text: str, timeout: str = "30s") -> None:
    # The sample's entrypoint is its server, which takes no command.
    words = {"entrypoint": "/app/busybox", "command": ["sh", "-c", text]}
    prod["release_command"] = {**words, "timeout": timeout}


def ran(product: Product, folder: str, server: str = "app1") -> list[str]:
    return product.lab.exec(server, f"cat {folder}/ran 2>/dev/null", check=False).stdout.splitlines()


def commands(product: Product) -> list[str]:
    """Containers in which a release command runs, or ran."""
    said = product.lab.exec(
        "app1", ["docker", "ps", "-a", "--format", "{{.Names}}", "--filter", "label=axon.command"]
    )
    return [name for name in said.stdout.split() if name.startswith(product.name)]


def test_it_runs_once_before_anything_is_started(product: Product, prod: dict[str, Any], folder: str) -> None:
    """On the first app server alone, in the new image, with the release's variables; what it says is shown."""
    command(
        prod, 'echo "migrating with $TOKEN"; echo "$VERSION" >>/data/ran; /app/busybox ls /app >/dev/null'
    )
    done = product.deploy("v1")
    assert (0, (200, "v1")) == (done.returncode, product.get()), done.stdout + done.stderr
    assert "app1: migrating with a b" in done.stdout
    assert (["v1"], []) == (ran(product, folder), ran(product, folder, "app2"))
    product.serve("v2")
    assert ["v1", "v2"] == ran(product, folder)
    assert [] == commands(product)
    assert 0 == product.fab("rollback", "--env=prod").returncode
    assert ["v1", "v2"] == ran(product, folder)


def test_where_it_stands_in_the_plan(product: Product, prod: dict[str, Any]) -> None:
    """A dry run shows the step, its words and its script; nothing of the release is started before it has ended."""
    command(prod, "true")
    said = product.fab("deploy", "--env=prod", "--tag=v1", "--dry-run", "--json")
    [plan] = json.loads(said.stdout)["plans"]
    steps = {one["name"]: one for one in plan["steps"]}
    assert (["plan", "pull"], ["app1"]) == (steps["command"]["needs"], steps["command"]["servers"])
    assert "command" in steps["start"]["needs"]


@pytest.mark.parametrize(
    ("text", "timeout", "words"),
    [
        ("echo no database; exit 3", "30s", "the release command failed: it ended with exit code 3"),
        ("/app/busybox sleep 999", "2s", "it had not ended after 2 s"),
        ("exec /none", "30s", "it ended with exit code 127"),
    ],
)
def test_a_failure_changes_nothing(
    product: Product, prod: dict[str, Any], folder: str, text: str, timeout: str, words: str
) -> None:
    """Exit code 1, the old release serves in its old containers, and no container is left."""
    product.on("app1")
    product.serve("v1")
    before = product.containers("app1")
    command(prod, text, timeout)
    done = product.deploy("v2")
    assert (1, (200, "v1"), before) == (done.returncode, product.get(), product.containers("app1")), (
        done.stderr
    )
    assert words in done.stderr
    assert [] == commands(product)
    assert folder


def test_ctrl_c_ends_it(product: Product, prod: dict[str, Any], folder: str) -> None:
    """It is stopped, its container removed, and the old release serves."""
    product.on("app1")
    product.serve("v1")
    command(prod, "echo begun; /app/busybox sleep 99")
    running = product.begin("deploy", "--env=prod", "--tag=v2")
    said = until_it_says(running, "begun")
    running.send_signal(signal.SIGINT)
    out, errors = running.communicate(timeout=60)
    assert (130, (200, "v1")) == (running.returncode, product.get()), said + out + errors
    assert ([], True) == (commands(product), bool(folder))


def test_two_never_run_at_the_same_time(product: Product, prod: dict[str, Any], folder: str) -> None:
    """If the deployer is killed, its command goes on, and the next deploy waits for its end before it runs its own."""
    product.on("app1")
    command(
        prod,
        'echo begun; echo "begin $VERSION" >>/data/ran; /app/busybox sleep 8; echo done; echo "end $VERSION" >>/data/ran',
    )
    running = product.begin("deploy", "--env=prod", "--tag=v1")
    until_it_says(running, "begun")
    running.kill()
    running.communicate()
    deadline = time.monotonic() + 60
    while True:
        done = product.deploy("v2")
        if done.returncode != 3:
            break
        assert time.monotonic() < deadline, done.stderr
    assert 0 == done.returncode, done.stdout + done.stderr
    assert (200, "v2") == product.get()
    assert ["begin v1", "end v1", "begin v2", "end v2"] == ran(product, folder)
    # Whether the script of the first one still waits for its end depends on when sshd has noticed.
    told = (
        "the release command of an earlier deploy still runs here",
        "another deploy runs its release command",
    )
    assert any(words in done.stdout for words in told), done.stdout

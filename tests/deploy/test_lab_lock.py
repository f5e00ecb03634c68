"""The lock in the lab: one run at a time, who it is, what to do about it, and what is left of one that died."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says
from schemas import conforming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

PROJECT = Path(__file__).resolve().parents[2]

#: `fab` whose locks expire within seconds.
HASTY = (
    "from axon_tasks.deploy import hold, locking\n"
    "hold.TIMES = locking.TIMES = hold.Times(beat=0.5, trust=2, expiry=3)\n"
    "from fabric.main import program\n"
    "program.run()\n"
)


class Deployers:
    """Deployments that are left running, and ended at the latest when the test is."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.running: list[subprocess.Popen[str]] = []

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin one that has the lock, or waits for it."""
        self.running.append(self.product.begin(*words))
        return self.running[-1]

    def holding(self, tag: str, *more: str, hasty: bool = False) -> subprocess.Popen[str]:
        """Begin one, and come back when it has the lock."""
        words = ["deploy", "--env=prod", f"--tag={tag}", *more]
        begun = self._hasty(*words) if hasty else self.begin(*words)
        wait_for(lambda: note(self.product).get("command", "").find(f"--tag={tag}") >= 0)
        return begun

    def _hasty(self, *words: str) -> subprocess.Popen[str]:
        begun = subprocess.Popen(
            [sys.executable, "-c", HASTY, *words, f"--hosts-file={self.product.write()}"],
            cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        self.running.append(begun)
        return begun

    def end(self) -> None:
        for one in self.running:
            if one.poll() is None:
                one.send_signal(signal.SIGCONT)
                one.terminate()
            one.communicate(timeout=60)


@pytest.fixture
def deployers(product: Product) -> Iterator[Deployers]:
    product.on("app1")  # a lock is one, however many there are
    made = Deployers(product)
    yield made
    made.end()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def note(product: Product) -> dict[str, Any]:
    """What stands beside the lock."""
    said = product.lab.exec("edge1", f"cat /var/lib/axon/{product.name}/prod/lock.owner", check=False).stdout
    return json.loads(said) if said else {}


def standing(product: Product) -> str:
    said = product.fab("lock.status", "--env=prod", "--json")
    assert 0 == said.returncode, said.stderr
    return str(conforming("lock", said.stdout)["state"])


def paste(command: str) -> subprocess.CompletedProcess[str]:
    """Run what was printed, as somebody would who pastes it into a shell."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", command], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PATH": path},
    )  # fmt: skip


# --- refused, broken -----------------------------------------------------------------------------------------------


def test_the_command_that_breaks_the_lock_works_as_printed(product: Product, deployers: Deployers) -> None:
    """A refused deploy prints who works and a command; pasted, it takes the lock, and the first deploy cannot switch any more."""
    product.serve("v1")
    first = deployers.holding("slowstart")
    first.send_signal(signal.SIGSTOP)
    refused = product.deploy("v2")
    assert 3 == refused.returncode, refused.stderr
    for words in (
        "prod is locked by ",
        "since 20",
        "--tag=slowstart",
        f"process {first.pid} on ",
        "on edge1",
    ):
        assert words in refused.stderr
    command = re.search(r"fab lock\.break .*", refused.stderr)
    assert command is not None
    broken = paste(command.group())
    assert (0, True) == (broken.returncode, "the lock was taken from " in broken.stdout), broken.stderr
    product.serve("v2")
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert (1, (200, "v2")) == (first.returncode, product.get()), errors
    assert "the lock was lost, because it was taken away on edge1" in errors
    log = product.lab.exec("edge1", ["cat", f"/var/lib/axon/{product.name}/prod/audit.log"]).stdout
    (line,) = [line for line in log.splitlines() if " lock.break " in line]
    assert "--tag=slowstart" in line
    product.settle()


def test_a_lock_is_broken_with_its_own_token_only(product: Product, deployers: Deployers) -> None:
    """Without a token the command is printed, exit code 2; with another one nothing is changed, exit code 3."""
    product.serve("v1")
    product.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "60s"}
    first = deployers.holding("sick")
    asked = product.fab("lock.break", "--env=prod")
    token = note(product)["token"]
    assert (2, True) == (asked.returncode, f"fab lock.break --env=prod --token={token}" in asked.stdout)
    other = "00000000" if token != "00000000" else "11111111"
    refused = product.fab("lock.break", "--env=prod", f"--token={other}")
    assert (3, True) == (refused.returncode, f"--token={token}" in refused.stderr), refused.stderr
    assert "--tag=sick" in refused.stderr
    wrong = product.fab("lock.break", "--env=prod", "--token=$(id)")
    assert (2, True) == (wrong.returncode, "eight hexadecimal digits" in wrong.stderr)
    assert (token, None) == (note(product)["token"], first.poll())


def test_the_status_of_a_lock(product: Product, deployers: Deployers) -> None:
    """The status tells who works, and that nobody does; a lock that nobody has need not be broken."""
    free = product.fab("lock.status", "--env=prod")
    assert (0, "prod: nobody has the lock, on edge1\n") == (free.returncode, free.stdout)
    product.serve("v1")
    assert "free" == standing(product)
    nothing = product.fab("lock.break", "--env=prod", "--token=00000000")
    assert (0, "prod: nobody has the lock; nothing was done\n") == (nothing.returncode, nothing.stdout)
    product.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "60s"}
    first = deployers.holding("sick")
    shown = conforming("lock", product.fab("lock.status", "--env=prod", "--json").stdout)
    assert ("locked", first.pid) == (shown["state"], shown["owner"]["pid"])
    assert "--tag=sick" in product.fab("lock.status", "--env=prod").stdout


def test_a_dry_run_of_breaking_contacts_nobody(product: Product) -> None:
    """`lock.break --dry-run` prints the script and opens no connection."""
    for host in product.settings["hosts"].values():
        host["port"] = 1
    said = product.fab("lock.break", "--env=prod", "--token=0a1b2c3d", "--dry-run")
    assert (0, True) == (said.returncode, "lock_break" in said.stdout), said.stderr


# --- waiting -------------------------------------------------------------------------------------------------------


def test_waiting_for_the_lock(product: Product, deployers: Deployers) -> None:
    """With --wait-lock a deploy says once for whom it waits, begins when the other one has ended, and serves."""
    product.serve("v1")
    first = deployers.holding("sick")
    second = product.deploy("v2", "--wait-lock=60s")
    assert (0, 1) == (second.returncode, first.wait(60)), second.stderr
    waiting = [line for line in second.stdout.splitlines() if "waiting for the lock" in line]
    assert (1, True) == (len(waiting), "--tag=sick" in waiting[0])
    assert ((200, "v2"), "free") == (product.get(), standing(product))
    product.settle()


def test_waiting_for_the_lock_has_an_end(product: Product, deployers: Deployers) -> None:
    """When the time is over the exit code is 3, and nothing was changed; a step waits as a deploy does."""
    product.serve("v1")
    first = deployers.holding("sick")
    first.send_signal(signal.SIGSTOP)
    for words in (["deploy", "--tag=v2"], ["steps.retire"]):
        second = product.fab(*words, "--env=prod", "--wait-lock=1s")
        assert 3 == second.returncode, second.stderr
        assert "; 1 s of waiting are over" in second.stderr
    assert (200, "v1") == product.get()


def test_ctrl_c_while_waiting(product: Product, deployers: Deployers) -> None:
    """Whoever waits for a lock can stop, exit code 130: nothing was changed, and it does not get the lock later."""
    product.serve("v1")
    first = deployers.holding("sick")
    before = note(product)["token"]
    second = deployers.begin("deploy", "--env=prod", "--tag=v2", "--wait-lock=10m")
    until_it_says(second, "waiting for the lock")
    second.send_signal(signal.SIGINT)
    _, errors = second.communicate(timeout=30)
    assert (130, before) == (second.returncode, note(product)["token"]), errors
    assert "Interrupted before the switch" in errors
    assert 1 == first.wait(60)
    assert ("free", (200, "v1"), {}) == (standing(product), product.get(), note(product))


# --- dead, silent --------------------------------------------------------------------------------------------------


def test_a_killed_deployer_frees_its_lock_and_is_remembered(product: Product, deployers: Deployers) -> None:
    """After SIGKILL the next deploy has the lock without waiting, says who has not finished, and serves; the one after does not."""
    product.serve("v1")
    first = deployers.holding("sick")
    first.kill()
    first.wait(30)
    wait_for(lambda: standing(product) == "unfinished")
    second = product.deploy("v2")
    assert (0, (200, "v2")) == (second.returncode, product.get()), second.stderr
    left = [line for line in second.stdout.splitlines() if "the last run has not finished" in line]
    assert (1, True) == (len(left), "--tag=sick" in left[0])
    product.settle()
    third = product.deploy("v1")
    assert (0, False) == (third.returncode, "has not finished" in third.stdout), third.stderr


def test_a_holder_that_is_killed_on_its_server(product: Product, deployers: Deployers) -> None:
    """If the process that holds the lock dies, its deployer stops before the switch, and the next one says so."""
    product.serve("v1")
    first = deployers.holding("slowstart")
    product.lab.exec("edge1", ["kill", "-9", note(product)["holder"].split()[0]])
    _, errors = first.communicate(timeout=60)
    assert (1, (200, "v1"), "unfinished") == (first.returncode, product.get(), standing(product)), errors
    assert "the lock was lost" in errors
    second = product.deploy("v2")
    assert (0, True) == (second.returncode, "the last run has not finished" in second.stdout), second.stderr


def test_a_deployer_that_falls_silent_loses_its_lock(product: Product, deployers: Deployers) -> None:
    """A deployer that is stopped, as one whose network swallows everything, loses the lock after a time and cannot switch later."""
    product.serve("v1")
    first = deployers.holding("slowstart", hasty=True)
    first.send_signal(signal.SIGSTOP)
    wait_for(lambda: standing(product) == "unfinished")
    second = product.deploy("v2")
    assert (0, (200, "v2")) == (second.returncode, product.get()), second.stderr
    assert "the last run has not finished" in second.stdout
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=60)
    assert (1, (200, "v2")) == (first.returncode, product.get()), errors
    assert "the lock was lost, because edge1 " in errors
    product.settle()


def test_signs_of_life_keep_the_lock(product: Product, deployers: Deployers) -> None:
    """A deploy that takes longer than its lock would last without a sign of life keeps it to the end."""
    product.settings["defaults"]["health"]["timeout"] = "12s"
    product.serve("v1")
    first = deployers.holding("sick", hasty=True)
    said = first.communicate(timeout=60)
    assert (1, True) == (first.returncode, "did not become healthy" in said[1]), said
    assert "the lock was lost" not in said[1]
    assert "free" == standing(product)

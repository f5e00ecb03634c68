"""The proof in the lab: a little of each part holds, and what is broken on purpose is found.

All of it, with the numbers that the README quotes, is `invoke prove`.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from axon_tasks.lab.bench.product import TAGS
from axon_tasks.lab.hosts import EDGE
from axon_tasks.lab.prove import Options, commands, kills, stage, switches
from axon_tasks.lab.prove.site import scratch, site
from axon_tasks.lab.prove.suite import part
from axon_tasks.lab.prove.switches import Switch
from axon_tasks.lab.prove.traffic import towards, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from axon_tasks.lab import Lab
    from axon_tasks.lab.prove import Claim
    from axon_tasks.lab.prove.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

PROJECT = Path(__file__).resolve().parents[2]


#: The other parts are tried in tests/hostile.
@pytest.mark.parametrize("name", ["switches", "kills", "races"])
def test_a_little_of_each_part_holds(lab: Lab, name: str) -> None:
    """No request fails and nothing is left when releases are switched under load, deployers killed, deploys raced."""
    claims = part(name, Options.quickly((name,))).prove(lab, print)

    assert [] == [(one.claim, one.cases, one.failures) for one in claims if not one.holds]


# --- the checks can fail ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Site]:
    """A site that serves the first version."""
    with site(lab) as made:
        made.must_deploy(TAGS[0])
        assert [] == made.settle(TAGS[0])
        yield made


def under_load(made: Site, disturb: Callable[[], list[Switch]]) -> list[Claim]:
    """The verdict on a time in which somebody disturbed the site by hand."""
    with traffic(towards(made.product.domain, seed=1, seconds=120.0), scratch(made)) as generator:
        generator.wait_for(100, time.monotonic() + 30)
        switched = disturb()
        time.sleep(1.5)
        return switches.judge(generator.finish(), switched, [], Options(switches=1, requests=100))


@contextlib.contextmanager
def held(made: Site) -> Iterator[None]:
    """Open answers that keep the release which gives them from being retired, for as long as it takes."""
    request = f"GET /events?seconds=99 HTTP/1.1\r\nHost: {made.product.domain}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(socket.create_connection((EDGE.address, 80), timeout=40))
            client.sendall(request)
            assert b"HTTP/1.1 200" == client.recv(12)
        yield


def test_a_release_that_is_killed_at_once_is_found(served: Site) -> None:
    """Where the old release is killed before the new one serves, requests fail, and the claim does not hold."""

    def kill() -> list[Switch]:
        first = Switch(0, TAGS[0], served.release()[1])
        for app in served.product.apps:
            served.lab.exec(app, f"docker kill {' '.join(served.product.containers(app))}")
        time.sleep(0.5)
        second = switches.one_switch(served, 1, first)
        assert isinstance(second, Switch), second
        return [first, second]

    requests = under_load(served, kill)[0]
    assert (True, "FAILED") == (requests.failed > 0, requests.verdict)
    assert "status 502" in " ".join(requests.failures)
    served.must_deploy(TAGS[0])
    assert [] == served.settle(TAGS[0])


def test_a_switch_that_is_undone_by_hand_is_found(served: Site) -> None:
    """Where nginx is sent back to the old release after the confirmed switch, its answers are violations."""
    flag = f"/var/lib/axon/{served.product.name}/prod/slot_b"

    def flip_back() -> list[Switch]:
        first = Switch(0, TAGS[0], served.release()[1])
        with held(served):
            second = switches.one_switch(served, 1, first)
            assert isinstance(second, Switch), second
            toggle = f"if [ -e {flag} ]; then rm {flag}; else echo 1 >{flag}; fi"
            served.lab.exec(EDGE.name, toggle)
            time.sleep(2)
            served.lab.exec(EDGE.name, toggle)
        return [first, second]

    requests, answers, late, _ = under_load(served, flip_back)
    assert (0, 0, 1) == (requests.failed, answers.failed, late.failed)
    assert "still answered a request that was begun" in late.failures[0]
    served.must_deploy(TAGS[0])
    assert [] == served.settle(TAGS[0])


def test_what_is_left_on_a_host_is_found(served: Site) -> None:
    """Each thing that a killed deployer could leave is found where it is, and nothing once it is gone."""
    product = served.product.name
    state = f"/var/lib/axon/{product}/prod"
    container = f"docker create --name {product}-prod-1 --label axon.product={product} {served_image(served)}"
    planted = {
        ("edge1", f"echo >{state}/.current.123", f"rm {state}/.current.123"): "left behind",
        ("edge1", f"mkdir {state}/nginx-before", f"rmdir {state}/nginx-before"): "left behind",
        ("edge1", f"echo >{state}/lock.owner", f"rm {state}/lock.owner"): "left behind",
        ("edge1", f"echo >/etc/nginx/axon.d/sites/.{product}-prod.conf.9", f"rm /etc/nginx/axon.d/sites/.{product}-prod.conf.9"): "left behind",
        ("edge1", "mkdir /tmp/axon-stage.prove123", "rmdir /tmp/axon-stage.prove123"): "left behind",
        ("edge1", f"echo 17 >{state}/current.save; cp {state}/current {state}/current.save; echo 1 >{state}/current", f"mv {state}/current.save {state}/current"): "the current release is 1",
        ("app1", container, f"docker rm {product}-prod-1"): "orphaned container",
        ("app1", f"docker network create --label axon.product={product} {product}", f"docker network rm {product}"): "network of ours",
        ("app2", f"mkdir -p {state}/jobs/retire-0", f"rmdir {state}/jobs/retire-0"): "job not finished",
    }  # fmt: skip
    assert [] == served.problems(TAGS[0])
    for (host, plant, remove), expected in planted.items():
        served.lab.exec(host, plant)
        found = served.problems(TAGS[0])
        served.lab.exec(host, remove)
        assert [] != [one for one in found if one.startswith(f"{host}: {expected}")], (plant, found)
    assert [] == served.problems(TAGS[0])


def served_image(made: Site) -> str:
    (one,) = made.product.containers("app1")
    return made.lab.exec("app1", ["docker", "inspect", "--format", "{{.Image}}", one]).stdout.strip()


def test_a_held_lock_is_found(served: Site) -> None:
    """A lock that somebody holds is found, and a shell that waits for a deployer which is gone."""
    lock = f"/var/lib/axon/{served.product.name}/prod/lock"
    enter = served.lab.enter(EDGE.name)
    holder = subprocess.Popen([*enter, "flock", lock, "sh", "-s"], stdin=subprocess.PIPE)
    try:
        time.sleep(0.5)
        found = served.problems(TAGS[0])
    finally:
        holder.kill()
        holder.communicate()
    assert ["edge1: the lock is held", "edge1: a shell still runs"] == [
        one.split(": process")[0] for one in found
    ]


def test_boundaries_are_those_of_the_plan(lab: Lab) -> None:
    """The dry pass finds a begin and an end of every step and of its part on every server."""
    found = kills.dry_pass(lab, kills.ORDINARY).boundaries

    assert {"lock:begin", "lock@edge1:begin", "lock@edge1:end", "lock:end"} <= set(found)
    assert {f"start@{app}:{when}" for app in ("app1", "app2") for when in ("begin", "end")} <= set(found)
    steps = {name.partition(":")[0] for name in found if "@" not in name}
    assert {"lock", "inspect", "pull", "plan", "stage", "start", "switch", "record", "retire"} <= steps
    assert sorted(found) == sorted(
        {f"{name.rpartition(':')[0]}:{when}" for name in found for when in ("begin", "end")}
    )


def test_a_deployer_dies_at_its_boundary(served: Site) -> None:
    """The instrumented deploy is killed at the boundary that was named, and comes to none after it."""
    path = scratch(served) / "reached"
    words = served.instrumented(TAGS[0], "--kill-at=plan:begin", f"--boundaries={path}")
    assert commands.run(words, served.product.folder).killed
    reached = path.read_text().split()

    assert "plan:begin" == reached[-1]
    assert {"lock:end", "inspect:end"} <= set(reached)
    assert 0 == served.deploy(TAGS[0]).code
    assert [] == served.settle(TAGS[0])


def test_a_fault_of_a_kill_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the next deploy fails or something is left, the case fails with both, and says how to see it again."""
    with stage.opened(lab, 1) as where:
        junk = f"/var/lib/axon/{where.site.product.name}/prod/.ports.1"
        where.site.lab.exec("app2", f"echo >{junk}")
        monkeypatch.setattr(
            where.site, "words", lambda _tag: ["sh", "-c", "echo no deploy today >&2; exit 1"]
        )
        monkeypatch.setattr(where.site, "settle", where.site.problems)
        case = stage.Case("killed", kills.ORDINARY)
        kills.one_kill(where, case, kills.Kill("killed", boundary="inspect:end", again=False))

    assert case.dirty
    assert "the next deploy, of bench-1: exit code 1: no deploy today" == case.failures[0]
    assert f"app2: left behind: {junk}" in case.failures


def test_ctrl_c_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    """Interrupted in the middle, the proof ends with 130, and neither product nor load is left."""
    before = products(lab)
    running = subprocess.Popen(
        [sys.executable, "-m", "invoke", "prove", "--only=switches", f"--out={tmp_path}/results.json"],
        cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    for line in running.stdout:
        if "1/200" in line:
            break
    running.terminate()
    _, errors = running.communicate(timeout=120)

    assert (130, "Interrupted.") == (running.returncode, errors.strip().splitlines()[-1])
    assert before == products(lab)
    assert (
        ""
        == subprocess.run(
            ["pgrep", "-f", "--", "--host=prove"], capture_output=True, text=True, check=False
        ).stdout
    )


def products(lab: Lab) -> dict[str, str]:
    """What the hosts have of products of the proof."""
    looks = {
        "edge1": "ls -d /var/lib/axon/prove* /etc/nginx/axon.d/*/*prove* 2>/dev/null; true",
        "app1": "ls -d /var/lib/axon/prove* 2>/dev/null; docker ps -a --format '{{.Names}}' | grep ^prove; true",
        "app2": "ls -d /var/lib/axon/prove* 2>/dev/null; docker ps -a --format '{{.Names}}' | grep ^prove; true",
    }
    return {host: lab.exec(host, look).stdout for host, look in looks.items()}

"""Background jobs on real servers: they outlive the deployer and sshd, are found again, and never run twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from schemas import conforming

from axon_tasks.config import load
from axon_tasks.deploy import background
from axon_tasks.remote import Batch, Fleet, jobs

if TYPE_CHECKING:
    from products import Product

pytestmark = pytest.mark.lab

PROJECT = Path(__file__).resolve().parents[2]


def start(
    product: Product, job: str, body: str, *, title: str = "", servers: tuple[str, ...] = ("app1",)
) -> None:
    """Start a job as a deploy does, over SSH."""
    project = load(product.write())
    where = background.directory(project.environment("prod"))
    with Fleet(project) as fleet:
        for server in servers:
            batch = Batch("start").add(jobs.start_script(where, job, body, title=title), label="start")
            assert batch.run(fleet[server], timeout=30).ok


def listed(product: Product, *more: str) -> tuple[int, list[dict[str, Any]]]:
    said = product.fab("jobs.list", "--env=prod", "--json", *more)
    return said.returncode, conforming("jobs", said.stdout)["jobs"]


def test_a_killed_deployer_leaves_its_job(product: Product, prod: dict[str, Any], tmp_path: Path) -> None:
    """Killed right after the prompt is back, the clean-up still ends; another machine finds its log and exit status."""
    prod["app"] = ["app1"]
    product.serve("v1")
    with product.holding():
        deployer = product.begin("deploy", "--env=prod", "--tag=v2")
        assert deployer.stdout is not None
        seen = []
        for line in deployer.stdout:
            seen.append(line)
            if "Done in" in line:
                break
        os.kill(deployer.pid, signal.SIGKILL)
        deployer.communicate(timeout=30)
        code, (running,) = listed(product)
    assert (0, "running") == (code, running["state"]), seen
    assert deployer.returncode in {0, -signal.SIGKILL}  # it may have been the faster one: then it had ended
    assert 0 == product.fab("jobs.wait", "--env=prod", f"--job={running['id']}", "--timeout=40s").returncode
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(product.write(), elsewhere / "hosts.yml")
    command = product.command("jobs.show", "--env=prod", f"--job={running['id']}", "--json")
    shown = subprocess.run(
        [*command, f"--hosts-file={elsewhere}/hosts.yml"], env={**os.environ, "HOME": str(elsewhere)},
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (job,) = conforming("jobs", shown.stdout)["jobs"]
    assert ("done", 0) == (job["state"], job["exit_code"])
    assert "removed" in job["log"]
    product.settle(servers=("app1",))


def test_a_job_survives_a_restart_of_sshd(product: Product) -> None:
    """A job goes on while the SSH server is stopped and started, and is waited for afterwards."""
    go = f"/run/{product.name}.go"
    body = f"until [ -e {go} ]; do sleep 0.1; done; rm {go}; echo still here"
    start(product, "long", body, title="wait for a word", servers=("app1",))
    product.lab.stop_service("app1", "sshd")
    product.lab.start_service("app1", "sshd")
    code, (job,) = listed(product, "--only=app1")
    assert (0, "running", "wait for a word") == (code, job["state"], job["title"])
    product.lab.exec("app1", ["touch", go])
    waited = product.fab("jobs.wait", "--env=prod", "--job=long", "--only=app1")
    assert 0 == waited.returncode, waited.stderr
    assert "    | still here" in waited.stdout.splitlines()


def test_a_job_never_runs_twice(product: Product) -> None:
    """In 20 races of two deployers with one id, one starts the job and the other one is refused."""
    project = load(product.write())
    where = background.directory(project.environment("prod"))
    counter = f"/var/lib/axon/{product.name}/ran"
    with Fleet(project) as one, Fleet(project) as other, ThreadPoolExecutor(2) as pool:
        connections = [one["app1"], other["app1"]]
        for race in range(20):
            batches = [
                Batch("start").add(
                    jobs.start_script(where, f"race-{race}", f"echo {race} >>{counter}"), label="start"
                )
                for _ in connections
            ]
            results = pool.map(
                lambda pair: pair[0].run(pair[1], timeout=30), zip(batches, connections, strict=True)
            )
            assert [0, jobs.ID_TAKEN] == sorted(result["start"].exit_code or 0 for result in results)
        wait = background.wait_batch(project.environment("prod"), "race-19", 20)
        assert 0 == background.read(wait.run(connections[0], timeout=60)).exit_code
    ran = product.lab.exec("app1", ["cat", counter]).stdout.split()
    assert [str(race) for race in range(20)] == sorted(ran, key=int)


def test_a_dead_server_does_not_hide_the_others(product: Product) -> None:
    """The jobs of the servers that answer are shown, the one that does not is named, and the exit code is 4."""
    start(product, "here", "echo all is well")
    product.settings["hosts"]["app2"]["port"] = 1
    for command in (
        ["jobs.list"],
        ["jobs.show", "--job=here"],
        ["jobs.wait", "--job=here"],
        ["jobs.cancel", "--job=here"],
    ):
        said = product.fab(*command, "--env=prod")
        assert (4, True, True) == (said.returncode, "here" in said.stdout, "app2" in said.stderr), said
        assert "Traceback" not in said.stderr
    as_json = product.fab("jobs.list", "--env=prod", "--json")
    assert (["app1"], ["app2"]) == tuple(
        [one["server"] for one in conforming("jobs", as_json.stdout)[key]] for key in ("jobs", "errors")
    )


def test_waiting_tells_how_it_ended(product: Product) -> None:
    """The exit code is 0 only if the job ended with 0 on every server; who did not is named, and waiting has an end."""
    for server, code in (("app1", 0), ("app2", 3)):
        start(product, "mixed", f"echo no space left >&2; exit {code}", servers=(server,))
    mixed = product.fab("jobs.wait", "--env=prod", "--job=mixed")
    assert (1, True) == (mixed.returncode, "app2: ended with exit code 3" in mixed.stderr), mixed.stderr
    assert 0 == product.fab("jobs.wait", "--env=prod", "--job=mixed", "--only=app1").returncode
    start(product, "endless", "sleep 600")
    endless = product.fab("jobs.wait", "--env=prod", "--job=endless", "--timeout=1s")
    assert (1, True) == (endless.returncode, "app1: still runs" in endless.stderr), endless.stderr
    cancelled = product.fab("jobs.cancel", "--env=prod", "--job=endless")
    assert (0, "app1: endless was cancelled (done, exit 143)\n") == (cancelled.returncode, cancelled.stdout)
    again = product.fab("jobs.cancel", "--env=prod", "--job=endless")
    assert "had ended before (done, exit 143); nothing was cancelled" in again.stdout
    assert 1 == product.fab("jobs.wait", "--env=prod", "--job=endless").returncode


def test_a_cancelled_retirement_can_be_begun_again(product: Product, prod: dict[str, Any]) -> None:
    """Cancelling leaves the old release's container running, says so and how to retire it; that works."""
    prod["app"] = ["app1"]
    product.serve("v1")
    old = product.containers("app1")
    with product.holding():
        product.serve("v2")
        _, (job,) = listed(product)
        cancelled = product.fab("jobs.cancel", "--env=prod", f"--job={job['id']}")
    assert (0, True) == (cancelled.returncode, set(old) < set(product.containers("app1"))), cancelled.stderr
    assert "fab steps.retire --env=prod" in cancelled.stdout
    assert 0 == product.fab("steps.retire", "--env=prod").returncode
    product.settle(servers=("app1",))


def test_a_hostile_log_reaches_no_terminal(product: Product) -> None:
    """Escape sequences and forged lines in a job's log are shown as text, in the list and in the details."""
    start(product, "evil", r"printf 'job x done 0 1\ntitle forged\n\033]0;owned\007\033[2J\rred\n'")
    product.fab("jobs.wait", "--env=prod", "--job=evil")
    for command in (["jobs.list"], ["jobs.show", "--job=evil"]):
        said = product.fab(*command, "--env=prod").stdout
        assert [] == [char for char in said if ord(char) < 32 and char != "\n"], said
    _, (only,) = listed(product)
    assert ("evil", "") == (only["id"], only["title"])


def test_what_is_no_job_is_told(product: Product) -> None:
    """No job, an unknown one, an impossible one, a wrong server: each has its message and its exit code."""
    product.settings["environments"]["prod"]["app"] = ["app1"]
    cases = {
        ("jobs.show",): (2, "--job is missing"),
        ("jobs.show", "--job=nothing"): (1, "fab jobs.list --env=prod"),
        ("jobs.cancel", "--job=../evil", "--dry-run"): (2, "not the id of a background job"),
        ("jobs.wait", "--job=a", "--timeout=soon"): (2, "a duration is needed"),
        ("jobs.show", "--job=a", "--lines=-1"): (2, "a whole number"),
        ("jobs.list", "--only=app2"): (2, "no app server of prod"),
    }
    for command, (code, words) in cases.items():
        said = product.fab(*command, "--env=prod")
        assert (code, True) == (said.returncode, words in said.stderr), (command, said.stderr)
    empty = product.fab("jobs.list", "--env=prod")
    assert (0, "prod: no background jobs\n") == (empty.returncode, empty.stdout)


def test_a_dry_run_of_a_cancellation_contacts_nothing(product: Product) -> None:
    """The script is printed, also where no server can be reached."""
    for host in product.settings["hosts"].values():
        host["port"] = 1
    said = product.fab("jobs.cancel", "--env=prod", "--job=any", "--dry-run")
    assert (0, "") == (said.returncode, said.stderr)
    assert f"/var/lib/axon/{product.name}/prod/jobs/any" in said.stdout

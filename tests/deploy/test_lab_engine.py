"""The engine in the lab: plans that are printed, several environments, one after the other, interruptions."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says

if TYPE_CHECKING:
    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def timeline(product: Product) -> list[dict[str, Any]]:
    """The spans of the product's last run."""
    said = product.fab("timeline", "--json")
    assert 0 == said.returncode, said.stderr
    return json.loads(said.stdout)["spans"]  # type: ignore[no-any-return]


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["started"] < other["ended"] and other["started"] < one["ended"])


def batches(spans: list[dict[str, Any]], environment: str | None = None) -> list[dict[str, Any]]:
    return [
        span for span in spans
        if span["kind"] == "batch" and span["name"] != "lock" and environment in {None, span["environment"]}
    ]  # fmt: skip


def two_environments(product: Product, staging: list[str], prod: list[str]) -> None:
    common = {"system": ["edge1"]}
    product.settings["environments"] = {
        "staging": {**common, "app": staging, "domain": f"staging.{product.name}.test"},
        "prod": {**common, "app": prod, "domain": product.domain},
    }


# --- printed ---------------------------------------------------------------------------------------------------


def test_a_dry_run_contacts_nobody(product: Product) -> None:
    """`--dry-run` prints the plan and every script, and no server sees a connection."""
    visitors = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        for host in product.settings["hosts"].values():
            host.update(address="127.0.0.1", port=listening.getsockname()[1])
        for words in (["deploy"], ["steps.switch"], ["deploy", "--json"]):
            said = product.fab(
                *words, "--env=prod", "--dry-run", *(["--tag=v2"] if words[0] == "deploy" else [])
            )
            assert 0 == said.returncode, said.stderr
        with contextlib.suppress(TimeoutError):
            visitors.append(listening.accept())
    assert [] == visitors


def test_a_dry_run_hides_secrets(product: Product, prod: dict[str, Any]) -> None:
    """The values of container.env and the registry's password stand in no plan, in no form."""
    prod["container"] = {"env": {"TOKEN": "s3cr3t-canary"}}
    product.settings["registry"] = {"username": "axon", "password": "p4ss-canary"}
    for more in ([], ["--json"]):
        said = product.fab("deploy", "--env=prod", "--tag=v2", "--dry-run", *more)
        assert (0, False) == (said.returncode, "canary" in said.stdout + said.stderr)
        assert "********" in said.stdout


def as_pattern(script: str) -> re.Pattern[str]:
    """A script of a plan as a pattern: what is learnt later may be anything, and so may the time of day."""
    literal = re.escape(script)
    literal = re.sub(
        r'=(?:\\")?"?\\\$\\\{\w+:\\\?the\\ step\\ \w+\\ learns\\ it\\\}(?:\\")?"?', "=(?:.|\\\\n)*?", literal
    )
    literal = re.sub(r"\d{4}\\-\d\d\\-\d\dT\d\d:\d\d:\d\dZ", r"[0-9TZ:-]+", literal)
    return re.compile(literal)


def test_what_is_sent_is_what_was_printed(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script of a deploy is, to the letter, the one of its plan, with the learnt values filled in."""
    from axon_tasks.config import load
    from axon_tasks.deploy import plan, runner
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.preview import Silent, preview
    from axon_tasks.deploy.run import Options
    from axon_tasks.deploy.timeline import Recorder
    from axon_tasks.remote.batch import Batch

    product.serve("v1")
    project = load(product.write())
    environment = project.environment("prod")
    options = Options(tag="v2", command="test", wait=True, run_id=f"test-{time.time_ns()}")
    planned = [
        (server, section.label, section.sudo, as_pattern(section.text))
        for step in plan.steps(preview(project, environment, options))
        for server in step.servers
        if (batch := step.batch(server)) is not None
        for section in batch.sections
    ]
    sent: list[tuple[str, str, bool, str]] = []
    original = Batch.start

    def spy(batch: Batch, connection: Any, **more: Any) -> Any:
        sent.extend((connection.name, one.label, one.sudo, one.text) for one in batch.sections)
        return original(batch, connection, **more)

    monkeypatch.setattr(Batch, "start", spy)
    with Connections(project, Recorder(command="test")) as connections:
        outcomes = runner.deploy(project, connections, [environment], options, lambda _name: Silent())
    assert [None] == [one.error for one in outcomes]
    assert len(sent) > 15
    for server, label, sudo, text in sent:
        alike = [one for one in planned if one[:3] == (server, label, sudo) and one[3].fullmatch(text)]
        assert 1 == len(alike), (server, label, text)
    # Left out is what was not needed: a test of files that stay as they are, and clearing a slot that is empty.
    left = {one[1] for one in planned} - {one[1] for one in sent}
    assert {"nginx_test", "slot"} == left


def test_a_printed_script_can_be_pasted(product: Product) -> None:
    """A block of the plan, pasted into a shell on its server, does what the deploy would do."""
    product.on("app1")
    product.serve("v1")
    said = product.fab("deploy", "--env=prod", "--tag=v2", "--dry-run").stdout
    block = re.search(
        r"# ---- inspect on edge1: section state.*?\n(sh <<'AXON_SCRIPT'\n.*?\nAXON_SCRIPT)", said, re.DOTALL
    )
    assert block is not None
    pasted = product.lab.exec("edge1", ["bash", "-c", block.group(1)])
    assert "slot=a" in pasted.stdout
    needs = re.search(
        r"# ---- start on app1: section health.*?\n(sh <<'AXON_SCRIPT'\n.*?\nAXON_SCRIPT)", said, re.DOTALL
    )
    assert needs is not None
    refused = product.lab.exec("app1", ["bash", "-c", needs.group(1)], check=False)
    assert (True, True) == (refused.returncode != 0, "release: the step plan learns it" in refused.stderr)


# --- one after the other ---------------------------------------------------------------------------------------


def test_sequential_does_one_thing_at_a_time(product: Product) -> None:
    """With `--sequential` no two batches overlap, each has one command, and the old release is gone at the end."""
    product.serve("v1")
    done = product.deploy("v2", "--sequential")
    assert (0, (200, "v2")) == (done.returncode, product.get()), done.stderr
    spans = timeline(product)
    one_by_one = sorted(batches(spans), key=lambda span: float(span["started"]))
    assert all(not overlap(one, next_) for one, next_ in itertools.pairwise(one_by_one))
    sections = [span["parent"] for span in spans if span["kind"] == "section"]
    assert len(sections) == len(set(sections))
    assert [1, 1] == [len(product.containers(server)) for server in ("app1", "app2")]


def test_by_default_independent_work_overlaps(product: Product) -> None:
    """The pull overlaps the inspection, and both app servers start at the same time."""
    product.serve("v1")
    assert 0 == product.deploy("v2").returncode
    found = {(span["name"], span["server"]): span for span in batches(timeline(product))}
    assert overlap(found["pull", "app1"], found["inspect", "app1"])
    assert overlap(found["start", "app1"], found["start", "app2"])


def test_the_configuration_is_tested_beside_the_slow_work(product: Product, prod: dict[str, Any]) -> None:
    """On a first deploy the test of nginx's files overlaps the pull, or the start and its health check: S10, S11."""
    prod["app"] = ["app1"]
    assert 0 == product.deploy("slowstart").returncode
    found = {span["name"]: span for span in batches(timeline(product))}
    assert overlap(found["stage"], found["pull"]) or overlap(found["stage"], found["start"])


# --- waiting for the clean-up ----------------------------------------------------------------------------------


def test_wait_comes_back_when_the_old_release_is_gone(product: Product) -> None:
    """With `--wait` there is nothing left of the old release when the prompt is back."""
    product.serve("v1")
    done = product.deploy("v2", "--wait")
    assert (0, True) == (done.returncode, "has been removed" in done.stdout), done.stdout + done.stderr
    assert [1, 1] == [len(product.containers(server)) for server in ("app1", "app2")]


def test_a_clean_up_that_fails_is_a_warning(product: Product, prod: dict[str, Any]) -> None:
    """If the old release cannot be removed, `--wait` says so, names the job, and the exit code stays 0."""
    prod["app"] = ["app1"]
    product.serve("v1")
    shim = '#!/bin/sh\n[ "$1" != rm ] || { echo "Error response from daemon: device busy" >&2; exit 1; }\nexec /usr/bin/docker "$@"\n'
    product.lab.exec(
        "app1",
        "mkdir -p /usr/local/bin && cat >/usr/local/bin/docker && chmod 755 /usr/local/bin/docker",
        stdin=shim,
    )
    try:
        done = product.deploy("v2", "--wait")
    finally:
        product.lab.exec("app1", ["rm", "-f", "/usr/local/bin/docker"])
    assert (0, (200, "v2")) == (done.returncode, product.get()), done.stderr
    assert "clean-up failed but the deployment succeeded" in done.stderr
    assert "cannot be removed" in done.stderr
    assert "fab jobs.show --env=prod --job=retire-" in done.stderr


# --- several environments --------------------------------------------------------------------------------------


def served(product: Product, environment: str) -> str:
    """The version that an environment serves, by its own container."""
    server = product.settings["environments"][environment]["app"][0]
    said = product.lab.exec(
        server,
        ["docker", "ps", "--format", '{{.Label "axon.environment"}} {{.Label "axon.image"}}', "--filter",
         f"label=axon.product={product.name}"],
    ).stdout  # fmt: skip
    tags = {
        line.split()[1].rpartition(":")[2] for line in said.splitlines() if line.split()[0] == environment
    }
    return ",".join(sorted(tags))


def test_environments_on_different_servers_overlap(product: Product) -> None:
    """`--env=staging,prod` deploys both at the same time, and a table says what became of each."""
    two_environments(product, ["app2"], ["app1"])
    done = product.fab("deploy", "--env=staging,prod", "--tag=v1")
    assert 0 == done.returncode, done.stderr
    assert re.search(r"staging +deployed .*shop:v1\n *prod +deployed .*shop:v1", done.stdout), done.stdout
    spans = timeline(product)
    starts = {span["environment"]: span for span in batches(spans) if span["name"] == "start"}
    assert overlap(starts["staging"], starts["prod"])
    assert ("v1", "v1", (200, "v1")) == (served(product, "staging"), served(product, "prod"), product.get())
    # One login per server, although both environments talk to the same nginx.
    assert ["app1", "app2", "edge1"] == sorted(span["name"] for span in spans if span["kind"] == "connect")


def test_environments_that_share_an_app_server_take_turns(product: Product) -> None:
    """Environments that share an app server are deployed in the order given, never at the same time."""
    two_environments(product, ["app1"], ["app1"])
    done = product.fab("deploy", "--env=prod,staging", "--tag=v1")
    assert 0 == done.returncode, done.stderr
    spans = timeline(product)
    ended = max(span["ended"] for span in batches(spans, "prod"))
    assert ended <= min(span["started"] for span in batches(spans, "staging"))


@pytest.mark.parametrize("shared", [False, True])
def test_one_environment_that_fails_leaves_the_other_alone(product: Product, shared: bool) -> None:
    """The failure of one environment is told with its diagnosis, and the other one is deployed all the same."""
    two_environments(product, ["app2"], ["app2" if shared else "app1"])
    product.settings["environments"]["staging"]["health"] = {"path": "/missing", "timeout": "2s"}
    done = product.fab("deploy", "--env=staging,prod", "--tag=v2")
    assert (1, (200, "v2")) == (done.returncode, product.get()), done.stdout + done.stderr
    assert "The application has no such path" in done.stderr
    assert re.search(r"staging +failed \(1\).*\n *prod +deployed .*shop:v2", done.stdout), done.stdout
    assert ("", "v2") == (served(product, "staging"), served(product, "prod"))
    assert "Traceback" not in done.stderr


# --- interruptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_interrupted_after_the_switch(product: Product, number: signal.Signals) -> None:
    """Whoever interrupts while the old release drains gets the prompt back; the new one serves and is recorded."""
    product.on("app1")
    product.settings["defaults"]["drain"] = {"timeout": "60s"}
    product.serve("v1")
    with product.holding():
        running = product.begin("deploy", "--env=prod", "--tag=v2", "--wait")
        said = until_it_says(running, "retire ")
        time.sleep(0.3)
        running.send_signal(number)
        rest, errors = running.communicate(timeout=30)
    assert 130 == running.returncode, said + rest + errors
    assert "Interrupted after the switch" in errors
    assert (200, "v2") == product.get()
    state = f"/var/lib/axon/{product.name}/prod"
    current = product.lab.exec("edge1", ["cat", f"{state}/current"]).stdout.strip()
    assert ":v2" in product.lab.exec("edge1", ["cat", f"{state}/releases/{current}.json"]).stdout
    product.settle()


def test_ended_before_the_switch(product: Product) -> None:
    """A deployer that is told to end takes back what it has started, as with Ctrl-C, and says so."""
    product.on("app1")
    product.serve("v1")
    before = product.containers("app1")
    running = product.begin("deploy", "--env=prod", "--tag=sick")
    until_it_says(running, "pull ")
    time.sleep(1.5)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=30)
    assert (130, True) == (running.returncode, "Interrupted before the switch" in errors), errors
    assert ((200, "v1"), before) == (product.get(), product.containers("app1"))


def test_interrupting_several_environments_undoes_each(product: Product) -> None:
    """Ctrl-C reaches every environment: none is switched, nothing of the new release is left, and each is told."""
    two_environments(product, ["app2"], ["app1"])
    assert 0 == product.fab("deploy", "--env=staging,prod", "--tag=v1").returncode
    running = product.begin("deploy", "--env=staging,prod", "--tag=sick")
    until_it_says(running, "pull ")
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert (130, 2) == (running.returncode, errors.count("Interrupted before the switch")), errors
    assert ("v1", "v1") == (served(product, "staging"), served(product, "prod"))
    assert [1, 1] == [len(product.containers(server)) for server in ("app1", "app2")]


def test_a_killed_run_leaves_a_timeline(product: Product) -> None:
    """After SIGKILL the timeline shows what had been done until then."""
    product.on("app1")
    product.serve("v1")
    running = product.begin("deploy", "--env=prod", "--tag=sick")
    until_it_says(running, "pull ")
    time.sleep(1)
    running.kill()
    running.wait()
    assert "inspect" in {span["name"] for span in timeline(product)}

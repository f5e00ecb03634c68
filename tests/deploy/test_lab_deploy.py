"""Deploys in the lab: real sshd, dockerd, nginx and registry."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says

if TYPE_CHECKING:
    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

PROJECT = Path(__file__).resolve().parents[2]


def transcript(product: Product, said: str) -> str:
    """What stands in the file that a run has named, which nobody else can read."""
    path = PROJECT / re.findall(r"(?m)^Transcript: (\S+)$", said)[-1]
    assert (0o600, True) == (path.stat().st_mode & 0o777, path.is_relative_to(product.folder))
    return path.read_text()


def test_a_release_replaces_the_one_before(product: Product) -> None:
    """Deploying v1 and then v2 serves v2, without a reload of nginx, and removes v1 in the background."""
    first = product.deploy("v1")
    assert (0, (200, "v1")) == (first.returncode, product.get()), first.stdout + first.stderr
    workers = product.workers()
    second = product.deploy("v2")
    assert (0, (200, "v2")) == (second.returncode, product.get()), second.stdout + second.stderr
    assert workers == product.workers()
    product.settle()


def test_a_release_that_never_gets_healthy_changes_nothing(product: Product) -> None:
    """The old release keeps serving, the exit code is 1, each server is diagnosed, and nothing new is left."""
    product.serve("v1")
    product.serve("v2")
    product.settle()
    before = [product.containers(server) for server in ("app1", "app2")]
    failed = product.deploy("sick")
    assert (1, (200, "v2")) == (failed.returncode, product.get())
    assert before == [product.containers(server) for server in ("app1", "app2")]
    for word in (
        "app1: ",
        "app2: ",
        "HTTP 500",
        "database: connection refused",
        "0 restarts",
        "shop:v2",
        "keeps serving",
    ):
        assert word in failed.stderr
    assert "Traceback" not in failed.stderr
    written = transcript(product, failed.stderr)
    assert [True] * 3 == [
        one in written for one in ("[health]", "database: connection refused", "failed, exit code 1\n")
    ], written


def test_no_request_fails_while_releases_change(product: Product) -> None:
    """Four switches under load with keep-alive and other clients lose no request, and no old version comes back."""
    product.serve("v1")
    with product.under_load() as result:
        codes = [product.deploy(tag).returncode for tag in ("v2", "v1", "v2", "v1")]
    assert ([0, 0, 0, 0], 0) == (codes, result["failed"]), result
    assert result["ok"] > 500
    assert ["v1", "v2", "v1", "v2", "v1"] == result["order"]


def test_a_request_in_flight_is_finished_by_the_old_release(product: Product) -> None:
    """A request that takes longer than the switch gets its whole answer from the release that took it."""
    product.on("app1")
    product.serve("v1")
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(product.get("/slow?seconds=5")))
    slow.start()
    time.sleep(0.5)
    deployed = product.deploy("v2")
    assert (200, "v2") == product.get()
    slow.join(30)
    assert (0, [(200, "v1")]) == (deployed.returncode, answers)
    product.settle()


def test_a_slot_that_still_drains_is_waited_for(product: Product) -> None:
    """The third deploy needs the first one's slot: it says that it waits, and `--now` does not."""
    product.on("app1")
    product.settings["defaults"]["drain"] = {"timeout": "30s"}
    product.serve("v1")
    with product.holding():
        product.serve("v2")
        third = product.begin("deploy", "--env=prod", "--tag=v1")
        said = until_it_says(third, "still drains in the slot")
    rest, errors = third.communicate(timeout=60)
    assert 0 == third.returncode, said + rest + errors
    assert (200, "v1") == product.get()


@pytest.mark.parametrize("tag", ["slowstart", "healthcheck", "noshell"])
def test_what_becomes_healthy_serves(product: Product, prod: dict[str, Any], tag: str) -> None:
    """A slow start, an image with a health check of its own, and one without any shell are deployed."""
    prod["app"] = ["app1"]
    assert 0 == product.deploy(tag).returncode
    assert (200, tag) == product.get()


def test_dockers_own_health_check_counts(product: Product, prod: dict[str, Any]) -> None:
    """An image whose HEALTHCHECK fails is refused although it answers HTTP, unless the check is switched off."""
    prod["app"] = ["app1"]
    refused = product.deploy("unhealthy")
    assert (1, True) == (refused.returncode, "the queue is not reachable" in refused.stderr)
    prod["health"] = {"docker": False}
    assert 0 == product.deploy("unhealthy").returncode


def test_files_belong_to_root_and_records_are_written(product: Product) -> None:
    """Nginx's files are root's and 0644; the record tells image, digest, ports and containers; the audit log grows."""
    product.serve("v1")
    stats = product.lab.exec("edge1", f"stat -c '%U %a' /etc/nginx/axon.d/*/{product.name}-prod.conf").stdout
    state = f"/var/lib/axon/{product.name}/prod"
    current = product.lab.exec("edge1", ["cat", f"{state}/current"]).stdout.strip()
    record = json.loads(product.lab.exec("edge1", ["cat", f"{state}/releases/{current}.json"]).stdout)
    audit = product.lab.exec("edge1", ["cat", f"{state}/audit.log"]).stdout
    assert ("root 644\nroot 644\n", current) == (stats, record["id"])
    assert {"app1", "app2"} == set(record["servers"])
    assert record["digest"].startswith("sha256:")
    assert record["image"].endswith(":v1")
    assert current in audit


def test_secrets_reach_the_container_and_nobody_else(product: Product, prod: dict[str, Any]) -> None:
    """A value of container.env arrives, whatever characters it has, and stands in no record and no output."""
    value = 's3cr\'et $(id) "x"'
    prod.update(app=["app1"], container={"env": {"TOKEN": value}})
    done = product.deploy("v1")
    inside = product.lab.exec(
        "app1", ["docker", "exec", product.containers("app1")[0], "/app/busybox", "env"]
    ).stdout.splitlines()
    kept = product.lab.exec("edge1", f"cat /var/lib/axon/{product.name}/prod/releases/*").stdout
    assert f"TOKEN={value}" in inside
    assert "s3cr" not in kept + done.stdout + done.stderr + transcript(product, done.stdout)


def test_classic_way_keeps_a_site_of_somebody_else(product: Product, prod: dict[str, Any]) -> None:
    """With `switch: reload` the upstream is replaced and reloaded, and a site that people wrote stays as it is."""
    prod.update(switch="reload", app=["app1"])
    site = (
        f"server {{ listen 80; server_name {product.domain}; location / {{"
        f" proxy_pass http://{product.name}_prod_backend; add_header X-Mine yes; }} }}\n"
    )
    upstream = f"upstream {product.name}_prod_backend {{ server 127.0.0.1:9; }}\n"
    product.lab.exec("edge1", f"cat > /etc/nginx/axon.d/sites/{product.name}-prod.conf", stdin=site)
    product.lab.exec("edge1", f"cat > /etc/nginx/axon.d/upstreams/{product.name}-prod.conf", stdin=upstream)
    for tag in ("v1", "v2"):
        done = product.deploy(tag)
        assert (0, (200, tag)) == (done.returncode, product.get()), done.stdout + done.stderr
    kept = product.lab.exec("edge1", ["cat", f"/etc/nginx/axon.d/sites/{product.name}-prod.conf"]).stdout
    assert site == kept
    product.settle(servers=("app1",))


def test_classic_way_with_a_site_of_ours(product: Product, prod: dict[str, Any]) -> None:
    """With `switch: reload` and no site yet, one is written around the upstream, and later deploys reload."""
    product.on("app1")
    prod.update(switch="reload")
    assert [0, 0, 0] == [product.deploy(tag).returncode for tag in ("v1", "v2", "v1")]
    assert (200, "v1") == product.get()


def test_axons_server_is_taken_over(product: Product, prod: dict[str, Any]) -> None:
    """What AXON left, one container without labels and one upstream, is replaced without a gap and retired."""
    prod["app"] = ["app1"]
    old = f"{product.name}-prod-1700000000"
    product.lab.exec("app1", ["docker", "pull", "-q", "10.77.0.5:5000/shop:v1"])
    product.lab.exec(
        "app1", ["docker", "run", "-d", "--name", old, "-p", "31999:3000", "10.77.0.5:5000/shop:v1"]
    )
    for kind, text in {
        "upstreams": f"upstream {product.name}_prod_backend {{ server 10.77.0.21:31999; }}\n",
        "sites": f"server {{ listen 80; server_name {product.domain}; location / {{ proxy_pass http://{product.name}_prod_backend; }} }}\n",
    }.items():
        product.lab.exec("edge1", f"cat > /etc/nginx/axon.d/{kind}/{product.name}-prod.conf", stdin=text)
    product.lab.exec("edge1", ["nginx", "-s", "reload"])
    done = product.deploy("v2")
    assert (0, (200, "v2")) == (done.returncode, product.get()), done.stdout + done.stderr
    product.settle(servers=("app1",))
    assert old not in product.containers("app1")


def test_changing_between_both_ways_of_switching(product: Product, prod: dict[str, Any]) -> None:
    """An environment can go from slots to reload and back; each deploy serves what it deployed."""
    product.on("app1")
    for way, tag in (("slots", "v1"), ("slots", "v2"), ("reload", "v1"), ("slots", "v2")):
        prod["switch"] = way
        done = product.deploy(tag)
        assert (0, (200, tag)) == (done.returncode, product.get()), done.stdout + done.stderr


def test_an_app_server_is_added(product: Product, prod: dict[str, Any]) -> None:
    """One more app server changes the nginx configuration, and both serve."""
    prod["app"] = ["app1"]
    product.serve("v1")
    prod["app"] = ["app1", "app2"]
    done = product.deploy("v2")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert {(200, "v2")} == {product.get() for _ in range(6)}
    product.settle()


def test_steps_one_by_one(product: Product) -> None:
    """The steps of a deploy, called alone in their order, deploy; each is safe to call where it does not fit."""
    product.on("app1")
    product.serve("v1")
    early = product.fab("steps.switch", "--env=prod")
    assert (1, (200, "v1")) == (early.returncode, product.get())
    assert "no release is waiting" in early.stderr
    for name, flags in {
        "inspect": [],
        "pull": ["--tag=v2"],
        "stage": ["--tag=v2"],
        "start": ["--tag=v2"],
        "health": [],
    }.items():
        done = product.fab(f"steps.{name}", "--env=prod", *flags)
        assert (0, (200, "v1")) == (done.returncode, product.get()), name + done.stdout + done.stderr
    for name in ("switch", "record", "retire"):
        done = product.fab(f"steps.{name}", "--env=prod")
        assert (0, (200, "v2")) == (done.returncode, product.get()), name + done.stdout + done.stderr
    product.settle()


def test_retiring_goes_on_after_the_end_and_keeps_its_log(product: Product) -> None:
    """The job that drains and removes runs after the deploy has ended; its exit status and log stay on the server."""
    product.on("app1")
    product.serve("v1")
    product.serve("v2")
    product.settle()
    jobs = f"/var/lib/axon/{product.name}/prod/jobs"
    log = product.lab.exec(
        "app1",
        f"for i in 1 2 3 4 5 6 7 8 9 10; do cat {jobs}/*/rc 2>/dev/null && break; sleep 0.3; done; cat {jobs}/*/log",
    )
    assert log.stdout.startswith("0")
    assert "drained" in log.stdout
    assert "removed" in log.stdout


@pytest.mark.parametrize("moment", ["health", "pull"])
def test_ctrl_c_leaves_what_was(product: Product, moment: str) -> None:
    """Ctrl-C before the switch removes what was started, the old release serves, and the exit code is 130."""
    product.on("app1")
    product.serve("v1")
    before = product.containers("app1")
    running = product.begin("deploy", "--env=prod", "--tag=sick")
    # The first line of output says that it is under way; Python's own start-up is not what is tested.
    assert running.stdout is not None
    first = running.stdout.readline()
    time.sleep(3 if moment == "health" else 0)
    running.send_signal(signal.SIGINT)
    said, errors = running.communicate(timeout=30)
    assert 130 == running.returncode, first + said + errors
    assert ((200, "v1"), before) == (product.get(), product.containers("app1"))
    assert "Traceback" not in errors


def test_a_second_deploy_is_told_who_works(product: Product) -> None:
    """While one deploy runs, another one of the same environment exits with 3 and says who, since when and what."""
    product.on("app1")
    product.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "15s"}
    product.serve("v1")
    first = product.begin("deploy", "--env=prod", "--tag=sick")
    until_it_says(first, "lock ")
    second = product.deploy("v2")
    first.communicate(timeout=60)
    assert (3, 1) == (second.returncode, first.returncode), second.stderr
    assert "is locked by" in second.stderr
    assert "--tag=sick" in second.stderr
    assert 0 == product.deploy("v2").returncode


def test_two_deploys_one_after_the_other_do_not_step_on_each_other(
    product: Product, prod: dict[str, Any]
) -> None:
    """A deploy that has looked before another one has switched looks again under the lock, and removes nothing that serves."""
    prod["app"] = ["app1"]
    product.serve("v1")
    failures: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            status, _ = product.get()
            if status != 200:
                failures.append(status)
            time.sleep(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    runs = []
    for tag in ("v2", "v1", "v2"):
        runs.append(product.begin("deploy", "--env=prod", f"--tag={tag}"))
        time.sleep(0.6)
    codes = [run.communicate(timeout=60) and run.returncode for run in runs]
    done.set()
    watching.join(30)
    assert ([], 0) == (failures, codes[0])
    assert {0, 3} >= set(codes)
    assert 200 == product.get()[0]


def test_a_release_that_is_stuck_keeps_its_slot(product: Product, prod: dict[str, Any]) -> None:
    """A release that is paused is not taken for none: a failed deploy leaves it as it is."""
    prod["app"] = ["app1"]
    product.serve("v1")
    name = product.containers("app1")[0]
    product.lab.exec("app1", ["docker", "pause", name])
    try:
        failed = product.deploy("crash")
    finally:
        product.lab.exec("app1", ["docker", "unpause", name])
    assert (1, [name], (200, "v1")) == (failed.returncode, product.containers("app1"), product.get())


def test_a_switch_that_was_killed_is_completed_by_the_next_run(
    product: Product, prod: dict[str, Any]
) -> None:
    """Files that were written and never reloaded are noticed, and the next deploy reloads."""
    prod["app"] = ["app1"]
    product.serve("v1")
    state = f"/var/lib/axon/{product.name}/prod"
    workers = product.workers()
    product.lab.exec(
        "edge1",
        f"mkdir -p {state}/nginx-before; cp /etc/nginx/axon.d/sites/{product.name}-prod.conf {state}/nginx-before/site",
    )
    product.serve("v2")
    assert workers.isdisjoint(product.workers())
    assert "" == product.lab.exec("edge1", f"ls -d {state}/nginx-before", check=False).stdout


def test_a_switch_that_cannot_be_proven_goes_back(product: Product, prod: dict[str, Any]) -> None:
    """If nginx does not answer with the new release after the flip, it is flipped back, and the new one is removed."""
    prod["app"] = ["app1"]
    product.serve("v1")
    before = product.containers("app1")
    product.lab.exec(
        "edge1", ["chmod", "700", f"/var/lib/axon/{product.name}"]
    )  # nginx cannot see the flag now
    failed = product.deploy("v2")
    assert (1, (200, "v1"), before) == (failed.returncode, product.get(), product.containers("app1")), (
        failed.stderr
    )
    assert "everything is as it was before" in failed.stderr
    product.lab.exec("edge1", ["chmod", "755", f"/var/lib/axon/{product.name}"])
    product.serve("v2")


def test_a_release_that_nginx_cannot_reach_is_not_switched_to(product: Product, prod: dict[str, Any]) -> None:
    """Healthy on its own server is not enough: it must answer the system server, or nothing is switched."""
    prod["app"] = ["app1"]
    product.serve("v1")
    ports = product.lab.exec("app1", ["cat", f"/var/lib/axon/{product.name}/prod/ports"]).stdout.split()
    rule = f"PREROUTING -s 10.77.0.10 -p tcp --dport {ports[1]} -j DROP"
    prod["health"] = {"probe_timeout": "1s"}
    product.lab.exec("app1", f"iptables -t raw -I {rule}")
    try:
        failed = product.deploy("v2")
    finally:
        product.lab.exec("app1", f"iptables -t raw -D {rule}")
    assert (1, (200, "v1"), 1) == (failed.returncode, product.get(), len(product.containers("app1"))), (
        failed.stderr
    )
    assert "cannot reach the new release" in failed.stderr


def test_a_retired_release_is_no_candidate(product: Product) -> None:
    """`steps.switch` after a deploy finds nothing to switch to, although the old release still drains."""
    product.on("app1")
    product.serve("v1")
    with product.holding():
        product.serve("v2")
        back = product.fab("steps.switch", "--env=prod")
    assert (1, (200, "v2")) == (back.returncode, product.get()), back.stdout
    again = product.fab("steps.retire", "--env=prod")
    assert 0 == again.returncode, again.stderr
    product.settle()


def test_a_reader_that_goes_away_does_not_end_a_deploy(product: Product, prod: dict[str, Any]) -> None:
    """A closed standard output, as with `| head -1`, or one that knows ASCII only, changes nothing about the deploy."""
    prod["app"] = ["app1"]
    product.serve("v1")
    command = " ".join(product.command("deploy", "--env=prod", "--tag=v2", f"--hosts-file={product.write()}"))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; PYTHONIOENCODING=ascii {command} | head -n 1"],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ((200, "v2"), False) == (product.get(), "Traceback" in done.stderr), done.stderr
    product.settle(servers=("app1",))


#: The lines of the README, section "Your own servers", for a user that is not root.
SUDOERS = "deploy ALL=(root) NOPASSWD: /usr/bin/sh -s, /bin/sh -s\n"


def test_a_user_that_is_not_root_deploys(product: Product) -> None:
    """With the README's sudo line on the system server, and the group docker and a state directory on app servers."""
    for host in product.settings["hosts"].values():
        host["user"] = "deploy"
    product.lab.exec("edge1", "umask 337; cat > /etc/sudoers.d/axon-test", stdin=SUDOERS)
    for server in ("app1", "app2"):
        product.lab.exec(
            server, "usermod -aG docker deploy; install -d /var/lib/axon; chown -R deploy /var/lib/axon"
        )
    try:
        for tag in ("v1", "v2"):
            done = product.deploy(tag)
            assert (0, (200, tag)) == (done.returncode, product.get()), done.stdout + done.stderr
        product.settle()
        log = product.lab.exec("app1", f"cat /var/lib/axon/{product.name}/prod/jobs/*/log").stdout
        product.lab.exec("edge1", f"rm /etc/nginx/axon.d/upstreams/{product.name}-prod.conf")
        for words in (
            ("sync",), ("maintenance", "--on"), ("maintenance", "--off"), ("lock.acquire", "--message=x"),
            ("lock.release",), ("delete", "--yes"),
        ):  # fmt: skip
            done = product.fab(words[0], "--env=prod", *words[1:])
            assert 0 == done.returncode, (words, done.stdout + done.stderr)
        assert [] == product.containers("app1")
        assert "" == product.lab.exec("app1", f"find /var/lib/axon -path '*{product.name}*'").stdout
    finally:
        product.lab.exec("edge1", ["rm", "-f", "/etc/sudoers.d/axon-test"])
    assert "drained" in log


def test_a_network_is_made_with_our_labels(product: Product, prod: dict[str, Any]) -> None:
    """A network that hosts.yml names and the server does not have is made, once, and later deploys use it."""
    prod.update(app=["app1"], container={"network": product.name, "network_alias": "web"})
    try:
        for tag in ("v1", "v2"):
            product.serve(tag)
        labels = product.lab.exec(
            "app1", ["docker", "network", "inspect", "--format", "{{json .Labels}}", product.name]
        ).stdout
        assert {"axon.product": product.name, "axon.environment": "prod"} == json.loads(labels)
        product.settle(servers=("app1",))
    finally:
        for name in product.containers("app1"):
            product.lab.exec("app1", ["docker", "rm", "-f", name])
        product.lab.exec("app1", ["docker", "network", "rm", product.name], check=False)

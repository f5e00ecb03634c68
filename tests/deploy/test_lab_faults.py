"""What breaks during a deploy, and what is true afterwards: one release everywhere, and clients who noticed nothing."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says

from axon_tasks.lab.prove import Options
from axon_tasks.lab.prove.cuts import Cut, Cuts
from axon_tasks.lab.prove.stage import Case, opened

if TYPE_CHECKING:
    from pathlib import Path

    from products import Product

    from axon_tasks.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def one_release(product: Product, version: str, count: int = 1) -> None:
    """Clients get one version, and each app server has the containers of one release."""
    assert {(200, version)} == {product.get() for _ in range(6)}
    assert [count] * 2 == [len(product.containers(server)) for server in ("app1", "app2")]


def test_an_app_server_that_dies_while_the_release_starts(product: Product, lab: Lab) -> None:
    """The deploy ends, the other server is as before, and when the dead one is back the next deploy needs no help."""
    product.serve("v1")
    product.settle()
    before = product.containers("app1")
    product.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "10s"}
    running = product.begin("deploy", "--env=prod", "--tag=sick")
    until_it_says(running, "pull ")
    time.sleep(1.5)
    lab.stop("app2")
    try:
        _, errors = running.communicate(timeout=120)
        assert (True, True) == (running.returncode in {1, 4}, "app2" in errors), errors
        assert "keeps serving; nothing was switched" in errors
        assert before == product.containers("app1")
        assert {(200, "v1")} == {product.get() for _ in range(4)}
    finally:
        lab.start("app2")
    product.serve("v2")
    product.settle()
    one_release(product, "v2")


def test_dockerd_is_restarted_while_the_release_becomes_healthy(product: Product, lab: Lab) -> None:
    """Whatever becomes of the deploy, one release serves, and the next deploy needs no help."""
    product.serve("v1")
    product.settle()
    running = product.begin("deploy", "--env=prod", "--tag=slowstart")
    # Not while Docker creates the container: a daemon that ends then may leave a network namespace with an address that it
    # gives away again, and what answers there is nobody (seen with 20.10).
    deadline = time.monotonic() + 60
    while len(lab.exec("app1", f"docker ps -q --filter name={product.name}-").stdout.split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lab.stop_service("app1", "dockerd")
    lab.start_service("app1", "dockerd")
    _, errors = running.communicate(timeout=120)
    assert running.returncode in {0, 1}, errors
    serves = "slowstart" if running.returncode == 0 else "v1"
    assert (200, serves) == product.get()
    product.serve("v2")
    product.settle()
    one_release(product, "v2")


def test_a_server_that_is_cut_off_while_the_release_starts(lab: Lab) -> None:
    """Where the network swallows everything, the deploy ends by itself and serves what served; the next one needs no help."""
    proof, case = Cuts(Options()), Case("cut off", "cuts")
    with opened(lab, 1) as where:
        proof.one(where, case, Cut("start@app1:begin", "app1"))
        tally = where.generator.finish()
    assert ([], 0, {"4": 1}) == (case.failures, tally.failed, proof.ends)


def test_an_app_server_that_is_down_is_left_out_if_asked_for(product: Product, lab: Lab) -> None:
    """With `--keep-going` the dead one is taken out of nginx, and that is told; an ordinary deploy takes it in again."""
    product.serve("v1")
    product.settle()
    upstream = f"/etc/nginx/axon.d/upstreams/{product.name}-prod.conf"
    lab.stop("app2")
    try:
        refused = product.deploy("v2")
        assert (4, (200, "v1")) == (refused.returncode, product.get()), refused.stderr
        assert "To deploy without app2 and take it out of nginx: --keep-going" in refused.stderr
        done = product.deploy("v2", "--keep-going")
        assert (5, True) == (done.returncode, "left out: app2" in done.stderr), done.stdout + done.stderr
        assert {(200, "v2")} == {product.get() for _ in range(6)}
        assert "10.77.0.22" not in lab.exec("edge1", ["cat", upstream]).stdout
    finally:
        lab.start("app2")
    product.serve("v1")
    product.settle()
    one_release(product, "v1")
    assert "10.77.0.22" in lab.exec("edge1", ["cat", upstream]).stdout


def test_an_app_server_that_is_rebooted(product: Product, lab: Lab) -> None:
    """Its container comes back by itself on the port that nginx knows, and the next deploy finds it there."""
    product.on("app1")
    product.serve("v1")
    product.settle()

    def runs() -> str:
        listing = [
            "docker",
            "ps",
            "--filter",
            f"label=axon.product={product.name}",
            "--format",
            "{{.ID}} {{.Ports}}",
        ]
        return lab.exec("app1", listing).stdout

    before = runs()
    lab.stop("app1")
    lab.start("app1")
    deadline = time.monotonic() + 60
    while (200, "v1") != product.get():
        assert time.monotonic() < deadline, runs()
        time.sleep(0.2)
    assert before == runs() != ""
    product.serve("v2")
    product.settle()


def test_keeping_going_without_any_server_changes_nothing(product: Product) -> None:
    """A release that gets healthy nowhere is no reason to go on: the old one serves, with exit code 1."""
    product.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "3s"}
    product.serve("v1")
    product.settle()
    failed = product.deploy("sick", "--keep-going")
    assert (1, True) == (failed.returncode, "keeps serving; nothing was switched" in failed.stderr), (
        failed.stderr
    )
    one_release(product, "v1")


def test_a_reload_that_fails_after_the_test_passed(product: Product, prod: dict[str, Any], lab: Lab) -> None:
    """`nginx -t` does not see that a port is taken: the previous files come back, byte for byte, and v1 serves."""
    product.on("app1")
    product.serve("v1")
    product.settle()
    place = f"/etc/nginx/axon.d/*/{product.name}-prod.conf"
    before = lab.exec("edge1", f"cat {place}").stdout
    lab.exec("edge1", "mkdir -p /srv/tls && cd /srv/tls && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout k.pem -out c.pem")  # fmt: skip
    prod["tls"] = {"certificate": "/srv/tls/c.pem", "key": "/srv/tls/k.pem"}
    prod["nginx"] = {"https_port": 8443}
    holder = subprocess.Popen(
        [*lab.enter("edge1"), "busybox", "nc", "-ll", "-p", "8443", "-e", "cat"], stdin=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while lab.exec("edge1", ["busybox", "nc", "-w", "1", "127.0.0.1", "8443"], check=False).returncode:
        assert time.monotonic() < deadline
    try:
        done = product.deploy("v2")
    finally:
        lab.exec("edge1", ["pkill", "-f", "busybox nc -ll"])
        holder.communicate(timeout=20)
    assert (1, True) == (done.returncode, "the previous files are back" in done.stderr), done.stderr
    assert before == lab.exec("edge1", f"cat {place}").stdout
    assert (200, "v1") == product.get()
    del prod["tls"], prod["nginx"]
    product.serve("v2")


def test_the_registry_goes_away(product: Product, lab: Lab) -> None:
    """A pull that cannot be had fails the deploy before anything is started."""
    product.serve("v1")
    product.settle()
    lab.stop_service("registry", "registry")
    try:
        done = product.deploy("v2")
    finally:
        lab.start_service("registry", "registry")
    assert (1, True) == (done.returncode, "pulling" in done.stderr), done.stderr
    one_release(product, "v1")


def test_somebody_elses_mistake_blocks_nobody(product: Product, lab: Lab) -> None:
    """A broken file of another product: a deploy that needs no reload goes through, and says whose file it is."""
    product.on("app1")
    product.serve("v1")
    product.settle()
    foreign = "/etc/nginx/axon.d/sites/zz-foreign.conf"
    lab.exec("edge1", f"echo 'server {{ oops; }}' > {foreign}")
    try:
        done = product.deploy("v2")
    finally:
        lab.exec("edge1", f"rm {foreign}")
    assert (0, True) == (done.returncode, foreign in done.stderr), done.stdout + done.stderr
    assert (200, "v2") == product.get()


def test_what_outlives_the_drain_time_is_cut_and_counted(product: Product, prod: dict[str, Any]) -> None:
    """A request that takes longer than the drain time is cut, and the job on its server says how many there were."""
    product.settings["defaults"]["drain"] = {"timeout": "2s"}
    prod["app"] = ["app1"]
    product.serve("v1")
    with socket.create_connection(("10.77.0.10", 80), timeout=60) as client:
        client.sendall(f"GET /slow?seconds=30 HTTP/1.1\r\nHost: {product.domain}\r\n\r\n".encode())
        time.sleep(0.5)
        done = product.deploy("v2", "--wait")
        assert 0 == done.returncode, done.stderr
    listed = product.fab("jobs.list", "--env=prod", "--json").stdout
    [job] = [one["id"] for one in json.loads(listed)["jobs"]]
    said = product.fab("jobs.show", "--env=prod", f"--job={job}").stdout
    assert "drain time is over, cutting 1 connection(s)" in said


def test_a_request_of_twenty_seconds_is_answered(product: Product) -> None:
    """A request that began before the switch and ends long after it is answered by the release that got it."""
    product.on("app1")
    product.serve("v1")
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(product.get("/slow?seconds=20")))
    product.settings["defaults"]["drain"] = {"timeout": "30s"}
    slow.start()
    time.sleep(0.5)
    product.serve("v2")
    slow.join(60)
    assert [(200, "v1")] == answers
    product.settle()


def test_an_upload_that_spans_the_switch_is_answered(product: Product) -> None:
    """A client that began to send its request before the switch and ends after it gets an answer, and all of it arrived."""
    product.on("app1")
    product.serve("v1")
    body = b"x" * 200_000
    head = f"POST /echo HTTP/1.1\r\nHost: {product.domain}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("10.77.0.10", 80), timeout=60) as client:
        client.sendall(head.encode() + body[:1000])
        product.serve("v2")
        client.sendall(body[1000:])
        answer = client.makefile("rb").read()
    assert (b"HTTP/1.1 200", True) == (answer[:12], b"200000 bytes" in answer), answer


def test_a_client_that_reads_slowly_gets_all_of_its_answer(product: Product) -> None:
    """An answer that is still being read when nginx is switched comes to its end, from the release that began it."""
    product.on("app1")
    product.settings["defaults"]["drain"] = {"timeout": "60s"}
    product.serve("v1")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        client.settimeout(60)
        client.connect(("10.77.0.10", 80))
        client.sendall(f"GET /large HTTP/1.1\r\nHost: {product.domain}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = client.recv(4096).partition(b"\r\n\r\n")
        assert (b"HTTP/1.1 200", True) == (head[:12], b"X-Version: v1" in head)
        received = len(body)
        product.serve("v2")
        assert 2 == len(product.containers("app1"))  # it is not done: nobody has read it
        while chunk := client.recv(256 * 1024):
            received += len(chunk)
            time.sleep(0.001)
    assert 20_000_000 == received
    product.settle()


#: What makes the clock of a deployer differ from that of the servers: all that asks for the time of day there.
CLOCK = """
import datetime, time
seconds, right, told = {seconds}, time.time, datetime.datetime
time.time = lambda: right() + seconds
class datetime_(told):
    @classmethod
    def now(cls, tz=None):
        return told.now(tz) + datetime.timedelta(seconds=seconds)
datetime.datetime = datetime_
"""


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ_by_an_hour(product: Product, tmp_path: Path, hours: int) -> None:
    """Deploys from machines whose clocks differ follow each other as they were made, and nothing that serves is cleaned up."""
    product.on("app1")
    product.serve("v1")
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(seconds=hours * 3600))
    elsewhere = {"PYTHONPATH": str(tmp_path)}
    done = product.fab("deploy", "--env=prod", "--tag=v2", "--wait", variables=elsewhere)
    assert (0, (200, "v2")) == (done.returncode, product.get()), done.stdout + done.stderr
    done = product.deploy("v1", "--wait")
    assert (0, (200, "v1")) == (done.returncode, product.get()), done.stdout + done.stderr
    for variables in ({}, elsewhere):
        cleaned = product.fab("cleanup", "--env=prod", variables=variables)
        assert 0 == cleaned.returncode, cleaned.stderr
    assert ([200, "v1"], 1) == ([*product.get()], len(product.containers("app1")))
    # One that is never healthy holds the lock for as long as its health check waits, however slow the machine is.
    product.settings["defaults"]["health"]["timeout"] = "20s"
    running = product.begin("deploy", "--env=prod", "--tag=sick")
    until_it_says(running, "lock ")
    locked = product.fab("deploy", "--env=prod", "--tag=v2", variables=elsewhere)
    assert (3, True) == (locked.returncode, bool(re.search(r"since|for \d+ s", locked.stderr))), locked.stderr
    running.send_signal(signal.SIGINT)
    assert 130 == running.wait(120)


def test_an_upgraded_connection_outlives_the_switch_until_the_drain_ends(product: Product) -> None:
    """A WebSocket goes on with the release that has it; the drain time ends it, and not the switch."""
    product.settings["defaults"]["drain"] = {"timeout": "6s"}
    product.on("app1")
    product.serve("v1")
    with socket.create_connection(("10.77.0.10", 80), timeout=60) as client:
        client.sendall(
            f"GET /socket HTTP/1.1\r\nHost: {product.domain}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode()
        )
        stream = client.makefile("rb")
        head = [stream.readline()]
        while head[-1] != b"\r\n":
            head.append(stream.readline())
        assert (b"HTTP/1.1 101 Switching Protocols\r\n", True) == (head[0], b"X-Version: v1\r\n" in head)
        product.serve("v2")
        client.sendall(b"still there\n")
        assert b"still there\n" == stream.readline()
        product.settle()
        assert b"" == stream.read()

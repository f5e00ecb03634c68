"""Looking at real environments: status, health, logs and stats, also with a server that is not there."""

from __future__ import annotations

import datetime as dt
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from reading import in_a_terminal, wait_for
from schemas import conforming

if TYPE_CHECKING:
    from conftest import Product

pytestmark = pytest.mark.lab

#: An address of the lab's network that nobody has.
NOBODY = {"address": "10.77.0.99", "private_address": "10.77.0.99", "connect_timeout": "2s"}


def status(product: Product, *more: str) -> Any:
    """`fab status --json` of prod, which must answer with 0."""
    said = product.fab("status", "--env=prod", "--json", *more)
    assert 0 == said.returncode, said.stderr
    [environment] = conforming("status", said.stdout)["environments"]
    return environment


def drift(product: Product) -> list[tuple[str, str]]:
    return [(one["server"], one["what"]) for one in status(product)["drift"]]


def test_status_shows_what_serves(product: Product) -> None:
    """Before the first deploy nothing; then what serves, what drains, and no drift; as a table, too."""
    assert ([], []) == (
        drift(product),
        [one["targets"] for one in status(product)["system"] if one["targets"]],
    )
    product.serve("v1")
    with product.holding():
        product.serve("v2")
        seen = status(product)
        assert [] == seen["drift"]
        ways = {
            (one["image"].rsplit(":", 1)[-1], one["traffic"], one["answer"]["status"])
            for app in seen["app"]
            for one in app["containers"]
        }
        # What drains is on one server only: nobody holds the other one.
        assert {("v2", True, 200), ("v1", False, 200)} == ways
        [edge] = seen["system"]
        serving = {one["release"] for app in seen["app"] for one in app["containers"] if one["traffic"]}
        assert {edge["release"]} == serving
        assert {200} == {one["status"] for one in edge["answers"]}
        assert {one["upstream"] for one in edge["answers"]} <= set(edge["targets"])
        said = product.fab("status", "--all")
        rows = [line.split() for line in said.stdout.splitlines()]
        assert (0, "ENVIRONMENT") == (said.returncode, rows[0][0])
        assert ["edge1", "app1", "app2"] == list(dict.fromkeys(row[1] for row in rows[1:]))
        assert {"yes", "no"} == {row[-1] for row in rows[1:] if row[1].startswith("app")}
    product.settle()


def test_status_tells_drift(product: Product) -> None:
    """What was stopped, recorded wrongly or changed by hand is told where it is; looking changes nothing."""
    product.serve("v1")
    [name] = product.containers("app2")
    product.lab.exec("app2", ["docker", "stop", "--time=1", name])
    told = drift(product)
    assert ("app2", f"its container {name} is exited") == (told[-1][0], told[-1][1].partition(", but ")[2])
    product.lab.exec("app2", ["docker", "start", name])
    state = f"/var/lib/axon/{product.name}/prod"
    site = f"/etc/nginx/axon.d/sites/{product.name}-prod.conf"
    product.lab.exec(
        "edge1", f"cp -p {state}/current {state}/kept; echo 17 >{state}/current; echo '# mine' >>{site}"
    )
    deadline = time.monotonic() + 20
    while len(told := drift(product)) > 2:  # the application starts again
        assert time.monotonic() < deadline, told
    assert [("edge1", f"{site} was changed by hand"), ("edge1", True)] == [
        told[0], (told[1][0], told[1][1].startswith("release 17 is recorded as the one that serves, and traffic goes")),
    ]  # fmt: skip
    assert "17" == product.lab.exec("edge1", f"cat {state}/current").stdout.strip()
    shown = product.fab("status", "--env=prod").stdout
    assert "prod: not as it should be" in shown
    assert "fab deploy --env=prod" in shown
    product.lab.exec("edge1", f"mv {state}/kept {state}/current")


def test_a_dead_server_hides_nothing(product: Product, prod: dict[str, Any]) -> None:
    """The others are shown, the dead one is named, the exit code is 4, and it takes no longer than its timeout."""
    product.on("app1")
    product.serve("v1")
    product.settings["hosts"]["app2"].update(NOBODY)
    product.settings["environments"]["spare"] = {**prod, "app": ["app2"], "domain": "spare.test"}
    for words in (["status"], ["health"], ["stats"], ["logs", "--env=spare"]):
        said = product.fab(*words, *([] if len(words) > 1 else ["--all"]), timeout=60)
        assert (4, True) == (said.returncode, "app2 (10.77.0.99" in said.stderr), (
            words,
            said.stdout,
            said.stderr,
        )
        if words == ["status"]:
            lines = said.stdout.splitlines()
            assert ["app1", "yes"] == [
                next(line.split() for line in lines if " app1 " in line)[index] for index in (1, -1)
            ]
            assert any("app2" in line and "no answer" in line for line in lines)
    seen = conforming("status", product.fab("status", "--all", "--json").stdout)["environments"]
    assert [[], ["app2"]] == [[error["server"] for error in one["errors"]] for one in seen]


def test_only_asks_no_other_server(product: Product) -> None:
    """With --only a dead server is not waited for; a server of no environment is refused with 2."""
    product.serve("v1")
    product.settings["hosts"]["app2"].update(NOBODY)
    seen = status(product, "--only=app1,edge1")
    assert (["app1"], []) == ([one["server"] for one in seen["app"]], seen["errors"])
    said = product.fab("status", "--env=prod", "--only=app9")
    assert (2, True) == (said.returncode, "There are: edge1, app1, app2" in said.stderr), said.stderr


def test_status_tells_who_works(product: Product) -> None:
    """While somebody deploys, status says who has the lock, since when, and with which command."""
    product.on("app1")
    deploying = product.begin("deploy", "--env=prod", "--tag=sick")
    try:
        deadline = time.monotonic() + 30
        while (status(product)["lock"] or {}).get("state") != "locked":
            assert time.monotonic() < deadline
        assert "prod: locked by " in product.fab("status", "--env=prod").stdout
    finally:
        deploying.communicate(timeout=90)


def test_status_again_and_again(product: Product) -> None:
    """--watch shows it anew in the same place of a terminal, until Ctrl-C, which is no failure."""
    product.on("app1")
    product.serve("v1")
    running, said = in_a_terminal(product, "status", "--env=prod", "--watch", "--interval=0.2s")
    wait_for(lambda: said.text.count("\x1b[H\x1b[J") > 2 and "app1" in said.text, said)
    running.send_signal(signal.SIGINT)
    assert 0 == running.wait(10)


def test_health(product: Product) -> None:
    """Healthy is 0; a release that does not answer is 1, and told with what it answered, directly and through nginx."""
    product.serve("v1")
    said = product.fab("health", "--env=prod", "--json")
    [seen] = conforming("health", said.stdout)["environments"]
    assert (0, True) == (said.returncode, seen["healthy"]), said.stderr
    ways = [(one["server"], one["through"], one["answer"]["status"]) for one in seen["checks"]]
    assert [("edge1", True, 200)] * 2 + [("app1", False, 200), ("app2", False, 200)] == ways
    product.settings["defaults"]["health"]["expect_body"] = "never"
    said = product.fab("health", "--env=prod")
    assert (1, True) == (said.returncode, "is not healthy: HTTP 200" in said.stderr), said.stderr
    assert "200, not healthy" in said.stdout


def test_stats(product: Product) -> None:
    """Each running container is told with what it uses."""
    product.serve("v1")
    said = product.fab("stats", "--env=prod", "--json")
    assert 0 == said.returncode, said.stderr
    [seen] = conforming("stats", said.stdout)["environments"]
    assert [("app1", 0), ("app2", 0)] == [(one["server"], one["restarts"]) for one in seen["containers"]]
    for one in seen["containers"]:
        assert one["processes"] > 0 < one["memory_bytes"] < one["limit_bytes"], one
        assert one["cpu_percent"] >= 0 <= one["received_bytes"], one
    table = product.fab("stats", "--env=prod").stdout.splitlines()
    assert (3, "ENVIRONMENT") == (len(table), table[0].split()[0])


def changes(product: Product, *words: str) -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """What a deploy would change, by kind and servers."""
    said = product.fab("diff", "--env=prod", "--json", *words)
    assert 0 == said.returncode, said.stderr
    found = conforming("diff", said.stdout)
    assert ([], []) == (found["notes"], found["errors"])
    return {(one["what"], tuple(one["servers"])): one["diff"] for one in found["changes"]}


def test_what_a_deploy_would_change(product: Product, prod: dict[str, Any]) -> None:
    """Nothing after a deploy; then each thing that differs from what serves, and after the next deploy nothing again."""
    file = f"/srv/{product.name}.env"
    for server in ("app1", "app2"):
        product.lab.exec(server, f"echo GREETING=first >{file}")
    prod["env_file"] = file
    said = product.fab("diff", "--env=prod", "--tag=v1")
    assert (0, True) == (said.returncode, "nothing serves yet" in said.stdout), said.stderr
    product.serve("v1")
    assert {} == changes(product)
    assert {} == changes(product, "--tag=v1")
    assert "nothing but the container itself" in product.fab("diff", "--env=prod").stdout
    product.settings["defaults"]["container"] |= {"memory": "64m", "env": {"TOKEN": "secret-7"}}
    prod["aliases"] = [f"www.{product.domain}"]
    product.lab.exec("app1", f"echo GREETING=second >{file}")
    found = changes(product, "--tag=v2")
    image = "10.77.0.5:5000/shop"
    assert [f"-{image}:v1", f"+{image}:v2"] == found.pop(("image", ()))
    assert ["+--memory 64m"] == [
        line for line in found.pop(("settings", ("app1", "app2"))) if line[0] in "+-"
    ]
    assert ["variables"] == [what for what, servers in found if servers == ("app1", "app2")]
    site = [line for line in found.pop(("site", ("edge1",))) if line[0] in "+-"]
    assert (1, True) == (len(site) // 2, f"www.{product.domain}" in site[1]), site
    assert [("variables", ("app1", "app2"))] == list(found)
    shown = product.fab("diff", "--env=prod", "--tag=v2").stdout
    assert ("secret-7" in shown, "+--memory 64m" in shown) == (False, True)
    product.serve("v2")
    assert {} == changes(product)
    for server in ("app1", "app2"):
        product.lab.exec(server, ["rm", file])


def test_the_doctor(product: Product, prod: dict[str, Any]) -> None:
    """Servers that can be deployed to are found well, before and after a deploy; what they lack is told with a fix."""
    assert [] == [one for one in diagnosed(product, 0) if one["verdict"] == "failed"]
    product.serve("v1")
    names = {(one["server"], one["name"]) for one in diagnosed(product, 0) if one["verdict"] == "ok"}
    assert {("edge1", "nginx"), ("edge1", "privileges"), ("app1", "docker"), ("app2", "ports")} <= names
    prod["env_file"] = f"/srv/{product.name}.none"
    prod["tls"] = {"certificate": f"/srv/{product.name}.pem", "key": f"/srv/{product.name}.key"}
    product.settings["hosts"]["app2"].update(NOBODY)
    failed = {
        (one["server"], one["name"]): one for one in diagnosed(product, 4) if one["verdict"] == "failed"
    }
    assert {("app1", "env file"), ("app2", "connection"), ("edge1", "certificate")} == set(failed)
    assert all(one["fix"] for one in failed.values()), failed
    said = product.fab("doctor", "--env=prod")
    assert (4, True) == (said.returncode, "mended on edge1, app1, app2" in said.stderr), said.stderr
    assert re.search(r"^app2 +failed +connection +.*10\.77\.0\.99", said.stdout, re.MULTILINE), said.stdout


def diagnosed(product: Product, code: int) -> list[dict[str, str]]:
    said = product.fab("doctor", "--env=prod", "--json")
    assert code == said.returncode, said.stdout + said.stderr
    return conforming("doctor", said.stdout)["checks"]  # type: ignore[no-any-return]


def test_the_doctor_and_a_certificate(product: Product, prod: dict[str, Any]) -> None:
    """One that ends soon is a warning; one for another domain, or that has ended, has failed."""
    place = f"/srv/{product.name}"
    prod["tls"] = {"certificate": f"{place}.pem", "key": f"{place}.key"}
    for days, name, verdict, words in (
        (90, product.domain, "ok", "valid until"),
        (5, f"*.{product.domain.partition('.')[2]}", "warning", "valid until"),
        (90, "other.test", "failed", f"it is not for {product.domain}, but for other.test"),
        (-1, product.domain, "failed", "it ended on"),
    ):
        made = make_certificate(name, days)
        product.lab.exec("edge1", f"cat >{place}.pem; echo key >{place}.key", stdin=made)
        [one] = [one for one in diagnosed(product, int(verdict == "failed")) if one["name"] == "certificate"]
        assert (verdict, True) == (one["verdict"], words in one["told"]), one
    product.lab.exec("edge1", f"rm {place}.pem {place}.key")


def make_certificate(name: str, days: int) -> str:
    """A certificate of its own for a domain, that ends some days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    end = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=days, hours=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(end - dt.timedelta(days=99))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def lines(product: Product, *words: str) -> list[dict[str, Any]]:
    said = product.fab("logs", "--env=prod", "--json", *words)
    assert (0, "") == (said.returncode, said.stderr)
    return [conforming("logs", line) for line in said.stdout.splitlines()]


def test_logs_of_all_servers_in_order(product: Product) -> None:
    """Lines of both app servers and of nginx stand in the order of their times, and can be chosen by text, age and number."""
    product.serve("v1")
    for number in range(12):
        assert (404, "v1") == product.get(f"/number-{number}")
    found = lines(product, "--grep=GET /number-")
    assert [f"GET /number-{number} 404" for number in range(12)] == [one["text"] for one in found]
    assert {"app1", "app2"} == {one["server"] for one in found}
    assert sorted(one["time"] for one in found) == [one["time"] for one in found]
    assert ["GET /number-7 404"] == [one["text"] for one in lines(product, "--grep=number-(7|77) ")]
    assert 2 == len(lines(product, "--grep=GET /number-", "--tail=1"))
    assert [] == lines(product, "--release=17")
    time.sleep(2)
    assert [] == lines(product, "--since=1s", "--service=all")
    assert 12 == len(lines(product, "--since=10m", "--grep=GET /number-"))
    access = lines(product, "--service=access", "--grep=/number-")
    assert [("edge1", "access", "", True)] * 12 == [
        (one["server"], one["service"], one["release"], f"/number-{number} " in one["text"])
        for number, one in enumerate(access)
    ]
    both = lines(product, "--service=all", "--grep=/number-")
    assert 24 == len(both)
    text = product.fab("logs", "--env=prod", "--only=app1", "--tail=1", "--timestamps").stdout
    assert re.fullmatch(r"app1 \d+ \| 20\d\d-\S+Z  GET /number-\d+ 404\n", text), text


def test_a_log_that_cannot_be_read(product: Product) -> None:
    """A log that is not there is a warning with its reason, and hides no other."""
    product.on("app1")
    product.serve("v1")
    product.lab.exec("edge1", f"rm /var/log/nginx/{product.name}-prod-error.log")
    said = product.fab("logs", "--env=prod", "--service=all")
    assert (0, True) == (said.returncode, "app1" in said.stdout)
    assert re.search(r"Warning: edge1: cannot read nginx's error log: .*No such file", said.stderr), (
        said.stderr
    )


def left_over(product: Product) -> str:
    """What still reads logs on the servers."""
    found = ""
    for server in ("app1", "app2", "edge1"):
        found += product.lab.exec(
            server, "ps -eo args | grep -E '^(docker (logs|events)|tail) '", check=False
        ).stdout
    return found


def test_following_logs(product: Product) -> None:
    """Two servers at once, with nginx, and the containers of a deploy in between; Ctrl-C ends it, here and there."""
    product.serve("v1")
    running, said = in_a_terminal(
        product, "logs", "--env=prod", "--service=app,access", "--follow", "--tail=5"
    )
    try:
        time.sleep(1)
        for number in range(6):
            product.get(f"/before-{number}")
        wait_for(lambda: said.text.count("/before-") == 12, said)
        product.serve("v2")
        for number in range(6):
            product.get(f"/after-{number}")
        wait_for(lambda: said.text.count("/after-") == 12, said)
        assert {"app1", "app2", "edge1"} == set(re.findall(r"(app\d|edge\d) \w+ +\|", said.text))
        assert "\x1b[3" in said.text
        assert "docker logs" in left_over(product)
        running.send_signal(signal.SIGINT)
        assert 0 == running.wait(5)
        wait_for(lambda: left_over(product) == "", "something still reads logs")
    finally:
        running.kill()


def test_a_killed_reader_leaves_nothing(product: Product) -> None:
    """Also one that is ended with SIGKILL, whose log is silent, leaves no process on the servers."""
    product.serve("v1")
    running, said = in_a_terminal(product, "logs", "--env=prod", "--follow", "--service=all")
    wait_for(lambda: left_over(product).count("docker logs") == 2, said)
    running.kill()
    wait_for(lambda: left_over(product) == "", "something still reads logs")

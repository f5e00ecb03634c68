"""Looking at real environments: status, health, logs and stats, also with a server that is not there."""

from __future__ import annotations

import datetime as dt
import re
import shlex
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from reading import examples, in_a_terminal, wait_for
from schemas import conforming

if TYPE_CHECKING:
    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

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


def test_status_shows_what_serves(shop: Product) -> None:
    """What serves and what drains, each with its image and answer, and no drift; as a table, too."""
    shop.on("app1")
    shop.serve("v1")
    shop.settle()
    with shop.holding():
        shop.serve("v2")
        seen = status(shop)
        assert [] == seen["drift"]
        ways = {
            (one["image"].rsplit(":", 1)[-1], one["traffic"], one["answer"]["status"])
            for app in seen["app"]
            for one in app["containers"]
        }
        assert {("v2", True, 200), ("v1", False, 200)} == ways
        [edge] = seen["system"]
        serving = {one["release"] for app in seen["app"] for one in app["containers"] if one["traffic"]}
        assert {edge["release"]} == serving
        assert {200} == {one["status"] for one in edge["answers"]}
        assert {one["upstream"] for one in edge["answers"]} <= set(edge["targets"])
        said = shop.fab("status", "--all")
        rows = [line.split() for line in said.stdout.splitlines()]
        assert (0, "ENVIRONMENT") == (said.returncode, rows[0][0])
        assert ["edge1", "app1"] == list(dict.fromkeys(row[1] for row in rows[1:]))
        assert {"yes", "no"} == {row[-1] for row in rows[1:] if row[1].startswith("app")}
    shop.settle()
    shop.on("app1", "app2")
    shop.serve("v1")
    shop.settle()


def test_looking_before_the_first_deploy(product: Product) -> None:
    """Nothing serves, which is no drift; the servers are found well; a deploy would change everything."""
    assert ([], [[]]) == (drift(product), [one["targets"] for one in status(product)["system"]])
    assert [] == [one for one in diagnosed(product, 0) if one["verdict"] == "failed"]
    said = product.fab("diff", "--env=prod", "--tag=v1")
    assert (0, True) == (said.returncode, "nothing serves yet" in said.stdout), said.stderr
    said = product.fab("health", "--env=prod")
    assert (1, True) == (said.returncode, "nothing that runs gets traffic" in said.stderr), said.stderr
    assert "prod: no variables" in product.fab("env.show", "--env=prod").stdout


def test_status_tells_drift(shop: Product) -> None:
    """What was stopped, recorded wrongly or changed by hand is told where it is; looking changes nothing."""
    [name] = shop.containers("app2")
    shop.lab.exec("app2", ["docker", "stop", "--time=1", name])
    told = drift(shop)
    assert ("app2", f"its container {name} is exited") == (told[-1][0], told[-1][1].partition(", but ")[2])
    shop.lab.exec("app2", ["docker", "start", name])
    state = f"/var/lib/axon/{shop.name}/prod"
    site = f"/etc/nginx/axon.d/sites/{shop.name}-prod.conf"
    shop.lab.exec(
        "edge1", f"cp -p {state}/current {state}/kept; echo 17 >{state}/current; echo '# mine' >>{site}"
    )
    deadline = time.monotonic() + 20
    while len(told := drift(shop)) > 2:  # the application starts again
        assert time.monotonic() < deadline, told
    assert [("edge1", f"{site} was changed by hand"), ("edge1", True)] == [
        told[0], (told[1][0], told[1][1].startswith("release 17 is recorded as the one that serves, and traffic goes")),
    ]  # fmt: skip
    assert "17" == shop.lab.exec("edge1", f"cat {state}/current").stdout.strip()
    shown = shop.fab("status", "--env=prod").stdout
    assert "prod: not as it should be" in shown
    assert "fab sync --env=prod" in shown
    shop.lab.exec("edge1", f"mv {state}/kept {state}/current")


def test_a_dead_server_hides_nothing(shop: Product) -> None:
    """The others are shown, the dead one is named, the exit code is 4, and it takes no longer than its timeout."""
    shop.on("app1")
    shop.settings["hosts"]["app2"].update(NOBODY)
    shop.settings["environments"]["spare"] = {
        **shop.settings["environments"]["prod"],
        "app": ["app2"],
        "domain": "spare.test",
    }
    for words in (["status"], ["health"], ["stats"], ["logs", "--env=spare"]):
        said = shop.fab(*words, *([] if len(words) > 1 else ["--all"]), timeout=60)
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
    seen = conforming("status", shop.fab("status", "--all", "--json").stdout)["environments"]
    assert [[], ["app2"]] == [[error["server"] for error in one["errors"]] for one in seen]


def test_only_asks_no_other_server(shop: Product) -> None:
    """With --only a dead server is not waited for; a server of no environment is refused with 2."""
    shop.settings["hosts"]["app2"].update(NOBODY)
    seen = status(shop, "--only=app1,edge1")
    assert (["app1"], []) == ([one["server"] for one in seen["app"]], seen["errors"])
    said = shop.fab("status", "--env=prod", "--only=app9")
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


def test_status_again_and_again(shop: Product) -> None:
    """--watch shows it anew in the same place of a terminal, until Ctrl-C, which is no failure."""
    shop.on("app1")
    running, said = in_a_terminal(shop, "status", "--env=prod", "--watch", "--interval=0.2s")
    wait_for(lambda: said.text.count("\x1b[H\x1b[J") > 2 and "app1" in said.text, said)
    running.send_signal(signal.SIGINT)
    assert 0 == running.wait(10)


def test_health(shop: Product) -> None:
    """Healthy is 0; a release that does not answer is 1, and told with what it answered, directly and through nginx."""
    said = shop.fab("health", "--env=prod", "--json")
    [seen] = conforming("health", said.stdout)["environments"]
    assert (0, True) == (said.returncode, seen["healthy"]), said.stderr
    ways = [(one["server"], one["through"], one["answer"]["status"]) for one in seen["checks"]]
    assert [("edge1", True, 200)] * 2 + [("app1", False, 200), ("app2", False, 200)] == ways
    shop.settings["defaults"]["health"]["expect_body"] = "never"
    said = shop.fab("health", "--env=prod")
    assert (1, True) == (said.returncode, "is not healthy: HTTP 200" in said.stderr), said.stderr
    assert "200, not healthy" in said.stdout


def test_stats(shop: Product) -> None:
    """Each running container is told with what it uses."""
    deadline = time.monotonic() + 20
    while True:
        said = shop.fab("stats", "--env=prod", "--json")
        assert 0 == said.returncode, said.stderr
        [seen] = conforming("stats", said.stdout)["environments"]
        # A container that starts just now, after a test before this one, has no figures yet.
        if all(one["processes"] for one in seen["containers"]) or time.monotonic() > deadline:
            break
    assert [("app1", 0), ("app2", 0)] == [(one["server"], one["restarts"]) for one in seen["containers"]]
    for one in seen["containers"]:
        assert one["processes"] > 0 < one["memory_bytes"] < one["limit_bytes"], one
        assert one["cpu_percent"] >= 0 <= one["received_bytes"], one
    table = shop.fab("stats", "--env=prod").stdout.splitlines()
    assert (3, "ENVIRONMENT") == (len(table), table[0].split()[0])


def changes(product: Product, *words: str) -> dict[tuple[str, tuple[str, ...]], list[str]]:
    """What a deploy would change, by kind and servers."""
    said = product.fab("diff", "--env=prod", "--json", *words)
    assert 0 == said.returncode, said.stderr
    found = conforming("diff", said.stdout)
    assert ([], []) == (found["notes"], found["errors"])
    return {(one["what"], tuple(one["servers"])): one["diff"] for one in found["changes"]}


def test_what_a_deploy_would_change(shop: Product) -> None:
    """Nothing after a deploy; then each thing that differs from what serves, and after the next deploy nothing again."""
    file = f"/srv/{shop.name}.env"
    for server in ("app1", "app2"):
        shop.lab.exec(server, f"echo GREETING=first >{file}")
    shop.settings["environments"]["prod"]["env_file"] = file
    shop.serve("v1")
    assert {} == changes(shop)
    assert {} == changes(shop, "--tag=v1")
    assert "nothing but the container itself" in shop.fab("diff", "--env=prod").stdout
    shop.settings["defaults"]["container"] |= {"memory": "64m", "env": {"TOKEN": "secret-7"}}
    shop.settings["environments"]["prod"]["aliases"] = [f"www.{shop.domain}"]
    shop.lab.exec("app1", f"echo GREETING=second >{file}")
    found = changes(shop, "--tag=v2")
    image = "10.77.0.5:5000/shop"
    assert [f"-{image}:v1", f"+{image}:v2"] == found.pop(("image", ()))
    assert ["+--memory 64m"] == [
        line for line in found.pop(("settings", ("app1", "app2"))) if line[0] in "+-"
    ]
    assert ["variables"] == [what for what, servers in found if servers == ("app1", "app2")]
    site = [line for line in found.pop(("site", ("edge1",))) if line[0] in "+-"]
    assert (1, True) == (len(site) // 2, f"www.{shop.domain}" in site[1]), site
    assert [("variables", ("app1", "app2"))] == list(found)
    shown = shop.fab("diff", "--env=prod", "--tag=v2").stdout
    assert ("secret-7" in shown, "+--memory 64m" in shown) == (False, True)
    shop.serve("v2")
    assert {} == changes(shop)
    for server in ("app1", "app2"):
        shop.lab.exec(server, ["rm", file])


def test_the_doctor(shop: Product) -> None:
    """Servers that can be deployed to are found well; what they lack is told with a fix."""
    names = {(one["server"], one["name"]) for one in diagnosed(shop, 0) if one["verdict"] == "ok"}
    assert {("edge1", "nginx"), ("edge1", "privileges"), ("app1", "docker"), ("app2", "ports")} <= names
    shop.settings["environments"]["prod"]["env_file"] = f"/srv/{shop.name}.none"
    shop.settings["environments"]["prod"]["tls"] = {
        "certificate": f"/srv/{shop.name}.pem",
        "key": f"/srv/{shop.name}.key",
    }
    shop.settings["hosts"]["app2"].update(NOBODY)
    failed = {(one["server"], one["name"]): one for one in diagnosed(shop, 4) if one["verdict"] == "failed"}
    assert {("app1", "env file"), ("app2", "connection"), ("edge1", "certificate")} == set(failed)
    assert all(one["fix"] for one in failed.values()), failed
    said = shop.fab("doctor", "--env=prod")
    assert (4, True) == (said.returncode, "mended on edge1, app1, app2" in said.stderr), said.stderr
    assert re.search(r"^app2 +failed +connection +.*10\.77\.0\.99", said.stdout, re.MULTILINE), said.stdout


def diagnosed(product: Product, code: int) -> list[dict[str, str]]:
    said = product.fab("doctor", "--env=prod", "--json")
    assert code == said.returncode, said.stdout + said.stderr
    return conforming("doctor", said.stdout)["checks"]  # type: ignore[no-any-return]


def test_the_doctor_and_a_certificate(shop: Product) -> None:
    """One that ends soon is a warning; one for another domain, or that has ended, has failed."""
    place = f"/srv/{shop.name}"
    shop.settings["environments"]["prod"]["tls"] = {"certificate": f"{place}.pem", "key": f"{place}.key"}
    for days, name, verdict, words in (
        (90, shop.domain, "ok", "valid until"),
        (5, f"*.{shop.domain.partition('.')[2]}", "warning", "valid until"),
        (90, "other.test", "failed", f"it is not for {shop.domain}, but for other.test"),
        (-1, shop.domain, "failed", "it ended on"),
    ):
        made = make_certificate(name, days)
        shop.lab.exec("edge1", f"cat >{place}.pem; echo key >{place}.key", stdin=made)
        [one] = [one for one in diagnosed(shop, int(verdict == "failed")) if one["name"] == "certificate"]
        assert (verdict, True) == (one["verdict"], words in one["told"]), one
    shop.lab.exec("edge1", f"rm {place}.pem {place}.key")


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


def test_logs_of_all_servers_in_order(shop: Product) -> None:
    """Lines of both app servers and of nginx stand in the order of their times, and can be chosen by text, age and number."""
    for number in range(12):
        assert 404 == shop.get(f"/number-{number}")[0]
    # Docker notes when it has read a line, which can take a moment: the order is that of these times.
    wait_for(lambda: len(lines(shop, "--grep=GET /number-")) == 12, "the lines of all requests")
    found = lines(shop, "--grep=GET /number-")
    assert {f"GET /number-{number} 404" for number in range(12)} == {one["text"] for one in found}
    assert 12 == len(found)
    assert {"app1", "app2"} == {one["server"] for one in found}
    assert sorted(one["time"] for one in found) == [one["time"] for one in found]
    assert ["GET /number-7 404"] == [one["text"] for one in lines(shop, "--grep=number-(7|77) ")]
    assert 2 == len(lines(shop, "--grep=GET /number-", "--tail=1"))
    assert [] == lines(shop, "--release=17")
    time.sleep(2)
    assert [] == lines(shop, "--since=1s", "--service=all")
    assert 12 == len(lines(shop, "--since=10m", "--grep=GET /number-"))
    access = lines(shop, "--service=access", "--grep=/number-")
    assert [("edge1", "access", "", True)] * 12 == [
        (one["server"], one["service"], one["release"], f"/number-{number} " in one["text"])
        for number, one in enumerate(access)
    ]
    both = lines(shop, "--service=all", "--grep=/number-")
    assert 24 == len(both)
    text = shop.fab("logs", "--env=prod", "--only=app1", "--tail=1", "--timestamps").stdout
    assert re.fullmatch(r"app1 \d+ \| 20\d\d-\S+Z  GET /number-\d+ 404\n", text), text


def test_a_log_that_cannot_be_read(shop: Product) -> None:
    """A log that is not there is a warning with its reason, and hides no other."""
    shop.on("app1")
    shop.lab.exec("edge1", f"rm /var/log/nginx/{shop.name}-prod-error.log")
    said = shop.fab("logs", "--env=prod", "--service=all")
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


def test_following_logs(shop: Product) -> None:
    """Two servers at once, with nginx, and the containers of a deploy in between; Ctrl-C ends it, here and there."""
    running, said = in_a_terminal(shop, "logs", "--env=prod", "--service=app,access", "--follow", "--tail=5")
    try:
        wait_for(
            lambda: (left_over(shop).count("docker logs"), left_over(shop).count("tail -n")) == (2, 1), said
        )
        for number in range(6):
            shop.get(f"/before-{number}")
        wait_for(lambda: said.text.count("/before-") == 12, said)
        shop.serve("v2" if shop.get()[1] == "v1" else "v1")
        for number in range(6):
            shop.get(f"/after-{number}")
        wait_for(lambda: said.text.count("/after-") == 12, said)
        assert {"app1", "app2", "edge1"} == set(re.findall(r"(app\d|edge\d) \w+ +\|", said.text))
        assert "\x1b[3" in said.text
        assert "docker logs" in left_over(shop)
        running.send_signal(signal.SIGINT)
        assert 0 == running.wait(5)
        wait_for(lambda: left_over(shop) == "", "something still reads logs")
    finally:
        running.kill()


def test_a_killed_reader_leaves_nothing(shop: Product) -> None:
    """Also one that is ended with SIGKILL, whose log is silent, leaves no process on the servers."""
    running, said = in_a_terminal(shop, "logs", "--env=prod", "--follow", "--service=all")
    wait_for(lambda: left_over(shop).count("docker logs") == 2, said)
    running.kill()
    wait_for(lambda: left_over(shop) == "", "something still reads logs")


def lines_of_the_help() -> list[tuple[str, ...]]:
    """The examples of what only looks, as their help shows them; without those that need somebody to end them."""
    tasks = (
        "status",
        "health",
        "logs",
        "stats",
        "diff",
        "doctor",
        "history",
        "env.show",
        "jobs.list",
        "lock.status",
        "exec",
    )
    found = [tuple(shlex.split(line)) for name in tasks for line in examples(name)]
    inside = {"--follow", "--watch", "--interactive"}
    # The sample's image has no program but busybox: what runs in it is tried in test_lab_acting.py.
    return [one for one in found if not inside & set(one) and ("exec" not in one or "--host" in one)]


def test_the_examples_of_the_help(shop: Product) -> None:
    """Each does what it says it does, against real servers."""
    tried = lines_of_the_help()
    assert len(tried) > 20, tried
    for program, *words in tried:
        said = shop.fab(*words)
        assert ("fab", 0) == (program, said.returncode), (words, said.stdout, said.stderr)

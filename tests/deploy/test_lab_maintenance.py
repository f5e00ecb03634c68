"""Maintenance on real servers: one flag for the whole site, through deploys, on all system servers or on none."""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING, Any

import pytest
from products import EDGE
from schemas import conforming

if TYPE_CHECKING:
    from products import Product

pytestmark = pytest.mark.lab

APP3 = "10.77.0.23"


def answer(
    product: Product, path: str = "/", method: str = "GET", address: str = EDGE
) -> http.client.HTTPResponse:
    """What a client gets."""
    connection = http.client.HTTPConnection(address, 80, timeout=40)
    connection.request(method, path, headers={"Host": product.domain})
    got = connection.getresponse()
    got.body = got.read().decode()  # type: ignore[attr-defined]  # kept with the answer
    connection.close()
    return got


def turned(product: Product, *flags: str, code: int = 0) -> Any:
    done = product.fab("maintenance", "--env=prod", *flags)
    assert code == done.returncode, done.stdout + done.stderr
    return done


def test_the_site_is_closed_and_opened_again(shop: Product) -> None:
    """On: each path is 503 with its headers and the message; the health path is 200; nothing is reloaded; off: all is as before."""
    workers = shop.workers()
    with shop.holding():  # a request that is under way goes on
        said = turned(shop, "--on", "--message=Back at <6 pm> & later")
        assert "one flag, no reload" in said.stdout
        for path, method in (("/", "GET"), ("/x?y=1", "POST"), ("/api/health/x", "GET"), ("/", "DELETE")):
            got = answer(shop, path, method)
            assert (503, "120", "no-store") == (
                got.status, got.getheader("Retry-After"), got.getheader("Cache-Control"),
            ), (path, method)  # fmt: skip
            assert "Back at &lt;6 pm&gt; &amp; later" in got.body  # type: ignore[attr-defined]
        assert 200 == answer(shop, "/api/health").status
    told = conforming("maintenance", turned(shop, "--json").stdout)
    assert (True, "Back at <6 pm> & later") == (told["on"], told["system"][0]["note"]["message"])
    assert re.search(r"prod: maintenance is on, by \S+ since 20\S+ .*Back at <6 pm>", turned(shop).stdout)
    status = shop.fab("status", "--env=prod")
    assert (0, True, False) == (
        status.returncode, "maintenance is on" in status.stdout, "not as it should be" in status.stdout,
    ), status.stdout  # fmt: skip
    [seen] = conforming("status", shop.fab("status", "--env=prod", "--json").stdout)["environments"]
    assert "Back at <6 pm> & later" == seen["system"][0]["maintenance"]["message"]
    assert 0 == shop.fab("health", "--env=prod").returncode
    turned(shop, "--on")
    assert "will be back soon" in answer(shop).body  # type: ignore[attr-defined]
    turned(shop, "--off")
    assert (200, "prod: maintenance is off, on edge1\n") == (answer(shop).status, turned(shop).stdout)
    assert set() == shop.workers() - workers
    log = shop.fab("history", "--env=prod", "--audit").stdout
    assert (True, True) == ("maintenance-on Back at <6 pm> & later" in log, "maintenance-off" in log)


@pytest.mark.usefixtures("uncovered")
def test_no_request_is_lost_beside_it(shop: Product) -> None:
    """Under load, each request is answered by the application or, while it is on, with 503: none is dropped."""
    with shop.under_load() as seen:
        turned(shop, "--on")
        turned(shop, "--off")
    other = {key: count for key, count in seen["failures"].items() if "503" not in key}
    assert ({}, True) == (other, seen["ok"] > 100), seen


def test_it_stays_on_through_deploys(shop: Product) -> None:
    """A deploy is proven and says that it is still on; one that fails leaves it on; --end-maintenance opens the site again."""
    turned(shop, "--on")
    done = shop.deploy("v2")
    assert (0, 503) == (done.returncode, answer(shop).status), done.stderr
    assert "maintenance is on, and stays on" in done.stderr
    shop.settings["defaults"]["health"]["timeout"] = "2s"
    failed = shop.deploy("sick", "--end-maintenance")
    assert (1, 503) == (failed.returncode, answer(shop).status), failed.stderr
    done = shop.deploy("v1", "--end-maintenance")
    assert (0, (200, "v1"), False) == (
        done.returncode, shop.get(), "stays on" in done.stderr,
    ), done.stdout + done.stderr  # fmt: skip
    assert "maintenance has ended" in done.stdout
    again = shop.deploy("v1", "--end-maintenance")
    assert (0, True) == (again.returncode, "maintenance was not on" in again.stdout), again.stderr


@pytest.mark.usefixtures("uncovered")
def test_it_needs_no_app_server(shop: Product) -> None:
    """App servers that do not answer are not asked; nor does an application that hangs keep the site open."""
    for server in ("app1", "app2"):
        shop.settings["hosts"][server]["port"] = 1
        shop.lab.exec(server, ["docker", "pause", *shop.containers(server)])
    try:
        turned(shop, "--on")
        assert 503 == answer(shop).status
        turned(shop, "--off")
    finally:
        for server in ("app1", "app2"):
            shop.lab.exec(server, ["docker", "unpause", *shop.containers(server)])
    assert 200 == answer(shop).status


@pytest.mark.usefixtures("uncovered")
def test_a_site_of_an_earlier_version_is_written_anew(shop: Product) -> None:
    """It has no block yet: the files are tested and loaded once; if nginx refuses, all is as before, exit code 1."""
    site = f"/etc/nginx/axon.d/sites/{shop.name}-prod.conf"
    kept = shop.lab.exec("edge1", ["cat", site]).stdout
    old = re.sub(r"        # While maintenance.*?\n        }\n", "", kept, flags=re.DOTALL)
    assert "return 503" not in old
    shop.lab.exec("edge1", f"cat >{site} <<'END'\n{old}END\nnginx -s reload")
    shop.settings["defaults"]["nginx"] = {"client_max_body_size": "7m"}
    shop.lab.exec("edge1", "echo 'nonsense;' >/etc/nginx/conf.d/zz-broken.conf")
    try:
        said = turned(shop, "--on", code=1)
        assert "nonsense" in said.stderr
        assert (200, old) == (answer(shop).status, shop.lab.exec("edge1", ["cat", site]).stdout)
    finally:
        shop.lab.exec("edge1", ["rm", "/etc/nginx/conf.d/zz-broken.conf"])
    workers = shop.workers()
    turned(shop, "--on")
    assert (503, True) == (answer(shop).status, bool(shop.workers() - workers))
    turned(shop, "--off")
    assert (200, True) == (answer(shop).status, "return 503" in shop.lab.exec("edge1", ["cat", site]).stdout)


def test_what_is_refused(product: Product, prod: dict[str, Any]) -> None:
    """Flags that do not fit are 2; before the first deploy, and with a site that somebody wrote, it is 1 with a reason."""
    for flags, words in {
        ("--on", "--off"): "do not go together",
        ("--message=x",): "--message goes with --on",
        ("--off", "--message=x"): "--message goes with --on",
        ("--on", "--message= "): "--message is empty",
        ("--on", f"--message={'x' * 301}"): "at most 300",
        ("--on", "--message=a\x1bb"): "cannot be printed",
        ("--dry-run",): "--dry-run goes with --on or --off",
        ("--on", "--json"): "--json goes without",
    }.items():
        assert words in turned(product, *flags, code=2).stderr
    said = turned(product, "--on", code=1)
    assert "there is no site of prod yet" in said.stderr
    prod["switch"] = "reload"
    name = f"{product.name}-prod.conf"
    product.lab.exec(
        "edge1", f"echo '# mine' | tee /etc/nginx/axon.d/sites/{name} >/etc/nginx/axon.d/upstreams/{name}"
    )
    said = turned(product, "--on", code=1)
    assert "was not written by this tool, so that it knows no maintenance" in said.stderr


def test_a_dry_run_contacts_nobody(product: Product) -> None:
    """It prints the scripts and opens no connection."""
    for host in product.settings["hosts"].values():
        host["port"] = 1
    said = turned(product, "--on", "--message=Back soon", "--dry-run")
    assert ("Back soon" in said.stdout, "Nothing was contacted" in said.stdout) == (True, True)


@pytest.mark.usefixtures("uncovered")
def test_two_system_servers(product: Product, prod: dict[str, Any]) -> None:
    """It is on at both or at none: if one fails, the other one is put back as it was."""
    keys = product.settings["hosts"]["edge1"]["key"]
    product.settings["hosts"]["app3"] = {"address": APP3, "user": "root", "key": keys}
    prod["system"] = ["edge1", "app3"]
    product.on("app1")

    def seen() -> list[int]:
        return [answer(product, address=address).status for address in (EDGE, APP3)]

    try:
        product.serve("v1")
        turned(product, "--on")
        assert [503, 503] == seen()
        turned(product, "--off")
        # A directory in the place of the page cannot be replaced.
        page = f"/var/lib/axon/{product.name}/prod/maintenance.html"
        product.lab.exec("app3", f"rm -f {page}; mkdir {page}")
        failed = turned(product, "--on", code=1)
        assert ([200, 200], True) == (seen(), "app3: " in failed.stderr), failed.stderr
        assert "maintenance was off, and nothing of that has changed" in failed.stderr
        product.lab.exec("app3", ["rmdir", page])
        turned(product, "--on", "--message=one")
        product.lab.exec("app3", f"rm -f {page}; mkdir {page}")
        turned(product, "--on", "--message=two", code=1)
        assert "<p>one</p>" in answer(product).body  # type: ignore[attr-defined]
        product.lab.exec("app3", ["rm", "-f", f"/var/lib/axon/{product.name}/prod/maintenance"])
        status = product.fab("status", "--env=prod").stdout
        assert "app3: maintenance is off, and on at edge1" in status
        assert "not the same on all system servers" in turned(product).stdout
        turned(product, "--off")
        assert [200, 200] == seen()
    finally:
        product.lab.exec(
            "app3",
            f"rm -rf /var/lib/axon/{product.name} /etc/nginx/axon.d/*/{product.name}-*; nginx -s reload",
            check=False,
        )

"""Two system servers in front of the same app servers: they switch together, or not at all, and are made to agree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

#: The system servers and their addresses; the second one is a machine that runs Docker as well.
SYSTEMS = {"edge1": "10.77.0.10", "app3": "10.77.0.23"}


@pytest.fixture
def shop(product: Product, prod: dict[str, Any]) -> Iterator[Product]:
    """A product behind two system servers."""
    keys = product.settings["hosts"]["edge1"]["key"]
    product.settings["hosts"]["app3"] = {"address": SYSTEMS["app3"], "user": "root", "key": keys}
    prod["system"] = list(SYSTEMS)
    yield product
    product.lab.exec(
        "app3",
        f"rm -rf /var/lib/axon/{product.name} /etc/nginx/axon.d/*/{product.name}-*; nginx -s reload",
        check=False,
    )


def seen(shop: Product) -> dict[str, tuple[int, str]]:
    """What clients of each system server get."""
    return {server: shop.get(address=address) for server, address in SYSTEMS.items()}


def state(shop: Product, server: str) -> str:
    said = shop.lab.exec(server, ["ls", "-A", f"/var/lib/axon/{shop.name}/prod"], check=False)
    return said.stdout


def everywhere(version: str) -> dict[str, tuple[int, str]]:
    return dict.fromkeys(SYSTEMS, (200, version))


def test_both_switch(shop: Product) -> None:
    """Each deploy is seen behind both, and both have the record."""
    for tag in ("v1", "v2"):
        shop.serve(tag)
        assert everywhere(tag) == seen(shop)
    for server in SYSTEMS:
        current = shop.lab.exec(server, f"cat /var/lib/axon/{shop.name}/prod/current").stdout.strip()
        record = shop.lab.exec(server, f"cat /var/lib/axon/{shop.name}/prod/releases/{current}.json").stdout
        assert json.loads(record)["image"].endswith(":v2")
        assert "journal" not in state(shop, server)


def test_one_that_cannot_switch_keeps_both_on_the_old_release(shop: Product) -> None:
    """The other one goes back, so that all clients see one release, and what was started is removed."""
    shop.serve("v1")
    shop.settle()
    before = {server: shop.containers(server) for server in ("app1", "app2")}
    ports = shop.lab.exec("app1", ["cat", f"/var/lib/axon/{shop.name}/prod/ports"]).stdout.split()
    rule = f"PREROUTING -s {SYSTEMS['app3']} -p tcp --dport {ports[1]} -j DROP"
    shop.settings["environments"]["prod"]["health"] = {"path": "/api/health", "probe_timeout": "2s"}
    # It finds out after its time limit: the other one has switched long before.
    shop.lab.exec("app1", f"iptables -t raw -I {rule}")
    try:
        done = shop.deploy("v2")
    finally:
        shop.lab.exec("app1", f"iptables -t raw -D {rule}")
    assert (1, True) == (done.returncode, "app3: " in done.stderr), done.stdout + done.stderr
    assert everywhere("v1") == seen(shop), done.stderr
    assert before == {server: shop.containers(server) for server in ("app1", "app2")}
    shop.serve("v2")
    assert everywhere("v2") == seen(shop)


@pytest.mark.parametrize("odd", list(SYSTEMS))
def test_a_split_is_mended_by_the_next_deploy(shop: Product, odd: str) -> None:
    """A run that died between two switches left them apart: the next deploy makes them agree, says so, and goes on."""
    shop.serve("v1")
    shop.settle()
    done = shop.fab("steps.start", "--env=prod", "--tag=v2")
    assert 0 == done.returncode, done.stderr
    folder = f"/var/lib/axon/{shop.name}/prod"
    shop.lab.exec(odd, f"echo 1 >{folder}/slot_b; echo 'r-1 {'9' * 10} b a' >{folder}/journal")
    assert {(200, "v1"), (200, "v2")} == set(seen(shop).values())
    looked = shop.fab("steps.inspect", "--env=prod")
    assert (1, True) == (looked.returncode, "different slots" in looked.stderr)
    done = shop.deploy("v2")
    assert (0, True) == (done.returncode, "did not come back" in done.stderr), done.stdout + done.stderr
    assert everywhere("v2") == seen(shop)
    for server in SYSTEMS:
        assert "journal" not in state(shop, server)
    shop.settle()

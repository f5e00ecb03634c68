"""What somebody changed by hand on real servers is brought in line with what runs, and nothing else is touched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from products import APPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = pytest.mark.lab


def folder(shop: Product) -> str:
    return f"/var/lib/axon/{shop.name}/prod"


def synced(shop: Product, *flags: str, code: int = 0) -> Any:
    done = shop.fab("sync", "--env=prod", *flags)
    assert code == done.returncode, done.stdout + done.stderr
    return done


@pytest.fixture
def serving(shop: Product) -> Iterator[Product]:
    """The shared product; it is in line before and after, with the same containers."""
    before = {server: shop.containers(server) for server in APPS}
    yield shop
    assert "Nothing to do" in synced(shop).stdout
    assert before == {server: shop.containers(server) for server in APPS}


def hints(shop: Product) -> list[tuple[str, str]]:
    """What status finds, and what it says mends it."""
    [seen] = json.loads(shop.fab("status", "--env=prod", "--json").stdout)["environments"]
    return [(one["what"], one["hint"]) for one in seen["drift"]]


def test_where_all_is_well_nothing_is_done(serving: Product) -> None:
    """It says so, nginx is not reloaded, and no line is added to the audit log."""
    workers = serving.workers()
    log = serving.lab.exec("edge1", ["cat", f"{folder(serving)}/audit.log"]).stdout
    said = synced(serving).stdout
    assert "Nothing to do: " in said
    assert (set(), log) == (
        serving.workers() - workers,
        serving.lab.exec("edge1", ["cat", f"{folder(serving)}/audit.log"]).stdout,
    )


@pytest.mark.parametrize("how", ["lost", "changed"])
def test_files_come_back(serving: Product, how: str) -> None:
    """Files that were lost or changed by hand are findings that name sync; they are written anew, tested, and loaded."""
    paths = [f"/etc/nginx/axon.d/{kind}/{serving.name}-prod.conf" for kind in ("upstreams", "sites")]
    before = [serving.lab.exec("edge1", ["cat", path]).stdout for path in paths]
    names = " ".join(paths)
    harm = f"rm {names}" if how == "lost" else f"sed -i 's/max_fails=0/max_fails=3/; s/5s;/9s;/' {names}"
    serving.lab.exec("edge1", f"{harm}; nginx -s reload")
    words = "is not there" if how == "lost" else "was changed by hand"
    found = [hint for what, hint in hints(serving) if words in what]
    assert ["To have it written anew: fab sync --env=prod"] * 2 == found
    said = synced(serving).stdout
    assert 2 == said.count("was lost" if how == "lost" else "was changed by hand")
    assert (before, 200) == (
        [serving.lab.exec("edge1", ["cat", path]).stdout for path in paths],
        serving.get()[0],
    )


def test_traffic_and_records_come_back(serving: Product) -> None:
    """A record that names another release, one that was lost, and a flag that was set by hand are mended in one command."""
    state = folder(serving)
    release = serving.lab.exec("edge1", ["cat", f"{state}/current"]).stdout.strip()
    serving.lab.exec("edge1", f"cd {state}; echo 17 >current; rm releases/{release}.json")
    [(what, hint)] = hints(serving)
    assert (True, True) == ("release 17 is recorded" in what, "fab sync --env=prod" in hint)
    serving.lab.exec("edge1", f"cd {state}; if [ -e slot_b ]; then rm slot_b; else echo 1 >slot_b; fi")
    found = [hint for what, hint in hints(serving) if "sends requests to" in what]
    assert ["To send them to what runs: fab sync --env=prod"] * 2 == found
    shown = synced(serving, "--dry-run").stdout
    assert "Nothing was contacted" in shown
    said = synced(serving).stdout
    for words in (
        f"traffic goes to release {release}",
        "instead of 17",
        f"the record of release {release} is written",
    ):
        assert words in said
    assert release == serving.lab.exec("edge1", ["cat", f"{state}/current"]).stdout.strip()
    record = json.loads(serving.lab.exec("edge1", ["cat", f"{state}/releases/{release}.json"]).stdout)
    assert (release, "ok") == (record["id"], record["outcome"])
    assert f"sync {release}" in serving.fab("history", "--env=prod", "--audit").stdout


def test_it_is_not_certain_which_release(shop: Product) -> None:
    """Two that run and no word of which: refused, with both listed; --release picks one; what is not healthy is never taken."""
    first = shop.lab.exec("edge1", ["cat", f"{folder(shop)}/current"]).stdout.strip()
    assert 0 == shop.fab("steps.start", "--env=prod", "--tag=v2").returncode
    second = max(name.rpartition("-")[2] for name in shop.containers("app1"))
    # Without a file nobody gets traffic, and without a record nobody knows.
    shop.lab.exec(
        "edge1", f"rm /etc/nginx/axon.d/*/{shop.name}-prod.conf {folder(shop)}/current; nginx -s reload"
    )
    refused = synced(shop, code=1).stderr
    for words in ("it is not certain which release", first, second, "fab sync --env=prod --release="):
        assert words in refused
    shop.lab.exec("app2", ["docker", "pause", f"{shop.name}-prod-{second}"])
    try:
        refused = synced(shop, f"--release={second}", code=1).stderr
        assert "does not run on app2" in refused
    finally:
        shop.lab.exec("app2", ["docker", "unpause", f"{shop.name}-prod-{second}"])
    synced(shop, f"--release={second}")
    assert (200, "v2") == shop.get()
    assert 0 == shop.fab("steps.retire", "--env=prod").returncode
    shop.settle()


def test_wrong_ways_to_sync(product: Product) -> None:
    """Where nothing was deployed it is 1 and says so; a release that is no number is 2; a dry run contacts nobody."""
    assert "no release of this tool runs" in synced(product, code=1).stderr
    assert "the id of a release is needed" in synced(product, "--release=v1", code=2).stderr
    for host in product.settings["hosts"].values():
        host["port"] = 1
    assert "Nothing was contacted" in synced(product, "--dry-run").stdout


@pytest.mark.usefixtures("uncovered")
def test_system_servers_that_disagree(product: Product, prod: dict[str, Any]) -> None:
    """One that sends traffic elsewhere, or has lost everything, is made to agree with what is recorded."""
    keys = product.settings["hosts"]["edge1"]["key"]
    product.settings["hosts"]["app3"] = {"address": "10.77.0.23", "user": "root", "key": keys}
    prod["system"] = ["edge1", "app3"]
    product.on("app1")
    try:
        product.serve("v1")
        product.lab.exec(
            "app3", f"rm -rf {folder(product)} /etc/nginx/axon.d/*/{product.name}-*; nginx -s reload"
        )
        said = synced(product).stdout
        assert ("app3: the upstream file, which was lost", "edge1: ") == (
            next(line.strip()[:39] for line in said.splitlines() if "app3: " in line and "lost" in line), "edge1: ",
        )  # fmt: skip
        assert (200, "v1") == product.get(address="10.77.0.23")
        product.lab.exec("app3", f"cd {folder(product)}; echo 1 >slot_b")
        found = [hint for what, hint in hints(product) if "sends requests to" in what]
        assert all("fab sync --env=prod" in hint for hint in found), found
        synced(product)
        assert [(200, "v1")] * 2 == [product.get(address=one) for one in ("10.77.0.10", "10.77.0.23")]
        assert "Nothing to do" in synced(product).stdout
    finally:
        product.lab.exec(
            "app3",
            f"rm -rf /var/lib/axon/{product.name} /etc/nginx/axon.d/*/{product.name}-*; nginx -s reload",
            check=False,
        )

"""An environment is removed from real servers, and nothing of its neighbours."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from products import APPS
from reading import in_a_terminal, wait_for

from axon_tasks.lab.images import build_sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def said(product: Product, server: str, command: str) -> str:
    return product.lab.exec(server, command, check=False).stdout


def deleted(product: Product, *flags: str, env: str = "prod", code: int = 0) -> Any:
    done = product.fab("delete", f"--env={env}", *flags)
    assert code == done.returncode, done.stdout + done.stderr
    return done


def left(product: Product, env: str = "prod") -> dict[str, str]:
    """What is there of an environment: nginx's files, containers, networks, state."""
    name = f"{product.name}-{env}"
    look = f"""find /etc/nginx/axon.d -name '{name}.conf' 2>/dev/null; find /var/lib/axon/{product.name} -path '*{env}*' 2>/dev/null
        docker ps -aq --filter label=axon.product={product.name} --filter label=axon.environment={env} 2>/dev/null
        docker network ls -q --filter label=axon.product={product.name} --filter label=axon.environment={env} 2>/dev/null"""
    return {server: found for server in ("edge1", *APPS) if (found := said(product, server, look))}


@pytest.fixture
def neighbours(product: Product, tmp_path: Path) -> Iterator[tuple[Product, Product]]:
    """A product with prod and staging on the same servers, and another product whose name begins with its name."""
    environments = product.settings["environments"]
    environments["prod"] |= {"app": ["app1"], "container": {"network": f"{product.name}-net"}}
    environments["staging"] = {"system": ["edge1"], "app": ["app1"], "domain": f"staging.{product.name}.test"}
    (tmp_path / "other").mkdir()
    other = replace(
        product, name=f"{product.name}-x", folder=tmp_path / "other", settings=copy.deepcopy(product.settings)
    )
    other.settings["product"] = other.name
    other.settings["environments"] = {"prod": {"system": ["edge1"], "app": ["app1"], "domain": other.domain}}
    yield product, other
    other.remove()
    said(product, "app1", f"docker network rm {product.name}-net")


def test_nothing_of_a_neighbour_is_touched(neighbours: tuple[Product, Product]) -> None:
    """Files, containers, network and state go; another environment and a product with a similar name go on serving; env files stay."""
    product, other = neighbours
    file = f"/srv/{product.name}.env"
    product.settings["environments"]["prod"]["env_file"] = file
    said(product, "app1", f"echo A=1 >{file}")
    product.serve("v1")
    assert 0 == product.deploy("v1", env="staging").returncode
    other.serve("v1")
    before = left(product, "staging"), left(other), other.containers("app1")
    done = deleted(product, "--yes").stdout
    assert {} == left(product)
    assert before == (left(product, "staging"), left(other), other.containers("app1"))
    used = said(product, "app1", "docker ps -q | xargs docker inspect --format '{{.Image}}'").split()
    images = said(product, "app1", "docker images -q --no-trunc").split()
    assert ((200, "v1"), True) == (other.get(), set(used) <= set(images))
    for words in (
        "edge1: removed 3", f"file /etc/nginx/axon.d/sites/{product.name}-prod.conf", f"container {product.name}-prod-",
        f"network {product.name}-net", f"state /var/lib/axon/{product.name}/prod", f"the env file {file} on app1",
    ):  # fmt: skip
        assert words in done, done
    assert "A=1\n" == said(product, "app1", f"cat {file}")
    again = deleted(product, "--yes").stdout
    assert "app1: nothing was there" in again
    said(product, "app1", f"rm {file}")


def test_images_go_that_nobody_else_needs(product: Product) -> None:
    """With its last environment, the images of a repository of its own go from its servers."""
    # An image of its own: one that any container of the lab runs stays.
    build_sample(product.lab, product.name, "ok")
    repository, sample = f"10.77.0.5:5000/{product.name}", f"10.77.0.5:5000/shop:{product.name}"
    said(
        product,
        "app1",
        f"docker pull -q {sample}; docker tag {sample} {repository}:v1; docker rmi {sample}; docker push -q {repository}:v1",
    )
    product.settings["image"] = repository
    product.on("app1")
    deployed = product.deploy("v1")
    assert (0, (200, product.name)) == (deployed.returncode, product.get()), deployed.stderr
    done = deleted(product, "--yes").stdout
    assert (f"image {repository}:v1" in done, "") == (
        True,
        said(product, "app1", f"docker images -q {repository}"),
    ), done


def test_nginx_that_refuses_keeps_the_environment(shop: Product) -> None:
    """Another file names its upstream: the files come back, nothing else is touched, and it is 1 with nginx's words."""
    path = "/etc/nginx/conf.d/zz-uses.conf"
    before = left(shop), shop.get()
    shop.lab.exec(
        "edge1",
        f"echo 'server {{ listen 81; location / {{ proxy_pass http://{shop.name}_prod_a; }} }}' >{path}",
    )
    try:
        failed = deleted(shop, "--yes", code=1).stderr
    finally:
        shop.lab.exec("edge1", f"rm {path}; nginx -s reload")
    assert (True, True) == ("host not found in upstream" in failed, "nothing was removed" in failed), failed
    assert before[1] == shop.get()
    assert set(before[0]["edge1"].split()) <= set(left(shop)["edge1"].split())


def test_it_is_asked_for_the_name(shop: Product) -> None:
    """Only the full name deletes; without a terminal it is 2; a dry run contacts nobody."""
    before = left(shop)
    refused = deleted(shop, code=2).stderr
    assert "Add --yes if you are sure" in refused
    running, seen = in_a_terminal(shop, "delete", "--env=prod")
    wait_for(lambda: "To go on, type" in seen.text, seen)
    seen.type("prod\n")
    assert 1 == running.wait(30), seen
    assert "Nothing was removed" in seen.text
    assert before == left(shop)
    for host in shop.settings["hosts"].values():
        host["port"] = 1
    assert "Nothing was contacted" in deleted(shop, "--dry-run").stdout


def test_one_that_was_cut_off_is_done_again(product: Product) -> None:
    """An app server that fails half-way leaves it removed in part, exit code 5; the next one removes the rest."""
    product.on("app2")
    product.serve("v1")
    product.lab.exec(
        "app2", f"mount --bind /var/lib/axon/{product.name}/prod /var/lib/axon/{product.name}/prod"
    )
    try:
        failed = deleted(product, "--yes", code=5).stderr
    finally:
        product.lab.exec("app2", f"umount /var/lib/axon/{product.name}/prod", check=False)
    assert "it is removed in part, and serves no more. Do it again" in failed, failed
    assert "edge1" in left(product)
    running, seen = in_a_terminal(product, "delete", "--env=prod")
    wait_for(lambda: "To go on, type" in seen.text, seen)
    seen.type(f"{product.name}-prod\n")
    assert 0 == running.wait(60), seen
    assert {} == left(product)

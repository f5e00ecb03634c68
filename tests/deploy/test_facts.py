"""What servers say is parsed strictly: hostile until validated."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axon_tasks.commands import docker, naming, nginx
from axon_tasks.config import load
from axon_tasks.deploy import facts
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Environment

TEXT = """
product: shop
image: registry.test:5000/shop
hosts: {edge1: {address: 10.0.0.1}, app1: {address: 10.0.0.21}}
environments: {prod: {system: [edge1], app: [app1], domain: shop.test}}
"""


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment prod of the product shop."""
    path: Path = tmp_path_factory.mktemp("facts") / "hosts.yml"
    path.write_text(TEXT)
    return load(path).environment("prod")


def row(name: str, *, state: str = "running", ports: str = "", **labels: str) -> str:
    """A line of `docker ps` as our format asks for it."""
    values = ["1" * 64, name, state, "image", ports, *(labels.get(label, "") for label in docker.PS_LABELS)]
    return json.dumps(values)


def test_containers_are_ours_by_exact_labels(prod: Environment) -> None:
    """Only containers whose labels are exactly this product and environment are ours."""
    text = "\n".join(
        [
            row("shop-prod-1", product="shop", environment="prod", release="1", slot="a", port="30000"),
            row("shop-prod-2", product="shop2", environment="prod", release="2"),
            row("shop-prod-3", product="shop", environment="prod2", release="3"),
        ]
    )
    found = facts.parse_containers("app1", text, prod)
    assert [("shop-prod-1", "1", "a", 30000)] == [
        (one.name, one.release, one.slot, one.port) for one in found
    ]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("shop-prod-1764000000", True),
        ("my-shop-prod-1764000000", False),
        ("shop-prod2-1764000000", False),
        ("shop-prod-svc-1764000000", False),
        ("shop-prod-1764000000-x", False),
        ("shop-production-1764000000", False),
    ],
)
def test_containers_of_axon_are_ours_by_their_exact_name(prod: Environment, name: str, ours: bool) -> None:
    """AXON sets no labels, so its containers are recognised by their whole name and never by a part of it."""
    found = facts.parse_containers("app1", row(name, ports="0.0.0.0:31234->3000/tcp"), prod)
    assert [31234] * ours == [one.port for one in found]


def test_a_label_cannot_imitate_another_column(prod: Environment) -> None:
    """A foreign container whose label text contains our labels is still foreign."""
    text = row("evil", product='shop","prod', environment="axon.product=shop")
    assert () == facts.parse_containers("app1", text, prod)


@given(text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answer_is_parsed_or_refused(prod: Environment, text: str) -> None:
    """Whatever a server answers, the result is facts or a message, never a traceback."""
    for parse in (
        lambda: facts.parse_containers("app1", text, prod),
        lambda: facts.parse_ports("app1", text),
        lambda: facts.parse_system("edge1", text, text, text, text),
        lambda: facts.parse_digest("app1", text, "registry.test:5000/shop"),
    ):
        with contextlib.suppress(AxonError):
            parse()


@pytest.mark.parametrize("text", ["30000", "30000 30001 30002", "0 1", "30000 70000", "a b", "٣٠٠٠٠ 30001"])
def test_ports_that_are_none_are_refused(text: str) -> None:
    """A ports file that somebody has spoilt is refused, because its numbers reach nginx."""
    with pytest.raises(AxonError):
        facts.parse_ports("app1", text)


def test_no_ports_yet() -> None:
    """Before the first deploy there are no ports."""
    assert (None, (30000, 30001)) == (facts.parse_ports("a", "\n"), facts.parse_ports("a", "30000 30001\n"))


def test_pairs_give_the_body_whole() -> None:
    """The body comes last, so that lines of it that look like pairs stay in it."""
    assert {"answer": "HTTP 500", "body": "a\nanswer=HTTP 200"} == facts.pairs(
        "answer=HTTP 500\nbody=a\nanswer=HTTP 200\n"
    )


def test_digest_is_the_one_of_the_repository() -> None:
    """An image that two registries know has two digests; the one of the wanted repository counts."""
    right, wrong = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    text = json.dumps([f"other/shop@{wrong}", f"registry.test:5000/shop@{right}"]) + " sha256:id\n"
    assert right == facts.parse_digest("app1", text, "registry.test:5000/shop")


ID, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_an_image_that_was_sent_is_known_by_its_id(prod: Environment) -> None:
    """A container whose image was named by what is its digest was run by the image's id; any other by a digest."""
    mine = {"product": "shop", "environment": "prod", "release": "1", "digest": ID}
    lines = [row("shop-prod-1", **mine), row("shop-prod-2", **mine)]
    lines[0] = lines[0].replace('"image"', f'"{ID}"', 1)
    assert [True, False] == [one.by_id for one in facts.parse_containers("app1", "\n".join(lines), prod)]


@pytest.mark.parametrize(("store", "takes_parts"), [("classic", True), ("containerd", False)])
def test_the_layers_of_a_server(store: str, takes_parts: bool) -> None:
    """Those of each image by its id; an image may have none."""
    text = f'store={store}\n{ID} ["sha256:1","sha256:2"]\n{OTHER} null\n'
    found = facts.parse_layers("app1", text)
    assert (takes_parts, {ID: ("sha256:1", "sha256:2"), OTHER: ()}) == found


@pytest.mark.parametrize(
    "text", ["", "store=other\n", f"store=classic\n{ID} [\n", f'store=classic\n{ID} {{"a": 1}}\n']
)
def test_layers_that_make_no_sense(text: str) -> None:
    """They are refused, with the server's name."""
    with pytest.raises(AxonError, match="app1: unexpected answer"):
        facts.parse_layers("app1", text)


@pytest.mark.parametrize("text", [f"{ID}\n", f'["r.test/shop@{OTHER}"] {ID}', f"[] {ID}\n\n"])
def test_the_id_of_an_image(text: str) -> None:
    """It stands at the end, whatever stands before it."""
    assert ID == facts.parse_image_id("app1", text)


@pytest.mark.parametrize("text", ["", "sha256:1", f"{ID} more", f"x{ID}0"])
def test_what_is_no_id(text: str) -> None:
    """It is refused, with the server's name."""
    with pytest.raises(AxonError, match="app1: unexpected answer"):
        facts.parse_image_id("app1", text)


def test_upstream_targets_reads_axons_file() -> None:
    """AXON's upstream file gives the address and port that serve, comments aside."""
    text = "# server 1.1.1.1:1;\nupstream shop_prod_backend {\n    server 10.0.0.21:31234;\n}\n"
    assert ("10.0.0.21:31234",) == nginx.upstream_targets(text)


def test_names_of_two_environments_never_meet() -> None:
    """Product a with environment b-c and product a-b with environment c have different upstreams."""
    assert naming.upstream_name("a", "b-c", "a") != naming.upstream_name("a-b", "c", "a")

"""Each part of the benchmark works from end to end: what is asserted is what was measured, never how long it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from isolated import isolated

from axon_tasks.errors import AxonError
from axon_tasks.lab import Lab, bench
from axon_tasks.lab.bench import Count, Figure, Options, Ratio
from axon_tasks.lab.bench.floor import Floor, _digest
from axon_tasks.lab.bench.output import payload
from axon_tasks.lab.bench.product import TAGS, Product, product
from axon_tasks.lab.bench.target import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def measured(lab: Lab, *parts: str) -> list[Figure]:
    figures = bench.run(lab, Options.quickly(parts), print)
    assert all(len(one.values) == 1 for one in figures)
    assert all(min(one.rounds[0]) > 0 for one in figures if isinstance(one, Ratio))
    return figures


def compared(figures: list[Figure]) -> list[tuple[str, str, str]]:
    return [(one.what, one.one, one.by) for one in figures if isinstance(one, Ratio)]


def counted(figures: list[Figure]) -> dict[tuple[str, str], float]:
    return {(one.who, one.unit): one.value for one in figures if isinstance(one, Count)}


def test_deployments(lab: Lab) -> None:
    """Every deployment is measured both ways, and the regular one with the clean-up waited for as well."""
    assert [
        ("first deploy", "--sequential", "default"),
        ("regular deploy with clean-up", "--sequential", "default"),
        ("regular deploy with clean-up", "--sequential", "--wait"),
        ("redeploy of the same image", "--sequential", "default"),
        ("regular deploy to two app servers", "--sequential", "default"),
    ] == compared(measured(lab, "deploy"))


def test_floor(lab: Lab) -> None:
    """The floor deploys as `fab deploy` does, with what a dry run prints, so that both take turns on one product."""
    assert [
        ("redeploy of the same image", "fab deploy", "plain ssh"),
        ("regular deploy with clean-up", "fab deploy", "plain ssh"),
    ] == compared(measured(lab, "floor"))


def test_small_parts(lab: Lab) -> None:
    """Batches, the listing and large output are measured, and the large output did not stay in memory."""
    figures = measured(lab, "batch", "listing", "output")

    assert [
        ("10 times `true`", "10 calls", "a batch"),
        ("10 times `true`", "10 calls of stock Fabric", "a batch"),
        ("10 small programs", "10 calls", "a batch"),
        (figures[3].what, "axon-tasks", "a bare fabfile"),
        ("a section of 1 MB, login included", "a batch", "ssh host cat"),
        ("a section of 1 MB, logged in before", "a batch", "ssh -o ControlPath"),
    ] == compared(figures)
    assert {("a batch", "MB of memory more")} == set(counted(figures))


def test_fanout(lab: Lab) -> None:
    """All three contenders get an answer from each server, and their threads and memory are seen."""
    figures = measured(lab, "fanout")
    names = ["axon-tasks", "ThreadingGroup", "xargs -P 32 ssh"]

    assert [("one query over 3 servers", names[0], other) for other in names[1:]] == compared(figures)
    assert {(name, unit) for name in names for unit in ("threads", "MB of memory")} == set(counted(figures))
    assert all(value > 0 for value in counted(figures).values())


@isolated
def test_counts(project: Path) -> None:
    """The proxies of a machine of its own count one connection per server, and what connecting costs by itself."""
    lab = Lab(apps=1, rtt=20.0, root=project)
    lab.up()
    try:
        figures = bench.run(lab, Options(only=("counts",), repeat=1, rtts=(20.0,)), print)
    finally:
        lab.down()
    told = counted(figures)

    assert 1 == told["at the proxies", "connections per server"]
    assert 2 <= told["at the proxies", "dependent round trips to log in"] <= 8
    # How many there are is measured by `invoke bench`; on a busy machine, what follows closely can count as one.
    assert 2 <= told["at the proxies", "dependent round trips after connecting"]
    assert 4 <= told["at the proxies", "dependent round trips after the login"]


@pytest.fixture
def made(lab: Lab) -> Iterator[Product]:
    with product(lab, ("app1",)) as one:
        yield one


def test_nothing_of_a_product_stays(lab: Lab) -> None:
    """When the benchmark is done with a product, no container, no state and no file of nginx is left."""
    with product(lab, ("app1",)) as made:
        made.deploy(TAGS[0])
        made.serves(TAGS[0])
        name = made.name

    left = f"docker ps -aq --filter label=axon.product={name}; ls -d /var/lib/axon/{name}/* 2>/dev/null; true"
    assert "" == lab.exec("app1", left).stdout
    assert (
        ""
        == lab.exec(
            "edge1", f"ls -d /var/lib/axon/{name} /etc/nginx/axon.d/*/{name}-* 2>/dev/null; true"
        ).stdout
    )


def test_deployment_that_did_not_happen(made: Product) -> None:
    """A contender that did not deploy what it says is an error, however fast it was."""
    made.deploy(TAGS[0])

    with pytest.raises(AxonError, match=f"clients get {TAGS[0]}"):
        made.serves(TAGS[1])


def test_floor_leaves_what_a_deployment_leaves(made: Product) -> None:
    """After the floor, the next `fab deploy` finds a release that serves, and the old one is retired."""
    made.deploy(TAGS[0])
    floor = Floor(made, {tag: _digest(made, tag) for tag in TAGS}, again=False)
    floor.prepare()

    assert TAGS[1] == floor.run()
    made.serves(TAGS[1])
    made.settle()
    assert f"{TAGS[1]} serves" in made.fab("steps.inspect", "--env=prod")
    made.deploy(TAGS[0], "--wait")
    made.serves(TAGS[0])
    assert made.retired()


def test_floor_that_fails_is_told(made: Product) -> None:
    """When one of the floor's scripts fails, the driver says which and what it said, and leaves no connection open."""
    made.deploy(TAGS[0])
    floor = Floor(made, {tag: _digest(made, tag) for tag in TAGS}, again=True)
    floor.prepare()
    (floor.folder / "start@app1").write_text("echo no space left >&2; exit 9\n")

    with pytest.raises(AxonError, match=r"the floor failed at start:\n(?s:.*)no space left"):
        floor.run()


def test_payload_is_removed(lab: Lab) -> None:
    """The file that is sent is as large as asked, and nothing of it stays on the server."""
    with payload(lab, 4321) as sent:
        assert "4321\n" == lab.exec(HOST, ["stat", "-c", "%s", sent.path]).stdout

    assert 1 == lab.exec(HOST, ["test", "-e", sent.path], check=False).returncode

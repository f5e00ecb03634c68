"""What may be removed: decided from exact facts, and never anything of the current or the previous release."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axon_tasks.commands import docker
from axon_tasks.config import load
from axon_tasks.deploy import facts, leftovers
from axon_tasks.deploy.history import State, parse_states
from axon_tasks.deploy.leftovers import Detail, Image, Network, Truth
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Environment

TEXT = """
product: shop
image: registry.test:5000/shop
hosts: {edge1: {address: 10.0.0.1}, edge2: {address: 10.0.0.2}, app1: {address: 10.0.0.21}}
environments:
  prod: {system: [edge1], app: [app1], domain: shop.test, health: {timeout: 10s}}
  two: {system: [edge1, edge2], app: [app1], domain: two.test}
  never: {system: [edge1], app: [app1], domain: never.test, container: {restart: "no"}}
"""
SLOTS = "upstream shop_prod_a { server 10.0.0.21:30000; }\nupstream shop_prod_b { server 10.0.0.21:30001; }\n"
NOW = 1_000_000.0
#: Release 30 serves in slot b, 20 was before it.
KNOWN = Truth(current="30", kept=frozenset({"20", "30"}), slots=frozenset({"b"}))


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Environment]:
    path: Path = tmp_path_factory.mktemp("leftovers") / "hosts.yml"
    path.write_text(TEXT)
    return load(path).environments


def a_container(
    number: int,
    release: str,
    *,
    slot: str = "a",
    product: str = "shop",
    environment: str = "prod",
    name: str = "",
) -> str:
    labels = (
        {"product": product, "environment": environment, "release": release, "slot": slot} if product else {}
    )
    values = [f"{number:064x}", name or f"{product}-{environment}-{release}", "running", "image", ""]
    return json.dumps([*values, *(labels.get(label, "") for label in docker.PS_LABELS)])


def detail(status: str = "exited", *, created: float = 0.0, restart: str = "no") -> Detail:
    return Detail(status, created, "sha256:" + "1" * 64, restart, frozenset())


def decide(
    environment: Environment,
    lines: list[str],
    details: list[Detail],
    known: Truth = KNOWN,
    *,
    retiring: frozenset[str] = frozenset(),
) -> tuple[list[str], list[str]]:
    ours = facts.parse_containers("app1", "\n".join(lines), environment)
    by_id = {json.loads(line)[0]: one for line, one in zip(lines, details, strict=True)}
    items, left = leftovers.containers("app1", environment, ours, by_id, known, retiring=retiring, now=NOW)
    return [item.name for item in items], [one.name for one in left]


@pytest.mark.parametrize(
    ("release", "slot", "state", "removed", "left"),
    [
        ("30", "b", detail("running"), False, False),  # serves
        ("30", "b", detail("exited"), False, False),  # serves, and has crashed
        ("99", "b", detail("exited"), False, False),  # in the slot that serves, whatever its label says
        ("20", "a", detail("exited"), False, False),  # the one before
        ("20", "a", detail("running"), False, True),
        ("10", "a", detail("exited"), True, False),
        ("10", "a", detail("created"), True, False),
        ("10", "a", detail("dead"), True, False),
        ("10", "a", detail("running", restart="always"), True, False),
        ("10", "a", detail("paused"), False, True),
        ("10", "a", detail("restarting"), False, True),
        ("40", "a", detail("created"), True, False),
        ("40", "a", detail("exited"), True, False),
        (
            "40",
            "a",
            detail("running", created=NOW - 11),
            True,
            False,
        ),  # its deploy was killed while it waited for health
        ("40", "a", detail("running", created=NOW - 9), False, True),  # or it has just been started by hand
        ("40", "a", detail("running", restart="unless-stopped"), False, True),  # healthy, may be switched to
        ("evil", "a", detail("exited"), False, True),
        ("10", "", detail("running"), False, True),  # AXON made it
        ("10", "", detail("exited"), True, False),
    ],
)
def test_what_becomes_of_a_container(
    environments: dict[str, Environment], release: str, slot: str, state: Detail, removed: bool, left: bool
) -> None:
    """Removed is only what neither serves, nor served before, nor may be somebody's next step."""
    found = decide(environments["prod"], [a_container(1, release, slot=slot)], [state])
    name = [f"shop-prod-{release}"]
    assert (name * removed, name * left) == found


@pytest.mark.parametrize(
    ("product", "environment", "name"),
    [
        ("my-shop", "prod", ""),
        ("shop2", "prod", ""),
        ("shop", "prod2", ""),
        ("shop", "production", ""),
        ("shop-prod", "x", "shop-prod-1764000000"),
        ("", "", "my-shop-prod-1764000000"),
        ("", "", "shop-prod2-1764000000"),
        ("", "", "shop-production-1764000000"),
        ("", "", "shop-prod-svc-worker-1764000000"),
        ("", "", "shop-prod-1764000000-backup"),
    ],
)
def test_neighbours_are_never_touched(
    environments: dict[str, Environment], product: str, environment: str, name: str
) -> None:
    """A container of a product or environment whose name contains ours is neither removed nor even mentioned."""
    line = a_container(1, "10", product=product, environment=environment, name=name)
    assert ([], []) == decide(environments["prod"], [line], [detail("exited")])


def test_what_a_job_retires_is_the_jobs(environments: dict[str, Environment]) -> None:
    """A container that a running job drains is left to it."""
    line = a_container(1, "10")
    assert ([], []) == decide(
        environments["prod"], [line], [detail("running")], retiring=frozenset({f"{1:064x}"})
    )


def test_in_doubt_everything_stays(environments: dict[str, Environment]) -> None:
    """If it is not certain what serves, nothing is removed, and the reason is told."""
    known = Truth(doubt="nobody knows")
    assert ([], ["shop-prod-10"]) == decide(environments["prod"], [a_container(1, "10")], [detail()], known)


def test_a_policy_of_no_restart_tells_nothing(environments: dict[str, Environment]) -> None:
    """Where hosts.yml says restart: no, a running newer release may well be healthy, and stays."""
    line = a_container(1, "40", environment="never", name="shop-never-40")
    assert ([], ["shop-never-40"]) == decide(environments["never"], [line], [detail("running")])


def a_state(current: str, *releases: str, slot: str = "a") -> State:
    return State(slot, current, {one: {"digest": f"sha256:{one}"} for one in releases})


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (State(), set()),
        (a_state("30", "10", "20", "30"), {"20", "30"}),
        (
            a_state("20", "10", "20", "30"),
            {"10", "20", "30"},
        ),  # after a rollback: the one before may be either
        (a_state("9", "9", "10"), {"9", "10"}),  # ids are numbers
        (a_state("", "10", "20"), {"20"}),
        (a_state("40", "10", "20"), {"20", "40"}),  # its record is lost
    ],
)
def test_current_and_previous(state: State, kept: set[str]) -> None:
    """The current release and the one before it are kept, also after a rollback."""
    assert kept == state.kept


def test_truth_of_one_server(environments: dict[str, Environment]) -> None:
    """The flag tells the slot where there are slots, the upstream's ports where there are none."""
    state = a_state("30", "20", "30", slot="b")
    found = leftovers.truth(environments["prod"], {"edge1": state}, {"edge1": SLOTS})
    assert ("30", {"b"}, set(), "", "") == (
        found.current,
        found.slots,
        found.ports,
        found.doubt,
        found.images_doubt,
    )
    single = "upstream shop_prod_backend { server 10.0.0.21:31234; }"
    found = leftovers.truth(environments["prod"], {"edge1": state}, {"edge1": single})
    assert (set(), {31234}) == (found.slots, found.ports)


def test_doubts(environments: dict[str, Environment]) -> None:
    """Silent servers, servers that disagree and traffic without a record are doubts; what was never deployed is none."""
    prod, two = environments["prod"], environments["two"]
    one, other = a_state("30", "30"), a_state("20", "20")
    both = SLOTS.replace("prod", "two")
    assert "" == leftovers.truth(prod, {"edge1": State()}, {"edge1": ""}).doubt
    assert "edge1 did not say what serves" == leftovers.truth(prod, {}, {}).doubt
    assert "edge2 did not say what serves" == leftovers.truth(two, {"edge1": one}, {"edge1": both}).doubt
    assert (
        "do not agree"
        in leftovers.truth(two, {"edge1": one, "edge2": other}, {"edge1": both, "edge2": both}).doubt
    )
    assert "no record" in leftovers.truth(prod, {"edge1": State()}, {"edge1": SLOTS}).doubt
    lost = State("a", "30", {"30": {}})
    found = leftovers.truth(prod, {"edge1": lost}, {"edge1": SLOTS})
    assert ("", True) == (found.doubt, "record of release 30" in found.images_doubt)


REPOSITORY = "registry.test:5000/shop"


def an_image(
    number: int, *, tag: str = "", repository: str = REPOSITORY, since: float | None = None
) -> Image:
    digest = f"{repository}@sha256:{number:064x}"
    tags = (f"{repository}:{tag or f'v{number}'}",)
    return Image(f"sha256:{number:064x}", tags, (digest,), number if since is None else since, 10)


def pick(images: list[Image], **more: object) -> list[str]:
    values = {"used": (), "protected": (), "deployed": {}, "keep": 3, **more}
    return [item.name for item in leftovers.images("app1", REPOSITORY, images, **values)]  # type: ignore[arg-type]


def test_images_beyond_the_number_kept() -> None:
    """The newest stay; of the others those that a container uses, and those that a kept release runs."""
    images = [an_image(number) for number in range(1, 9)]
    old = [f"{REPOSITORY}:v{number}" for number in range(1, 6)]
    assert old == pick(images)
    assert old[1:] == pick(images, used={images[0].id})
    assert old[:1] + old[2:] == pick(images, protected={f"sha256:{2:064x}"})
    assert old[:2] + old[3:] == pick(images, protected={f"{REPOSITORY}:v3"})
    assert [] == pick(images, keep=8)
    # What was deployed last counts as new, however long ago it was built.
    assert f"{REPOSITORY}:v1" not in pick(images, deployed={f"sha256:{1:064x}": 1000})


@pytest.mark.parametrize(
    "repository",
    [
        "registry.test:5000/my-shop",
        "registry.test:5000/shop2",
        "registry.test:5000/team/shop",
        "shop",
        "registry.test/shop",
    ],
)
def test_images_of_other_repositories_stay(repository: str) -> None:
    """Only the very repository counts, whatever contains its name."""
    assert [] == pick([an_image(number, repository=repository) for number in range(1, 9)], keep=0)


def test_a_foreign_name_of_an_image_stays() -> None:
    """Of an image that another repository names as well, only our names are taken away."""
    shared = Image(
        "sha256:" + "1" * 64, (f"{REPOSITORY}:a", "other/shop:b"), (f"{REPOSITORY}@sha256:{1:064x}",), 0, 1
    )
    (item,) = leftovers.images("app1", REPOSITORY, [shared], used=(), protected=(), deployed={}, keep=0)
    assert (f"{REPOSITORY}:a", f"{REPOSITORY}@sha256:{1:064x}") == item.references


def test_an_image_that_was_sent_is_known_by_its_id() -> None:
    """No registry has given it a digest: its id counts, and of one that has lost its name only if it was deployed."""
    images = [
        Image(f"sha256:{number:064x}", (f"{REPOSITORY}:v{number}",), (), number, 1) for number in (1, 2)
    ]
    nameless = [Image(f"sha256:{number:064x}", (), (), number, 1) for number in (3, 4)]
    assert [f"{REPOSITORY}:v2"] == pick(images, keep=0, protected={images[0].id})
    assert [f"{REPOSITORY}:v1"] == pick(images, keep=1)
    assert [f"{REPOSITORY}:v2"] == pick(images, keep=1, deployed={images[0].id: 100})
    deployed = {nameless[0].id: 100}
    assert [nameless[0].id] == pick(nameless, keep=0, deployed=deployed)
    assert [] == pick(nameless, keep=0, deployed=deployed, protected={nameless[0].id})


def test_docker_hub_has_two_spellings() -> None:
    """`shop` and `docker.io/library/shop` are one repository."""
    image = Image("sha256:" + "1" * 64, ("shop:a",), (), 0, 1)
    assert 1 == len(
        leftovers.images(
            "app1", "docker.io/library/shop", [image], used=(), protected=(), deployed={}, keep=0
        )
    )


@given(
    numbers=st.lists(st.integers(1, 50), unique=True, max_size=20),
    used=st.sets(st.integers(1, 50)),
    protected=st.sets(st.integers(1, 50)),
    keep=st.integers(0, 10),
)
def test_no_needed_image_ever_goes(
    numbers: list[int], used: set[int], protected: set[int], keep: int
) -> None:
    """Whatever is there: nothing used or protected goes, the number kept is kept, and a second run finds nothing."""
    images = [an_image(number) for number in numbers]
    values = {
        "used": {f"sha256:{number:064x}" for number in used},
        "protected": {f"sha256:{number:064x}" for number in protected},
        "keep": keep,
    }
    gone = {int(name.rpartition("v")[2]) for name in pick(images, **values)}
    assert set() == gone & (used | protected)
    assert len(numbers) - len(gone) >= min(keep, len(numbers))
    rest = [image for image, number in zip(images, numbers, strict=True) if number not in gone]
    assert [] == pick(rest, **values)


def test_networks(environments: dict[str, Environment]) -> None:
    """A network goes if its labels are exactly ours, nothing is attached, stopped or not, and hosts.yml does not name it."""

    def network(
        number: int, *, name: str = "old", product: str = "shop", environment: str = "prod", count: int = 0
    ) -> Network:
        return Network(f"{number:064x}", name, product, environment, count)

    present = [
        network(1),
        network(2, product="my-shop"),
        network(3, environment="prod2"),
        network(4, count=1),
        network(5),
        network(6, name="configured"),
    ]
    found = leftovers.networks(
        "app1", environments["prod"], present, attached={f"{5:064x}"}, configured={None, "configured"}
    )
    assert [f"{1:064x}"] == [item.target for item in found]


@given(
    releases=st.sets(st.integers(1, 10**12).map(str), max_size=40),
    current=st.integers(1, 10**12).map(str) | st.just(""),
    keep=st.integers(0, 30),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_of_kept_releases_stay(
    environments: dict[str, Environment], releases: set[str], current: str, keep: int
) -> None:
    """Records beyond the number go, the oldest first, and never those of the current and the previous release."""
    state = a_state(current, *releases)
    gone = [item.name for item in leftovers.records("edge1", environments["prod"], state, keep)]
    assert set() == set(gone) & state.kept
    rest = releases - set(gone)
    assert len(rest) >= min(keep, len(releases))
    assert all(int(one) < max(map(int, rest)) for one in gone if rest)


@given(text=st.text() | st.from_regex(r"(\[.*\]\n|state=.*\n|release=.*\n|now=.*\n)*", fullmatch=True))
def test_any_answer_is_read_or_refused(text: str) -> None:
    """Whatever a server answers, the result is facts or a message, never a traceback."""
    parse_states(text)
    for parse in (leftovers.parse_details, leftovers.parse_images, leftovers.parse_networks):
        with contextlib.suppress(AxonError):
            parse("app1", text)


def test_times_of_docker() -> None:
    """Docker's times with zones and nanoseconds are read; its zero time is none."""
    row = '["{}",["a:b"],null,"{}","{}",5]'
    text = "\n".join(
        row.format("sha256:" + "1" * 64, created, tagged)
        for created, tagged in (
            ("1970-01-01T00:00:10.123456789Z", "0001-01-01T00:00:00Z"),
            ("1970-01-01T01:00:20+01:00", "1970-01-01T00:00:30Z"),
        )
    )
    assert [10.0, 30.0] == [image.since for image in leftovers.parse_images("app1", text)]

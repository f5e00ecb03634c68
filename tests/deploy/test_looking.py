"""What a look at an environment makes of what its servers say, and what it finds not to be as it should be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands import nginx
from axon_tasks.config import load
from axon_tasks.deploy import drift, facts, looking
from axon_tasks.deploy.looking import AppLook, Look, Reply, Running, SystemLook
from axon_tasks.errors import AxonError, UnreachableError, UsageError
from axon_tasks.report import health, status

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Environment

TEXT = """
product: shop
image: registry.test:5000/shop
hosts:
  edge1: {address: 10.0.0.1}
  edge2: {address: 10.0.0.2}
  app1: {address: 10.0.0.21}
  app2: {address: "fd00::22"}
environments: {prod: {system: [edge1, edge2], app: [app1, app2], domain: shop.test}}
"""
ID = "c" * 64
TARGETS = ("10.0.0.21:30000", "[fd00::22]:30000")
GOOD = Reply(200, 10, True, "HTTP 200", TARGETS[0], "ok")
ILL = Reply(503, 20, False, "HTTP 503", TARGETS[0], "no database")


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment prod of the product shop."""
    path: Path = tmp_path_factory.mktemp("looking") / "hosts.yml"
    path.write_text(TEXT)
    return load(path).environment("prod")


def container(release: str = "7", slot: str = "a", port: int = 30000) -> facts.Container:
    return facts.Container(
        ID, f"shop-prod-{release}", True, release, slot, port, "registry.test:5000/shop:v7", ""
    )


def system(
    prod: Environment, *replies: Reply, targets: tuple[str, ...] = TARGETS, **changes: Any
) -> SystemLook:
    """A system server on which all is well, but for what is named."""
    backends = tuple(nginx.Backend(address, (30000, 30001)) for address in ("10.0.0.21", "fd00::22"))
    files = nginx.render(nginx.Wanted(prod, backends, (1, 24, 0), ""))
    told = facts.SystemFacts(
        "edge",
        (1, 24, 0),
        True,
        True,
        "a",
        "7",
        {"image": "registry.test:5000/shop:v7"},
        files.upstream,
        files.site,
    )
    return SystemLook(told._replace(**changes), targets, replies or (GOOD,))


def app(*running: Running) -> AppLook:
    found = facts.AppFacts(
        "app", "24.0.5", 10**9, "ok", (30000, 30001), tuple(one.container for one in running)
    )
    return AppLook(found, running)


def serving(**changes: Any) -> Running:
    one = Running(container(), "running", 90, reply=GOOD)
    return one._replace(**changes)


@pytest.fixture
def well(prod: Environment) -> Look:
    """An environment in which all is as it should be."""
    seen = Look(prod, {"app1": "10.0.0.21", "app2": "fd00::22"})
    seen.system = {"edge1": system(prod), "edge2": system(prod)}
    seen.app = {"app1": app(serving()), "app2": app(serving())}
    return seen


def found(seen: Look) -> list[tuple[str, str]]:
    return [(one.server, one.what) for one in drift.findings(seen)]


def test_nothing_is_found_where_all_is_well(well: Look) -> None:
    """An environment as a deploy leaves it has no findings, is healthy, and each container gets its traffic."""
    assert [] == found(well)
    assert [] == looking.unhealthy(well)
    assert ["app1", "app2"] == [server for server, _ in well.serving()]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"running": False}, "nginx is not running"),
        ({"included": False}, "does not include /etc/nginx/axon.d"),
        ({"unfinished": True}, "a run did not come back while it switched"),
        ({"journal": "20261129-1"}, "a run (20261129-1) did not come back"),
        ({"current": "6"}, "release 6 is recorded as the one that serves, and traffic goes to 7"),
    ],
)
def test_what_is_wrong_on_a_system_server(
    well: Look, prod: Environment, changes: dict[str, Any], expected: str
) -> None:
    """Each is told once, where it is, with what to do."""
    well.system["edge2"] = system(prod, **changes)
    [one] = drift.findings(well)
    assert ("edge2", True, True) == (one.server, expected in one.what, bool(one.hint)), one


def test_a_file_that_was_changed_by_hand(well: Look, prod: Environment) -> None:
    """A file of ours that does not say what was sealed is told with its path; one of somebody else is none of ours."""
    text = well.system["edge1"].facts.site
    well.system["edge1"] = system(prod, site=text.replace("listen 80", "listen 8080"))
    assert [("edge1", "/etc/nginx/axon.d/sites/shop-prod.conf was changed by hand")] == found(well)
    well.system["edge1"] = system(prod, site="server {}")
    assert [] == found(well)


def test_traffic_to_where_nothing_runs(well: Look) -> None:
    """A target without a container, or with one that has ended, is told at its app server."""
    well.app["app2"] = app(serving(status="exited", exit_code=137, reply=None))
    assert [("app2", True)] == [
        (server, "its container shop-prod-7 is exited" in what) for server, what in found(well)
    ][:1]
    well.app["app2"] = app()
    assert ("app2", "edge1 sends requests to [fd00::22]:30000, but no container of it is there") in found(
        well
    )


def test_system_servers_that_disagree(well: Look, prod: Environment) -> None:
    """Where they send requests to different places, the one that differs from the first is told."""
    other = ("10.0.0.21:30001", "[fd00::22]:30001")
    well.system["edge2"] = system(prod, targets=other)
    well.app = {name: app(serving(), serving(container=container(port=30001))) for name in ("app1", "app2")}
    assert ("edge2", f"sends requests to {', '.join(other)}, and edge1 to {', '.join(TARGETS)}") in found(
        well
    )


def test_an_app_server_without_traffic(well: Look, prod: Environment) -> None:
    """An app server of hosts.yml that nginx does not know is told, and one that hosts.yml does not know as well."""
    odd = (TARGETS[0], "10.0.0.99:30000")
    well.system = {"edge1": system(prod, targets=odd)}
    told = found(well)
    assert ("edge1", "sends no requests to app2") in told
    assert ("edge1", "sends requests to 10.0.0.99:30000, which is no app server of hosts.yml") in told


def test_what_serves_and_is_not_healthy(well: Look, prod: Environment) -> None:
    """It is told directly, through nginx, and by the health check, with its answer."""
    well.app["app1"] = app(serving(reply=ILL))
    well.system["edge1"] = system(prod, ILL, GOOD)
    assert [
        ("edge1", "a health check through nginx got HTTP 503"),
        ("app1", "release 7 gets requests and is not healthy: HTTP 503"),
    ] == found(well)
    assert [
        "prod: through nginx on edge1 is not healthy: HTTP 503",
        "prod: release 7 on app1 is not healthy: HTTP 503",
    ] == looking.unhealthy(well)
    assert "no database" in health.text([well])
    assert json.loads(health.as_json([well]))["environments"][0]["healthy"] is False


def test_an_answer_of_the_other_slot(well: Look, prod: Environment) -> None:
    """A health check that went somewhere else than the files say is a finding: nginx has not loaded them."""
    well.system["edge1"] = system(prod, GOOD._replace(upstream=f"{TARGETS[0]}, 10.0.0.21:30001"))
    [(server, what)] = found(well)
    assert ("edge1", True) == (
        server,
        what.startswith("nginx sent a health check to 10.0.0.21:30001, and its files say"),
    )


def test_different_releases_serve(well: Look) -> None:
    """App servers that run different releases are told in one sentence."""
    well.app["app2"] = app(serving(container=container("8")))
    assert ("edge1", "different releases get requests: 7 on app1; 8 on app2") in found(well)


def test_a_server_that_does_not_answer_hides_nothing(well: Look) -> None:
    """The others are judged and shown; nothing is claimed about it; the failure has exit code 4."""
    del well.app["app2"], well.system["edge2"]
    well.errors = {"app2": UnreachableError("app2: no route"), "edge2": UnreachableError("edge2: no route")}
    assert [] == found(well)
    shown = status.table([well])
    assert all(name in shown for name in ("edge1", "edge2", "app1", "app2", "no answer"))
    with pytest.raises(AxonError, match="app2: no route") as raised:
        looking.check([well])
    assert 4 == raised.value.code


def test_what_is_not_known_to_get_traffic_counts(well: Look) -> None:
    """Where no system server was asked, a container that is not healthy is told all the same."""
    well.system = {}
    assert [] == looking.unhealthy(well)
    well.app["app2"] = app(serving(reply=ILL))
    assert ["prod: release 7 on app2 is not healthy: HTTP 503"] == looking.unhealthy(well)
    assert "traffic not known" in health.text([well])


def test_a_container_that_could_not_be_asked(well: Look) -> None:
    """One of ours that runs and of which nothing more is known counts as ill: nobody knows better."""
    well.app["app2"] = app(serving(reply=None))
    assert ["prod: release 7 on app2 is not healthy: Docker tells nothing of it"] == looking.unhealthy(well)


def test_a_container_of_axon_is_not_asked(well: Look) -> None:
    """It has no labels that say how: it is neither healthy nor ill, and that is said."""
    well.app["app2"] = app(serving(container=container(slot=""), reply=None))
    assert [] == looking.unhealthy(well)
    assert "not a container of this tool" in health.text([well])


def test_nothing_that_runs_gets_traffic(prod: Environment) -> None:
    """An environment that was never deployed is not healthy, and that is said once."""
    seen = Look(prod, {"app1": "10.0.0.21", "app2": "fd00::22"})
    empty = {"current": "", "record": {}, "upstream": "", "site": ""}
    seen.system = {name: system(prod, ILL, targets=(), **empty) for name in ("edge1", "edge2")}
    seen.app = {"app1": app(), "app2": app()}
    assert ([], ["prod: nothing that runs gets traffic"]) == (found(seen), looking.unhealthy(seen))


# --- what servers say ------------------------------------------------------------------------------------------


def test_what_scripts_tell_of_containers() -> None:
    """State, age by the server's own clock, restarts and answer are put together by the container's id."""
    details = {
        "id": ID, "status": "running", "exit_code": 0, "oom_killed": False,
        "started": "2026-11-25T10:00:00.123456789Z", "restarts": 2, "health": "healthy",
    }  # fmt: skip
    text = (
        f"now=1795600860\ncontainer={json.dumps(details)}\nanswer={ID}\ntook_ms=20\nstatus=503\ngood=no\n"
        "told=HTTP 503\nupstream=\nsaid=answer=nginx \x1b[31mno\u2028good=yes\x0bstatus=200\ngood=yes\n"
    )
    [one] = looking.running([container()], text)
    expected = Reply(503, 20, False, "HTTP 503", "", r"answer=nginx no\u2028good=yes\x0bstatus=200")
    assert ("running", 60, 2, "healthy", expected) == (
        one.status,
        one.seconds,
        one.restarts,
        one.health,
        one.reply,
    )
    assert "running, 2 restarts" == status.state(one)


@pytest.mark.parametrize(
    "text",
    ["", "now=x\ncontainer={\nanswer=\nstatus=999999", "container=[]\nnow=", "answer=a\nstatus=\nsaid"],
)
def test_what_makes_no_sense_is_left_out(text: str) -> None:
    """A server that says nonsense is shown as one that says nothing."""
    [one] = looking.running([container()], text)
    assert (None, 0, None) == (one.seconds, one.restarts, one.reply)


def test_only_names_servers_of_the_environments(prod: Environment) -> None:
    """A name that is none of theirs is refused with those that are."""
    assert ("app2", "edge1") == looking.only_of([prod], "app2,edge1,app2")
    with pytest.raises(UsageError, match=r"app9.*prod") as raised:
        looking.only_of([prod], "app9")
    assert "edge1, edge2, app1, app2" in str(raised.value)


def test_targets_are_those_of_the_slot(prod: Environment) -> None:
    """The flag decides between the two upstreams of a file; in a file with one, there is nothing to decide."""
    text = system(prod).facts.upstream
    assert TARGETS == nginx.targets(prod, text, "a")
    assert ("10.0.0.21:30001", "[fd00::22]:30001") == nginx.targets(prod, text, "b")
    assert ("10.0.0.5:1",) == nginx.targets(prod, "upstream shop_prod_backend { server 10.0.0.5:1; }", "b")


def hint(seen: Look, words: str) -> list[str]:
    """What is said to mend a finding."""
    return [one.hint for one in drift.findings(seen) if words in one.what]


def test_what_a_sync_mends_says_so(prod: Environment, well: Look) -> None:
    """Files that are lost or changed, records, traffic that goes elsewhere: where a release runs everywhere, sync is named."""
    text = well.system["edge1"].facts.site
    for changes, words in (
        ({"upstream": ""}, "upstreams/shop-prod.conf is not there"),
        ({"site": ""}, "sites/shop-prod.conf is not there"),
        ({"site": text.replace("5s", "6s")}, "was changed by hand"),
        ({"current": "5"}, "release 5 is recorded"),
        ({"journal": "r-1"}, "did not come back"),
    ):
        well.system["edge1"] = system(prod, **changes)
        assert [True] == ["fab sync --env=prod" in one for one in hint(well, words)], words
    well.system["edge1"] = system(prod, targets=(TARGETS[0],))
    assert ["To have it added: fab sync --env=prod"] == hint(well, "sends no requests to app2")
    well.app["app2"] = app()
    assert ["To have it added: fab deploy --env=prod"] == hint(well, "sends no requests to app2")


def test_a_site_of_ones_own_may_be_anywhere(prod: Environment, well: Look) -> None:
    """With `switch: reload`, a site file that is not there is no finding."""
    well.environment = prod._replace(switch="reload")
    well.system["edge1"] = system(prod, site="")
    assert [] == hint(well, "sites/shop-prod.conf")


def test_maintenance_at_some_system_servers_only(prod: Environment, well: Look) -> None:
    """Where it is off while others have it on, that is found; where all have it, it is told and no finding."""
    on = {"maintenance": '12 {"who": "ann@desk", "message": "back\\u001b soon"}'}
    well.system["edge1"] = system(prod, **on)
    assert [("edge2", "maintenance is off, and on at edge1")] == found(well)
    well.system["edge2"] = system(prod, **on)
    assert [] == found(well)
    assert (
        "prod: maintenance is on, on edge1, edge2; clients get 503. By ann@desk (12 s): back"
        in status.table([well])
    )
    assert "\x1b" not in status.table([well])

"""Rollbacks in the lab: to a release that still runs, and to one that has to be brought back exactly as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says
from schemas import conforming

from axon_tasks.lab.images import build_sample

if TYPE_CHECKING:
    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

PROJECT = Path(__file__).resolve().parents[2]


def history(product: Product) -> dict[str, dict[str, Any]]:
    """The releases as `fab history --json` tells them, by id, the newest first."""
    said = product.fab("history", "--env=prod", "--json")
    assert 0 == said.returncode, said.stderr
    return {one["id"]: one for one in conforming("history", said.stdout)["releases"]}


def inspected(product: Product, server: str) -> Any:
    """What docker says of the one container on a server."""
    [name] = product.containers(server)
    return json.loads(product.lab.exec(server, ["docker", "inspect", name]).stdout)[0]


def test_a_release_that_still_runs_serves_again_at_once(product: Product) -> None:
    """One flip, no new container; what was being retired goes on, and comes back after a restart; the other is retired."""
    product.on("app1")
    product.serve("v1")
    before = product.containers("app1")
    with product.holding():
        product.serve("v2")
        done = product.fab("rollback", "--env=prod")
        assert (0, (200, "v1")) == (done.returncode, product.get()), done.stdout + done.stderr
        assert "it still ran" in done.stdout
        product.settle()
    assert before == product.containers("app1")
    assert "unless-stopped" == inspected(product, "app1")["HostConfig"]["RestartPolicy"]["Name"]
    newest, oldest = history(product).values()
    assert ("rolled back", False, "ok", True) == (
        newest["outcome"], newest["current"], oldest["outcome"], oldest["current"],
    )  # fmt: skip
    audit = product.fab("history", "--env=prod", "--audit", "--limit=1").stdout
    assert f"rollback {oldest['id']}" in audit


def test_a_rollback_brings_back_the_same_bytes_with_the_same_settings(
    product: Product, prod: dict[str, Any]
) -> None:
    """Though its tag names something else, its image is gone and its settings have changed, a release is as it was."""
    product.on("app1")
    tag = f"moving-{product.name}"
    build_sample(product.lab, tag)
    file = f"/srv/{product.name}.env"
    product.lab.exec("app1", ["sh", "-c", f"printf 'COLOUR=blue\\nSIZE=1' >{file}"])
    product.settings["defaults"]["container"] |= {"env": {"SIZE": "2", "TOKEN": "old # $x"}, "memory": "64m"}
    prod["env_file"] = file
    assert 0 == product.deploy(tag).returncode
    was = inspected(product, "app1")

    product.lab.exec("app1", ["sh", "-c", f"echo COLOUR=red >{file}"])
    product.settings["defaults"]["container"] = {"env": {"TOKEN": "new"}, "stop_timeout": "1s"}
    product.serve("v2")
    product.settle()
    build_sample(product.lab, tag, "healthcheck")
    product.lab.exec("app1", ["docker", "image", "rm", "--force", was["Image"]])
    done = product.fab("rollback", "--env=prod", "--wait")
    assert (0, (200, tag)) == (done.returncode, product.get()), done.stdout + done.stderr
    product.lab.exec("app1", ["rm", file])
    now = inspected(product, "app1")
    for path in (("Image",), ("Config", "Env"), ("HostConfig", "Memory"), ("HostConfig", "RestartPolicy")):
        old, new = was, now
        for key in path:
            old, new = old[key], new[key]
        assert old == new, path
    assert {"COLOUR=blue", "SIZE=2", "TOKEN=old # $x"} < set(now["Config"]["Env"])

    again, replaced, first = history(product).values()
    assert ("rollback", first["id"], True) == (again["action"], again["of"], again["current"])
    assert (first["digest"], "rolled back") == (again["digest"], replaced["outcome"])
    kept = product.lab.exec("app1", f"stat -c %a /var/lib/axon/{product.name}/prod/started/*").stdout.split()
    assert {"600"} == set(kept)

    forward = product.fab("rollback", "--env=prod", f"--to={replaced['id']}")
    assert (0, (200, "v2")) == (forward.returncode, product.get()), forward.stdout + forward.stderr
    assert "Rolled forward from release" in forward.stdout
    _, left, *_ = history(product).values()
    assert ("ok", True) == (left["outcome"], left["previous"])


def test_whoever_went_forward_again_can_go_back(product: Product) -> None:
    """A release that was left to go forward is still good: back and forth between two that run, and back once more."""
    product.on("app1")
    product.serve("v1")
    with product.holding():
        product.serve("v2")
        newest, *_ = history(product)
        steps = (("v1", ()), ("v2", (f"--to={newest}",)), ("v1", ()))
        for tag, to in steps:
            done = product.fab("rollback", "--env=prod", *to)
            assert (0, (200, tag)) == (done.returncode, product.get()), done.stdout + done.stderr


def test_no_request_fails_while_releases_are_rolled_back(product: Product) -> None:
    """Deploys and rollbacks in turns, instant and not, lose no request under load."""
    product.on("app1")
    product.serve("v1")
    codes = []
    with product.under_load(pause=0.5) as result:
        with product.holding():
            codes.append(product.deploy("v2").returncode)
            instant = product.fab("rollback", "--env=prod")
        codes.append(product.deploy("v2", "--wait").returncode)
        started = product.fab("rollback", "--env=prod")
    assert ([0, 0], 0, 0, 0) == (codes, instant.returncode, started.returncode, result["failed"]), result
    assert ["v1", "v2", "v1", "v2", "v1"] == result["order"]
    assert (True, True) == ("it still ran" in instant.stdout, "started as release" in started.stdout)


def test_a_rollback_that_finds_the_lock_taken_leaves_everything_as_it_was(product: Product) -> None:
    """Exit code 3; what was being retired, and was held back for a moment, is retired after all."""
    product.on("app1")
    product.serve("v1")
    with product.holding():
        product.serve("v2")
        deploy = product.begin("deploy", "--env=prod", "--tag=slowstart")
        until_it_says(deploy, "lock ")
        refused = product.fab("rollback", "--env=prod")
        assert (3, True) == (refused.returncode, "is locked by" in refused.stderr), refused.stderr
    said, errors = deploy.communicate(timeout=120)
    assert 0 == deploy.returncode, said + errors
    product.settle()
    assert (200, "slowstart") == product.get()


def test_a_deploy_that_failed_is_recorded_and_never_gone_back_to(product: Product) -> None:
    """History tells of it and why; a rollback goes to the release before, and refuses to go to one that never served."""
    product.on("app1")
    product.serve("v1")
    assert 1 == product.deploy("sick").returncode
    product.serve("v2")
    newest, failed, oldest = history(product).values()
    assert ("failed", True, "sick") == (
        failed["outcome"], "did not become healthy" in failed["error"], failed["image"].rpartition(":")[2],
    )  # fmt: skip
    assert (True, False, True) == (newest["current"], failed["previous"], oldest["previous"])
    refused = product.fab("rollback", "--env=prod", f"--to={failed['id']}")
    assert (1, True) == (refused.returncode, "never served" in refused.stderr), refused.stderr
    done = product.fab("rollback", "--env=prod")
    assert (0, (200, "v1")) == (done.returncode, product.get()), done.stdout + done.stderr


def test_there_is_nothing_to_go_back_to(product: Product) -> None:
    """Without an earlier release, or with one that nobody knows, nothing is changed, and the message says what there is."""
    product.on("app1")
    product.serve("v1")
    none = product.fab("rollback", "--env=prod")
    assert (1, True) == (none.returncode, "there is no earlier release" in none.stderr), none.stderr
    unknown = product.fab("rollback", "--env=prod", "--to=12345")
    assert (1, True) == (unknown.returncode, "fab history --env=prod" in unknown.stderr), unknown.stderr
    [current] = history(product)
    serving = product.fab("rollback", "--env=prod", f"--to={current}")
    assert (1, True) == (serving.returncode, "serves already" in serving.stderr), serving.stderr
    assert (200, "v1") == product.get()


def test_a_server_that_does_not_know_a_release_is_told(product: Product) -> None:
    """A release that never ran on an app server cannot be brought back there as it was; the way out is named."""
    product.on("app1")
    product.serve("v1")
    product.serve("v2")
    product.settle()
    product.on("app1", "app2")
    refused = product.fab("rollback", "--env=prod")
    assert (1, True) == (
        refused.returncode,
        "app2 has not kept how release" in refused.stderr and "--tag=sha256:" in refused.stderr,
    ), refused.stderr
    assert ((200, "v2"), []) == (product.get(), product.containers("app2"))

"""Hooks around real deploys, in the order in which things happen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

EVENTS = ("before_deploy", "after_switch", "after_deploy", "on_failure")


def test_hooks_around_deploys(product: Product, tmp_path: Path) -> None:
    """Each is called when it is its turn, with what is known then: in a deploy, a rollback, a failure; one can stop a deploy."""
    note = f"cat >>{tmp_path}/told; echo >>{tmp_path}/told; test ! -e {tmp_path}/stop"
    hooks = {event: ["sh", "-c", note] for event in EVENTS}
    product.on("app1")
    product.settings["environments"]["prod"]["hooks"] = hooks
    product.serve("v1")
    product.serve("v2")
    assert 0 == product.fab("rollback", "--env=prod").returncode
    assert 1 == product.deploy("crash").returncode
    (tmp_path / "stop").touch()
    done = product.deploy("v2")
    assert (1, (200, "v1")) == (done.returncode, product.get()), done.stdout + done.stderr
    assert (
        "prod: the hook before_deploy failed: sh ended with exit code 1; nothing was changed" in done.stderr
    )
    assert "failed: sh ended with exit code 1" in done.stdout
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines() if line]
    well = [(event, serves) for event, serves in zip(EVENTS[:3], (False, True, True), strict=True)]
    expected = [*[("deploy", *one) for one in well * 2], *[("rollback", *one) for one in well]]
    failed = [("deploy", "before_deploy", False), ("deploy", "on_failure", False)] * 2
    assert [*expected, *failed] == [(one["action"], one["event"], one["serves"]) for one in told]
    assert [None, 1] == [one["exit_code"] for one in told[-2:]]
    assert product.name == told[0]["product"]

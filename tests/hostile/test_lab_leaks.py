"""Deployments with secrets of every kind, watched on all hosts of the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from axon_tasks.lab.prove import Options
from axon_tasks.lab.prove.suite import part

if TYPE_CHECKING:
    from axon_tasks.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def test_no_secret_leaks(lab: Lab) -> None:
    """No secret is where it must not be while commands have it in hand; a planted one is found, the application has its own."""
    claims = part("secrets", Options.quickly(("secrets",))).prove(lab, print)

    assert [] == [(one.claim, one.cases, one.failures) for one in claims if not one.holds]

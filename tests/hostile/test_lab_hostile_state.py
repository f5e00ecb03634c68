"""Hostile state on real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from axon_tasks.lab.hostile import state

if TYPE_CHECKING:
    from axon_tasks.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def test_spoilt_state_is_harmless(lab: Lab) -> None:
    """Whatever stands in the files on the servers: no traceback, exit code 0 or 1, no command executed, the site serves."""
    found = state.run(lab, most=16)
    assert [] == [str(one) for one in found.violations]
    assert found.cases >= 16

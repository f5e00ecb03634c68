"""The lab for the tests that are marked with it, and the word about those that could not run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from axon_tasks.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Generator

PROJECT = Path(__file__).resolve().parent.parent

#: `required`: a test that needs the lab and does not run is a failure. Set by .ci/run.
REQUIRED = os.environ.get("AXON_TEST_LAB") == "required"


def why_no_lab() -> str | None:
    """Why the lab cannot be had here, or None."""
    if sys.platform != "linux":
        return "the lab needs Linux"
    if os.geteuid() != 0:
        return "the lab needs root"
    return None


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab of this project as `hosts.yml` describes it: it is started if needed, and left running."""
    running = Lab(apps=3, rtt=0.0, root=PROJECT)
    running.up(print)
    return running


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """What programs keep for the next time is not in the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No coverage in the processes that a test starts: it takes `fab` as long again as it takes itself."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


def pytest_itemcollected(item: pytest.Item) -> None:
    if hasattr(getattr(item, "function", None), "isolated"):
        item.add_marker(pytest.mark.alone)
    elif item.get_closest_marker("lab"):
        # There is one lab, and its tests change it: one process runs them all, others run the rest meanwhile.
        item.add_marker(pytest.mark.xdist_group("lab"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_lab()
    if reason:
        for item in items:
            if item.get_closest_marker("lab"):
                item.add_marker(pytest.mark.skip(reason=f"NOT RUN: {reason}"))


def not_run(reporter: pytest.TerminalReporter) -> int:
    """How many tests were left out, because there is no lab or a program is missing; each says NOT RUN."""
    return sum("NOT RUN" in str(report.longrepr) for report in reporter.stats.get("skipped", []))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    # The list of failures has room for their reasons, also where nobody knows how wide the terminal is.
    terminalreporter._tw.fullwidth = max(terminalreporter._tw.fullwidth, 200)
    yield  # after everything else, where one looks first
    left_out = not_run(terminalreporter)
    if left_out:
        terminalreporter.section(f"{left_out} TESTS WERE NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line(f"Why: {why_no_lab() or 'see the reasons above'}.")
        terminalreporter.line(
            "What they check, above all deployments on real servers, is therefore unknown here."
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if REQUIRED and reporter and not_run(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

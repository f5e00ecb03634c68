"""What an earlier run has left is brought to an end under the lock, and by nobody else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.deploy import staging
from axon_tasks.deploy.facts import parse_journal

if TYPE_CHECKING:
    from axon_tasks.deploy.engine import Step

LOCKED = {"locked": "yes", "slot": "a", "current": "100"}


class Run(SimpleNamespace):
    """A run whose system server was seen with a journal; `seen` is what the next looks find there."""

    def __init__(self, under_lock: dict[str, str], *seen: str) -> None:
        self.performed: list[str] = []
        self.looks = list(seen)
        super().__init__(
            under_lock=under_lock,
            is_sent=False,
            nginx_resources=frozenset(),
            split={},
            system={"edge1": SimpleNamespace(journal="r-1", flag_slot="a", current="100", broken="")},
            servers=SimpleNamespace(held=[], perform=self.perform),
            environment=SimpleNamespace(
                name="prod", system=("edge1",), app=("app1",), servers=("edge1", "app1")
            ),
            warnings=[],
            reference="",
            serving=tuple,
        )

    def perform(self, step: Step) -> None:
        self.performed.append(step.name)
        if step.name == "inspect":
            self.system["edge1"].journal = self.looks.pop(0)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prepare a plan, and tell what was sent and what is warned of."""
    monkeypatch.setattr(staging, "new_release", lambda _run, **_more: None)

    def prepare(run: Any) -> tuple[list[str], int]:
        staging.plan_step(run, ()).prepare()
        return run.performed, len(run.warnings)

    return prepare


def test_without_the_lock_nothing_is_brought_to_an_end(plan: Any) -> None:
    """`steps.stage` takes no lock and changes nothing: a journal may be that of a switch that goes on."""
    assert ([], 0) == plan(Run({}))


def test_what_was_seen_before_the_lock_is_looked_at_again(plan: Any) -> None:
    """A journal of a run that has ended meanwhile is no reason to settle anything, nor to warn."""
    assert (["inspect"], 0) == plan(Run(LOCKED, ""))


def test_what_stays_is_settled(plan: Any) -> None:
    """A journal that is there under the lock as well is completed, told, and what serves is looked at once more."""
    run = Run(LOCKED, "r-1", "")
    assert (["inspect", "settle", "inspect"], 1) == plan(run)
    assert run.warnings[0].startswith("run r-1 did not come back from its switch")


@pytest.mark.parametrize(
    ("line", "run"),
    [
        ("20261125-120000-1 200 b a", "20261125-120000-1"),
        ("r 200 a -", "r"),
        ("", "?"),
        ("r 200", "?"),
        ("r 200 b a; x", "?"),
        ("$(x) 200 b a", "?"),
        (f"r {'9' * 5000} b a", "?"),
    ],
)
def test_a_journal_names_its_run(line: str, run: str) -> None:
    """What makes no sense still says that somebody did not come back."""
    assert run == parse_journal(line)

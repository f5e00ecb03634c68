"""What those have in common who play servers that answer in hostile ways."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from axon_tasks.config import load
from axon_tasks.lab.hostile import answers
from axon_tasks.lab.hostile.config import BASE, document
from axon_tasks.lab.hostile.values import is_printable

if TYPE_CHECKING:
    from pathlib import Path

    from axon_tasks.config import Environment, Project
    from axon_tasks.lab.hostile.outcome import Outcome
    from axon_tasks.lab.hostile.values import Canaries

CHANNEL = "outputs"


class Player:
    """Plays servers.

    Args:
        outcome: Where it is noted.
        canaries: Makes the texts.
        folder: For `hosts.yml`.
        most: How many answers a section is given; None for all.
    """

    def __init__(self, outcome: Outcome, canaries: Canaries, folder: Path, most: int | None = None) -> None:
        self._outcome = outcome
        self._canaries = canaries
        (folder / "hosts.yml").write_bytes(document(BASE))
        self._project: Project = load(folder / "hosts.yml", {})
        self._environment: Environment = self._project.environment("prod")
        self._hostile = list(answers.hostile(canaries))
        self._chance = random.Random(0)
        self._most = most

    def _fitting(self, label: str) -> list[tuple[str, str | bytes]]:
        """The answers for a label: rows of `docker ps` where those are read, the rest everywhere."""
        rows = label.endswith("containers")
        fitting = [one for one in self._hostile if rows or not one[0].startswith("docker ps")]
        return fitting if self._most is None else self._chance.sample(fitting, min(self._most, len(fitting)))

    @staticmethod
    def _show(*texts: str) -> None:
        """What is shown to people must only be shown."""
        for text in texts:
            assert is_printable(text), f"shown as it came: {text[:200]!r}"

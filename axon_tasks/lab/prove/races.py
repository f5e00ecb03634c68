"""Two deploys of different versions that are started almost at the same time.

One of them wins: the other one ends with exit code 3, or had its turn before or after. Whatever happened, afterwards
one release serves, on all app servers the same, and it is the one of whoever said last that it had switched.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from axon_tasks.errors import LockedError
from axon_tasks.lab.bench.product import TAGS
from axon_tasks.lab.prove import commands, stage
from axon_tasks.lab.prove.claims import middle_and_most
from axon_tasks.lab.prove.commands import Command
from axon_tasks.lab.prove.stage import Case, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.claims import Claim
    from axon_tasks.lab.prove.commands import Ended
    from axon_tasks.lab.prove.options import Options
    from axon_tasks.lab.prove.site import Say

PART = "races"

#: Seconds between the two: mostly about as long as it takes to come to the lock, now and then as long as a deploy.
_NEAR, _FAR = 0.5, 4.0
_SHARE_OF_FAR = 0.2

_LOCKED = LockedError.exit_code


class Races:
    """The part of the proof that is about two people at a time.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.random = random.Random(options.seed)  # the same in each run, no secret
        self.ends: Counter[str] = Counter()
        #: Seconds from Enter to the word that somebody else deploys.
        self.locked_out: list[float] = []

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Race, and look at what is left.

        Raises:
            AxonError: An ordinary deploy does not work.
        """
        total = self.options.races
        offsets = {f"race {n + 1}": self._offset() for n in range(total)}
        cases = [Case(_name(name, offset), PART) for name, offset in offsets.items()]
        by_case = {_name(name, offset): offset for name, offset in offsets.items()}
        opening = functools.partial(stage.opened, lab, self.options.seed)
        loads = stage.tried(
            opening, cases, lambda where, case: self._race(where, case, by_case[case.name]), say
        )
        text = "Of two deploys at the same time one wins each time, and never is there a mixed state"
        ends = dict(sorted(self.ends.items()))
        return [
            stage.claim(
                PART,
                text,
                "races",
                cases,
                total,
                exit_codes=ends,
                seconds_until_told=middle_and_most(self.locked_out),
            ),
            stage.judge(PART, loads),
        ]

    def _offset(self) -> float:
        """Seconds by which the second version comes later; negative if it comes first."""
        most = _FAR if self.random.random() < _SHARE_OF_FAR else _NEAR
        return self.random.uniform(-most, most)

    def _race(self, where: Stage, case: Case, offset: float) -> None:
        """One race, and what is not as it should be after it."""
        ended = start_both(where, offset)
        self.ends["+".join(str(code) for code in sorted(one.code for one in ended.values()))] += 1
        self.locked_out += [one.seconds for one in ended.values() if one.code == _LOCKED]
        case.failures += faults(ended)
        where.tag = winner(ended) or where.tag
        case.failures += where.site.settle(where.tag)
        case.dirty = bool(case.failures)


def _name(race: str, offset: float) -> str:
    first, second = TAGS if offset >= 0 else TAGS[::-1]
    return f"{race}: {second} starts {abs(offset):.3f} s after {first}"


def start_both(where: Stage, offset: float) -> dict[str, Ended]:
    """Deploy both versions at almost the same time; how each of them ended."""
    site = where.site
    order = TAGS if offset >= 0 else TAGS[::-1]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(commands.running(site.words(order[0]), site.product.folder))
        time.sleep(abs(offset))
        second = stack.enter_context(commands.running(site.words(order[1]), site.product.folder))
        # Both at once: a command has ended when somebody sees it.
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=2))
        return dict(zip(order, pool.map(Command.wait, (first, second)), strict=True))


def faults(ended: Mapping[str, Ended]) -> list[str]:
    """What is wrong with how the two ended."""
    codes = sorted(one.code for one in ended.values())
    if codes == [0, _LOCKED]:
        return []
    if codes != [0, 0]:
        return [f"the deploy of {tag}: {one}" for tag, one in ended.items() if one.code]
    one, two = sorted(ended.values(), key=lambda each: each.steps["lock"])
    # The lock goes with the end of a run, and so after its last step; the lines were read by one process.
    if two.steps["lock"] < max(one.steps.values()):
        early = max(one.steps.values()) - two.steps["lock"]
        return [f"both held the lock at the same time, for {early:.3f} s"]
    return []


def winner(ended: Mapping[str, Ended]) -> str:
    """The version that should serve: that of the deploy which switched last; empty if none did."""
    switched = {tag: one.steps["switch"] for tag, one in ended.items() if "switch" in one.steps}
    return max(switched, key=lambda tag: switched[tag], default="")

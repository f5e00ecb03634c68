"""Deployers that are killed: at each boundary of the steps, and at random times.

After each, without a hand being laid on anything: the site was up throughout, the next `fab deploy` succeeds, and once
what goes on in the background is over, the servers have what one ordinary deploy leaves and nothing else (state.py).

The boundaries are tried with two kinds of deploy, because they do different things: an ordinary one, and one that
changes nginx's configuration, which is staged, installed and reloaded.
"""

from __future__ import annotations

import functools
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.prove import commands, stage
from axon_tasks.lab.prove.site import other, scratch
from axon_tasks.lab.prove.stage import Case, Loads, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.claims import Claim
    from axon_tasks.lab.prove.commands import Ended
    from axon_tasks.lab.prove.options import Options
    from axon_tasks.lab.prove.site import Say

PART = "kills"

#: The kinds of deploy: an ordinary one, and one that changes nginx's configuration.
ORDINARY, CHANGED = "ordinary", "changed site"
#: What a case becomes whose deploy had ended before it was to be killed.
MISSED = "missed"

#: Seconds between a random kill and the next deploy: from at once to when all is quiet.
_PAUSES = (0.0, 0.0, 0.3, 1.0, 3.0)
#: How often a random time may turn out to be after the end, per kill that is wanted.
_MISSES = 8


@dataclass(frozen=True)
class Kill:
    """How one deployer dies.

    Args:
        name: Of the case.
        boundary: At which boundary; empty for a time.
        after: Seconds after its start, if at no boundary.
        pause: Seconds until the next deploy.
        again: Whether the next deploy is of the same version.
    """

    name: str
    boundary: str = ""
    after: float = 0.0
    pause: float = 0.0
    again: bool = True


@dataclass(frozen=True)
class DryPass:
    """What a deploy is like that nobody kills.

    Args:
        boundaries: The names of its boundaries, in the order in which they were reached.
        seconds: How long `fab deploy` takes.
    """

    boundaries: tuple[str, ...]
    seconds: float


class Kills:
    """The part of the proof that is about deployers which do not live to the end.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.random = random.Random(options.seed)  # the same times in each run, no secret

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Kill, deploy again, and look at what is left.

        Raises:
            AxonError: A deploy that nobody kills does not work, or a boundary that was named does not exist.
        """
        claims: list[Claim] = []
        loads = Loads()
        for kind in (ORDINARY, CHANGED):
            dry = dry_pass(lab, kind)
            names = chosen(dry.boundaries, self.options, self.options.boundaries)
            say(_told(kind, dry, names))
            if names:
                claims.append(self._boundaries(lab, kind, names, dry, loads, say))
            if kind == ORDINARY and self._wanted:
                claims.append(self._times(lab, dry, loads, say))
        if not claims:
            raise AxonError(f"No deploy has the boundary {', '.join(self.options.at)}.")
        return [*claims, stage.judge(PART, loads)]

    @property
    def _wanted(self) -> int:
        """How many kills at times."""
        return len(self.options.times) if self.options.at else self.options.kills

    def _boundaries(
        self, lab: Lab, kind: str, names: Sequence[str], dry: DryPass, loads: Loads, say: Say
    ) -> Claim:
        kills = [Kill(f"{kind} deploy killed at {name} (--at={name})", name) for name in names]
        cases = self._try(lab, kind, kills, loads, say)
        text = f"Killed at a step boundary ({kind} deploy): the next deploy succeeds, and nothing is left"
        facts = {"K": len(dry.boundaries), "boundaries": list(dry.boundaries)}
        return stage.claim(PART, text, "boundaries", cases, len(names), **facts)

    def _times(self, lab: Lab, dry: DryPass, loads: Loads, say: Say) -> Claim:
        wanted = self._wanted
        say(f"  {wanted} kills at random times within the {dry.seconds:.2f} s of a deploy")
        cases: list[Case] = []
        for _ in range(1 if self.options.at else 1 + _MISSES):
            if len(cases) < wanted:
                numbers = range(len(cases), wanted)
                kills = self._named() or [self._drawn(number, dry.seconds) for number in numbers]
                tried = self._try(lab, ORDINARY, kills, loads, say)
                cases += [case for case in tried if case.failures or case.kind != MISSED]
        text = "Killed at a random time: the next deploy succeeds, and nothing is left"
        return stage.claim(PART, text, "kills", cases, wanted, within_seconds=round(dry.seconds, 2))

    def _named(self) -> list[Kill]:
        """The kills at the times that were named."""
        return [
            Kill(f"killed {after:.3f} s after the start (--at={after:g}s)", after=after)
            for after in self.options.times
        ]

    def _drawn(self, number: int, seconds: float) -> Kill:
        after, pause = self.random.uniform(0, seconds), self.random.choice(_PAUSES)
        again = self.random.random() < 0.5  # noqa: PLR2004  (half of them)
        what = "the same" if again else "the other"
        name = f"kill {number + 1}: {after:.3f} s after the start (--at={after:.3f}s), {what} version {pause:g} s later"
        return Kill(name, after=after, pause=pause, again=again)

    def _try(self, lab: Lab, kind: str, kills: Sequence[Kill], loads: Loads, say: Say) -> list[Case]:
        how = {kill.name: kill for kill in kills}
        cases = [Case(kill.name, kind) for kill in kills]
        opening = functools.partial(stage.opened, lab, self.options.seed, keep_alive=kind == ORDINARY)
        loads.merge(
            stage.tried(opening, cases, lambda where, case: one_kill(where, case, how[case.name]), say)
        )
        return cases


def _told(kind: str, dry: DryPass, names: Sequence[str]) -> str:
    total = len(dry.boundaries)
    return f"  {kind} deploy: K = {total} boundaries, of which {len(names)} are tried: {', '.join(names)}"


def chosen(boundaries: Sequence[str], options: Options, wanted: int | None) -> tuple[str, ...]:
    """The boundaries that are tried: those that were named, or as many as wanted (None: all), spread over the plan."""
    if options.at:
        return tuple(name for name in boundaries if name in options.at)
    count = len(boundaries) if wanted is None else min(wanted, len(boundaries))
    if count == 0:
        return ()
    # Another part of the plan for each seed, so that many short runs see all of it.
    first = random.Random(options.seed).randrange(max(1, len(boundaries) // count))
    return tuple(boundaries[first + n * len(boundaries) // count] for n in range(count))


def dry_pass(lab: Lab, kind: str) -> DryPass:
    """A deploy that nobody kills, to know its boundaries and how long it takes.

    Raises:
        AxonError: It failed.
    """
    with stage.opened(lab, 1, keep_alive=False) as where:
        if kind == CHANGED:
            where.site.change()
        path = scratch(where.site) / "boundaries"
        done = commands.run(
            where.site.instrumented(other(where.tag), f"--boundaries={path}"), where.site.product.folder
        )
        if done.code:
            raise AxonError(f"A deploy that nobody kills: {done}")
        names = tuple(dict.fromkeys(path.read_text(encoding="utf-8").split()))
        found = where.site.settle(other(where.tag))
        if found:
            raise AxonError(f"After a deploy that nobody kills: {'; '.join(found)}")
        return DryPass(names, where.site.must_deploy(where.tag).seconds)


def one_kill(where: Stage, case: Case, kill: Kill) -> None:
    """Kill one deployer, deploy again, and note what is not as it should be."""
    site, tag = where.site, other(where.tag)
    if case.kind == CHANGED:
        site.change()
    died = die(where, tag, kill)
    if died.killed:
        time.sleep(kill.pause)
        tag = tag if kill.again else where.tag
        again = site.deploy(tag)
        if again.code:
            case.failures.append(f"the next deploy, of {tag}: {again}")
    else:
        _outlived(case, kill, died)
    case.failures += site.settle(tag)
    case.dirty = bool(case.failures)
    where.tag = tag


def die(where: Stage, tag: str, kill: Kill) -> Ended:
    """Start a deploy and kill it, if it does not end before."""
    site = where.site
    if kill.boundary:
        words = site.instrumented(tag, f"--kill-at={kill.boundary}")
        return commands.run(words, site.product.folder)
    with commands.running(site.words(tag), site.product.folder) as deployer:
        time.sleep(max(0.0, deployer.began + kill.after - time.monotonic()))
        deployer.kill()
        return deployer.wait()


def _outlived(case: Case, kill: Kill, done: Ended) -> None:
    """The deploy had ended before it was killed: another random time is drawn, but a boundary must be reached."""
    if done.code:
        case.failures.append(f"the deploy that was to be killed failed by itself: {done}")
    elif kill.boundary:
        case.failures.append("the deploy never came there")
    else:
        case.kind = MISSED

"""What a timeline says: which chain of work the whole had to wait for, and what was gained by overlapping."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING

from axon_tasks.deploy.timeline import OK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from axon_tasks.deploy.timeline import Span, Timeline

#: Seconds by which threads may note an end after the beginning that it allowed.
_SLACK = 0.002
#: Seconds in which a server's own batch before counts as the reason, although another server's ended later.
_SAME_SERVER = 0.010
#: Seconds from the end of a step to the beginning of the one that could not run beside it.
_HANDOVER = 0.010
#: The spans in which servers do something; the others only group them.
WORK = ("connect", "batch", "wait")


@dataclass(frozen=True)
class ServerTotals:
    """What one server had to do with a run.

    Attributes:
        server: Its name.
        connections: How many were opened to it.
        round_trips: Those of connecting and of batches.
        sent: Bytes.
        received: Bytes.
        busy: Seconds of connecting and of batches, one after the other.
    """

    server: str
    connections: int
    round_trips: int
    sent: int
    received: int
    busy: float


@dataclass(frozen=True)
class Gap:
    """A time in which no server had anything to do.

    Attributes:
        started: Seconds since the run began.
        ended: Same.
        after: What had ended just before, or empty at the beginning.
    """

    started: float
    ended: float
    after: str


def critical_path(timeline: Timeline, environment: str) -> list[Span]:
    """The chain of work that an environment's run had to wait for, in the order of time.

    It is found backwards: from the step that ended last, always to what had to end before and did so last. Within
    a step these are batches and the connects before them, between steps the needs. A step without batches counts as
    a whole. No two members overlap by more than the slack of the clocks, so that their lengths, and the gaps between
    them, explain the wall time.

    Args:
        timeline: The run.
        environment: One of its environments.
    """
    steps = [one for one in timeline.of_kind("step") if one.environment == environment]
    if not steps:
        return []
    walk = _Walk(timeline, environment, steps)
    step = max(steps, key=timeline.ended)
    path: list[Span] = []
    seen: set[int] = set()
    while step.id not in seen:  # a file may claim that steps of no length need each other
        seen.add(step.id)
        chain = walk.within(step)
        path += chain
        before = walk.before(step, chain[-1].started)
        if before is None:
            break
        if before.kind != "step":
            path.append(before)
            break
        step = before
    return path[::-1]


class _Walk:
    """The predecessors of spans within one environment."""

    def __init__(self, timeline: Timeline, environment: str, steps: Sequence[Span]) -> None:
        self.ended = timeline.ended
        self.steps = {one.name: one for one in steps}
        self.connects = timeline.of_kind("connect")
        self.waits = [
            one
            for one in timeline.of_kind("wait")
            if one.environment == environment and one.parent not in {step.id for step in steps}
        ]
        self.parts: dict[int, list[Span]] = {one.id: [] for one in steps}
        for one in timeline.of_kind(*WORK):
            if one.parent in self.parts:
                self.parts[one.parent].append(one)

    def within(self, step: Span) -> list[Span]:
        """The chain inside a step, its last member first; the step itself if it has no parts."""
        parts = self.parts[step.id]
        if not parts:
            return [step]
        chain = [max(parts, key=self.ended)]
        while True:
            one = chain[-1]
            before = self.latest([part for part in parts if part not in chain], one)
            connect = self.connect_before(one)
            if connect is not None and (before is None or self.ended(before) < self.ended(connect)):
                return [*chain, connect] if self.delays(connect, step) else chain
            if before is None:
                return chain
            chain.append(before)

    def delays(self, connect: Span, step: Span) -> bool:
        """Whether a step waited for a connect, and not longer for one of its needs."""
        return all(self.ended(need) <= self.ended(connect) for need in self.needs(step))

    def latest(self, spans: Iterable[Span], follower: Span) -> Span | None:
        """Which of these ended last before another one began; its own server's is preferred in doubt."""
        ready = [one for one in spans if self.ended(one) <= follower.started + _SLACK]
        if not ready:
            return None
        last = max(ready, key=self.ended)
        own = [one for one in ready if one.server == follower.server]
        best = max(own, key=self.ended, default=last)
        return best if self.ended(last) - self.ended(best) <= _SAME_SERVER else last

    def connect_before(self, one: Span) -> Span | None:
        """The connect that a batch needed; long before it, it is no reason for anything, but harmless."""
        if one.kind == "connect":
            return None
        return self.latest([connect for connect in self.connects if connect.server == one.server], one)

    def needs(self, step: Span) -> list[Span]:
        return [self.steps[name] for name in step.needs if name in self.steps and name != step.name]

    def before(self, step: Span, began: float) -> Span | None:
        """What had to end before a step and did so last; what ended after `began` cannot have been it."""
        limit = min(step.started, began) + _SLACK
        ready = [one for one in (*self.needs(step), *self.waits) if self.ended(one) <= limit]
        last = max(ready, key=self.ended, default=None)
        # Steps that change the same thing wait for each other without a need: then one ended just before this began.
        others = [
            one
            for one in self.steps.values()
            if one is not step and abs(self.ended(one) - limit) <= _HANDOVER
        ]
        if step.started > _HANDOVER and (last is None or limit - self.ended(last) > _HANDOVER):
            return max((one for one in others if self.ended(one) <= limit), key=self.ended, default=last)
        return last


def critical_ids(timeline: Timeline) -> frozenset[int]:
    """The critical path of every environment, with the steps that its members are a part of."""
    parents = {one.id: one.parent for one in timeline.spans}
    kinds = {one.id: one.kind for one in timeline.spans}
    found: set[int] = set()
    for environment in timeline.info.environments:
        for one in critical_path(timeline, environment):
            found.add(one.id)
            parent = parents[one.id]
            if parent is not None and kinds[parent] == "step":
                found.add(parent)
    return frozenset(found)


def one_after_the_other(timeline: Timeline) -> float:
    """Seconds that the same connects and batches take when none of them overlaps another."""
    return fsum(timeline.ended(one) - one.started for one in timeline.of_kind("connect", "batch"))


def overlap(timeline: Timeline) -> float:
    """How many times as long the run would have taken without any overlap; 0 if nothing took any time."""
    return one_after_the_other(timeline) / timeline.info.seconds if timeline.info.seconds else 0.0


def totals(timeline: Timeline) -> list[ServerTotals]:
    """What each server had to do with the run, in the order in which they were first used."""
    found: dict[str, list[Span]] = {}
    for one in timeline.of_kind("connect", "batch"):
        found.setdefault(one.server, []).append(one)
    return [_totals(server, spans, timeline) for server, spans in found.items()]


def _totals(server: str, spans: Sequence[Span], timeline: Timeline) -> ServerTotals:
    return ServerTotals(
        server=server,
        connections=sum(one.kind == "connect" and one.outcome == OK for one in spans),
        round_trips=sum(one.round_trips for one in spans),
        sent=sum(one.sent for one in spans),
        received=sum(one.received for one in spans),
        busy=fsum(timeline.ended(one) - one.started for one in spans),
    )


def idle_gaps(timeline: Timeline) -> list[Gap]:
    """The times in which no server had anything to do: what this program did alone."""
    gaps, until, after = [], 0.0, ""
    for one in timeline.of_kind(*WORK):
        if one.started > until + _SLACK:
            gaps.append(Gap(until, one.started, after))
        if timeline.ended(one) > until:
            until, after = timeline.ended(one), one.name
    if timeline.info.seconds > until + _SLACK:
        gaps.append(Gap(until, timeline.info.seconds, after))
    return gaps

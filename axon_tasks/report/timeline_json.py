"""A timeline for other programs: as JSON, and in the trace event format that Perfetto and Chrome open."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from axon_tasks.deploy.analysis import (
    critical_ids,
    critical_path,
    idle_gaps,
    one_after_the_other,
    overlap,
    totals,
)
from axon_tasks.deploy.timeline import as_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from axon_tasks.deploy.timeline import RunInfo, Span, Timeline


def document(timeline: Timeline, environments: Sequence[str] = ()) -> dict[str, Any]:
    """The timeline as it is kept, and what it says.

    Args:
        timeline: The run.
        environments: Only the critical paths of these; empty for all.
    """
    names = [one for one in timeline.info.environments if not environments or one in environments]
    return {
        **as_document(timeline),
        "analysis": {
            "critical_path": {name: [one.id for one in critical_path(timeline, name)] for name in names},
            "one_after_the_other": round(one_after_the_other(timeline), 6),
            "overlap": round(overlap(timeline), 3),
            "servers": [asdict(one) for one in totals(timeline)],
            "idle": [asdict(gap) for gap in idle_gaps(timeline)],
        },
    }


def listing(runs: Iterable[RunInfo]) -> list[dict[str, Any]]:
    """The runs of a project, the newest first."""
    return [{**one._asdict(), "path": str(one.path)} for one in runs]


def chrome(timeline: Timeline) -> dict[str, Any]:
    """The trace event format: complete events, a process per environment and server, lanes without false nesting."""
    critical = critical_ids(timeline)
    places: dict[tuple[str, str], list[Span]] = {}
    for one in timeline.spans:
        places.setdefault((one.environment, one.server), []).append(one)
    events: list[dict[str, Any]] = []
    for pid, ((environment, server), spans) in enumerate(places.items(), start=1):
        name = " ".join(part for part in (environment, server) if part) or "run"
        events += [
            _named("process_name", pid, 0, name=name),
            _named("process_sort_index", pid, 0, sort_index=pid),
        ]
        lanes = _lanes(spans, timeline)
        for tid in range(1, 1 + max(lanes.values())):
            events.append(_named("thread_name", pid, tid, name=f"{name} {tid}"))
        events += [_complete(one, timeline, pid, lanes[one.id], one.id in critical) for one in spans]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "run": timeline.info.run,
            "command": timeline.info.command,
            "began": timeline.info.began,
        },
    }


def _named(event: str, pid: int, tid: int, **args: Any) -> dict[str, Any]:
    return {"name": event, "ph": "M", "pid": pid, "tid": tid, "args": args}


def _complete(one: Span, timeline: Timeline, pid: int, tid: int, critical: bool) -> dict[str, Any]:
    args: dict[str, Any] = {"outcome": one.outcome, "critical": critical}
    if one.kind in {"connect", "batch"}:
        args |= {"round_trips": one.round_trips, "sent": one.sent, "received": one.received}
    if one.note:
        args["note"] = one.note
    if one.needs:
        args["needs"] = list(one.needs)
    started, ended = _micros(one, timeline)
    return {
        "name": f"connect {one.name}" if one.kind == "connect" else one.name,
        "cat": one.kind,
        "ph": "X",
        "ts": started,
        "dur": ended - started,
        "pid": pid,
        "tid": tid,
        "args": args,
    }


def _micros(one: Span, timeline: Timeline) -> tuple[int, int]:
    return round(one.started * 1e6), round(timeline.ended(one) * 1e6)


def _lanes(spans: Sequence[Span], timeline: Timeline) -> dict[int, int]:
    """A lane per span: its parent's, if it lies within it and beside nothing there, else the first free one.

    What overlaps in a lane is drawn wrongly unless one encloses the other, and within an enclosing span of another
    branch it looks like a part of it.
    """
    lanes: list[
        list[tuple[int, int]]
    ] = []  # per lane the spans that are open, as id and end, the innermost last
    found: dict[int, int] = {}
    order = {one.id: _micros(one, timeline) for one in spans}
    for one in sorted(spans, key=lambda span: (order[span.id][0], -order[span.id][1], span.id)):
        started, ended = order[one.id]
        for lane in lanes:
            while lane and lane[-1][1] <= started:
                lane.pop()
        number = next((index for index, lane in enumerate(lanes) if _fits(one, ended, lane)), len(lanes))
        if number == len(lanes):
            lanes.append([])
        lanes[number].append((one.id, ended))
        found[one.id] = number + 1
    return found


def _fits(one: Span, ended: int, lane: Sequence[tuple[int, int]]) -> bool:
    return not lane or (lane[-1][0] == one.parent and ended <= lane[-1][1])

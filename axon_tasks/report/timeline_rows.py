"""A timeline as rows of bars: what the chart of a terminal and the one of a page have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from axon_tasks.deploy.analysis import critical_ids
from axon_tasks.deploy.timeline import FAILED, OK, RUNNING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.deploy.timeline import Span, Timeline

CONNECT = "connect"


@dataclass(frozen=True)
class Bar:
    """One stretch of work on a row.

    Attributes:
        span: What it shows.
        started: Seconds since the run began.
        ended: Same.
        critical: Whether the whole run had to wait for it.
        sections: The commands within, if they were recorded.
    """

    span: Span
    started: float
    ended: float
    critical: bool
    sections: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Row:
    """One step on one server, or a step that no server took part in.

    Attributes:
        step: Name of the step; `connect` for connections.
        server: Name of the server, or empty.
        window: From the beginning to the end of the step: what is no bar there was waiting.
        bars: In the order of time.
        outcome: The worst of the bars, or the one of the step.
        first: Whether it is the first row of its step.
        note: What the step had to tell; on its first row only.
        others: How many servers it stands for, if it stands for several.
    """

    step: str
    server: str
    window: tuple[float, float]
    bars: tuple[Bar, ...]
    outcome: str
    first: bool
    note: str = ""
    others: int = 0

    @property
    def critical(self) -> bool:
        """Whether a bar is on the critical path."""
        return any(bar.critical for bar in self.bars)

    @property
    def seconds(self) -> float:
        """From the first beginning to the last end."""
        return max(bar.ended for bar in self.bars) - min(bar.started for bar in self.bars)

    @property
    def round_trips(self) -> int:
        """Those of all bars."""
        return sum(bar.span.round_trips for bar in self.bars)

    @property
    def transferred(self) -> int:
        """Bytes in both directions."""
        return sum(bar.span.sent + bar.span.received for bar in self.bars)


@dataclass(frozen=True)
class Group:
    """The rows of one environment.

    Attributes:
        environment: Its name; empty for what belongs to all.
        outcome: How it ended.
        note: What it had to tell.
        rows: In the order of time.
    """

    environment: str
    outcome: str
    note: str
    rows: tuple[Row, ...]


def groups(timeline: Timeline, environments: Sequence[str] = (), *, most_servers: int = 0) -> list[Group]:
    """The rows of a timeline, per environment.

    Args:
        timeline: The run.
        environments: Show only these; empty for all.
        most_servers: Rows per step; the fastest servers beyond become one row. 0 for no limit.
    """
    shown = [name for name in timeline.info.environments if not environments or name in environments]
    layout = _Layout(timeline, most_servers)
    spans = {one.environment: one for one in timeline.of_kind("environment")}
    return [
        Group(
            name,
            spans[name].outcome if name in spans else "",
            spans[name].note if name in spans else "",
            rows,
        )
        for name in ("", *shown)
        if (rows := tuple(layout.rows(name)))
    ]


class _Layout:
    """Knows which span belongs to which row."""

    def __init__(self, timeline: Timeline, most_servers: int) -> None:
        self.timeline = timeline
        self.most = most_servers
        self.critical = critical_ids(timeline)
        self.children: dict[int | None, list[Span]] = {}
        for one in timeline.of_kind("connect", "batch", "wait", "section"):
            self.children.setdefault(one.parent, []).append(one)
        self.steps = {one.id for one in timeline.of_kind("step")}

    def rows(self, environment: str) -> list[Row]:
        mine = [
            one
            for one in self.timeline.of_kind("connect", "step", "wait", "batch")
            if one.environment == environment
        ]
        rows = self.step_rows(CONNECT, [one for one in mine if one.kind == CONNECT])
        for one in mine:
            if one.kind == "step":
                parts = [part for part in self.children.get(one.id, []) if part.kind in {"batch", "wait"}]
                rows += self.step_rows(one.name, parts, one)
            elif one.kind in {"wait", "batch"} and one.parent not in self.steps:
                rows += self.step_rows(one.name, [one])
        return rows

    def step_rows(self, name: str, parts: Sequence[Span], step: Span | None = None) -> list[Row]:
        """One row per server, in the order of their beginning."""
        if not parts and step is None:
            return []
        per_server: dict[str, list[Bar]] = {}
        for part in parts or [step] if step else parts:
            per_server.setdefault(part.server, []).append(self.bar(part))
        kept, folded = self.fold(per_server)
        unexplained = step.outcome if step and all(part.outcome == OK for part in parts) else OK
        return [
            Row(
                step=name,
                server=server,
                window=(step.started, self.timeline.ended(step))
                if step
                else (bars[0].started, bars[-1].ended),
                bars=tuple(bars),
                outcome=_worst([*(bar.span.outcome for bar in bars), OK if index else unexplained]),
                first=index == 0,
                note=step.note if step and index == 0 else "",
                others=0 if server or not folded else folded,
            )
            for index, (server, bars) in enumerate(kept.items())
        ]

    def fold(self, per_server: Mapping[str, list[Bar]]) -> tuple[dict[str, list[Bar]], int]:
        """Keep the slowest and the critical servers; the others become one row without a name."""
        if not self.most or len(per_server) <= self.most:
            return dict(per_server), 0

        def weight(item: tuple[str, list[Bar]]) -> tuple[bool, bool, float]:
            bars = item[1]
            return (
                any(bar.critical for bar in bars),
                any(bar.span.outcome not in {OK, RUNNING} for bar in bars),
                max(bar.ended for bar in bars) - min(bar.started for bar in bars),
            )

        ranked = sorted(per_server.items(), key=weight, reverse=True)
        slow = {name for name, _ in ranked[: self.most - 1]}
        kept = {name: bars for name, bars in per_server.items() if name in slow}
        rest = [bar for name, bars in per_server.items() if name not in slow for bar in bars]
        kept[""] = sorted(rest, key=lambda bar: bar.started)
        return kept, len(per_server) - len(slow)

    def bar(self, span: Span) -> Bar:
        sections = tuple(one for one in self.children.get(span.id, []) if one.kind == "section")
        return Bar(span, span.started, self.timeline.ended(span), span.id in self.critical, sections)


def _worst(outcomes: Sequence[str]) -> str:
    """What went wrong, if anything did."""
    bad = [one for one in outcomes if one != OK]
    return FAILED if FAILED in bad else bad[0] if bad else OK


def member(timeline: Timeline, span: Span) -> tuple[str, str]:
    """What people call a member of the critical path, and the server it is on.

    A batch goes by the name of its step, as its row does.
    """
    if span.kind == CONNECT:
        return f"{CONNECT} {span.name}", ""
    parent = timeline.spans[span.parent - 1] if span.parent else span
    name = parent.name if parent.kind == "step" else span.name
    return name, "" if span.server == name else span.server


def seconds(value: float) -> str:
    """Seconds as people read them."""
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"  # noqa: PLR2004  (three digits are enough)


def amount(count: int) -> str:
    """Bytes as people read them."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:  # noqa: PLR2004  (SI)
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"  # noqa: PLR2004
        size /= 1000
    return f"{size:.1f} GB"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 connection`, `3 connections`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def ticks(total: float, most: int) -> list[float]:
    """Round numbers of seconds for an axis: at most so many, and at least two if there is any time."""
    if total <= 0:
        return [0.0]
    step = 0.001
    for factor in _steps():
        step = factor
        if total / step <= max(1, most):
            break
    return [index * step for index in range(int(total / step + 1e-9) + 1)]


def _steps() -> list[float]:
    """1, 2 and 5 of every power of ten, then minutes and hours."""
    small = [digit * 10.0**power for power in range(-4, 2) for digit in (1, 2, 5)]
    return [*small[:-1], 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, *(3600.0 * 2**n for n in range(1, 20))]


def axis_label(value: float, step: float) -> str:
    """A tick's number, with no more digits than tell it from its neighbour."""
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2 if step >= 0.01 else 3 if step >= 0.001 else 4  # noqa: PLR2004
    return f"{value:.{digits}f}"

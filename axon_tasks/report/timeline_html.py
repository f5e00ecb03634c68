"""A timeline as one page that needs nothing else: it can be mailed, attached to an incident, opened without a network."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from axon_tasks.deploy.analysis import critical_path, idle_gaps, one_after_the_other, overlap, totals
from axon_tasks.deploy.timeline import FAILED, OK, RUNNING
from axon_tasks.report.timeline import ended
from axon_tasks.report.timeline_rows import amount, axis_label, counted, groups, member, seconds, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.timeline import Span, Timeline
    from axon_tasks.report.timeline_rows import Bar, Row

#: Rows per step before the fastest servers are drawn as one.
MOST_SERVERS = 24
#: Numbers on the axis; more would touch each other on a phone.
_MOST_TICKS = 8
#: In per cent of the width: what is shorter could not be seen or pointed at.
_NARROWEST = 0.35
#: Controls, what turns the reading order around (UAX #9), what has no width, and halves of characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True)
class _Box:
    """A bar in per cent of the width.

    Attributes:
        left: Where it begins.
        width: How wide it is.
        look: Its class in the style sheet.
        tip: What pointing at it tells.
        sections: Bars of the commands within.
    """

    left: float
    width: float
    look: str
    tip: str
    sections: tuple[_Box, ...] = ()


def page(timeline: Timeline, environments: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        timeline: The run.
        environments: Show only these; empty for all.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("axon_tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    style = templates.get_template("timeline.css.j2").render()
    script = templates.get_template("timeline.js.j2").render()
    return templates.get_template("timeline.html.j2").render(
        style=style, script=script, allowed=_policy(style, script), **_facts(timeline, environments)
    )


def _printable(value: object) -> object:
    """Names come from a file; what a browser would obey in a text is taken out, the rest is escaped."""
    return _UNPRINTABLE.sub("", value) if type(value) is str else value


def _policy(style: str, script: str) -> str:
    """Nothing but this style and this script runs, whatever a name holds (Content Security Policy, level 2)."""
    return f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _facts(timeline: Timeline, environments: Sequence[str]) -> dict[str, Any]:
    info = timeline.info
    shown = groups(timeline, environments, most_servers=MOST_SERVERS)
    ends = [bar.ended for group in shown for row in group.rows for bar in row.bars]
    scale = _Scale(max([info.seconds, *ends, 1e-6]), timeline)
    names = [group.environment for group in shown if group.environment]
    paths = [(name, _chain(timeline, name)) for name in names]
    return {
        "info": info,
        "good": info.outcome == OK,
        "ended": ended(info),
        "outcome": "no end" if info.outcome == RUNNING else info.outcome,
        "figures": _figures(timeline),
        "marks": scale.marks(),
        "groups": [
            {
                "name": group.environment,
                "outcome": group.outcome,
                "rows": [scale.row(row) for row in group.rows],
            }
            for group in shown
        ],
        "several": len(names) > 1,
        "paths": [(name, chain) for name, chain in paths if chain],
        "servers": [
            {
                "name": one.server or "-",
                "busy": seconds(one.busy),
                "connections": one.connections,
                "round_trips": one.round_trips,
                "sent": amount(one.sent),
                "received": amount(one.received),
            }
            for one in totals(timeline)
        ],
        "parts": [
            _part(one, timeline) for one in timeline.of_kind("connect", "step", "batch", "section", "wait")
        ],
    }


def _figures(timeline: Timeline) -> list[tuple[str, str, str]]:
    used = totals(timeline)
    idle = idle_gaps(timeline)
    spent = sum(gap.ended - gap.started for gap in idle)
    trips, connections = sum(one.round_trips for one in used), sum(one.connections for one in used)
    sent, received = sum(one.sent for one in used), sum(one.received for one in used)
    return [
        ("Total", seconds(timeline.info.seconds), f"{seconds(spent)} of it without work on any server"),
        (
            "One after the other",
            seconds(one_after_the_other(timeline)),
            f"the same connects and batches: {overlap(timeline):.1f} times as long",
        ),
        ("Round trips", str(trips), f"over {counted(connections, 'connection')}"),
        ("Transferred", amount(sent + received), f"{amount(sent)} sent, {amount(received)} received"),
    ]


class _Scale:
    """Seconds to per cent of the width."""

    def __init__(self, total: float, timeline: Timeline) -> None:
        self.total, self.timeline = total, timeline

    def at(self, moment: float) -> float:
        return round(min(100.0, max(0.0, moment / self.total * 100)), 3)

    def marks(self) -> list[dict[str, Any]]:
        found = ticks(self.total, _MOST_TICKS)
        step = found[1] if len(found) > 1 else self.total
        return [
            {
                "at": self.at(mark),
                "label": axis_label(mark, step) + (" s" if mark == found[-1] else ""),
                "anchor": "start" if mark == 0 else "end" if self.at(mark) > 95 else "middle",  # noqa: PLR2004  (it would be cut)
            }
            for mark in found
        ]

    def box(self, started: float, ended: float, look: str, tip: str, sections: tuple[_Box, ...] = ()) -> _Box:
        left = min(self.at(started), 100 - _NARROWEST)
        return _Box(left, round(max(_NARROWEST, self.at(ended) - left), 3), look, tip, sections)

    def inner(self, section: Span, bar: Bar) -> _Box:
        """A command within its bar; it stays there even if it is too short to be seen."""
        outer = self.box(bar.started, bar.ended, "", "")
        narrowest = min(_NARROWEST, outer.width) / 2
        left = min(max(self.at(section.started), outer.left), outer.left + outer.width - narrowest)
        width = max(narrowest, min(self.at(self.timeline.ended(section)), outer.left + outer.width) - left)
        look = "section bad" if section.outcome == FAILED else "section"
        return _Box(round(left, 3), round(width, 3), look, "")

    def row(self, row: Row) -> dict[str, Any]:
        return {
            "step": row.step,
            "server": f"{row.others} other servers" if row.others else row.server,
            "first": row.first,
            "critical": row.critical,
            "bad": row.outcome not in {OK, RUNNING},
            "outcome": row.outcome,
            "seconds": seconds(row.seconds),
            "note": row.note,
            "window": self.box(*row.window, "waiting", ""),
            # Critical bars last: what is drawn last lies on top.
            "bars": [self.bar(bar) for bar in sorted(row.bars, key=lambda one: one.critical)],
        }

    def bar(self, bar: Bar) -> _Box:
        bad = bar.span.outcome not in {OK, RUNNING}
        look = "bad" if bad else "critical" if bar.critical else "normal"
        inner = tuple(self.inner(one, bar) for one in bar.sections)
        return self.box(bar.started, bar.ended, look, self.tip(bar), inner)

    def tip(self, bar: Bar) -> str:
        """What pointing at a bar tells, on a few lines."""
        one = bar.span
        where = f" on {one.server}" if one.server and one.server != one.name else ""
        lines = [
            f"{'connect ' if one.kind == 'connect' else ''}{one.name}{where}: {seconds(bar.ended - bar.started)}",
            f"from {bar.started:.3f} to {bar.ended:.3f} s",
        ]
        if one.outcome != OK:
            lines.append(one.outcome)
        if bar.critical:
            lines.append("on the critical path")
        if one.round_trips:
            lines.append(
                f"{counted(one.round_trips, 'round trip')}, {amount(one.sent)} sent, {amount(one.received)} received"
            )
        lines += [
            f"{part.name}: {self.timeline.ended(part) - part.started:.3f} s"
            + ("" if part.outcome == OK else f" ({part.outcome})")
            for part in bar.sections
        ]
        return "\n".join(_UNPRINTABLE.sub("", line) for line in lines)


def _chain(timeline: Timeline, environment: str) -> list[dict[str, str]]:
    return [
        {"what": what, "where": where, "seconds": seconds(timeline.ended(one) - one.started)}
        for one in critical_path(timeline, environment)
        for what, where in [member(timeline, one)]
    ]


def _part(one: Span, timeline: Timeline) -> dict[str, str]:
    return {
        "kind": one.kind,
        "name": one.name,
        "environment": one.environment,
        "server": one.server,
        "started": f"{one.started:.3f}",
        "seconds": f"{timeline.ended(one) - one.started:.3f}",
        "outcome": one.outcome,
        "note": one.note,
    }

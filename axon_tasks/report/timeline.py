"""A timeline as a chart for terminals: bars on one axis, so that what overlaps is seen to overlap."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from axon_tasks.deploy.analysis import critical_path, idle_gaps, one_after_the_other, overlap, totals
from axon_tasks.deploy.timeline import OK, RUNNING
from axon_tasks.remote.text import sanitize
from axon_tasks.report.timeline_rows import amount, axis_label, counted, groups, member, seconds, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.analysis import ServerTotals
    from axon_tasks.deploy.timeline import RunInfo, Timeline
    from axon_tasks.report.timeline_rows import Bar, Group, Row

#: Rows per step before the fastest servers are drawn as one.
MOST_SERVERS = 12
#: Servers in the list below the chart.
_MOST_TOTALS = 12
_NARROWEST_CHART = 12
#: Columns below which the round trips make place for the chart.
_ROOM_FOR_NUMBERS = 64
#: And those below which there is no list of servers.
_ROOM_FOR_TABLE = 56


@dataclass(frozen=True)
class Signs:
    """The characters of a chart; critical ones differ by shape too, so that nothing depends on colour.

    Attributes:
        critical: A bar that the run had to wait for.
        normal: Any other bar.
        waiting: The step goes on, and this server has nothing to do.
        mark: Before a row with a critical bar.
        failed: At the end of a bar that failed.
        tick: On the axis.
        line: The axis itself.
        arrow: Between the members of the critical path.
        dot: Between parts of a line.
        times: The factor.
    """

    critical: str = "█"
    normal: str = "▒"
    waiting: str = "·"
    mark: str = "◆"
    failed: str = "✗"
    tick: str = "┬"
    line: str = "─"
    arrow: str = "→"
    dot: str = "·"
    times: str = "×"  # noqa: RUF001  (the sign that is meant)


PLAIN = Signs("#", "=", ".", "*", "x", "+", "-", "->", "|", "x")


@dataclass(frozen=True)
class Look:
    """How to write for one stream.

    Attributes:
        columns: Its width.
        colour: Whether it obeys SGR sequences.
        signs: The characters that it can show.
    """

    columns: int = 80
    colour: bool = False
    signs: Signs = Signs()

    @classmethod
    def of(cls, stream: TextIO) -> Look:
        """What a stream can show: COLUMNS, NO_COLOR (no-color.org), its encoding."""
        columns = shutil.get_terminal_size((100, 24)).columns
        colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(max(40, min(columns, 200)), colour, Signs() if _can_write(stream, Signs()) else PLAIN)

    def paint(self, text: str, code: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


_CRITICAL, _NORMAL, _BAD, _DIM, _BOLD = "1;33", "36", "31", "2", "1"


def _can_write(stream: TextIO, signs: Signs) -> bool:
    try:
        "".join(vars(signs).values()).encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def chart(timeline: Timeline, look: Look, environments: Sequence[str] = ()) -> str:
    """The whole picture: what was run, the bars, what they add up to.

    Args:
        timeline: The run.
        look: How to write.
        environments: Show only these; empty for all.
    """
    shown = groups(timeline, environments, most_servers=MOST_SERVERS)
    lines = _head(timeline.info, look)
    if shown:
        lines += ["", *_Drawing(timeline, shown, look).lines()]
    else:
        lines += ["", "  Nothing was recorded: the run ended before its first step."]
    named = [group.environment for group in shown if group.environment]
    return "\n".join([*lines, "", *_foot(timeline, named, look)])


def _head(info: RunInfo, look: Look) -> list[str]:
    facts = [info.run, info.who, info.began.replace("T", " ").replace("Z", " UTC"), ended(info)]
    return [
        look.paint(_fit(sanitize(info.command or info.run), look.columns, look), _BOLD),
        *_joined([sanitize(fact) for fact in facts if fact], look),
    ]


def _joined(parts: Sequence[str], look: Look) -> list[str]:
    """Parts with a dot between them, on as many lines as they need."""
    return _wrapped("", [*(f"{part} {look.signs.dot}" for part in parts[:-1]), parts[-1]], look)


def ended(info: RunInfo) -> str:
    """How a run ended, in words."""
    if info.outcome == RUNNING:
        return f"without an end (running or killed), last heard of after {seconds(info.seconds)}"
    code = f" (exit code {info.exit_code})" if info.exit_code else ""
    return f"{info.outcome}{code} after {seconds(info.seconds)}"


class _Drawing:
    """The rows with their bars, in as many columns as there are."""

    def __init__(self, timeline: Timeline, shown: Sequence[Group], look: Look) -> None:
        self.timeline, self.groups, self.look = timeline, shown, look
        rows = [row for group in shown for row in group.rows]
        narrow = look.columns < _ROOM_FOR_NUMBERS
        longest = 10 if narrow else 16
        self.step_width = min(longest, max(len(_step(row)) for row in rows))
        self.server_width = min(longest, max(len(_server(row)) for row in rows))
        self.numbers = 0 if narrow else 7
        used = 2 + self.step_width + 1 + self.server_width + 1 + 7 + self.numbers + 2
        self.width = max(_NARROWEST_CHART, look.columns - used - 1)
        self.margin = used
        self.total = max(timeline.info.seconds, *(bar.ended for row in rows for bar in row.bars), 1e-6)

    def lines(self) -> list[str]:
        told = self.axis()
        several = sum(bool(group.environment) for group in self.groups) > 1
        for group in self.groups:
            if several:
                told.append(self.title(group))
            told += [self.row(row) for row in group.rows]
        return [*told, self.legend()]

    def legend(self) -> str:
        signs = self.look.signs
        told = f"{signs.critical} critical   {signs.normal} beside it   {signs.waiting} waiting"
        return self.look.paint(" " * min(self.margin, self.look.columns - len(told)) + told, _DIM)

    def title(self, group: Group) -> str:
        name = sanitize(group.environment) or "all environments"
        end = "" if group.outcome in {"", OK} else f": {sanitize(group.outcome)}"
        return self.look.paint(f"{name}{end}", _BAD if end else _BOLD)

    def axis(self) -> list[str]:
        """Round numbers above a line with a mark for each."""
        marks = ticks(self.total, self.width // 9)
        step = marks[1] if len(marks) > 1 else self.total
        numbers, line = [" "] * (self.width + 8), [self.look.signs.line] * self.width
        for mark in marks:
            at = self.column(mark)
            line[at] = self.look.signs.tick
            text = axis_label(mark, step) + (" s" if mark == marks[-1] else "")
            start = min(at, self.width - len(text))
            numbers[start : start + len(text)] = text
        trips = "trips".rjust(self.numbers) if self.numbers else ""
        head = f"{'':{self.step_width + self.server_width + 4}}{'s':>7}{trips}  "
        return [
            self.look.paint((head + "".join(numbers)).rstrip(), _DIM),
            self.look.paint(" " * self.margin + "".join(line), _DIM),
        ]

    def column(self, at: float) -> int:
        return min(self.width - 1, max(0, int(at / self.total * self.width)))

    def last_column(self, started: float, ended: float) -> int:
        """A column counts if at least half of it is covered; the first one always does."""
        return max(self.column(started), self.column(ended - self.total / self.width / 2))

    def row(self, row: Row) -> str:
        signs, look = self.look.signs, self.look
        bad = row.outcome not in {OK, RUNNING}
        colour = _BAD if bad else _CRITICAL if row.critical else ""
        mark = look.paint(signs.mark if row.critical else " ", _CRITICAL)
        step = _fit(_step(row) if row.first else "", self.step_width, look).ljust(self.step_width)
        server = _fit(_server(row), self.server_width, look).ljust(self.server_width)
        trips = (str(row.round_trips) if row.round_trips else "").rjust(self.numbers) if self.numbers else ""
        told = f"{look.paint(step, colour) if colour else step} {server} {row.seconds:7.2f}{trips}"
        return f"{mark} {told}  {self.bars(row)}".rstrip()

    def bars(self, row: Row) -> str:
        signs = self.look.signs
        cells: list[tuple[str, str]] = [(" ", "")] * self.width
        first, last = self.column(row.window[0]), self.last_column(*row.window)
        cells[first : last + 1] = [(signs.waiting, _DIM)] * (last + 1 - first)
        # Critical bars are drawn last, so that none of them is hidden.
        for bar in sorted(row.bars, key=lambda one: one.critical):
            self.draw(bar, cells)
        text, told = "", ""
        for index, (sign, colour) in enumerate(cells):
            text += sign
            if index + 1 == len(cells) or cells[index + 1][1] != colour:
                told += self.look.paint(text, colour) if colour else text
                text = ""
        return told

    def draw(self, bar: Bar, cells: list[tuple[str, str]]) -> None:
        signs = self.look.signs
        bad = bar.span.outcome not in {OK, RUNNING}
        sign = signs.critical if bar.critical else signs.normal
        colour = _BAD if bad else _CRITICAL if bar.critical else _NORMAL
        first = self.column(bar.started)
        last = self.last_column(bar.started, bar.ended)
        cells[first : last + 1] = [(sign, colour)] * (last + 1 - first)
        if bar.span.outcome == "failed":
            cells[last] = (signs.failed, _BAD)


def _step(row: Row) -> str:
    return sanitize(row.step)


def _server(row: Row) -> str:
    return f"({row.others} others)" if row.others else sanitize(row.server)


def _fit(text: str, width: int, look: Look) -> str:
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}{'…' if look.signs.mark != PLAIN.mark else '~'}"


def _foot(timeline: Timeline, environments: Sequence[str], look: Look) -> list[str]:
    signs, info = look.signs, timeline.info
    lines = []
    for name in environments:
        told = _path(timeline, name, look)
        if told:
            title = f"critical path of {sanitize(name)}" if len(environments) > 1 else "critical path"
            lines += _wrapped(f"{signs.mark} {title}: ", told, look)
    alone = one_after_the_other(timeline)
    if alone:
        lines += _wrapped(
            "",
            f"Total {seconds(info.seconds)}; one after the other, the same connects and batches would have taken"
            f" {seconds(alone)} ({overlap(timeline):.1f} {signs.times}).".split(" "),
            look, glue=" ",
        )  # fmt: skip
    used = totals(timeline)
    if used:
        lines += _sum(used, look)
    idle = idle_gaps(timeline)
    spent = sum(gap.ended - gap.started for gap in idle)
    if idle and used:
        lines += [f"For {seconds(spent)} no server had anything to do."]
    if len(used) > 1 and look.columns >= _ROOM_FOR_TABLE:
        lines += ["", *_table(used)]
    return lines


def _path(timeline: Timeline, environment: str, look: Look) -> list[str]:
    told = []
    for one in critical_path(timeline, environment):
        what = " ".join(part for part in member(timeline, one) if part)
        told.append(f"{sanitize(what)} {timeline.ended(one) - one.started:.2f}")
    return [
        f"{part} {look.signs.arrow}" if index + 1 < len(told) else f"{part} s"
        for index, part in enumerate(told)
    ]


def _wrapped(title: str, parts: Sequence[str], look: Look, glue: str = " ") -> list[str]:
    """Parts that stay whole, on as many lines as they need."""
    lines, line = [], title
    for part in parts:
        if len(line) + len(part) > look.columns and line.strip():
            lines.append(line.rstrip())
            line = "  "
        line += part + glue
    return [*lines, line.rstrip()]


def _sum(used: Sequence[ServerTotals], look: Look) -> list[str]:
    return _joined(
        [
            counted(sum(one.connections for one in used), "connection"),
            counted(sum(one.round_trips for one in used), "round trip"),
            f"{amount(sum(one.sent for one in used))} sent",
            f"{amount(sum(one.received for one in used))} received",
        ],
        look,
    )


def _table(used: Sequence[ServerTotals]) -> list[str]:
    """What each server had to do; of many, those with the most."""
    shown = used
    if len(used) > _MOST_TOTALS:
        busiest = {one.server for one in sorted(used, key=lambda one: -one.busy)[: _MOST_TOTALS - 1]}
        shown = [one for one in used if one.server in busiest]
    cells = [("server", "busy", "round trips", "sent", "received")]
    cells += [
        (
            sanitize(one.server) or "-",
            seconds(one.busy),
            str(one.round_trips),
            amount(one.sent),
            amount(one.received),
        )
        for one in shown
    ]
    widths = [max(len(row[index]) for row in cells) for index in range(5)]
    lines = [
        "  "
        + "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in cells
    ]
    return lines if len(shown) == len(used) else [*lines, f"  and {len(used) - len(shown)} more"]


def listing(runs: Sequence[RunInfo], look: Look) -> str:
    """One line per run, the newest first."""
    rows = [_listed(one, look) for one in runs]
    widths = [max(len(row[index]) for row in rows) for index in range(4)]
    return "\n".join(
        _fit(
            "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip(),
            look.columns,
            look,
        )
        for row in rows
    )


def _listed(one: RunInfo, look: Look) -> tuple[str, str, str, str, str]:
    if one.broken:
        return one.run, "", "broken", "", f"it {sanitize(one.broken)}"
    end = (
        "no end" if one.outcome == RUNNING else one.outcome + (f" ({one.exit_code})" if one.exit_code else "")
    )
    joined = ",".join(one.environments)
    return (
        one.run,
        seconds(one.seconds),
        sanitize(end),
        sanitize(joined),
        sanitize(f"{one.who} {look.signs.dot} {one.command}"),
    )

"""Charts as SVG inside of the page: bars with whiskers, lines with bands. Colours are the page's own (`page.css`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from axon_tasks.lab.bench.tables import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.lab.bench.figures import Budget, Spread

_WIDTH = 760
_LABELS = 250
_VALUES = 90
_BAR, _GAP, _GROUP_GAP = 16, 4, 16
_LINE_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 280, 56, 170, 14, 44
_TICKS = 5


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        series: Which colour it has, counted from 0.
        label: What it is.
        spread: Its length is the median, its whiskers reach from the least to the most.
    """

    series: int
    label: str
    spread: Spread


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def bars(title: str, groups: Mapping[str, Sequence[Bar]], unit: str) -> str:
    """Horizontal bars in groups; the axis begins at zero, so that lengths can be compared.

    Args:
        title: What it shows, for those who cannot see it.
        groups: The bars under each heading.
        unit: Of the values.
    """
    most = max((bar.spread.high for group in groups.values() for bar in group), default=0.0) or 1.0
    scale = (_WIDTH - _LABELS - _VALUES) / most
    parts, y = [], 0.0
    for heading, group in groups.items():
        y += 14
        parts.append(_text(0, y, heading, "heading"))
        y += 8
        for bar in group:
            parts += _bar(bar, y, scale, unit)
            y += _BAR + _GAP
        y += _GROUP_GAP
    return _svg(_WIDTH, max(y - _GROUP_GAP + 2, 1), title, parts)


def _bar(bar: Bar, y: float, scale: float, unit: str) -> list[str]:
    middle, spread = y + _BAR / 2, bar.spread
    low, high = _LABELS + spread.low * scale, _LABELS + spread.high * scale
    told = f"{bar.label}: {number(spread.median)} {unit}, {number(spread.low)} to {number(spread.high)}"
    length = max(spread.median * scale, 1)
    box = f'x="{_LABELS}" y="{y:.1f}" width="{length:.1f}" height="{_BAR}" rx="2"'
    ends = f"M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
    told_value = f"{number(spread.median)} {unit}"
    return [
        f"<g><title>{escape(told)}</title>",
        _text(_LABELS - 10, middle + 4, bar.label, "label", "end"),
        f'<rect {box} class="s{bar.series}"/>',
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}{ends}" class="whisker"/>',
        _text(max(high, _LABELS + length) + 8, middle + 4, told_value, "value"),
        "</g>",
    ]


@dataclass(frozen=True)
class Line:
    """One line.

    Args:
        series: Which colour it has, counted from 0.
        label: What it is.
        points: At each place, the spread there; the line goes through the medians, the band from least to most.
    """

    series: int
    label: str
    points: Mapping[float, Spread]


def lines(title: str, drawn: Sequence[Line], x_unit: str, y_unit: str, budget: Budget | None = None) -> str:
    """Lines over numbers.

    Args:
        title: What it shows, for those who cannot see it.
        drawn: The lines.
        x_unit: What is told below the axis.
        y_unit: What is told beside the axis.
        budget: Drawn as a dashed line.
    """
    places = sorted({x for line in drawn for x in line.points})
    highest = [spread.high for line in drawn for spread in line.points.values()]
    top = _round_up(max([*highest, budget.limit if budget else 0.0], default=1.0))
    plot = _Plot(places[0] if places else 0.0, places[-1] if places else 1.0, top)
    parts = [*plot.axes(places, x_unit, y_unit)]
    ends = [plot.y(_end(line)) for line in drawn]
    if budget is not None:
        ends.append(plot.y(budget.limit))
        parts.append(f'<path d="M{_LEFT} {ends[-1]:.1f}H{_WIDTH - _RIGHT}" class="budget"/>')
    labels = _apart(ends)
    for line, place in zip(drawn, labels, strict=False):
        parts += plot.line(line, place)
    if budget is not None:
        parts.append(_text(_WIDTH - _RIGHT + 10, labels[-1] + 4, f"budget {_sign(budget)}", "axis"))
    return _svg(_WIDTH, _LINE_HEIGHT, title, parts)


def _sign(budget: Budget) -> str:
    return f"{'≥' if budget.at_least else '≤'} {budget.limit:g}"


def _end(line: Line) -> float:
    return line.points[max(line.points)].median


def _apart(wanted: Sequence[float], least: float = 15.0) -> list[float]:
    """Move labels down until none lies on another one."""
    placed: dict[int, float] = {}
    lowest = -math.inf
    for index in sorted(range(len(wanted)), key=lambda one: wanted[one]):
        lowest = max(wanted[index], lowest + least)
        placed[index] = lowest
    return [placed[index] for index in range(len(wanted))]


def _round_up(number_: float) -> float:
    """The next number that an axis can end at."""
    power = 10.0 ** math.floor(math.log10(number_ or 1.0))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= number_)


@dataclass(frozen=True)
class _Plot:
    """Where a number lies in the picture."""

    first: float
    last: float
    top: float

    def x(self, place: float) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (
            (place - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        )

    def y(self, amount: float) -> float:
        return _LINE_HEIGHT - _BOTTOM - (_LINE_HEIGHT - _BOTTOM - _TOP) * amount / self.top

    def axes(self, places: Sequence[float], x_unit: str, y_unit: str) -> list[str]:
        parts = []
        for tick in range(_TICKS + 1):
            amount = self.top * tick / _TICKS
            y = self.y(amount)
            parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
            parts.append(_text(_LEFT - 8, y + 4, number(amount, digits=1), "axis", "end"))
        parts += [
            _text(self.x(place), _LINE_HEIGHT - _BOTTOM + 18, f"{place:g}", "axis", "middle")
            for place in places
        ]
        parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _LINE_HEIGHT - 6, x_unit, "axis", "middle"))
        parts.append(
            f'<text transform="translate(12 {(_LINE_HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" class="axis"'
            f' text-anchor="middle">{escape(y_unit)}</text>'
        )
        return parts

    def line(self, line: Line, label_y: float) -> list[str]:
        places = sorted(line.points)
        spots = [(self.x(place), line.points[place]) for place in places]
        upper = [f"{x:.1f} {self.y(spread.high):.1f}" for x, spread in spots]
        lower = [f"{x:.1f} {self.y(spread.low):.1f}" for x, spread in reversed(spots)]
        middle = [f"{x:.1f} {self.y(spread.median):.1f}" for x, spread in spots]
        dots = [
            f'<circle cx="{x:.1f}" cy="{self.y(spread.median):.1f}" r="3.5" class="s{line.series}">'
            f"<title>{escape(line.label)}: {number(spread.median)}, {number(spread.low)} to {number(spread.high)}</title>"
            "</circle>"
            for x, spread in spots
        ]
        return [
            f'<path d="M{"L".join([*upper, *lower])}Z" class="band s{line.series}"/>',
            f'<path d="M{"L".join(middle)}" class="line s{line.series}"/>',
            *dots,
            _text(self.x(places[-1]) + 10, label_y + 4, line.label, f"label t{line.series}"),
        ]


def gauge(spread: Spread, budget: Budget) -> str:
    """A small scale: the budget as a mark, the median as a dot, the spread as a line."""
    top = max(spread.high, budget.limit) * 1.15 or 1.0
    x = {name: 6 + 228 * amount / top for name, amount in
         (("low", spread.low), ("median", spread.median), ("high", spread.high), ("limit", budget.limit))}  # fmt: skip
    good = f"M{x['limit']:.1f} 13H234" if budget.at_least else f"M6 13H{x['limit']:.1f}"
    verdict = "good" if budget.met(spread.median) else "bad"
    parts = [
        '<path d="M6 13H234" class="scale"/>',
        f'<path d="{good}" class="allowed"/>',
        f'<path d="M{x["limit"]:.1f} 5v16" class="limit"/>',
        f'<path d="M{x["low"]:.1f} 13H{x["high"]:.1f}" class="range {verdict}"/>',
        f'<circle cx="{x["median"]:.1f}" cy="13" r="5" class="{verdict}"/>',
    ]
    return _svg(240, 26, f"{number(spread.median)}, budget {_sign(budget)}", parts)

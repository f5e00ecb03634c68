"""The figures as text: for the terminal, and as Markdown for the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.lab.bench.deploys import DEFAULT, REQUIREMENT, SEQUENTIAL
from axon_tasks.lab.bench.figures import Count, Ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.lab.bench.figures import Figure, Spread
    from axon_tasks.lab.bench.suite import Results

#: The signs that people write, where programs write `x` and `-`.
TIMES, DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"

_HEAD = ("RTT", "WHAT", "COMPARED", "VALUE", "SPREAD", "BUDGET", "VERDICT", "MEDIANS")


def table(figures: Sequence[Figure]) -> str:
    """One line per figure: value, spread, budget; the seconds at the end are for information."""
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        "" if figure.rtt is None else f"{figure.rtt:g} ms",
        figure.what,
        compared(figure),
        value(figure),
        spread(figure),
        str(figure.budget or ""),
        figure.verdict,
        medians(figure),
    )


def compared(figure: Figure) -> str:
    """What is divided by what, or what was counted where."""
    return f"{figure.one} / {figure.by}" if isinstance(figure, Ratio) else f"{figure.unit}, {figure.who}"


def number(amount: float, *, digits: int = 2) -> str:
    """A number for people: whole ones without a fraction, large ones without what nobody can read."""
    if amount == round(amount) or abs(amount) >= 100:  # noqa: PLR2004  (three digits are enough)
        return f"{amount:.0f}"
    return f"{amount:.{digits}f}" if abs(amount) < 10 else f"{amount:.1f}"  # noqa: PLR2004  (same)


def value(figure: Figure) -> str:
    """The median: ratios with two digits behind the point, counts as they are."""
    return f"{figure.value:.2f}" if isinstance(figure, Ratio) else number(figure.value)


def spread(figure: Figure) -> str:
    """From the least to the most."""
    low, high = figure.spread.low, figure.spread.high
    if isinstance(figure, Ratio):
        return f"{low:.2f}-{high:.2f}"
    return f"{number(low)}-{number(high)}"


def medians(figure: Figure) -> str:
    """How long both sides of a ratio took."""
    if isinstance(figure, Count):
        return ""
    one, other = figure.seconds
    return f"{seconds(one)} / {seconds(other)}"


def seconds(took: Spread) -> str:
    """A median time in a unit that reads well."""
    return f"{took.median:.2f} s" if took.median >= 1 else f"{took.median * 1000:.0f} ms"


# --- Markdown --------------------------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """The tables for the README: the requirement's one, and everything that has a budget."""
    parts = []
    if results.of("deploy"):
        parts.append(requirement_table(results))
    if results.judged:
        parts.append(_budget_table(results))
    return "\n\n".join(parts) + "\n"


def requirement_table(results: Results) -> str:
    """The table that the project was started with, ours beside theirs."""
    lines = [
        "| deployment | RTT | `--sequential` | default | gain | spread | asked for |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in results.of("deploy"):
        if isinstance(figure, Ratio) and figure.one == SEQUENTIAL:
            one, other = figure.seconds
            theirs = REQUIREMENT.get((figure.what, figure.rtt or 0.0)) if figure.by == DEFAULT else None
            asked = (
                f"{theirs.sequential:g} → {theirs.parallel:g} s, {theirs.sequential / theirs.parallel:.2f}{TIMES}"
                if theirs
                else ""
            )
            what = figure.what if figure.by == DEFAULT else f"{figure.what}, `{figure.by}`"
            lines.append(
                f"| {what} | {figure.rtt or 0:g} ms | {seconds(one)} | {seconds(other)} | **{figure.value:.1f}{TIMES}** |"
                f" {figure.spread.low:.1f}{DASH}{figure.spread.high:.1f} | {asked} |"
            )
    return "\n".join(lines)


def _budget_table(results: Results) -> str:
    lines = ["| figure | RTT | median | spread | budget | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {figure.what}: {compared(figure)} | {'' if figure.rtt is None else f'{figure.rtt:g} ms'} |"
        f" **{value(figure)}** | {spread(figure).replace('-', DASH)} | {sign(figure)} |"
        f" {'met' if figure.verdict == 'PASS' else 'missed'} |"
        for figure in results.judged
    ]
    return "\n".join(lines)


def sign(figure: Figure) -> str:
    """The budget with a sign that people write."""
    return str(figure.budget or "").replace(">=", "≥").replace("<=", "≤")

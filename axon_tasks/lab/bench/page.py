"""The results as one page that needs nothing else: no script, no font and no image from anywhere."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from axon_tasks.lab.bench import batches, charts, deploys, fanout
from axon_tasks.lab.bench.figures import Count, Ratio
from axon_tasks.lab.bench.style import STYLE
from axon_tasks.lab.bench.tables import DASH, TIMES, compared, medians, number, seconds, sign, spread, value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.lab.bench.figures import Figure, Spread
    from axon_tasks.lab.bench.suite import Results

_OURS, _OTHER, _THIRD, _FOURTH = 0, 1, 2, 3


def page(results: Results) -> str:
    """The whole page."""
    sections = [section(results) for name, section in _SECTIONS.items() if results.of(name)]
    return f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>axon-tasks: the benchmark</title>
<style>
{STYLE}</style>
<h1>axon-tasks: the benchmark</h1>
<p>Measured on real servers in the lab: sshd, Docker, nginx and a registry, on one machine. Contenders take turns within
one run, each is checked for having done its work, and what counts is the median of the ratios of the rounds: seconds say
something about a machine, ratios about the code. Lines through bars and around dots reach from the best round to the
worst one.</p>
{_cards(results)}
{"".join(sections)}
{_footer(results)}
</html>
"""


# --- what is judged --------------------------------------------------------------------------------------------


def _cards(results: Results) -> str:
    cards = "".join(_card(figure) for figure in results.judged)
    return f'<div class="cards">{cards}</div>' if cards else ""


def _card(figure: Figure) -> str:
    assert figure.budget is not None  # only those are judged
    times = TIMES if isinstance(figure, Ratio) else ""
    place = "" if figure.rtt is None else f", at {figure.rtt:g} ms"
    good = figure.verdict == "PASS"
    return (
        f'<div class="card"><span class="verdict {"good" if good else "bad"}">{"met" if good else "missed"}</span>'
        f"<b>{value(figure)}{times}</b><p>{_code(figure.what + place)}<br>"
        f'<span class="soft">{escape(compared(figure))}</span></p>{charts.gauge(figure.spread, figure.budget)}'
        f'<span class="soft">budget {escape(sign(figure))}{times} · {_dash(spread(figure))} in'
        f" {_rounds(len(figure.values))}</span></div>"
    )


def _code(text: str) -> str:
    """Text for the page; what stands in backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _dash(text: str) -> str:
    return text.replace("-", DASH)


def _rounds(count: int) -> str:
    return f"{count} round" + ("s" if count > 1 else "")


# --- sections --------------------------------------------------------------------------------------------------


def _section(title: str, text: str, *drawings: str, figures: Sequence[Figure] = ()) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{text}</p>{''.join(drawings)}{_numbers(figures)}</section>\n"


def _figure(caption: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}</figure>"


def _numbers(figures: Sequence[Figure]) -> str:
    rows = "".join(_row(figure) for figure in figures)
    head = "<tr><th>RTT<th>what<th>compared<th class=n>median<th class=n>spread<th class=n>budget<th class=n>medians of both</tr>"
    return f'<details><summary>All numbers</summary><div class="scroll"><table>{head}{rows}</table></div></details>'


def _row(figure: Figure) -> str:
    rtt = "" if figure.rtt is None else f"{figure.rtt:g} ms"
    texts = [rtt, figure.what, compared(figure)]
    numbers = [value(figure), _dash(spread(figure)), sign(figure), medians(figure)]
    cells = "".join(f"<td>{_code(text)}" for text in texts)
    return f"<tr>{cells}{''.join(f'<td class=n>{escape(text)}' for text in numbers)}</tr>"


def _ratios(results: Results, group: str) -> list[Ratio]:
    return [figure for figure in results.of(group) if isinstance(figure, Ratio)]


def _counts(results: Results, group: str) -> list[Count]:
    return [figure for figure in results.of(group) if isinstance(figure, Count)]


def _deploy(results: Results) -> str:
    series = {deploys.SEQUENTIAL: _OTHER, deploys.DEFAULT: _OURS, deploys.WAITING: _THIRD}
    drawings = []
    for rtt in sorted({figure.rtt or 0.0 for figure in _ratios(results, "deploy")}):
        groups: dict[str, dict[str, charts.Bar]] = {}
        for figure in _ratios(results, "deploy"):
            if figure.rtt == rtt:
                for name, took in zip((figure.one, figure.by), figure.seconds, strict=True):
                    bar = charts.Bar(series.get(name, _FOURTH), name, took)
                    groups.setdefault(figure.what, {})[name] = bar
        bars = {what: list(group.values()) for what, group in groups.items()}
        caption = f"Seconds from Enter to the prompt, {rtt:g} ms round-trip time"
        drawings.append(_figure(caption, charts.bars(caption, bars, "s")))
    text = (
        "<code>fab deploy --sequential</code> runs the same plan one step, one server and one command after the other"
        " and waits for the clean-up; the default runs at the same time what does not depend on each other, sends what"
        " belongs together as one script, and lets the old release drain behind the prompt. The figures that were asked"
        " for come from small cloud machines with a large image and a slow application: 28 of their 43 seconds are"
        " work that nobody can overlap, and that takes a moment here. So compare the gains with that in mind."
    )
    return _section(
        "Deployments: one after the other, and at the same time", text, _requirement(results), *drawings,
        figures=results.of("deploy"),
    )  # fmt: skip


def _requirement(results: Results) -> str:
    rows = []
    for figure in _ratios(results, "deploy"):
        one, other = figure.seconds
        asked = (
            deploys.REQUIREMENT.get((figure.what, figure.rtt or 0.0))
            if figure.by == deploys.DEFAULT
            else None
        )
        theirs = f"{asked.sequential:g} → {asked.parallel:g} s" if asked else ""
        gain = f"{asked.sequential / asked.parallel:.2f}{TIMES}" if asked else ""
        what = figure.what if figure.by == deploys.DEFAULT else f"{figure.what}, {figure.by}"
        cells = [f"{seconds(one)}", f"{seconds(other)}", f"{figure.value:.1f}{TIMES}", theirs, gain]
        numbers = "".join(f"<td class=n>{escape(cell)}" for cell in cells)
        rows.append(f"<tr><td>{escape(what)}<td class=n>{figure.rtt or 0:g} ms{numbers}</tr>")
    head = "<tr><th>deployment<th class=n>RTT<th class=n>sequential<th class=n>ours<th class=n>gain<th class=n>asked for<th class=n>gain asked for</tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _floor(results: Results) -> str:
    groups = {}
    for figure in _ratios(results, "floor"):
        one, other = figure.seconds
        groups[f"{figure.what}, {figure.rtt or 0:g} ms"] = [
            charts.Bar(_OURS, "fab deploy", one),
            charts.Bar(_OTHER, "plain ssh", other),
        ]
    caption = "Seconds from Enter to the prompt"
    text = (
        "The floor is the same remote work, to the letter, driven by <code>ssh</code> and a shell script that has nothing"
        " to find out: fresh connections opened at the same time, one per server; everything that a run learns from the"
        " servers is known from the start. Starting Python, checking, parsing and telling are on our side only."
    )
    return _section(
        "The floor: plain ssh",
        text,
        _figure(caption, charts.bars(caption, groups, "s")),
        figures=results.of("floor"),
    )


def _trips(results: Results) -> str:
    figures = _counts(results, "counts")
    rows = "".join(
        f"<tr><td>{escape(figure.unit)}<td>{escape(figure.who)}<td class=n>{'' if figure.rtt is None else f'{figure.rtt:g} ms'}"
        f"<td class=n><b>{value(figure)}</b><td class=n>{escape(_dash(spread(figure)))}<td class=n>{escape(sign(figure))}</tr>"
        for figure in figures
    )
    head = "<tr><th>of one deployment<th>counted<th class=n>RTT<th class=n>median<th class=n>spread<th class=n>budget</tr>"
    text = (
        "Counted by the delay proxies in front of sshd, which see bytes and times and know nothing of our code: how many"
        " round trips one after the other the last answer had to wait for. The second witness is the clock: by how much"
        " longer the same thing takes when the servers are farther away. What it costs to open the connections alone is"
        " measured in the same way and taken off."
    )
    table = f'<div class="scroll"><table>{head}{rows}</table></div>'
    return f"<section><h2>Round trips and connections</h2><p>{text}</p>{table}</section>\n"


def _batch(results: Results) -> str:
    kinds: dict[str, dict[float, Spread]] = {}
    for figure in _ratios(results, "batch"):
        kinds.setdefault(f"{figure.what}, {figure.one}", {})[figure.rtt or 0.0] = figure.spread
    drawn = [charts.Line(index, label, points) for index, (label, points) in enumerate(kinds.items())]
    short = [charts.Line(line.series, _short(line.label), line.points) for line in drawn]
    caption = "How many times as long ten calls take as one batch of ten commands"
    text = (
        "Over connections that are open already. A batch costs one round trip, whatever its commands are;"
        " <code>true</code> costs nothing by itself, so that it shows the way there and back alone."
    )
    drawing = charts.lines(caption, short, "round-trip time in ms", "times as long", batches.BUDGET)
    return _section("A batch of ten commands", text, _figure(caption, drawing), figures=results.of("batch"))


def _short(label: str) -> str:
    """A label that fits beside the line."""
    return re.sub(r", 10 calls$|10 calls of |10 times |10 |`", "", label)


def _fanout(results: Results) -> str:
    took: dict[str, dict[float, Spread]] = {}
    for figure in _ratios(results, "fanout"):
        one, other = figure.seconds
        took.setdefault(figure.one, {})[_servers(figure)] = one
        took.setdefault(figure.by, {})[_servers(figure)] = other
    series = {fanout.OURS: _OURS, fanout.GROUP: _THIRD, fanout.XARGS: _OTHER}
    caption = "Seconds to connect, ask and close"
    drawings = [_figure(caption, charts.lines(caption, _lines(took, series), "servers", "seconds"))]
    for unit in ("threads", "MB of memory"):
        counted: dict[str, dict[float, Spread]] = {}
        for count in _counts(results, "fanout"):
            if count.unit == unit:
                counted.setdefault(count.who, {})[_servers(count)] = count.spread
        caption = f"The most {unit} at a time, of all processes of the client"
        drawings.append(_figure(caption, charts.lines(caption, _lines(counted, series), "servers", unit)))
    text = (
        "Each server is an sshd with a host key and an address of its own, on the same machine: what they need counts for"
        " all contenders. Fabric's group accepts any host key; ours checks each."
    )
    return _section("One query over many servers", text, *drawings, figures=results.of("fanout"))


def _lines(values: dict[str, dict[float, Spread]], series: dict[str, int]) -> list[charts.Line]:
    return [charts.Line(series.get(name, _FOURTH), name, points) for name, points in values.items() if points]


def _servers(figure: Figure) -> float:
    return float("".join(letter for letter in figure.what if letter.isdigit()))


def _two_bars(group: str, title: str, text: str) -> Callable[[Results], str]:
    """A section that shows both sides of each ratio."""

    def section(results: Results) -> str:
        groups = {}
        for figure in _ratios(results, group):
            one, other = figure.seconds
            groups[figure.what] = [charts.Bar(_OURS, figure.one, one), charts.Bar(_OTHER, figure.by, other)]
        told = "".join(
            f"<p>{escape(count.what[0].upper() + count.what[1:])}: {number(count.value)} {escape(count.unit)}.</p>"
            for count in _counts(results, group)
        )
        drawing = _figure("Seconds", charts.bars(title, groups, "s")) if groups else ""
        return _section(title, text, drawing, told, figures=results.of(group))

    return section


_SECTIONS: dict[str, Callable[[Results], str]] = {
    "deploy": _deploy,
    "floor": _floor,
    "counts": _trips,
    "batch": _batch,
    "fanout": _fanout,
    "listing": _two_bars(
        "listing",
        "The start of fab --list",
        "From Enter to the prompt, against a fabfile that holds nothing but as many tasks.",
    ),
    "output": _two_bars(
        "output",
        "A large section",
        "Our side keeps every byte and tells stdout from stderr; <code>ssh</code> writes to <code>/dev/null</code>. Passed on"
        " as it arrives, a section of any size needs the same memory.",
    ),
}


def _footer(results: Results) -> str:
    facts = results.facts
    versions = ", ".join(f"{name} {version}" for name, version in dict(facts.get("versions", {})).items())
    load = ", ".join(number(float(one)) for one in facts.get("load_average", ()))
    lines = [
        f"{facts.get('date', '')} · <code>{escape(str(facts.get('command', '')))}</code> · commit {escape(str(facts.get('commit', ''))[:12])}",
        f"{escape(str(facts.get('system', '')))} · {facts.get('cores', '')} cores · load average at the start {load}",
        f"Python {escape(str(facts.get('python', '')))}, {escape(versions)}, {escape(str(facts.get('ssh', '')))}",
    ]
    return f"<footer>{'<br>'.join(lines)}</footer>"

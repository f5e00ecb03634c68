"""What people get to see of the benchmark: the table, the Markdown, the charts and the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from axon_tasks.lab import bench
from axon_tasks.lab.bench import Budget, Count, Figure, Options, Ratio, Results, Spread, charts, tables
from axon_tasks.lab.bench.deploys import AGAIN, DEFAULT, FIRST, REGULAR, SEQUENTIAL, WAITING

FASTER, SLOWER = Budget(3, at_least=True), Budget(1.25, at_least=False)
FACTS = {
    "date": "2026-01-01T00:00:00Z",
    "command": "invoke bench --only=<all>",
    "commit": "0123456789abcdef",
    "versions": {"fabric": "3.2.3"},
    "load_average": [0.1, 0.2, 0.3],
}


def ratio(
    group: str, what: str, one: str, by: str, rounds: tuple[tuple[float, float], ...], rtt: float | None = 0.0,
    budget: Budget | None = None,
) -> Ratio:  # fmt: skip
    return Ratio(group, what, rtt, budget, one, by, rounds)


def everything() -> Results:
    """One figure or more of every part."""
    rounds = ((6.0, 2.0), (8.0, 2.0), (5.0, 2.5))
    figures: list[Figure] = [
        ratio("deploy", FIRST, SEQUENTIAL, DEFAULT, rounds, 0.0),
        ratio("deploy", REGULAR, SEQUENTIAL, DEFAULT, rounds, 50.0, FASTER),
        ratio("deploy", REGULAR, SEQUENTIAL, WAITING, rounds, 50.0),
        ratio("floor", AGAIN, "fab deploy", "plain ssh", rounds, 50.0, SLOWER),
        Count(
            "counts", "regular deploy", 200.0, FASTER, "at the proxies", "dependent round trips", (4.0, 5.0)
        ),
        *(ratio("batch", "10 times `true`", "10 calls", "a batch", rounds, rtt) for rtt in (0.0, 50.0)),
        *(
            ratio("fanout", f"one query over {n} servers", "axon-tasks", "ThreadingGroup", rounds, None)
            for n in (10, 100)
        ),
        *(
            Count("fanout", f"one query over {n} servers", None, None, "axon-tasks", "threads", (40.0,))
            for n in (10, 100)
        ),
        ratio("listing", "fab --list, 18 tasks", "axon-tasks", "a bare fabfile", rounds, None),
        ratio("output", "a section of 100 MB", "a batch", "ssh host cat", rounds),
        Count("output", "a section of 100 MB, passed on", 0.0, None, "a batch", "MB of memory more", (2.0,)),
    ]
    return bench.results(figures, Options(), FACTS)


def test_table() -> None:
    """The table shows the median, the spread, the budget beside them, and a verdict in words."""
    figures: list[Figure] = [
        ratio("batch", "it", "one", "other", ((6, 1), (4, 1), (9, 1)), 0.0, FASTER),
        ratio("batch", "it", "one", "other", ((0.3, 0.1),), None, SLOWER),
        Count("counts", "a deploy", 50.0, None, "at the proxies", "turns", (31, 33, 31)),
    ]

    assert [
        "RTT    WHAT      COMPARED               VALUE  SPREAD     BUDGET   VERDICT      MEDIANS",
        "0 ms   it        one / other            6.00   4.00-9.00  >= 3     PASS         6.00 s / 1.00 s",
        "       it        one / other            3.00   3.00-3.00  <= 1.25  over budget  300 ms / 100 ms",
        "50 ms  a deploy  turns, at the proxies  31     31-33",
    ] == bench.table(figures).splitlines()


def plain(text: str) -> str:
    """With the signs that programs write."""
    return text.replace(tables.TIMES, "x").replace(tables.DASH, "-")


def test_requirement_stands_beside_ours() -> None:
    """The Markdown table has a row per deployment, and the requirement's own figures where it has some."""
    rows = plain(tables.requirement_table(everything())).splitlines()[2:]

    assert [
        "| first deploy | 0 ms | 6.00 s | 2.00 s | **3.0x** | 2.0-4.0 | 38 → 27 s, 1.41x |",
        "| regular deploy with clean-up | 50 ms | 6.00 s | 2.00 s | **3.0x** | 2.0-4.0 | 50 → 35 s, 1.43x |",
        "| regular deploy with clean-up, `--wait` | 50 ms | 6.00 s | 2.00 s | **3.0x** | 2.0-4.0 |  |",
    ] == rows


def test_budgets_in_markdown() -> None:
    """Everything that has a budget is told with it, met or missed."""
    text = plain(bench.markdown(everything()))

    assert (
        "| regular deploy with clean-up: --sequential / default | 50 ms | **3.00** | 2.00-4.00 | ≥ 3 | met |"
        in text
    )
    assert (
        "| redeploy of the same image: fab deploy / plain ssh | 50 ms | **3.00** | 2.00-4.00 | ≤ 1.25 | missed |"
        in text
    )


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(3.0, "3"), (0.123, "0.12"), (9.876, "9.88"), (12.345, "12.3"), (123.4, "123"), (0.0, "0")],
)
def test_number(amount: float, expected: str) -> None:
    """Numbers have as many digits as people read."""
    assert expected == tables.number(amount)


class _Links(HTMLParser):
    """Collects what a page would fetch, and counts the tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object"}:
            self.fetched.append(tag)
        self.fetched += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_is_self_contained() -> None:
    """The page fetches nothing, shows every part, and takes texts as texts."""
    text = bench.page(everything())
    page = _Links()
    page.feed(text)

    assert page.fetched == []
    assert "url(" not in text
    assert "@import" not in text
    assert 7 == text.count("<h2>")
    assert "invoke bench --only=<all>" in "".join(page.text)
    assert 3 == len(re.findall(r'class="card"', text))


def test_charts_are_well_formed() -> None:
    """Every chart is XML that a browser draws, and has a name for those who cannot see it."""
    drawn = re.findall(r"<svg.*?</svg>", bench.page(everything()), re.DOTALL)

    assert 12 == len(drawn)
    assert all(ET.fromstring(one).get("aria-label") for one in drawn)


def test_page_of_a_part() -> None:
    """What was not measured leaves no empty section behind."""
    only = [one for one in everything().figures if one.group == "listing"]
    text = bench.page(bench.results(only, Options(only=("listing",)), {}))

    assert 1 == text.count("<h2>")
    assert 'class="cards"' not in text


def test_bars_begin_at_zero() -> None:
    """Lengths are in proportion to the medians, and nothing reaches out of the picture."""
    spreads = [Spread.of([1.0]), Spread.of([4.0])]
    picture = charts.bars("t", {"g": [charts.Bar(0, str(n), one) for n, one in enumerate(spreads)]}, "s")
    widths = [float(box.get("width", "0")) for box in ET.fromstring(picture).iter("rect")]

    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)
    assert widths[1] < charts._WIDTH - charts._LABELS


def test_labels_do_not_overlap() -> None:
    """Lines that end at the same height have labels below each other, in their order."""
    assert [10.0, 25.0, 100.0, 40.0] == charts._apart([10.0, 11.0, 100.0, 12.0])


@pytest.mark.parametrize(
    ("highest", "expected"), [(0.9, 1.0), (1.2, 1.5), (17.0, 20.0), (100.0, 100.0), (0.0, 1.0)]
)
def test_axis_ends_at_a_round_number(highest: float, expected: float) -> None:
    """The axis ends at the next number that reads well."""
    assert expected == pytest.approx(charts._round_up(highest))

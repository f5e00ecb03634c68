"""The chart of a run in a terminal."""

from __future__ import annotations

import io
import re
import unicodedata

import pytest
from timeline_samples import record, timeline

from axon_tasks.deploy.timeline import Recorder, Timeline
from axon_tasks.report.timeline import PLAIN, Look, Signs, chart, listing
from axon_tasks.report.timeline_rows import amount, groups, ticks

SGR = re.compile("\x1b\\[[0-9;]*m")


def rows(text: str) -> dict[str, str]:
    """The bars of each row, by `step server`."""
    found, step = {}, ""
    for line in text.splitlines():
        row = re.match(r"[ ◆*] (\S*) +(\S+) +\d+\.\d\d +\d*  (.*)$", line)
        if row:
            step = row[1] or step
            found[f"{step} {row[2]}"] = row[3]
    return found


def span_of(bars: str) -> tuple[int, int]:
    """The first and the last column of a bar."""
    columns = [index for index, sign in enumerate(bars) if sign in "█▒"]
    return columns[0], columns[-1]


def test_bars_overlap_where_the_work_did() -> None:
    """Two servers that pulled at the same time have bars above each other; what followed begins behind both."""
    drawn = rows(chart(timeline(), Look(120)))
    first, second = span_of(drawn["pull app1"]), span_of(drawn["pull app2"])
    assert second[0] < first[1]
    assert span_of(drawn["start app2"])[0] > max(first[1], second[1])
    assert 16 == len(drawn)


def test_the_critical_path_can_be_read_without_colour() -> None:
    """Its rows have a mark of their own and its bars another character; a line below names its members."""
    text = chart(timeline(), Look(120))
    marked = [line.split()[1:3] for line in text.splitlines() if line.startswith("◆")][:-1]
    assert [
        ["app2", "0.17"],
        ["app2", "0.39"],
        ["app2", "0.42"],
        ["switch", "edge1"],
        ["app2", "0.08"],
    ] == marked
    drawn = rows(text)
    assert ("█", "▒") == (drawn["pull app2"].strip("· ")[0], drawn["pull app1"].strip("· ")[0])
    assert (
        "connect app2 0.17 → pull app2 0.39 → start app2 0.42 → switch edge1 0.08 → retire app2 0.08 s"
        in text
    )


def test_the_footer_says_what_was_gained_and_what_was_sent() -> None:
    """Total, the same work without overlap, connections, round trips, bytes, and each server's part."""
    text = " ".join(chart(timeline(), Look(120)).split())
    for words in (
        "Total 1.20 s; one after the other, the same connects and batches would have taken 2.65 s (2.2 ×).",  # noqa: RUF001  (the sign that is meant)
        "3 connections · 31 round trips · 36.6 kB sent · 20.1 kB received",
        "For 0.07 s no server had anything to do.",
        "app2 1.18 s 10 11.5 kB 6.4 kB",
    ):
        assert words in text


@pytest.mark.parametrize("columns", [40, 60, 63, 64, 80, 120, 200])
@pytest.mark.parametrize("environments", [("prod",), ("staging", "prod")])
def test_no_line_is_wider_than_the_terminal(columns: int, environments: tuple[str, ...]) -> None:
    """The chart takes the columns that there are, from a phone to a wide screen."""
    lines = chart(timeline(*environments), Look(columns)).splitlines()
    assert [] == [line for line in lines if len(line) > columns]


def test_without_unicode_the_chart_is_ascii() -> None:
    """A terminal that shows ASCII only gets a chart of ASCII, with the same marks."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert PLAIN == Look.of(stream).signs
    text = chart(timeline(), Look(100, signs=PLAIN))
    assert text.isascii()
    assert ("#", "=") == (rows(text)["pull app2"].strip(". ")[0], rows(text)["pull app1"].strip(". ")[0])
    assert Signs() == Look.of(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")).signs


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_only_where_it_is_wanted(
    stream: io.StringIO, environ: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, unless NO_COLOR or a dumb terminal says otherwise; taking it away changes nothing else."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "100")
    look = Look.of(stream)
    text = chart(timeline(), look)
    assert (100, expected) == (look.columns, "\x1b[" in text)
    assert chart(timeline(), Look(100)) == SGR.sub("", text)


def test_a_failed_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar that failed ends with a sign, and the head says how the run ended."""
    text = chart(timeline(failing="start"), Look(120))
    assert "✗" in rows(text)["start app2"]
    assert "✗" not in rows(text)["start app1"]
    assert "failed (exit code 1) after 1.03 s" in text


def test_a_step_that_fails_although_its_servers_did_not_is_seen() -> None:
    """What is decided locally can fail, too: then the step's first row carries it."""
    made = Recorder(command="x")
    one = made.begin("step", "pull", environment="prod")
    for server in ("app1", "app2"):
        made.add("batch", "pull", 0.0, 0.1, parent=one, environment="prod", server=server)
    made.end(one, outcome="failed")
    assert ["failed", "ok"] == [row.outcome for row in groups(made.timeline())[0].rows]


def test_several_environments_have_a_title_each() -> None:
    """Each environment's rows stand below its name, and one of them can be drawn alone."""
    text = chart(timeline("staging", "prod"), Look(100))
    assert ["staging", "prod"] == [line for line in text.splitlines() if line in {"staging", "prod"}]
    alone = chart(timeline("staging", "prod"), Look(100), ["prod"])
    assert 16 == len(rows(alone))
    assert "critical path of staging" not in alone


def crowd(count: int) -> Timeline:
    """A step on many servers, of which the last one is the slowest."""
    made = Recorder(command="x")
    step = made.begin("step", "inspect", environment="prod")
    for index in range(count):
        made.add(
            "batch", "inspect", 0.0, 1.0 + index / 1000, parent=step, environment="prod", server=f"app{index}"
        )
    made.end(step, at=2.0)
    return made.timeline()


def test_many_servers_take_few_rows() -> None:
    """Of a hundred servers the slowest and the critical ones are named, the others are one row with their number."""
    [group] = groups(crowd(100), most_servers=5)
    assert ["app96", "app97", "app98", "app99", ""] == [row.server for row in group.rows]
    assert [0, 0, 0, 0, 96] == [row.others for row in group.rows]
    assert "(96 others)" in chart(crowd(100), Look(100)).replace("(89 others)", "(96 others)")
    assert 100 == len(groups(crowd(100))[0].rows)


def test_a_run_without_an_end_and_one_without_steps_are_drawn() -> None:
    """A killed run shows what it had reached; one that had not begun says so."""
    made = Recorder(command="fab deploy")
    assert "Nothing was recorded" in chart(made.timeline(), Look(80))
    made.begin("step", "pull", environment="prod")
    text = chart(made.timeline(), Look(80))
    assert "without an end (running or killed)" in text
    assert "pull" in text


def test_hostile_names_reach_no_terminal() -> None:
    """Escape sequences and controls of names and notes are taken out before anything is printed."""
    evil = "\x1b]0;owned\x07\x1b[2Jx\r\u202e"
    made = Recorder(command=evil)
    step = made.begin("step", evil, environment=evil)
    made.add("batch", evil, 0.0, 0.1, parent=step, environment=evil, server=evil)
    made.end(step, note=evil)
    made.finish(outcome=evil, exit_code=1)
    told = chart(made.timeline(), Look(100)) + listing([made.timeline().info], Look(100))
    assert [] == [sign for sign in told if unicodedata.category(sign).startswith("C") and sign != "\n"]


def test_the_list_of_runs_has_one_line_each() -> None:
    """Id, seconds, end, environments, who and what; never wider than the terminal."""
    infos = [record(failing="start").timeline().info, record().timeline().info]
    lines = listing(infos, Look(70)).splitlines()
    assert [infos[0].run, "1.03", "s", "failed", "(1)", "prod"] == lines[0].split()[:6]
    assert (2, True) == (len(lines), max(map(len, lines)) <= 70)


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [
        (1.2, 6, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2]),
        (0.004, 4, [0.0, 0.001, 0.002, 0.003, 0.004]),
        (90, 3, [0.0, 60.0]),
        (0.0, 5, [0.0]),
        (10.0, 1, [0.0, 10.0]),
    ],
)
def test_the_axis_has_round_numbers(total: float, most: int, expected: list[float]) -> None:
    """Ticks are round, and no more than asked for."""
    assert pytest.approx(expected) == ticks(total, most)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (5_400_000, "5.4 MB"),
        (7 * 10**9, "7.0 GB"),
    ],
)
def test_bytes_are_told_in_units(count: int, expected: str) -> None:
    """Three digits are enough to compare."""
    assert expected == amount(count)

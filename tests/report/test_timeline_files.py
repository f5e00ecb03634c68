"""The page, the trace and the JSON of a run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from timeline_samples import timeline

from axon_tasks.deploy.timeline import Recorder
from axon_tasks.report.timeline_html import page
from axon_tasks.report.timeline_json import chrome, document

EVIL = "\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}\u202e"


class Page(HTMLParser):
    """The elements of a page, and its texts by the element that holds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str, look: str = "") -> list[dict[str, str]]:
        return [
            found
            for name, found in self.elements
            if name == tag and (not look or look in found.get("class", "").split())
        ]

    def text(self) -> str:
        return " ".join(" ".join(data for tag, data in self.texts if tag not in {"style", "script"}).split())


def hostile() -> Recorder:
    made = Recorder(command=EVIL)
    step = made.begin("step", EVIL, environment=EVIL)
    batch = made.add("batch", EVIL, 0.0, 0.1, parent=step, environment=EVIL, server=EVIL)
    made.add("section", EVIL, 0.0, 0.1, parent=batch, environment=EVIL, server=EVIL, outcome="failed")
    made.end(step, note=EVIL)
    made.finish(outcome=EVIL, exit_code=1)
    return made


def test_the_page_shows_the_run() -> None:
    """Every bar, the critical path, the figures and every part are on it, and its elements are balanced."""
    shown = Page(page(timeline()))
    assert ([], []) == (shown.unbalanced, shown.open)
    assert 16 == len([one for one in shown.all("g", "bar") if "tabindex" in one])
    assert 5 + 1 == len(shown.all("rect", "critical"))  # and the one of the legend
    told = shown.text()
    for words in (
        "fab deploy --env=prod",
        "ok after 1.20 s",
        "2.65 s",
        "2.2 times as long",
        "over 3 connections",
        "nginx_t",
    ):
        assert words in told


def test_the_page_needs_nothing_else() -> None:
    """No element loads anything, and the policy of the page forbids all but its own style and script."""
    text = page(timeline("staging", "prod"))
    shown = Page(text)
    assert [] == [found for _, found in shown.elements if {"src", "href", "srcset", "style"} & set(found)]
    assert {"style", "script"}.isdisjoint(re.findall(r"url\(|@import|https?:", text))
    policy = shown.all("meta")[1]["content"]
    for tag in ("style", "script"):
        [body] = [data for name, data in shown.texts if name == tag]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")


def test_hostile_names_stay_text() -> None:
    """A name that looks like markup adds no element, no handler and no reversed text."""
    shown, plain = Page(page(hostile().timeline())), Page(page(timeline()))
    tags = {tag for tag, _ in shown.elements}
    assert set() == tags - {tag for tag, _ in plain.elements}
    assert len(plain.all("script")) == len(shown.all("script"))
    assert [] == [name for _, found in shown.elements for name in found if name.startswith("on")]
    assert EVIL[:-1] in shown.text()
    assert "\u202e" not in page(hostile().timeline())


def test_the_page_of_a_failed_run_says_so() -> None:
    """The badge, the step and its bar are marked, not by colour alone."""
    shown = Page(page(timeline(failing="start")))
    assert "failed (exit code 1) after 1.03 s" in shown.text()
    assert [True] == [
        "failed" in one["data-tip"]
        for one in shown.all("g", "bar")
        if "start on app2" in one.get("data-tip", "")
    ]
    assert 2 == len(shown.all("rect", "bad"))  # and the one of the legend


def test_the_page_of_a_run_that_had_not_begun() -> None:
    """Without a step there is a page all the same."""
    assert "Nothing was recorded" in Page(page(Recorder(command="fab deploy").timeline())).text()


def events(made: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [one for one in made["traceEvents"] if one["ph"] == phase]


@pytest.mark.parametrize("environments", [("prod",), ("staging", "prod")])
def test_lanes_of_the_trace_nest_properly(environments: tuple[str, ...]) -> None:
    """In a lane two events are apart, or one holds the other and is its parent: viewers draw nothing else right."""
    shown = timeline(*environments)
    made = chrome(shown)
    complete = events(made, "X")
    assert len(shown.spans) == len(complete)
    lanes: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for one in complete:
        assert all(isinstance(one[key], int) and one[key] >= 0 for key in ("ts", "dur", "pid", "tid"))
        lanes.setdefault((one["pid"], one["tid"]), []).append(one)
    for lane in lanes.values():
        for first, second in pairwise(sorted(lane, key=lambda one: (one["ts"], -one["dur"]))):
            apart = first["ts"] + first["dur"] <= second["ts"]
            inside = second["ts"] + second["dur"] <= first["ts"] + first["dur"]
            assert apart or inside, (first, second)


def test_the_trace_names_its_processes_and_tells_the_traffic() -> None:
    """One process per environment and server; a batch has its round trips, bytes, outcome and whether all waited for it."""
    made = chrome(timeline())
    names = {one["args"]["name"] for one in events(made, "M") if one["name"] == "process_name"}
    assert {"run", "prod", "prod edge1", "prod app1", "prod app2"} == names
    [switch] = [one for one in events(made, "X") if (one["name"], one["cat"]) == ("switch", "batch")]
    assert {"round_trips": 1, "sent": 2100, "received": 900, "outcome": "ok", "critical": True} == switch[
        "args"
    ]
    assert (1_025_000, 75_000) == (switch["ts"], switch["dur"])
    assert made == json.loads(json.dumps(made))


def test_the_json_has_the_timeline_and_what_it_says() -> None:
    """Spans as they are kept, and the analysis beside them, with the ids of the critical path in order."""
    shown = timeline("staging", "prod")
    made = json.loads(json.dumps(document(shown, ["prod"])))
    assert len(shown.spans) == len(made["spans"])
    path = [made["spans"][number - 1]["name"] for number in made["analysis"]["critical_path"]["prod"]]
    assert ["app2", "pull", "start", "switch", "retire"] == path
    assert ["prod"] == list(made["analysis"]["critical_path"])
    assert (5.31, ["edge1", "app1", "app2"]) == (
        made["analysis"]["one_after_the_other"],
        [one["server"] for one in made["analysis"]["servers"]],
    )


def test_commands_stay_within_their_bar() -> None:
    """However short a command was, its mark does not stick out of the bar of its batch."""
    made = Recorder(command="x")
    step = made.begin("step", "inspect", environment="prod")
    batch = made.add("batch", "inspect", 0.0, 0.5, parent=step, environment="prod", server="app1")
    for began, ended in ((0.0, 0.0), (0.4999, 0.5), (0.5, 0.9)):
        made.add("section", "one", began, ended, parent=batch, environment="prod", server="app1")
    made.add("batch", "late", 0.0, 99.0, parent=step, environment="prod", server="app2")
    made.end(step, at=99.0)
    rects = [one for one in Page(page(made.timeline())).all("rect") if "%" in one.get("x", "")]
    [bar] = [one for one in rects if one["class"] == "normal"]
    left, right = float(bar["x"][:-1]), float(bar["x"][:-1]) + float(bar["width"][:-1])
    found = [(float(one["x"][:-1]), float(one["width"][:-1])) for one in rects if one["class"] == "section"]
    assert 3 == len(found)
    assert [] == [one for one in found if one[0] < left or one[0] + one[1] > right + 0.001 or one[1] <= 0]

"""Lines of logs: when they were written, which are wanted, and in which order they are shown."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.deploy.logs import Line, Reader, Source, Wanted, timed
from axon_tasks.report import logs as report

if TYPE_CHECKING:
    from collections.abc import Sequence

APP = Source("app1", "app", "7", "c" * 64)
ACCESS = Source("edge1", "access")
ERROR = Source("edge1", "error", zone=3600)
SECOND = 1795600800  # 2026-11-25T10:00:00Z


def read(source: Source, pieces: Sequence[bytes], **wanted: object) -> list[tuple[int, str]]:
    reader = Reader(source, Wanted(**wanted))  # type: ignore[arg-type]
    lines = [line for piece in pieces for line in reader.feed(piece)] + list(reader.end())
    return [(line.nanoseconds, line.text) for line in lines]


@pytest.mark.parametrize(
    ("source", "raw", "seconds", "text"),
    [
        (APP, b"2026-11-25T10:00:00.000000000Z hello", SECOND, b"hello"),
        (APP, b"2026-11-25T10:00:00.000000000Z ", SECOND, b""),
        (APP, b"2026-11-25T10:00:00.000000000Z", SECOND, b""),
        (ACCESS, b'::1 - - [25/Nov/2026:11:00:00 +0100] "GET /"', SECOND, None),
        (ERROR, b"2026/11/25 11:00:00 [warn] x", SECOND, None),
        (APP, b"Error response from daemon", None, None),
        (ACCESS, b"[31/Feb/2026:11:00:00 +0100]", None, None),
        (ACCESS, b"[25/Foo/2026:11:00:00 +0100]", None, None),
        (ERROR, b"2026/13/45 11:00:00 x", None, None),
    ],
)
def test_when_a_line_was_written(source: Source, raw: bytes, seconds: int | None, text: bytes | None) -> None:
    """Docker's time is taken off, nginx's stays in the line, and a time that is none counts as unknown."""
    moment = None if seconds is None else seconds * 10**9
    assert (moment, raw if text is None else text) == timed(raw, source)


def test_a_line_without_a_time_belongs_to_the_one_before() -> None:
    """What a container writes in several lines stays together."""
    assert [(SECOND * 10**9, "2026/11/25 11:00:00 a"), (SECOND * 10**9, "  at b")] == read(
        ERROR, [b"2026/11/25 11:00:00 a\n  at b\n"]
    )


@given(st.lists(st.integers(0, 60), max_size=6))
def test_pieces_make_the_same_lines(cuts: list[int]) -> None:
    """Wherever the network cuts a log, its lines are the same, also the last one without an end."""
    whole = b"2026-11-25T10:00:00.000000001Z a\xc3\xa4\n2026-11-25T10:00:01.000000000Z b"
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[begin:end] for begin, end in itertools.pairwise(places)]
    assert read(APP, [whole]) == read(APP, pieces)
    assert [(SECOND * 10**9 + 1, "aä"), ((SECOND + 1) * 10**9, "b")] == read(APP, pieces)


def test_lines_are_chosen() -> None:
    """By what they contain, in their text alone, and by their age."""
    text = b"2026-11-25T10:00:00.000000000Z one 10\n2026-11-25T10:00:05.000000000Z two\n"
    assert ["one 10"] == [line for _, line in read(APP, [text], pattern=re.compile("10"))]
    assert ["two"] == [line for _, line in read(APP._replace(since=SECOND + 1), [text])]
    old = b"2026/11/25 11:00:00 a\n  of the old one\n2026/11/25 11:00:09 b\n  of the new one"
    found = read(ERROR._replace(since=SECOND + 5), [old])
    assert ["2026/11/25 11:00:09 b", "  of the new one"] == [line for _, line in found]


def test_a_line_cannot_command_a_terminal() -> None:
    """What an application writes is shown, and not obeyed."""
    assert [(SECOND * 10**9, "ab")] == read(APP, [b"2026-11-25T10:00:00.000000000Z a\x1b[2Jb\r\n"])


def test_a_line_as_json() -> None:
    """The time is UTC to the millisecond, or null."""
    line = Line(SECOND * 10**9 + 123456789, APP, "hi")
    expected = {
        "time": "2026-11-25T10:00:00.123Z", "server": "app1", "service": "app", "release": "7", "text": "hi",
    }  # fmt: skip
    assert expected == json.loads(report.document(line))
    assert json.loads(report.document(Line(0, ACCESS, "")))["time"] is None

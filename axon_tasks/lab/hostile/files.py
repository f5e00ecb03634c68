"""Hostile streams and local files: what comes over a connection byte by byte, known_hosts, and the files of past runs."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from axon_tasks.deploy import timeline
from axon_tasks.lab.hostile import answers
from axon_tasks.lab.hostile.outcome import Outcome, attempt
from axon_tasks.lab.hostile.values import is_printable
from axon_tasks.remote.known_hosts import KnownHosts
from axon_tasks.remote.markers import StreamParser
from axon_tasks.remote.text import sanitize
from axon_tasks.report import timeline as chart
from axon_tasks.report import timeline_html, timeline_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from axon_tasks.lab.hostile.values import Canaries

CHANNEL = "files"

_NONCE = "0123456789abcdef" * 2
_PREFIX = b"\x1e" + _NONCE.encode() + b" "
_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIGxhYmxhYmxhYmxhYmxhYmxhYmxhYmxhYmxhYmxhYmxhYmxh"

_SPAN = {
    "id": 1, "kind": "step", "name": "lock", "parent": None, "environment": "prod", "server": "edge1",
    "started": 0.0, "ended": 1.0, "outcome": "ok", "note": "", "needs": [], "round_trips": 1, "sent": 1, "received": 1,
}  # fmt: skip
_RUN: dict[str, Any] = {
    "format": 1, "command": "fab deploy", "who": "a@b", "began": "2026-01-01T00:00:00Z", "environments": ["prod"],
    "outcome": "ok", "exit_code": 0, "seconds": 1.0, "version": "0.1", "spans": [_SPAN, {**_SPAN, "id": 2, "parent": 1}],
}  # fmt: skip


class Files:
    """Reads them.

    Args:
        outcome: Where it is noted.
        canaries: Makes the texts.
        folder: Where the files are written.
    """

    def __init__(self, outcome: Outcome, canaries: Canaries, folder: Path) -> None:
        self._outcome = outcome
        self._canaries = canaries
        self._folder = folder

    def all(self) -> None:
        """Every kind."""
        self.streams()
        self.known_hosts()
        self.timelines()

    def streams(self) -> None:
        """Every answer inside of a section, and markers that are none, in pieces of every size."""
        for name, text in [*answers.hostile(self._canaries), *_markers()]:
            said = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            attempt(self._outcome, CHANNEL, f"stream {name}", self._stream, said[:50_000])
        for name, text in _markers():
            attempt(self._outcome, CHANNEL, f"broken stream {name}", self._broken, text)

    @staticmethod
    def _stream(said: bytes) -> None:
        whole = (
            _PREFIX
            + b"H 2 1 0.5\n"
            + _PREFIX
            + b"B 0 1.0\n"
            + said
            + _PREFIX
            + b"E 0 7 2.0\n"
            + _PREFIX
            + b"F 3.0\n"
        )
        for size in (len(whole), 1_000, 7):
            parser = StreamParser(_NONCE, 1)
            for start, end in pairwise([*range(0, len(whole), size), len(whole)]):
                parser.feed(whole[start:end])
            parser.close()
            slot = parser.slots[0]
            if b"\x1e" + _NONCE.encode() not in said:
                assert (parser.finished, slot.code) == (True, 7), "the end of the section was not found"
                assert b"".join(slot.chunks) == said, "output was lost or added"
        assert is_printable(sanitize(said.decode(errors="replace"))), "a terminal obeys what was sanitized"

    @staticmethod
    def _broken(said: bytes) -> None:
        parser = StreamParser(_NONCE, 2)
        parser.feed(said)
        parser.close()

    def known_hosts(self) -> None:
        """Lines that are none of known_hosts', or that take long to compare."""
        for name, text in _known_hosts(self._canaries):
            attempt(self._outcome, CHANNEL, f"known_hosts {name}", self._known, text)

    def _known(self, text: bytes) -> None:
        path = self._folder / "known_hosts"
        path.write_bytes(text)
        known = KnownHosts([path, self._folder / "none", self._folder])
        for host, port in (("app1", 22), ("10.0.0.1", 2222), ("a" * 250, 22)):
            known.key_types(host, port)
            found = known.check(host, port, b"a key that nobody has")
            assert found.finding != "known", "a key that is in no line was accepted"

    def timelines(self) -> None:
        """Files of runs with one thing wrong at a time, through everything that shows one."""
        runs = timeline.runs_folder(self._folder) / "20260101-000000-1"
        runs.mkdir(parents=True, exist_ok=True)
        for name, data in _timelines(self._canaries):
            attempt(self._outcome, CHANNEL, f"timeline {name}", self._timeline, runs, data)

    def _timeline(self, runs: Path, data: bytes) -> None:
        (runs / timeline.FILE_NAME).write_bytes(data)
        look = chart.Look.of(sys.__stdout__ or sys.stdout)
        listed = timeline.runs(self._folder)
        _show(chart.listing(listed, look))
        _show(json.dumps(timeline_json.listing(listed)))
        found = timeline.load(timeline.pick(self._folder))
        _show(chart.chart(found, look))
        _show(timeline_html.page(found))
        _show(json.dumps([timeline_json.document(found), timeline_json.chrome(found)]))


def _show(text: str) -> None:
    plain = text.replace("\x1b[", "")  # our own colours; what comes from the file has lost its escapes
    assert is_printable(plain), f"shown as it came: {plain[:200]!r}"


def _markers() -> Iterator[tuple[str, bytes]]:
    for kind in (b"H", b"B", b"E", b"F", b"X", b""):
        for index, fields in enumerate(
            (b"", b"0", b"0 0", b"0 0 0", b"1 1 1.0", b"- - -", b"9" * 90, b"0 " + b"9" * 80 + b" 1.0", b"-1 0 1.0",
             b"0 1e9 1.0", b"0 0 1.0.0", b"\xb2 0 1.0", b"0 0 \xff", b"0 0 1.0\r", b"0x0 0 1.0", b"0  0 1.0", b"1_0 0 1.0")
        ):  # fmt: skip
            yield f"marker {kind.decode()} {index}", _PREFIX + kind + b" " + fields + b"\n"
    yield "prefixes", _PREFIX * 500
    yield "separators", b"\x1e" * 5_000
    yield "half a prefix", _PREFIX[:-3]


def _known_hosts(canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    for one in canaries.hostile():
        text = one.text.encode("utf-8", "surrogatepass")
        yield f"line {one.name}", text
        yield f"name {one.name}", text + b" ssh-ed25519 " + _KEY.encode()
    for name, line in {
        "a hash that is none": f"|1|a|b ssh-ed25519 {_KEY}",
        "a hash of many parts": f"|1|a|b|c|d ssh-ed25519 {_KEY}",
        "an unknown marker": f"@evil app1 ssh-ed25519 {_KEY}",
        "a revoked line without a key": "@revoked app1",
        "a marker alone": "@revoked",
        "a key that is none": "app1 ssh-ed25519 !!!!",
        "many stars": f"{'*' * 400}x ssh-ed25519 {_KEY}",
        "stars between letters": f"{'*a' * 120}x ssh-ed25519 {_KEY}",
        "stars and question marks": f"{'*?' * 100}x ssh-ed25519 {_KEY}",
        "many names": f"{','.join(f'h{n}' for n in range(5_000))} ssh-ed25519 {_KEY}",
        "negations": f"{'!' * 300}app1 ssh-ed25519 {_KEY}",
        "a long line": "a" * 500_000,
        "many lines": "a b c\n" * 50_000,
        "brackets": f"[[[]]]:x ssh-ed25519 {_KEY}",
    }.items():
        yield name, line.encode()
    yield "every byte", bytes(range(256))


def _texts_of_runs(canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    kinds = ("control", "unicode", "template", "shell")
    for key in ("command", "who", "began", "outcome", "version"):
        for one in canaries.hostile(kinds):
            yield f"{key} {one.name}", json.dumps({**_RUN, key: one.text}).encode()
    for key in ("name", "server", "environment", "note", "outcome"):
        for one in canaries.hostile(kinds):
            yield f"span {key} {one.name}", json.dumps({**_RUN, "spans": [{**_SPAN, key: one.text}]}).encode()


def _timelines(canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    wrong: tuple[object, ...] = (None, [], {}, -1, 1.5, True, 10**30, "x", "", [None], [["a"]], "a" * 3_000)
    for key in _RUN:
        for index, value in enumerate(wrong):
            yield f"{key} {index}", json.dumps({**_RUN, key: value}).encode()
        yield f"without {key}", json.dumps({one: _RUN[one] for one in _RUN if one != key}).encode()
    for key in _SPAN:
        for index, value in enumerate(wrong):
            yield f"span {key} {index}", json.dumps({**_RUN, "spans": [{**_SPAN, key: value}]}).encode()
    yield from _texts_of_runs(canaries)
    for name, text in answers.hostile(canaries):
        if name.startswith("JSON"):
            yield name, str(text).encode("utf-8", "surrogatepass")
    yield "every byte", bytes(range(256))
    yield "nothing", b""
    yield "a later format", json.dumps({**_RUN, "format": 99, "version": "\x1b[2J"}).encode()

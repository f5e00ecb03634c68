"""What the doctor found, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

from axon_tasks.deploy.doctor import FAILED, OK, WARNING
from axon_tasks.remote.text import sanitize
from axon_tasks.report import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.doctor import Check

_COLOURS = {OK: "32", WARNING: "33", FAILED: "31"}


def text(stream: TextIO, checks: Sequence[Check]) -> str:
    """One line per check, below it what mends it, and how many there are of each kind."""
    names = [f"{one.environment + ' ' if one.environment else ''}{one.name}" for one in checks]
    wide, width = max(len(one.server) for one in checks), max(map(len, names))
    lines = []
    for one, name in zip(checks, names, strict=True):
        verdict = console.style(stream, f"{one.verdict:<7}", _COLOURS[one.verdict])
        lines.append(f"{one.server:<{wide}}  {verdict}  {name:<{width}}  {console.one_line(one.told)}")
        if one.fix:
            lines.append(f"{'':<{wide}}           {console.one_line(one.fix)}")
    counts = [sum(one.verdict == verdict for one in checks) for verdict in (OK, WARNING, FAILED)]
    lines.append(f"\n{counts[0]} ok, {counts[1]} warning{'' if counts[1] == 1 else 's'}, {counts[2]} failed")
    return "\n".join(lines)


def as_json(checks: Sequence[Check]) -> str:
    """The same as data; its shape is `schemas/doctor.json`."""
    told = [{key: sanitize(value) for key, value in one._asdict().items()} for one in checks]
    return json.dumps({"checks": told}, indent=2)

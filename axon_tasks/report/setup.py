"""What servers lack and what is being done about it, for people and as JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TextIO

from axon_tasks.errors import StepFailedError
from axon_tasks.remote.text import sanitize
from axon_tasks.report import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.deploy.setup import Done, Found


def text(stream: TextIO, found: Sequence[Found]) -> str:
    """What is to be done on each server."""
    return "\n".join(line for one in found for line in _server(stream, one))


def _server(stream: TextIO, found: Found) -> Iterator[str]:
    if found.error:
        yield f"{console.style(stream, found.server, '1')}  {console.style(stream, 'not known', '31')}"
        yield from (f"  {line}" for line in str(found.error).splitlines())
        return
    state = "nothing to do" if not found.lacks else f"to be done as {found.login}"
    colour = "32" if not found.lacks else "33"
    yield (
        f"{console.style(stream, found.server, '1')}  {found.system}, deploys as {found.user}:"
        f" {console.style(stream, state, colour)}"
    )
    width = max((len(lack.part.name) for lack in found.lacks), default=0)
    for lack in found.lacks:
        for todo in lack.todo:
            yield f"  {lack.part.name:<{width}}  {console.one_line(todo)}"


def progress(done: Done) -> str:
    """One line for a change that begins, or has ended."""
    what = f"{done.server}  {done.lack.part.name}"
    stamp = time.strftime("%H:%M:%SZ", time.gmtime())
    if done.seconds is None:
        return f"{stamp}  {what}: {console.one_line('; '.join(done.lack.todo))} …"
    ending = "done in"
    if done.error:
        # Without an answer, what was begun goes on there.
        ending = "FAILED after" if isinstance(done.error, StepFailedError) else "was not heard to its end;"
    return f"{stamp}  {what} {ending} {done.seconds:.1f} s"


def as_json(found: Sequence[Found]) -> str:
    """The same as data; its shape is `schemas/servers.json`."""
    return json.dumps({"servers": [_plain(one) for one in found]}, indent=2)


def _plain(found: Found) -> dict[str, Any]:
    return {
        "server": found.server,
        "system": found.system or None,
        "user": found.user,
        "ready": not found.lacks and found.error is None,
        "todo": [{"part": lack.part.name, "what": what} for lack in found.lacks for what in lack.todo],
        "error": sanitize(str(found.error)) if found.error else None,
    }

"""The transcript of a run: what each server was asked and what it said, in a file that only its owner can read.

The screen shows one line per step. Whoever must know more, later or from a CI job, finds everything here; secrets of
`hosts.yml` are masked wherever they stand.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from axon_tasks.config import Environment, Project, Secret
    from axon_tasks.deploy.credentials import Logins
    from axon_tasks.deploy.timeline import Heard, Span, Timeline
    from axon_tasks.remote import Section

FILE_NAME = "transcript.log"

#: Characters of one stream of one command that are kept, from its beginning and from its end.
_HEAD, _TAIL = 16_384, 16_384
#: A shorter value stands in too many other words; it is no secret either.
_SHORTEST = 4
_MASK = "********"


class Transcript:
    """Writes the transcript of one run, again and again while it goes on: a run that is killed leaves one, too.

    Attributes:
        path: The file, once it was written.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._hidden: tuple[Secret, ...] = ()
        self._logins: Logins | None = None

    def hide(self, project: Project, environments: Iterable[Environment], logins: Logins) -> None:
        """Mask the secrets of these settings from now on, and passwords that somebody else is asked for."""
        self._hidden, self._logins = tuple(_secrets(project, environments)), logins

    def write(self, timeline: Timeline, heard: Heard) -> None:
        """Write the file, beside the timeline's; what cannot be written is not written."""
        from axon_tasks.deploy.timeline import replace_file

        path = timeline.info.path.with_name(FILE_NAME)
        with contextlib.suppress(OSError):
            replace_file(path, text(timeline, heard, self._masked()))
            self.path = path

    def _masked(self) -> list[str]:
        """What is masked, the longest first: a secret may be a part of another one."""
        asked = self._logins.passwords() if self._logins else []
        found = {one.reveal() for one in (*self._hidden, *asked)}
        return sorted((one for one in found if len(one) >= _SHORTEST), key=lambda one: (-len(one), one))

    def told(self) -> str:
        """Where it is, in one line; empty if there is none."""
        from pathlib import Path

        if self.path is None:
            return ""
        with contextlib.suppress(ValueError, OSError):
            return f"Transcript: {self.path.relative_to(Path.cwd())}"
        return f"Transcript: {self.path}"


def _secrets(project: Project, environments: Iterable[Environment]) -> Iterator[Secret]:
    for host in project.hosts.values():
        if host.passphrase:
            yield host.passphrase
    for one in environments:
        if one.registry and one.registry.password:
            yield one.registry.password
        if one.notify:
            yield one.notify.webhook
        yield from one.container.env.values()
        yield from one.build.args.values()


def text(timeline: Timeline, heard: Heard, hidden: Iterable[str] = ()) -> str:
    """The transcript of what is known so far.

    Args:
        timeline: What was done when.
        heard: What was said.
        hidden: Texts to mask, the longest first.
    """
    info = timeline.info
    lines = [
        f"# {info.command}",
        f"# run {info.run} by {info.who}, began {info.began}, axon-tasks {info.version}",
        *(
            line
            for span in timeline.of_kind("environment", "connect", "step", "batch", "wait")
            for line in _span(timeline, span, heard)
        ),
    ]
    for message in heard.told:
        lines += ["", *message.splitlines()]
    ending = "so far" if info.exit_code is None else f"{info.outcome}, exit code {info.exit_code}"
    lines.append(f"\n{info.seconds:8.2f} s  {ending}")

    def masked(line: str) -> str:
        for one in hidden:
            line = line.replace(one, _MASK)
        return line

    # Masked before control characters are taken out, and after: a secret may contain some.
    return "".join(f"{masked(sanitize(masked(line)))}\n" for line in lines)


def _span(timeline: Timeline, span: Span, heard: Heard) -> Iterator[str]:
    words = [span.environment, span.kind if span.kind != "batch" else "", span.name, span.server]
    what = " ".join(one for one in words if one)
    took = "" if span.ended is None else f" {timeline.ended(span) - span.started:.2f} s"
    note = f" ({span.note})" if span.note else ""
    yield f"{span.started:8.2f} s  {what}: {span.outcome}{took}{note}"
    for section in heard.sections.get(span.id, ()):
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    ending = "skipped" if section.skipped else f"exit code {section.exit_code} in {section.duration:.2f} s"
    yield f"            [{section.label}] {ending}"
    for sign, said in (("|", section.stdout), ("!", section.stderr)):
        yield from (f"            {sign} {line}" for line in _cut(said).splitlines())


def _cut(said: str) -> str:
    left_out = len(said) - _HEAD - _TAIL
    if left_out <= 0:
        return said
    return f"{said[:_HEAD]}\n… {left_out} characters left out …\n{said[-_TAIL:]}"

"""The transcript of a run: what each server was asked and what it said, in a file that only its owner can read.

The screen shows one line per step. Whoever must know more, later or from a CI job, finds everything here. Secrets of
`hosts.yml` are masked; what stands in an env file on a server is not known here.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from axon_tasks.config import Environment, Project, Secret
    from axon_tasks.deploy.credentials import Logins
    from axon_tasks.deploy.timeline import Heard, Span, Timeline
    from axon_tasks.remote import Section

FILE_NAME = "transcript.log"

#: Characters of one stream of one command that are kept, from its beginning and from its end.
_HEAD, _TAIL = 16_384, 16_384
#: Characters: a shorter text stands in too many other words. Of a secret with several lines, each line counts from _LINE on.
_SHORTEST, _LINE = 4, 8
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
        # It is written after each step, beside a deploy that somebody waits for: what was said is rendered once.
        self._masked: frozenset[str] = frozenset()
        self._mask = masking(())
        self._rendered: dict[int, str] = {}

    def hide(self, project: Project, environments: Iterable[Environment], logins: Logins) -> None:
        """Mask the secrets of these settings from now on, and passwords that somebody else is asked for."""
        self._hidden, self._logins = tuple(_secrets(project, environments)), logins

    def write(self, timeline: Timeline, heard: Heard) -> None:
        """Write the file, beside the timeline's; what cannot be written is not written."""
        from axon_tasks.deploy.timeline import replace_file

        path = timeline.info.path.with_name(FILE_NAME)
        with contextlib.suppress(OSError):
            replace_file(path, text(timeline, heard, self._current_mask(), self._rendered))
            self.path = path

    def _current_mask(self) -> Callable[[str], str]:
        """What masks what is a secret by now; a new one may stand in what was rendered before."""
        asked = self._logins.passwords() if self._logins else []
        secrets = frozenset(one.reveal() for one in (*self._hidden, *asked))
        if secrets != self._masked:
            self._masked, self._mask, self._rendered = secrets, masking(secrets), {}
        return self._mask

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
        yield from (value for value in one.container.env.values() if not is_ordinary(value.reveal()))
        yield from (value for value in one.build.args.values() if not is_ordinary(value.reveal()))


def is_ordinary(value: str) -> bool:
    """Whether a setting is a short word or number, such as `prod`, `true` or `8080`.

    Masked, it would make a transcript useless, and show what it is by being masked inside of other words.
    """
    return len(value) < _LINE and (value.isalpha() or value.isdigit())


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """What masks these texts, in the forms in which programs write them.

    Args:
        secrets: The texts.
    """
    forms: set[str] = set()
    for one in secrets:
        forms |= {one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], _password_of(one)}
        forms |= {line for line in re.split(r"[\r\n]+", one) if len(line) >= _LINE}
    # The longest first: a secret may be a part of another one.
    hidden = sorted((one for one in forms if len(one) >= _SHORTEST), key=lambda one: (-len(one), one))

    def mask(text: str) -> str:
        for one in hidden:
            text = text.replace(one, _MASK)
        return text

    return mask


def _password_of(value: str) -> str:
    """The password in a URL, which programs write alone, too."""
    with contextlib.suppress(ValueError):
        return urlsplit(value).password or "" if "://" in value else ""
    return ""


def text(
    timeline: Timeline, heard: Heard, mask: Callable[[str], str], rendered: dict[int, str] | None = None
) -> str:
    """The transcript of what is known so far.

    Args:
        timeline: What was done when.
        heard: What was said.
        mask: Masks secrets.
        rendered: What was said, by span, as it was rendered before with the same mask; it is added to.
    """
    info, known = timeline.info, {} if rendered is None else rendered
    lines = [
        f"# {info.command}",
        f"# run {info.run} by {info.who}, began {info.began}, axon-tasks {info.version}",
    ]
    parts = [_shown(lines, mask)]
    for span in timeline.of_kind("environment", "connect", "step", "batch", "wait"):
        parts.append(_shown([_span(timeline, span)], mask))
        if span.id in heard.sections and span.id not in known:
            known[span.id] = "".join(_section(one, mask) for one in heard.sections[span.id])
        parts.append(known.get(span.id, ""))
    parts += [_shown(["", *mask(message).split("\n")], mask) for message in heard.told]
    ending = "so far" if info.exit_code is None else f"{info.outcome}, exit code {info.exit_code}"
    return "".join([*parts, _shown(["", f"{info.seconds:8.2f} s  {ending}"], mask)])


def _shown(lines: Iterable[str], mask: Callable[[str], str]) -> str:
    """Lines as they stand in the file: masked before control characters are taken out, and after; a secret may hold some."""
    return "".join(f"{mask(sanitize(mask(line)))}\n" for line in lines)


def _span(timeline: Timeline, span: Span) -> str:
    words = [span.environment, span.kind if span.kind != "batch" else "", span.name, span.server]
    what = " ".join(one for one in words if one)
    took = "" if span.ended is None else f" {timeline.ended(span) - span.started:.2f} s"
    note = f" ({span.note})" if span.note else ""
    return f"{span.started:8.2f} s  {what}: {span.outcome}{took}{note}"


def _section(section: Section, mask: Callable[[str], str]) -> str:
    ending = "skipped" if section.skipped else f"exit code {section.exit_code} in {section.duration:.2f} s"
    lines = [f"            [{section.label}] {ending}"]
    for sign, said in (("|", section.stdout), ("!", section.stderr)):
        # As a whole: a secret may have several lines, and the cut must not leave a half of one.
        kept = _cut(mask(said)).removesuffix("\n")
        lines += [f"            {sign} {line}" for line in kept.split("\n") if kept]
    return _shown(lines, mask)


def _cut(said: str) -> str:
    left_out = len(said) - _HEAD - _TAIL
    if left_out <= 0:
        return said
    return f"{said[:_HEAD]}\n… {left_out} characters left out …\n{said[-_TAIL:]}"

"""When each step, batch and section of a run took place: recorded while it runs, kept in a file, read again."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shlex
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from axon_tasks.remote import Section

#: Counts up when a reader of before would misunderstand the file.
FORMAT = 1
FILE_NAME = "timeline.json"

#: From the whole run down to one labelled command.
KINDS = ("run", "environment", "connect", "step", "batch", "section", "wait")
RUNNING, OK, FAILED, ENDED_EARLY, SKIPPED = "running", "ok", "failed", "ended early", "skipped"

#: A run of a hundred servers takes about 1 MB.
_MOST_BYTES = 64 * 2**20
#: UTC time and process id; a number more if one process begins two runs in a second.
_RUN_ID = re.compile(r"\d{8}-\d{6}-\d{1,10}(-\d{1,4})?", re.ASCII)
_LONGEST_TEXT = 2000
#: Seconds; more is no run but a damaged file.
_LONGEST_RUN = 10**8
#: Seconds after which a run without an end cannot be going on any more.
_ABANDONED = 24 * 3600


@dataclass
class Span:
    """Something that took time.

    Attributes:
        id: Its number within the run, from 1.
        kind: One of `KINDS`.
        name: The step, the batch, the label of the section; the server of a connect.
        parent: The span that it is a part of, or None.
        environment: Name of the environment, or empty.
        server: Name of the server, or empty.
        started: Seconds since the run began, by a clock that never jumps.
        ended: Same; None while it is running.
        outcome: `running`, `ok`, `failed`, `ended early` or `skipped`.
        note: One short line for people.
        needs: For a step, the names of the steps of its environment that had to end before.
        round_trips: How often something was sent to the server and waited for.
        sent: Bytes.
        received: Bytes.
    """

    id: int
    kind: str
    name: str
    parent: int | None = None
    environment: str = ""
    server: str = ""
    started: float = 0.0
    ended: float | None = None
    outcome: str = RUNNING
    note: str = ""
    needs: tuple[str, ...] = ()
    round_trips: int = 0
    sent: int = 0
    received: int = 0


class RunInfo(NamedTuple):
    """A run as a list shows it.

    Attributes:
        run: Its id.
        path: Its file.
        command: The command line.
        who: `user@host` of the person at the keyboard.
        began: UTC, ISO 8601.
        environments: What it worked on.
        outcome: As of a span; `running` also if the run was killed, because nobody could write an end.
        exit_code: None without an end.
        seconds: From its beginning to its end, or to the last time that something was written.
        version: Of axon-tasks.
        broken: What is wrong with the file, or empty.
    """

    run: str
    path: Path
    command: str = ""
    who: str = ""
    began: str = ""
    environments: tuple[str, ...] = ()
    outcome: str = RUNNING
    exit_code: int | None = None
    seconds: float = 0.0
    version: str = ""
    broken: str = ""


class Timeline(NamedTuple):
    """A run with all of its spans.

    Attributes:
        info: What was run, by whom, with which end.
        spans: In the order in which they began to be recorded.
    """

    info: RunInfo
    spans: tuple[Span, ...]

    def of_kind(self, *kinds: str) -> list[Span]:
        """The spans of these kinds, in the order of their beginning."""
        return sorted((one for one in self.spans if one.kind in kinds), key=lambda one: (one.started, one.id))

    def ended(self, span: Span) -> float:
        """When a span ended; for one without an end, when the run was last heard of."""
        return max(span.started, self.info.seconds) if span.ended is None else span.ended


class Heard(NamedTuple):
    """What a run was told, beside when: kept in memory, and never in the file of the timeline.

    Attributes:
        sections: What servers answered, by the number of the batch's span.
        told: What the person at the keyboard was told at the end: warnings, and why it failed.
    """

    sections: Mapping[int, Sequence[Section]]
    told: Sequence[str]


class TimelineError(AxonError):
    """A file of a run is missing, damaged, or newer than this program.

    Args:
        path: The file.
        reason: What is wrong with it, as the end of a sentence that begins with `it`.
        hint: What to type next.
    """

    def __init__(self, path: Path, reason: str, *, hint: str) -> None:
        self.reason = reason
        super().__init__(f"{path}: it {reason}.", hint=hint)


class Recorder:
    """Records a run from any number of threads. It never fails a deploy: what cannot be written is not written.

    Args:
        command: The command line.
        folder: The project's folder; None keeps everything in memory.
        clock: Gives seconds, and never goes back.
        beside: Writes something more into the run's folder, each time that the timeline is written.
    """

    def __init__(
        self,
        *,
        command: str,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        beside: Callable[[Timeline, Heard], None] | None = None,
    ) -> None:
        self.command = _cut(command)
        self._clock = clock
        self._origin = clock()
        self._began = dt.datetime.now(dt.timezone.utc)
        self._spans: list[Span] = []
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._due = threading.Event()
        self._saver: threading.Thread | None = None
        self._outcome = RUNNING
        self._exit_code: int | None = None
        self._seconds: float | None = None
        self._who = ""
        self._beside = beside
        self._sections: dict[int, Sequence[Section]] = {}
        self._told: list[str] = []
        self.run_id = f"{self._began:%Y%m%d-%H%M%S}-{os.getpid()}"
        self.path: Path | None = None
        if folder is not None:
            self.keep_in(folder)

    def keep_in(self, folder: Path) -> None:
        """Keep the run in a project's folder from now on; that gives it an id which no other run has there."""
        self.run_id, self.path = _reserve(folder, self.run_id)

    def now(self) -> float:
        """Seconds since the run began."""
        return max(0.0, self._clock() - self._origin)

    def begin(
        self,
        kind: str,
        name: str,
        *,
        parent: int | None = None,
        environment: str = "",
        server: str = "",
        needs: Iterable[str] = (),
    ) -> int:
        """Note that something begins now.

        Returns:
            The number with which to end it.
        """
        with self._guard:
            span = Span(len(self._spans) + 1, kind, _cut(name), parent, environment, server)
            span.started, span.needs = self.now(), tuple(needs)
            self._spans.append(span)
            return span.id

    def end(
        self,
        span: int,
        *,
        outcome: str = OK,
        note: str = "",
        round_trips: int = 0,
        sent: int = 0,
        received: int = 0,
        at: float | None = None,
    ) -> None:
        """Note that something has ended; a second end is ignored, so that a clean-up may end what it finds.

        Args:
            span: What `begin` returned.
            outcome: As in `Span`.
            note: One short line for people.
            round_trips: As in `Span`.
            sent: Bytes.
            received: Bytes.
            at: Seconds since the run began; default: now.
        """
        with self._guard:
            one = self._spans[span - 1]
            if one.ended is None:
                one.ended = max(one.started, self.now() if at is None else at)
                one.outcome, one.note = outcome, _cut(note)
                one.round_trips, one.sent, one.received = round_trips, sent, received

    def add(
        self,
        kind: str,
        name: str,
        started: float,
        ended: float,
        *,
        parent: int | None = None,
        environment: str = "",
        server: str = "",
        outcome: str = OK,
        note: str = "",
        round_trips: int = 0,
        sent: int = 0,
        received: int = 0,
    ) -> int:
        """Note something that is over already, such as a section whose times came from the server.

        Returns:
            Its number.
        """
        with self._guard:
            began = max(0.0, started)
            span = Span(len(self._spans) + 1, kind, _cut(name), parent, environment, server, began)
            span.ended, span.outcome, span.note = max(began, ended), outcome, _cut(note)
            span.round_trips, span.sent, span.received = round_trips, sent, received
            self._spans.append(span)
            return span.id

    def hear(self, span: int, sections: Iterable[Section]) -> None:
        """Note what a server has answered to the batch of a span."""
        with self._guard:
            self._sections[span] = tuple(sections)

    def finish(self, *, outcome: str, exit_code: int, told: Iterable[str] = ()) -> Path | None:
        """End what is still open, and write the file.

        Args:
            outcome: The one of the whole run; open environments take it too, other open spans ended early.
            exit_code: The one of the program.
            told: What the person at the keyboard is told now: warnings, and why it failed.

        Returns:
            The file, or None if it could not be written or nothing was to be kept.
        """
        with self._guard:
            self._told += told
            if self._seconds is None:
                self._seconds, self._outcome, self._exit_code = self.now(), outcome, exit_code
            for one in self._spans:
                if one.ended is None:
                    one.ended = max(one.started, self._seconds)
                    one.outcome = outcome if one.kind in {"run", "environment"} else ENDED_EARLY
        return self.path if self._write() else None

    def save_soon(self) -> None:
        """Have what is known so far written beside what goes on: no step waits for this machine's disk.

        A run that is killed leaves a timeline, too.
        """
        if self.path is None:
            return
        with self._guard:
            if self._saver is None:
                self._saver = threading.Thread(target=self._save_when_due, name="axon-timeline", daemon=True)
                self._saver.start()
        self._due.set()

    def _save_when_due(self) -> None:
        while self._seconds is None:
            self._due.wait()
            self._due.clear()
            self._write()

    def timeline(self) -> Timeline:
        """What is known so far."""
        from axon_tasks import __version__
        from axon_tasks.deploy.release import who

        self._who = self._who or who()
        with self._guard:
            spans = tuple(replace(one) for one in self._spans)
            seconds = self.now() if self._seconds is None else self._seconds
            outcome, exit_code = self._outcome, self._exit_code
        info = RunInfo(
            run=self.run_id,
            path=self.path or Path(),
            command=self.command,
            who=self._who,
            began=f"{self._began:%Y-%m-%dT%H:%M:%SZ}",
            environments=tuple(dict.fromkeys(one.environment for one in spans if one.environment)),
            outcome=outcome,
            exit_code=exit_code,
            seconds=seconds,
            version=__version__,
        )
        return Timeline(info, spans)

    def _write(self) -> bool:
        """A full disk or a folder that may only be read is no reason to fail."""
        if self.path is None:
            return False
        with self._writing, contextlib.suppress(OSError):
            known = self.timeline()
            replace_file(self.path, json.dumps(as_document(known)))
            if self._beside:
                with self._guard:
                    heard = Heard(dict(self._sections), tuple(self._told))
                self._beside(known, heard)
            return True
        return False


def _cut(text: str) -> str:
    """No more than a reader accepts."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _reserve(folder: Path, wanted: str) -> tuple[str, Path | None]:
    """A run id that no other run has, and its file; creating the directory is what reserves it."""
    try:
        home = home_folder(folder)
        home.mkdir(mode=0o700, exist_ok=True)
        ignore = home / ".gitignore"
        if not ignore.exists():
            replace_file(ignore, "*\n")
        (home / "runs").mkdir(mode=0o700, exist_ok=True)
        for name in (wanted, *(f"{wanted}-{number}" for number in range(2, 1000))):
            with contextlib.suppress(FileExistsError):
                (home / "runs" / name).mkdir(mode=0o700)
                return name, home / "runs" / name / FILE_NAME
    except OSError:
        pass
    return wanted, None


def replace_file(path: Path, text: str, folder: int | None = None) -> None:
    """Write a file that only its owner can read; whoever reads it meanwhile sees the old one or the new one.

    Args:
        path: The file.
        text: Its new content.
        folder: An open folder that `path` is relative to; default: the working directory.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        handle = os.open(temporary, flags, 0o600, dir_fd=folder)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def as_document(timeline: Timeline) -> dict[str, Any]:
    """A timeline as it is kept: names, labels and notes, and nothing of what commands said."""
    head = {name: value for name, value in timeline.info._asdict().items() if name not in {"path", "broken"}}
    spans = [
        {**vars(one), "started": round(one.started, 6), "ended": _rounded(one.ended)}
        for one in timeline.spans
    ]
    return {"format": FORMAT, **head, "seconds": round(timeline.info.seconds, 6), "spans": spans}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def home_folder(folder: Path) -> Path:
    """Where this program keeps what it knows of a project."""
    return folder / ".axon"


def runs_folder(folder: Path) -> Path:
    """Where the runs of a project are kept."""
    return home_folder(folder) / "runs"


def load(path: Path) -> Timeline:
    """Read the file of a run.

    Raises:
        TimelineError: It cannot be read, is damaged, or was written by a newer axon-tasks.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise TimelineError(
            path,
            f"cannot be read ({error.strerror or error})",
            hint="Which runs there are: fab timeline --list",
        ) from None
    try:
        return _timeline(_decoded(raw), path)
    except _NewerFormat as newer:
        raise TimelineError(
            path, str(newer), hint="Update this one: pip install --upgrade axon-tasks"
        ) from None
    except _Damage as damage:
        hint = f"If nobody needs it: rm -r {shlex.quote(str(path.parent))}"
        raise TimelineError(path, str(damage), hint=hint) from None


def runs(folder: Path) -> list[RunInfo]:
    """Every run of a project, the newest first; what cannot be read is listed too, marked as broken.

    Args:
        folder: The project's folder.
    """
    found = []
    for path in _run_folders(folder):
        file = path / FILE_NAME
        if not file.exists():
            continue  # killed before its first step had ended, or just begun
        try:
            found.append(load(file).info)
        except TimelineError as error:
            found.append(RunInfo(path.name, file, broken=error.reason))
    return found


def pick(folder: Path, wanted: str = "") -> Path:
    """The file of one run.

    Args:
        folder: The project's folder.
        wanted: A run id, the beginning of exactly one, or -N for the Nth last; empty for the last one.

    Raises:
        UsageError: There is none, or there are several.
    """
    known = [path for path in _run_folders(folder) if (path / FILE_NAME).exists()]
    if not known:
        raise UsageError(
            f"No run has been recorded below {folder}.", hint="A deploy records one: fab deploy --env=NAME"
        )
    if re.fullmatch(r"-?[1-9]\d{0,4}", wanted, re.ASCII) and int(wanted) < 0:
        if -int(wanted) > len(known):
            raise UsageError(f"There are only {len(known)} runs.", hint="List them: fab timeline --list")
        return known[-int(wanted) - 1] / FILE_NAME
    found = [path for path in known if path.name.startswith(wanted)] if wanted else known[:1]
    exact = [path for path in found if path.name == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0] / FILE_NAME
    if not found:
        raise UsageError(
            f"No run begins with {wanted!a}; the newest is {known[0].name}.",
            hint="List them: fab timeline --list",
        )
    raise UsageError(
        f"{len(found)} runs begin with {wanted}: {', '.join(one.name for one in found)}",
        hint="Give more of it, or -1 for the last one.",
    )


def prune_runs(folder: Path, keep: int) -> list[str]:
    """Remove the oldest runs of a project, never one that may still be going on.

    Args:
        folder: The project's folder.
        keep: How many of the newest to leave.

    Returns:
        The ids of those that were removed.
    """
    removed = []
    for path in _run_folders(folder)[max(0, keep) :]:
        if _may_be_running(path):
            continue
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            removed.append(path.name)
    return removed


def _may_be_running(path: Path) -> bool:
    """Whether a run has no end yet and was heard of less than a day ago."""
    with contextlib.suppress(TimelineError):
        if load(path / FILE_NAME).info.outcome != RUNNING:
            return False
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime < _ABANDONED
    return False


def _run_folders(folder: Path) -> list[Path]:
    """The directories of runs, the newest first; ids begin with the time, so that their order is the one of time."""
    try:
        entries = list(os.scandir(runs_folder(folder)))
    except OSError:
        return []
    found = [
        Path(one.path) for one in entries if _RUN_ID.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
    ]
    return sorted(found, key=_order, reverse=True)


def _order(path: Path) -> tuple[str, list[int]]:
    """Numbers as numbers: process 999 comes before process 1000."""
    day, second, *rest = path.name.split("-")
    return f"{day}{second}", [int(one) for one in rest]


class _Damage(Exception):  # noqa: N818  (the reason for an error, not one)
    """What is wrong with a file, as the end of a sentence that begins with `it`."""


class _NewerFormat(_Damage):
    """The file was written by a later version."""


def _decoded(raw: bytes) -> dict[str, Any]:
    if len(raw) > _MOST_BYTES:
        raise _Damage(f"is larger than {_MOST_BYTES // 2**20} MiB")
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _Damage("is no JSON") from None
    if not isinstance(document, dict):
        raise _Damage("is no JSON object")
    return document


def _no_number(name: str) -> float:
    """NaN and Infinity are no JSON (RFC 8259), and no seconds."""
    raise ValueError(name)


def _timeline(document: dict[str, Any], path: Path) -> Timeline:
    version = _whole(document, "format")
    if version > FORMAT:
        raise _NewerFormat(f"was written by a newer axon-tasks ({sanitize(_text(document, 'version'))})")
    code = document.get("exit_code")
    info = RunInfo(
        run=path.parent.name,
        path=path,
        command=_text(document, "command"),
        who=_text(document, "who"),
        began=_text(document, "began"),
        environments=_names(document, "environments"),
        outcome=_text(document, "outcome"),
        exit_code=None if code is None else _whole(document, "exit_code"),
        seconds=_seconds(document, "seconds"),
        version=_text(document, "version"),
    )
    entries = document.get("spans")
    if not isinstance(entries, list):
        raise _Damage("has no list of spans")
    spans: list[Span] = []
    for entry in entries:
        spans.append(_span(entry, len(spans)))
    return Timeline(info, tuple(spans))


def _span(entry: object, before: int) -> Span:
    """One span; a parent must have been recorded before, so that there is no circle."""
    if not isinstance(entry, dict):
        raise _Damage("has a span that is no JSON object")
    span = Span(
        id=_whole(entry, "id"),
        kind=_text(entry, "kind"),
        name=_text(entry, "name"),
        parent=None if entry.get("parent") is None else _whole(entry, "parent"),
        environment=_text(entry, "environment"),
        server=_text(entry, "server"),
        started=_seconds(entry, "started"),
        ended=None if entry.get("ended") is None else _seconds(entry, "ended"),
        outcome=_text(entry, "outcome"),
        note=_text(entry, "note"),
        needs=_names(entry, "needs"),
        round_trips=_whole(entry, "round_trips"),
        sent=_whole(entry, "sent"),
        received=_whole(entry, "received"),
    )
    if span.kind not in KINDS:
        raise _Damage(f"has a span of the unknown kind {span.kind[:40]!a}")
    if span.id != before + 1 or (span.parent is not None and not 1 <= span.parent <= before):
        raise _Damage(f"has span {span.id} in the wrong place")
    if span.ended is not None and span.ended < span.started:
        raise _Damage(f"has span {span.id} end before it begins")
    return span


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise _Damage(f"has no text as {key!r}")
    return value


def _names(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key)
    if not isinstance(value, list) or any(
        not isinstance(one, str) or len(one) > _LONGEST_TEXT for one in value
    ):
        raise _Damage(f"has no list of names as {key!r}")
    return tuple(value)


def _whole(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise _Damage(f"has no whole number as {key!r}")
    return value


def _seconds(entry: dict[str, Any], key: str) -> float:
    value = entry.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < _LONGEST_RUN:
        raise _Damage(f"has no seconds as {key!r}")
    return float(value)

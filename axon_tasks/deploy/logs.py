"""What an application and nginx have written, from all servers, in the order of time; and what they go on to write.

First each server is asked which containers it has and what time it is there; then all logs are read at the same time, one
section each. Clocks differ: the order is that of the servers' own times, as they stand in the lines.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import heapq
import queue
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import docker, logs
from axon_tasks.deploy import facts, looking
from axon_tasks.deploy.problems import must, raise_all
from axon_tasks.errors import AxonError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

    from axon_tasks.config import Environment
    from axon_tasks.remote import BatchResult, Connection, Fleet, PendingBatch

#: Seconds for the question which logs there are, and for reading them.
_ASK, _READ = 30.0, 300.0
#: Seconds in which lines that are followed are put in order before they are shown.
TICK = 0.1
#: Pieces of output that wait to be read.
_MOST_HEARD = 1000
#: Characters of what a program says that cannot read a log.
_COMPLAINT = 300
#: Bytes of one line; what is longer is shown in parts.
_LONGEST = 64 * 1024

_DOCKER = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z ?")
_ACCESS = re.compile(rb"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
_ERROR = re.compile(rb"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) ")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NANO = 1_000_000_000


class Wanted(NamedTuple):
    """What of the logs is to be shown.

    Attributes:
        services: Which ones, of `commands.logs.SERVICES`.
        lines: How many of the last lines of each; None for all.
        age: Only what is not older, in seconds.
        since: Only what is not older, in seconds since 1970.
        pattern: Only lines in which it is found.
        release: Only the containers of this release; empty for all.
    """

    services: tuple[str, ...] = (logs.APP,)
    lines: int | None = 100
    age: float | None = None
    since: float | None = None
    pattern: re.Pattern[str] | None = None
    release: str = ""


class Source(NamedTuple):
    """One log.

    Attributes:
        server: Where it is.
        service: Of which kind.
        release: Of a container, its release.
        id: Of a container, its id.
        zone: The server's distance from UTC in seconds, for logs that do not say it.
        since: The oldest line that is wanted, in seconds since 1970, by the clock of the server.
    """

    server: str
    service: str
    release: str = ""
    id: str = ""
    zone: int = 0
    since: float | None = None

    @property
    def label(self) -> str:
        """Of its section."""
        return self.id or self.service


class Line(NamedTuple):
    """One line of a log.

    Attributes:
        nanoseconds: When it was written, since 1970; that of the line before it where it does not say.
        source: Which log.
        text: The line, safe to print, without the time that Docker puts before it.
    """

    nanoseconds: int
    source: Source
    text: str


@dataclass
class Found:
    """Which logs there are.

    Attributes:
        sources: The logs.
        now: By app server, its time in seconds since 1970.
        errors: What went wrong, by server.
    """

    sources: list[Source] = field(default_factory=list)
    now: dict[str, int] = field(default_factory=dict)
    errors: dict[str, AxonError] = field(default_factory=dict)


def ask_batch(environment: Environment, server: str) -> Batch:
    """Which containers there are, and what time it is there."""
    batch = Batch("logs").add(logs.clock(), label="clock")
    if server in environment.app:
        batch.add(docker.containers(), label="containers")
    return batch


def find(fleet: Fleet, environment: Environment, wanted: Wanted, only: str = "") -> Found:
    """Ask the servers which logs there are.

    Args:
        fleet: The connections.
        environment: Whose logs.
        wanted: Which ones.
        only: Only these servers, separated by commas.

    Raises:
        UsageError: `only` names a server that is none of the environment.
    """

    def work(connection: Connection) -> BatchResult:
        return ask_batch(environment, connection.name).run(connection, timeout=_ASK)

    names = [name for name in looking.only_of([environment], only) if _concerns(environment, name, wanted)]
    found = Found()
    for server, outcome in fleet.gather(dict.fromkeys(names, work)).items():
        try:
            note(found, environment, wanted, server, outcome.value)
        except AxonError as error:
            found.errors[server] = error
    return found


def _concerns(environment: Environment, server: str, wanted: Wanted) -> bool:
    is_app = server in environment.app and logs.APP in wanted.services
    return is_app or (server in environment.system and wanted.services != (logs.APP,))


def note(found: Found, environment: Environment, wanted: Wanted, server: str, told: BatchResult) -> None:
    """Take over what a server has said about its logs.

    Raises:
        AxonError: It makes no sense.
    """
    must(server, "asking for the time", told["clock"])
    clock = re.fullmatch(r"(\d{1,12}) ([+-])(\d\d)(\d\d)", told["clock"].stdout.strip(), re.ASCII)
    if clock is None:
        raise AxonError(f"{server}: unexpected answer to `date`: {told['clock'].stdout[:80]!r}")
    now = int(clock[1])
    zone = (int(clock[3]) * 3600 + int(clock[4]) * 60) * (-1 if clock[2] == "-" else 1)
    since = now - wanted.age if wanted.age is not None else wanted.since
    if server in environment.app and logs.APP in wanted.services:
        must(server, "listing containers", told["containers"])
        found.now[server] = now
        for one in facts.parse_containers(server, told["containers"].stdout, environment):
            if wanted.release in {"", one.release}:
                found.sources.append(Source(server, logs.APP, _one_line(one.release), one.id, zone, since))
    if server in environment.system:
        found.sources += [
            Source(server, one, zone=zone, since=since) for one in wanted.services if one != logs.APP
        ]


def command(environment: Environment, source: Source, wanted: Wanted, *, follow: bool = False) -> str:
    """What reads a log on its server."""
    if source.service == logs.APP:
        # Where lines are chosen by their text, all of them have to come here.
        lines = None if wanted.pattern and not follow else wanted.lines
        since = None if source.since is None else int(source.since)
        return logs.container(source.id, lines=lines, since=since, follow=follow)
    lines = None if (wanted.pattern or source.since is not None) and not follow else wanted.lines
    return logs.nginx(environment, source.service, lines=lines, follow=follow)


class Reader:
    """Makes lines from the pieces in which a log arrives.

    Args:
        source: Which log.
        wanted: Which of its lines.
    """

    def __init__(self, source: Source, wanted: Wanted) -> None:
        self._source = source
        self._wanted = wanted
        self._rest = b""
        self._last = 0

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that are whole by now and wanted."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            whole, self._rest = [*whole, self._rest], b""
        for raw in whole:
            yield from self._line(raw)

    def end(self) -> Iterator[Line]:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._line(rest)

    def _line(self, raw: bytes) -> Iterator[Line]:
        moment, text = timed(raw, self._source)
        self._last = self._last if moment is None else moment
        source = self._source
        # A line without a time belongs to the one before it.
        if self._last and source.since is not None and self._last < source.since * _NANO:
            return
        shown = sanitize(text.decode("utf-8", errors="replace").rstrip("\r"))
        if self._wanted.pattern is None or self._wanted.pattern.search(shown):
            yield Line(self._last, source, shown)


def timed(raw: bytes, source: Source) -> tuple[int | None, bytes]:
    """When a line was written, in nanoseconds since 1970 (None if it does not say), and the line itself."""
    try:
        if source.service == logs.APP:
            found = _DOCKER.match(raw)
            if found:
                return _second(found[1].decode()) * _NANO + int(found[2]), raw[found.end() :]
        elif source.service == logs.ACCESS:
            found = _ACCESS.search(raw)
            if found:
                return _access_second(found[1].decode()) * _NANO, raw
        else:
            found = _ERROR.match(raw)
            if found:
                told = found[1].decode().replace("/", "-").replace(" ", "T")
                return (_second(told) - source.zone) * _NANO, raw
    except ValueError:  # a date that no calendar has
        pass
    return None, raw


@functools.lru_cache(maxsize=1024)
def _second(text: str) -> int:
    """Seconds since 1970 of a time in UTC; many lines have the same."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.timezone.utc).timestamp())


@functools.lru_cache(maxsize=1024)
def _access_second(text: str) -> int:
    """Seconds since 1970 of a time as nginx writes it (`$time_local`); months have English names there."""
    day, month, rest = text.split("/")
    year, clock = rest.split(":", 1)
    if month not in _MONTHS:
        raise ValueError("no month")
    moment = f"{year}-{_MONTHS.index(month) + 1:02}-{day}T{clock[:8]}{clock[9:12]}:{clock[12:]}"
    return int(dt.datetime.fromisoformat(moment).timestamp())


@dataclass
class Told:
    """What was read.

    Attributes:
        lines: All of it, in the order of time.
        warnings: What could not be read.
        errors: What went wrong, by server.
    """

    lines: list[Line]
    warnings: list[str]
    errors: Mapping[str, AxonError]

    def check(self) -> None:
        """Raise what went wrong, if anything did; exit code 4 if a server could not be reached."""
        raise_all(self.errors.values())


def read(fleet: Fleet, environment: Environment, wanted: Wanted, only: str = "") -> Told:
    """Read logs as they are now.

    Args:
        fleet: The connections.
        environment: Whose logs.
        wanted: Which lines of which logs.
        only: Only these servers, separated by commas.

    Raises:
        UsageError: `only` names a server that is none of the environment.
    """
    found = find(fleet, environment, wanted, only)
    shelves = {source: collections.deque[Line](maxlen=wanted.lines) for source in found.sources}
    complaints: dict[Source, bytes] = {}
    by_server: dict[str, dict[str, Source]] = {}
    for source in found.sources:
        by_server.setdefault(source.server, {})[source.label] = source

    def work(connection: Connection) -> BatchResult:
        sources = by_server[connection.name]
        readers = {label: Reader(source, wanted) for label, source in sources.items()}

        def take(label: str, stream: str, data: bytes) -> None:
            if stream == "stdout":
                shelves[sources[label]].extend(readers[label].feed(data))
            else:
                complaints[sources[label]] = (complaints.get(sources[label], b"") + data)[-_COMPLAINT:]

        batch = Batch("logs")
        for label, source in sources.items():
            batch.add(command(environment, source, wanted), label=label, sudo=source.service != logs.APP)
        result = batch.run(connection, timeout=_READ, on_output=take, keep_output=False)
        for label, reader in readers.items():
            shelves[sources[label]].extend(reader.end())
        return result

    warnings: list[str] = []
    for server, outcome in fleet.gather(dict.fromkeys(by_server, work)).items():
        if isinstance(outcome.error, AxonError):
            found.errors[server] = outcome.error
        else:
            for section in outcome.value.failed:
                source = by_server[server][section.label]
                said = _said(shelves[source], complaints.get(source, b""))
                warnings.append(_unreadable(source, said or f"exit code {section.exit_code}"))
    ordered = heapq.merge(*shelves.values(), key=lambda line: line.nanoseconds)
    return Told(list(ordered), warnings, found.errors)


def _said(lines: collections.deque[Line], complaint: bytes) -> str:
    """Why a log cannot be read. What Docker says about it is the last of the lines, and is none of them."""
    told = complaint.decode("utf-8", errors="replace")
    if not told and lines:
        told = lines.pop().text
    return _one_line(told)[-_COMPLAINT:]


def _one_line(text: str) -> str:
    return " ".join(sanitize(text).split())


def _unreadable(source: Source, why: str) -> str:
    what = f"release {source.release}" if source.release else f"nginx's {source.service} log"
    return f"{source.server}: cannot read {what}: {why}"


class Following:
    """Logs that are read as they grow; leaving the `with` block ends what runs on the servers for it.

    Args:
        fleet: The connections.
        environment: Whose logs.
        wanted: Which lines of which logs.
        only: Only these servers, separated by commas.

    Attributes:
        errors: What went wrong, by server; more may come while lines are read.

    Raises:
        UsageError: `only` names a server that is none of the environment.
    """

    def __init__(self, fleet: Fleet, environment: Environment, wanted: Wanted, only: str = "") -> None:
        self._fleet, self._environment, self._wanted = fleet, environment, wanted
        # Bounded, so that a flood of lines waits on the servers and not here.
        self._heard: queue.Queue[tuple[Source | None, str, bytes]] = queue.Queue(_MOST_HEARD)
        self._readers: dict[Source, Reader] = {}
        self._pending: dict[PendingBatch, Source | None] = {}
        #: Containers that were started again while their log was still being read.
        self._again: dict[Source, Source] = {}
        #: When a container was known to run, by its source, in seconds since 1970 by the clock of its server.
        self._known: dict[Source, int] = {}
        #: Of what `docker events` has said, the line that is not whole yet, by server.
        self._rest: dict[str, str] = {}
        self._closed = threading.Event()
        found = find(fleet, environment, wanted, only)
        self.errors: dict[str, AxonError] = dict(found.errors)
        for source in found.sources:
            self._known[source] = found.now.get(source.server, 0)
            self._open(source, wanted)
        for server, now in found.now.items():
            self._start(server, logs.started(environment, now), None)

    def _open(self, source: Source, wanted: Wanted) -> None:
        """Begin to read a log."""
        self._readers[source] = Reader(source, self._wanted)
        program = command(self._environment, source, wanted, follow=True)
        self._start(source.server, program, source)

    def _start(self, server: str, program: str, source: Source | None) -> None:
        """Have a server send what a program says until nobody reads it any more."""
        privileged = source is not None and source.service != logs.APP

        def take(_label: str, stream: str, data: bytes) -> None:
            if stream == "stdout":
                self._hear((source, server, data))

        batch = Batch("logs").add(logs.until_gone(program), label="logs", sudo=privileged, listens=True)
        try:
            pending = batch.start(self._fleet[server], on_output=take, keep_output=False)
        except AxonError as error:
            self.errors.setdefault(server, error)
        else:
            self._pending[pending] = source

    def _hear(self, heard: tuple[Source | None, str, bytes]) -> None:
        while not self._closed.is_set():
            try:
                self._heard.put(heard, timeout=TICK)
            except queue.Full:
                continue
            return

    def lines(self) -> Iterator[Sequence[Line]]:
        """What was written since the last time, in order, again and again; ends when no log can be read any more."""
        while self._pending:
            time.sleep(TICK)
            fresh = self._drain()
            # What has ended has said all it had to say: what it said is in the queue, or was just taken from it.
            ended = [one for one in self._pending if one.done()]
            fresh += self._drain()
            for pending in ended:
                fresh += self._end(pending)
            yield sorted(fresh, key=lambda line: line.nanoseconds)

    def _drain(self) -> list[Line]:
        """The lines that are there by now; those that come meanwhile are for the next time."""
        fresh: list[Line] = []
        for _ in range(self._heard.qsize()):
            source, server, data = self._heard.get()
            if source is None:
                self._begun(server, data.decode(errors="replace"))
            else:
                fresh += self._readers[source].feed(data)
        return fresh

    def _begun(self, server: str, told: str) -> None:
        """Read the logs of containers that were just started, or started again."""
        *lines, self._rest[server] = (self._rest.get(server, "") + told).split("\n")
        for line in lines:
            moment, _, rest = line.strip().partition(" ")
            identity, _, release = rest.partition(" ")
            since = facts.number(moment)
            if not facts.is_container(identity) or since is None or self._wanted.release not in {"", release}:
                continue
            source = Source(server, logs.APP, _one_line(release), identity, since=float(since))
            self._known[source] = since
            read = [
                one for one in self._pending.values() if one and (one.server, one.id) == (server, identity)
            ]
            if not read:
                self._open(source, self._wanted._replace(lines=None))
            elif since > self._known[read[0]]:
                # `docker logs` ends with the container, which may not have been noticed yet.
                self._again[read[0]] = source

    def _end(self, pending: PendingBatch) -> Iterator[Line]:
        """What is left of a log that has ended; goes on with it if its container was started again."""
        source = self._pending.pop(pending)
        error = pending.error()
        if isinstance(error, AxonError):
            self.errors.setdefault(pending.server, error)
        elif source is None:
            told = f"{pending.server}: containers that are started from now on are not heard of: `docker events` has ended"
            self.errors.setdefault(pending.server, AxonError(told))
        if source is not None:
            yield from self._readers[source].end()
            again = self._again.pop(source, None)
            if again is not None:
                self._open(again, self._wanted._replace(lines=None))

    def close(self) -> None:
        """End what runs on the servers; each notices that nobody reads any more."""
        self._closed.set()
        for pending in self._pending:
            pending.cancel(confirmed=False)
        self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The releases of an environment, as they are recorded on its system servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import naming, records
from axon_tasks.deploy import facts
from axon_tasks.deploy.owner import text_of
from axon_tasks.deploy.release import FAILED, GOOD, ROLLED_BACK
from axon_tasks.errors import AxonError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from axon_tasks.config import Environment
    from axon_tasks.remote import BatchResult, Connection, Fleet

Place = tuple[str, str]


def is_release(text: str) -> bool:
    """Whether a text can be a release's id."""
    return facts.number(text) is not None


@dataclass(frozen=True)
class State:
    """What one system server knows of one environment.

    Attributes:
        slot: The slot that the flag selects.
        current: The id of the release that was recorded last, or empty.
        records: The records by release id; one that cannot be read is empty.
    """

    slot: str = "a"
    current: str = ""
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def outcome(self, release: str) -> str:
        """How a release ended; records of older versions only tell of those that served."""
        told = self.records.get(release, {}).get("outcome", GOOD)
        return next((one for one in (FAILED, ROLLED_BACK) if told == one), GOOD)

    def origin(self, release: str) -> str:
        """The release whose settings a release runs with: itself, or the one that was rolled back to."""
        seen: set[str] = set()
        while release not in seen:
            seen.add(release)
            earlier = self.records.get(release, {}).get("of")
            if isinstance(earlier, str) and is_release(earlier):
                release = earlier
        return release

    @property
    def served(self) -> list[str]:
        """The releases that have served, the newest first."""
        return sorted((one for one in self.records if self.outcome(one) != FAILED), key=int, reverse=True)

    @property
    def previous(self) -> str:
        """What a rollback goes back to: the newest release that served and was not taken back; empty if there is none.

        A release that only repeats the current one, because it was rolled back to, is none.
        """
        now = self.origin(self.current)
        # What ran the same is as good as the newest of it: a repetition that was taken back takes back what it repeats.
        newest: dict[str, str] = {}
        for one in self.served:
            newest.setdefault(self.origin(one), one)
        good = [
            one
            for one in self.served
            if self.outcome(newest[self.origin(one)]) == GOOD and self.origin(one) != now
        ]
        return next((one for one in good if one != self.current), "")

    @property
    def kept(self) -> frozenset[str]:
        """The current release and the one before it.

        Which one that is depends on whether the last change was a deploy or a rollback to an older release, so both the
        next older one and the newest other one count, and the one that a rollback would take.
        """
        others = [one for one in self.served if one != self.current]
        older = [one for one in others if self.current and int(one) < int(self.current)]
        newest = [group[0] for group in (others, older) if group]
        return frozenset(one for one in (self.current, self.previous, *newest) if one)

    def digests(self) -> Iterator[str]:
        """The images that the kept releases run, by digest, or by name where a record has no digest."""
        for release in self.kept:
            record = self.records.get(release, {})
            yield from (str(record[key]) for key in ("digest", "image") if record.get(key))


def parse_states(text: str) -> dict[Place, State]:
    """Read the states of a system server, by product and environment."""
    found: dict[Place, State] = {}
    place: Place | None = None
    for line in text.split("\n"):
        key, _, value = line.partition("=")
        if key == "state":
            product, slash, environment = value.partition("/")
            place = (product, environment) if slash else None
            if place:
                found[place] = State()
        elif place:
            found[place] = _with(found[place], key, value)
    return found


def _with(state: State, key: str, value: str) -> State:
    if key == "slot" and value in naming.SLOTS:
        return State(value, state.current, state.records)
    if key == "current" and is_release(value):
        return State(state.slot, value, state.records)
    if key == "release":
        release, _, text = value.partition(" ")
        if is_release(release):
            return State(state.slot, state.current, {**state.records, release: facts.json_object(text)})
    return state


@dataclass(frozen=True)
class Past:
    """What a system server tells about an environment's releases.

    Attributes:
        environment: The environment's name.
        server: The system server that was asked.
        state: Its records.
        audit: The last lines of its audit log.
    """

    environment: str
    server: str
    state: State
    audit: tuple[str, ...]


#: Seconds for a look.
_LOOK = 60.0


def look_batch(environment: Environment, lines: int) -> Batch:
    """Ask for the records and the end of the audit log."""
    batch = Batch("history", sudo=True).add(records.state(environment), label="releases")
    return batch.add(records.audit_log(environment, lines), label="audit")


def look(fleet: Fleet, environment: Environment, lines: int) -> Past:
    """Ask the environment's first system server that answers.

    Args:
        fleet: The connections.
        environment: Whose releases.
        lines: How many lines of the audit log.

    Raises:
        AxonError: None of them answers, or it cannot read its records.
    """

    def work(connection: Connection) -> BatchResult:
        return look_batch(environment, lines).run(connection, timeout=_LOOK)

    asked = fleet.gather(dict.fromkeys(environment.system, work))
    server, found = next(
        ((name, one) for name, one in asked.items() if one.error is None), next(iter(asked.items()))
    )
    return read(environment, server, found.value)


def read(environment: Environment, server: str, result: BatchResult) -> Past:
    """Read what `look_batch` asked for.

    Raises:
        AxonError: The server cannot read it.
    """
    for section in result.failed:
        raise AxonError(
            f"{server}: cannot read the {section.label} of {environment.name}: {sanitize(section.stderr.strip()[-300:])}"
        )
    states = parse_states(result["releases"].stdout)
    told = (line.partition("=") for line in result["audit"].stdout.splitlines())
    return Past(
        environment.name,
        server,
        states.get((environment.product, environment.name), State()),
        tuple(sanitize(value) for key, _, value in told if key == "audit"),
    )


@dataclass(frozen=True)
class Entry:
    """One release, for people and as JSON; whatever a record does not tell is empty or None.

    Attributes:
        id: The release's id.
        image: The image as people wrote it.
        digest: The image's digest.
        action: What made it: `deploy` or `rollback`.
        of: The release whose settings it runs with, if it was rolled back to.
        outcome: `ok`, `failed` or `rolled back`.
        error: Why it failed.
        commit: The git commit.
        who: Who deployed it.
        when: When, as ISO 8601.
        seconds: How long it took until traffic was switched.
        current: Whether it is the one that serves.
        previous: Whether it is the one that a rollback goes back to.
    """

    id: str
    image: str
    digest: str
    action: str
    of: str
    outcome: str
    error: str
    commit: str
    who: str
    when: str
    seconds: float | None
    current: bool
    previous: bool


def entries(state: State, limit: int) -> list[Entry]:
    """The newest releases, the newest first.

    Args:
        state: What is recorded.
        limit: How many.
    """
    return [_entry(state, one) for one in sorted(state.records, key=int, reverse=True)[:limit]]


def _entry(state: State, release: str) -> Entry:
    record = state.records[release]
    seconds = record.get("seconds")
    known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < 10**9
    return Entry(
        id=release,
        image=text_of(record, "image"),
        digest=text_of(record, "digest"),
        action=text_of(record, "action"),
        of=text_of(record, "of"),
        outcome=state.outcome(release),
        error=text_of(record, "error"),
        commit=text_of(record, "git_commit"),
        who=text_of(record, "deployed_by"),
        when=text_of(record, "deployed_at"),
        seconds=float(seconds) if known and seconds is not None else None,
        current=release == state.current,
        previous=release == state.previous,
    )

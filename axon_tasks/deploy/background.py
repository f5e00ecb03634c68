"""The background jobs of an environment, on all of its app servers at the same time."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axon_tasks.commands import naming
from axon_tasks.deploy.problems import raise_all
from axon_tasks.errors import AxonError, UnreachableError, UsageError
from axon_tasks.remote import Batch, jobs, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from axon_tasks.config import Environment
    from axon_tasks.remote import BatchResult, Connection, Fleet
    from axon_tasks.remote.jobs import Job

#: Seconds for an answer, beside what is waited for on purpose.
SHORT = 60.0
#: Seconds between TERM and KILL when a job is cancelled.
GRACE = 10.0
#: What starts the id of a job that retires a release.
RETIRE = "retire-"


class NoSuchJobError(AxonError):
    """A server has no job of that id; another one may have it."""


@dataclass(frozen=True)
class Answer:
    """What the servers said.

    Attributes:
        environment: The environment's name.
        jobs: The jobs by server, for each server that answered.
        before: For a cancellation: how each job was when it came.
        errors: What went wrong by server; one server's trouble hides no other's jobs.
    """

    environment: str
    jobs: Mapping[str, Sequence[Job]] = field(default_factory=dict)
    before: Mapping[str, Job] = field(default_factory=dict)
    errors: Mapping[str, AxonError] = field(default_factory=dict)

    @property
    def unreachable(self) -> tuple[str, ...]:
        """The servers that cannot be reached."""
        return tuple(name for name, error in self.errors.items() if isinstance(error, UnreachableError))

    @property
    def unsuccessful(self) -> tuple[str, ...]:
        """The servers on which a job has not ended with 0, in words that say how it stands."""
        return tuple(
            f"{server}: {_standing(job)}"
            for server, found in self.jobs.items()
            for job in found
            if job.exit_code != 0
        )

    def check(self) -> None:
        """Raise what went wrong, if anything did; exit status 4 if a server could not be reached.

        Raises:
            AxonError: Every failure is in the message.
        """
        raise_all(self.errors.values())


def _standing(job: Job) -> str:
    if job.state == "done":
        return f"ended with exit code {job.exit_code}"
    return "still runs" if job.state == "running" else "was lost: it ended without an exit code"


def directory(environment: Environment) -> str:
    """Where the jobs of an environment are, on each of its app servers."""
    return f"{naming.state_directory(environment.product, environment.name)}/jobs"


def servers(environment: Environment, only: str = "") -> tuple[str, ...]:
    """The app servers to ask.

    Args:
        environment: The environment.
        only: Names, separated by commas; empty for all.

    Raises:
        UsageError: One of them is no app server of the environment.
    """
    wanted = [name for name in only.replace(",", " ").split() if name]
    for name in wanted:
        if name not in environment.app:
            raise UsageError(
                f"{name!a} is no app server of {environment.name}.",
                hint=f"It has: {', '.join(environment.app)}. Jobs run on app servers only.",
            )
    return tuple(dict.fromkeys(wanted)) or environment.app


def list_batch(environment: Environment) -> Batch:
    """Ask for all jobs, each with its last line."""
    return Batch("jobs").add(jobs.list_script(directory(environment), lines=1), label="jobs")


def show_batch(environment: Environment, job: str, lines: int) -> Batch:
    """Ask for one job and the end of its log."""
    return Batch("job").add(jobs.show_script(directory(environment), job, lines=lines), label="job")


def wait_batch(environment: Environment, job: str, timeout: float, *, lines: int = 20) -> Batch:
    """Wait for one job on the server, and ask for it; `read` reads the result.

    Run it with a timeout of at least `timeout` and SHORT.
    """
    return Batch("wait").add(jobs.wait_script(directory(environment), job, timeout, lines=lines), label="job")


def cancel_batch(environment: Environment, job: str) -> Batch:
    """End one job, and ask for it before and after; a job that has ended stays as it is."""
    where = directory(environment)
    return (
        Batch("cancel")
        .add(jobs.show_script(where, job, lines=0), label="before")
        .add(jobs.cancel_script(where, job, grace=GRACE), label="job")
    )


def read(result: BatchResult, label: str = "job") -> Job:
    """Read the job from the result of a batch that waits, shows or cancels.

    Raises:
        NoSuchJobError: There is no such job on that server.
        AxonError: The server could not say.
    """
    section = result[label]
    if section.exit_code == jobs.NO_SUCH_JOB:
        raise NoSuchJobError(f"{result.server}: there is no such job")
    found = jobs.parse(section.stdout)
    if not section.ok or len(found) != 1:
        raise _unreadable(result, label)
    return found[0]


def _unreadable(result: BatchResult, label: str) -> AxonError:
    said = sanitize((result[label].stderr or result[label].stdout).strip()[-300:])
    return AxonError(
        f"{result.server}: cannot read the jobs: {said or f'exit code {result[label].exit_code}'}",
        hint="Jobs belong to the user that started them; log in as the same one.",
    )


def _read_all(result: BatchResult) -> list[Job]:
    if not result["jobs"].ok:
        raise _unreadable(result, "jobs")
    # By age, and not by name: a name begins with what the job does.
    return sorted(jobs.parse(result["jobs"].stdout), key=lambda job: (job.started or 0, job.id))


def every(fleet: Fleet, environment: Environment, only: str = "") -> Answer:
    """Find all jobs of an environment."""
    return _ask(fleet, environment, only, lambda: list_batch(environment), _read_all, SHORT)


def show(fleet: Fleet, environment: Environment, job: str, *, only: str = "", lines: int = 20) -> Answer:
    """Find one job on every server that has it.

    Raises:
        NoSuchJobError: No server has it.
    """
    build = functools.partial(show_batch, environment, job, lines)
    return _one(fleet, environment, job, only, build, SHORT)


def wait(fleet: Fleet, environment: Environment, job: str, *, only: str = "", timeout: float = 600) -> Answer:
    """Wait for one job on all servers at the same time.

    Raises:
        NoSuchJobError: No server has it.
    """
    build = functools.partial(wait_batch, environment, job, timeout)
    return _one(fleet, environment, job, only, build, timeout + SHORT)


def cancel(fleet: Fleet, environment: Environment, job: str, *, only: str = "") -> Answer:
    """End one job on all servers at the same time.

    Raises:
        NoSuchJobError: No server has it.
    """
    build = functools.partial(cancel_batch, environment, job)
    return _one(fleet, environment, job, only, build, GRACE + SHORT)


def _one(
    fleet: Fleet, environment: Environment, job: str, only: str, build: Callable[[], Batch], limit: float
) -> Answer:
    before: dict[str, Job] = {}

    def collect(result: BatchResult) -> list[Job]:
        if "before" in result and result["before"].ok:
            before[result.server] = read(result, "before")
        return [read(result)]

    build()  # an impossible id is told before any server is contacted
    told = _ask(fleet, environment, only, build, collect, limit)
    missing = [name for name, error in told.errors.items() if isinstance(error, NoSuchJobError)]
    errors = {name: error for name, error in told.errors.items() if name not in missing}
    if not told.jobs and not errors:
        raise NoSuchJobError(
            f"{environment.name}: no server has a job {job}",
            hint=f"See which there are: fab jobs.list --env={environment.name}",
        )
    return Answer(environment.name, told.jobs, before, errors)


def _ask(
    fleet: Fleet,
    environment: Environment,
    only: str,
    build: Callable[[], Batch],
    collect: Callable[[BatchResult], list[Job]],
    limit: float,
) -> Answer:
    def work(connection: Connection) -> list[Job]:
        return collect(build().run(connection, timeout=limit))

    found: dict[str, list[Job]] = {}
    errors: dict[str, AxonError] = {}
    for server, outcome in fleet.gather(dict.fromkeys(servers(environment, only), work)).items():
        if isinstance(outcome.error, AxonError):
            errors[server] = outcome.error
        else:
            found[server] = outcome.value
    return Answer(environment.name, found, {}, errors)

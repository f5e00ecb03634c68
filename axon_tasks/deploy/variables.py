"""The variables of an application: what `hosts.yml` gives it, and the env file on each app server.

Values are secrets: they are held, compared and sent, and never shown.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import envfile
from axon_tasks.config import Secret
from axon_tasks.deploy import executing, problems
from axon_tasks.errors import AxonError, StepFailedError, UsageError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.config import Environment
    from axon_tasks.remote import BatchResult, Connection, Fleet

#: Seconds for an answer.
LIMIT = 60.0
#: Characters of a file; more than any that Docker could pass on (execve(2): a string of 128 KiB).
LARGEST = 1024 * 1024

#: What a shell can set, and what Docker takes.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TAKEN = re.compile(r"[^\s=]+")


class EnvFile:
    """The text of an env file, as `docker run --env-file` reads it: `NAME=VALUE`, without quotes, `#` for comments.

    Args:
        text: The file.
        where: How it is called in messages.
        foreign: Whether somebody else has put it there: what is no variable in it is left as it is then.

    Raises:
        UsageError: A line is none of these. The value in it is not told.
    """

    def __init__(self, text: str, where: str, *, foreign: bool = False) -> None:
        self._text = text
        self.values: dict[str, str] = {}
        if len(text) > LARGEST or "\0" in text:
            raise UsageError(f"{where}: this is no env file: it is too large, or contains a NUL byte.")
        for number, line in enumerate(_lines(text), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if equals and _TAKEN.fullmatch(name):
                self.values[name] = value
            elif not foreign:
                raise UsageError(
                    f"{where}, line {number}: NAME=VALUE is needed, without spaces in the name.",
                    hint="Quotes are part of the value, and a value has one line: Docker reads it that way.",
                )

    @property
    def text(self) -> Secret:
        """The whole text."""
        return Secret(self._text)

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def changed(self, name: str, value: str | None, where: str) -> EnvFile:
        """The same file with another value; its other lines stay as they are.

        Args:
            name: Which variable; a new one comes at the end.
            value: None to remove it.
            where: How the file is called in messages.

        Raises:
            UsageError: It is no name, or the value has several lines.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"--key={name}: letters, digits and underscores are needed, and no digit first.")
        if value is not None and re.search(r"[\0\r\n]", value):
            raise UsageError(f"The value of {name} has several lines: Docker's env files cannot hold that.")
        wanted = [] if value is None else [f"{name}={value}"]
        lines: list[str] = []
        for line in self._text.removesuffix("\n").split("\n") if self._text else ():
            if line.partition("=")[0] != name:
                lines.append(line)
            else:
                lines, wanted = [*lines, *wanted], []
        return EnvFile("".join(f"{line}\n" for line in [*lines, *wanted]), where, foreign=True)


def _lines(text: str) -> list[str]:
    """The lines as Docker sees them (Go's bufio.ScanLines): a line feed ends one, with a carriage return before it."""
    return [line.removesuffix("\r") for line in text.split("\n")]


class Difference(NamedTuple):
    """How two files differ, by the names of variables."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether they do."""
        return any(self)


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> Difference:
    """Which variables come, change and go."""
    return Difference(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(name for name in before.keys() & after.keys() if before[name] != after[name])),
        tuple(sorted(before.keys() - after.keys())),
    )


@dataclass
class Files:
    """The env files of an environment.

    Attributes:
        environment: Its settings.
        files: What stands on each app server; None where there is no file.
        errors: What went wrong, by server.
    """

    environment: Environment
    files: dict[str, EnvFile | None] = field(default_factory=dict)
    errors: dict[str, AxonError] = field(default_factory=dict)

    def values(self, server: str) -> Mapping[str, str]:
        """The variables of the file on one server."""
        one = self.files.get(server)
        return one.values if one else {}

    def same(self) -> EnvFile | None:
        """The one file that all servers have.

        Raises:
            StepFailedError: They differ.
        """
        checksums = {one.checksum if one else "" for one in self.files.values()}
        if len(checksums) > 1:
            raise StepFailedError(
                f"{self.environment.name}: the env files of {', '.join(self.files)} are not the same",
                hint=f"See in which variables: fab env.show --env={self.environment.name}; change one: --only=SERVER;"
                " or give all the same: fab env.push",
            )
        return next(iter(self.files.values()), None)


def path_of(environment: Environment) -> str:
    """Where the env file is.

    Raises:
        UsageError: The environment has none.
    """
    if not environment.env_file:
        raise UsageError(
            f"{environment.name} has no env file.",
            hint=f"Name one in hosts.yml, such as `env_file: /srv/{environment.product}/.env.{environment.name}`.",
        )
    return environment.env_file


def read(fleet: Fleet, environment: Environment, only: str = "") -> Files:
    """Read the env files of app servers, all at the same time.

    Args:
        fleet: The connections.
        environment: Whose.
        only: Only these app servers, separated by commas.

    Raises:
        UsageError: The environment has no env file, or `only` names another server.
    """
    path = path_of(environment)
    found = Files(environment)

    def work(connection: Connection) -> BatchResult:
        return Batch("env").add(envfile.read(path), label="read").run(connection, timeout=LIMIT)

    names = executing.app_servers(environment, only)
    for server, outcome in fleet.gather(dict.fromkeys(names, work)).items():
        try:
            found.files[server] = _file(server, path, outcome.value)
        except AxonError as error:
            found.errors[server] = error
    return found


def _file(server: str, path: str, told: BatchResult) -> EnvFile | None:
    section = told["read"]
    if section.exit_code == envfile.MISSING:
        return None
    problems.must(server, f"reading {path}", section)
    try:
        return parsed(server, path, section.stdout_bytes.decode("utf-8"))
    except UnicodeDecodeError:
        raise StepFailedError(
            f"{server}: {path} is not UTF-8", hint="Put another one there: fab env.push"
        ) from None


def parsed(server: str, path: str, text: str) -> EnvFile:
    """The file of a server.

    Raises:
        StepFailedError: It is no env file. What a server says is no wrong usage.
    """
    try:
        return EnvFile(text, f"{server}: {path}", foreign=True)
    except UsageError as error:
        raise StepFailedError(error.summary, hint=error.hint) from None


def write(fleet: Fleet, found: Files, wanted: Mapping[str, EnvFile]) -> None:
    """Write env files, all at the same time, each only if it is still what was read.

    Args:
        fleet: The connections.
        found: What was read.
        wanted: What is to be there, by server.

    Raises:
        AxonError: One could not be written; the message says on which servers it was.
    """
    path = path_of(found.environment)

    def work(connection: Connection) -> BatchResult:
        before = found.files[connection.name]
        batch = write_batch(path, wanted[connection.name], before.checksum if before else "missing")
        result = batch.run(connection, timeout=LIMIT)
        problems.must(connection.name, f"writing {path}", result["write"])
        return result

    outcomes = fleet.gather(dict.fromkeys(wanted, work))
    errors = [one.error for one in outcomes.values() if isinstance(one.error, AxonError)]
    done = [server for server, one in outcomes.items() if one.error is None]
    if errors:
        unknown = any(not isinstance(one, StepFailedError) for one in errors)
        told = f"It was written on {', '.join(done)}." if done else "Nothing was written."
        if unknown:
            told = "Where no answer came, it may have been written: look, with fab env.show, and do it again."
        problems.raise_all([*errors, AxonError(told)])
    problems.raise_defects(outcomes.values())


def write_batch(path: str, wanted: EnvFile, expected: str) -> Batch:
    """What writes one file."""
    return Batch("env").add(envfile.write(path, expected), label="write", stdin=wanted.text)


def servers_with(found: Files, name: str) -> Sequence[str]:
    """The app servers whose file has a variable."""
    return [server for server in found.files if name in found.values(server)]

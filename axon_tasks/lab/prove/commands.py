"""Commands that are watched while they run: when each line came, how they ended, and killing them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Seconds for one command; it catches what hangs.
TIMEOUT = 180.0
#: Seconds that an interrupted command has for taking back what it has started.
_GRACE = 30.0
#: Characters of what a command said that a report quotes.
_QUOTED = 400

#: A step that has ended well, as `fab` tells it where there is no terminal (report/live.py).
_STEP = re.compile(r"\d\d:\d\d:\d\dZ +([a-z]+) +\d+\.\d\d s(?!  (?:failed|ended early))")


@dataclass(frozen=True)
class Line:
    """A line of output.

    Args:
        at: When it was read, in seconds of the monotonic clock of this machine.
        text: Without its end.
    """

    at: float
    text: str


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: Its exit code; negative if a signal ended it.
        began: When it was started.
        ended: When it was over.
        lines: What it wrote to standard output.
        errors: What it wrote to standard error.
    """

    code: int
    began: float
    ended: float
    lines: tuple[Line, ...]
    errors: str

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    @property
    def steps(self) -> dict[str, float]:
        """When each step was told to have ended well, in that order."""
        found = ((_STEP.match(line.text), line.at) for line in self.lines)
        return {match.group(1): at for match, at in found if match}

    def __str__(self) -> str:
        """Its exit code and the end of what it said, on one line."""
        said = self.errors.strip() or "\n".join(line.text for line in self.lines)
        return f"exit code {self.code}: {' '.join(said.split())[-_QUOTED:]}"


@dataclass
class Command:
    """A command at work.

    Args:
        process: Its process, which leads a session of its own.
        began: When it was started.
    """

    process: subprocess.Popen[bytes]
    began: float
    _lines: list[Line] = field(default_factory=list)
    _errors: list[Line] = field(default_factory=list)
    _readers: list[threading.Thread] = field(default_factory=list)

    def read(self) -> None:
        """Read both streams, in threads, so that the time of a line is the time of a line."""
        for stream, kept in ((self.process.stdout, self._lines), (self.process.stderr, self._errors)):
            reader = threading.Thread(target=_collect, args=(stream, kept), daemon=True)
            reader.start()
            self._readers.append(reader)

    def wait(self, timeout: float = TIMEOUT) -> Ended:
        """Wait for its end.

        Raises:
            AxonError: It does not end.
        """
        try:
            code = self.process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            words = " ".join(map(str, self.process.args))  # type: ignore[arg-type]  # it was given a list
            raise AxonError(f"`{words}` did not end within {timeout:g} s.") from None
        ended = time.monotonic()
        for reader in self._readers:
            reader.join(timeout=10)
        errors = "\n".join(line.text for line in self._errors)
        return Ended(code, self.began, ended, tuple(self._lines), errors)

    def kill(self) -> None:
        """End the process itself at once, as a machine does that loses its power; what it has started is not told."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def stop(self) -> None:
        """End it as Ctrl-C would, and everything that it has started if it does not listen.

        With SIGTERM, which `fab` takes for Ctrl-C: SIGINT is ignored by what a shell runs in the background.
        """
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _collect(stream: IO[bytes] | None, kept: list[Line]) -> None:
    if stream is not None:
        with stream:
            kept.extend(Line(time.monotonic(), line.decode(errors="replace").rstrip("\n")) for line in stream)


@contextlib.contextmanager
def running(argv: Sequence[str], folder: Path) -> Iterator[Command]:
    """A command of this machine, as a user would run it, that is over at the end.

    Args:
        argv: The program and its arguments.
        folder: Where.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=local.user_environment(),
        # Ctrl-C must not reach it by itself: it is ended in its turn.
        start_new_session=True,
    )
    command = Command(process, began)
    command.read()
    try:
        yield command
    finally:
        command.stop()


def run(argv: Sequence[str], folder: Path, *, timeout: float = TIMEOUT) -> Ended:
    """Run a command to its end, whatever its exit code."""
    with running(argv, folder) as command:
        return command.wait(timeout)

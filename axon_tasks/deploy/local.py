"""Programs of this machine: Docker's client, with what it says on the screen, or asked for something short."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from axon_tasks.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from axon_tasks.config import Secret

#: Seconds for a question to Docker.
ASK = 60.0
#: Seconds within which a program that is not wanted any more must end by itself.
_GRACE = 10.0
#: Bytes of errors that are kept.
_MOST = 64 * 1024


def _missing(program: str) -> UsageError:
    return UsageError(
        f"{program} is not installed on this machine, and images are built and pushed with it.",
        hint="Install it, or call this where it is.",
    )


def asked(
    words: Sequence[str], *, given: str | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run something short and keep what it says.

    Args:
        words: The command.
        given: What it reads; None for nothing.
        variables: More variables than those of this process.

    Raises:
        UsageError: There is no such program, or it does not answer.
    """
    try:
        return subprocess.run(
            words, input=given or "", capture_output=True, text=True, errors="replace", timeout=ASK, check=False,
            env={**os.environ, **(variables or {})},
        )  # fmt: skip
    except FileNotFoundError:
        raise _missing(words[0]) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"{words[0]} does not answer: {error}") from None


def shown_run(words: Sequence[str], secrets: Mapping[str, Secret]) -> int:
    """Run a program on this screen, and give its exit code.

    Args:
        words: The command.
        secrets: More variables than those of this process.

    Raises:
        UsageError: There is no such program.
    """
    values = {name: value.reveal() for name, value in secrets.items()}
    return _waited(_started(words, values, stderr=None))


def heard_run(
    words: Sequence[str], variables: Mapping[str, str], hear: Callable[[str], object]
) -> tuple[int, str]:
    """Run a program on this screen, and give its exit code and the last of its complaints.

    Args:
        words: The command.
        variables: More variables than those of this process.
        hear: Is given its complaints as they come.

    Raises:
        UsageError: There is no such program.
    """
    running = _started(words, variables, stderr=subprocess.PIPE)
    kept = bytearray()
    assert running.stderr is not None  # noqa: S101  (a pipe was asked for)
    reader = threading.Thread(
        target=_listen, args=(running.stderr, kept, hear), name="axon-local", daemon=True
    )
    reader.start()
    code = _waited(running)
    reader.join(_GRACE)
    return code, kept.decode("utf-8", errors="replace")


def _started(
    words: Sequence[str], variables: Mapping[str, str], *, stderr: int | None
) -> subprocess.Popen[bytes]:
    # What was written before must stand before what it writes.
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stderr=stderr, env={**os.environ, **variables}
        )
    except FileNotFoundError:
        raise _missing(words[0]) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{words[0]} cannot be started: {error}") from None


def _waited(running: subprocess.Popen[bytes]) -> int:
    """Wait for its end; whoever is interrupted leaves nothing running."""
    try:
        return running.wait()
    except BaseException:
        running.terminate()
        try:
            running.wait(_GRACE)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        raise


def _listen(stream: IO[bytes], kept: bytearray, hear: Callable[[str], object]) -> None:
    """Pass on what it complains about, and keep the last of it."""
    for line in stream:
        kept += line
        del kept[:-_MOST]
        hear(line.decode("utf-8", errors="replace"))

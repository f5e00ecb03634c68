"""What both programs do with the command line beyond what Invoke does.

Wrong flags end with exit status 2 and the nearest right one. Invoke ends with status 1 and `No idea what '--evn=prod' is!`.
Status 1 means to a script that a deploy was tried and the old release serves (design: exit codes), so usage errors must
not share it.

What stands behind `--` goes to the task that asks for it, word by word. Fabric takes it for a command of its own, which
runs over a stock connection, and both programs join the words, so that quotes are lost.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import TYPE_CHECKING

from invoke.exceptions import ParseError
from invoke.program import Program

from axon_tasks.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


#: Tasks that take what stands behind `--`.
_TAKERS: set[str] = set()
_rest: list[str] = []


def takes_rest(name: str) -> None:
    """Have what stands behind `--` go to a task."""
    _TAKERS.add(name)


def rest() -> tuple[str, ...]:
    """The words behind `--`."""
    return tuple(_rest)


def _take_rest(program: Program) -> None:
    """Keep the words behind `--` for the task, and from Fabric."""
    named = {context.name for context in program.tasks}
    words = list(program.argv)
    if named & _TAKERS and "--" in words:
        _rest[:] = words[words.index("--") + 1 :]
        program.core.remainder = ""


def _explained(error: ParseError, program: Program) -> UsageError:
    unknown = re.search(r"No idea what '(.*)' is", str(error))
    context = error.context
    if unknown is None or context is None:
        return UsageError(str(error), hint="See the flags: fab --help TASK")
    word = unknown.group(1).partition("=")[0]
    task = context.name or ""
    flags = [*context.flags, *context.inverse_flags]
    names = flags if word.startswith("-") else sorted(program.collection.task_names)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    hint += (
        f"See the flags: fab --help {task}" if word.startswith("-") and task else "See the tasks: fab --list"
    )
    return UsageError(f"{task + ': ' if task else ''}there is no {word!r}", hint=hint)


def install() -> None:
    """Have both programs report usage errors this way; calling it again changes nothing."""
    original: Callable[[Program], None] = Program.parse_tasks
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def parse_tasks(self: Program) -> None:
        try:
            original(self)
            _take_rest(self)
        except ParseError as error:
            raise _explained(error, self) from None
        except ValueError as error:
            # Invoke converts a flag by the type of its default and lets the conversion's own error through.
            raise UsageError(
                f"a flag has a value of the wrong kind: {error}", hint="See: fab --help TASK"
            ) from None

    Program.parse_tasks = parse_tasks  # type: ignore[method-assign]  # Invoke offers no other place

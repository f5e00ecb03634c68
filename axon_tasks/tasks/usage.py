"""Wrong flags end with exit status 2 and the nearest right one.

Invoke ends with status 1 and `No idea what '--evn=prod' is!`. Status 1 means to a script that a deploy was tried
and the old release serves (design: exit codes), so usage errors must not share it.
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
        except ParseError as error:
            raise _explained(error, self) from None
        except ValueError as error:
            # Invoke converts a flag by the type of its default and lets the conversion's own error through.
            raise UsageError(
                f"a flag has a value of the wrong kind: {error}", hint="See: fab --help TASK"
            ) from None

    Program.parse_tasks = parse_tasks  # type: ignore[method-assign]  # Invoke offers no other place

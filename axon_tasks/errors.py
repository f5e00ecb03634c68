"""The errors that people see, each with the exit code of its kind.

All derive from `invoke.Exit`, because that is what both command lines turn into a
message and an exit status without a traceback (`invoke.program.Program.run`).
"""

from __future__ import annotations

from invoke.exceptions import Exit

from axon_tasks.remote.text import sanitize


class AxonError(Exit):
    """A failure that is told to the user as a message, never as a traceback.

    Args:
        message: What happened, and where.
        hint: What to type or to look at next; shown on a line of its own.
        code: The exit status, when it differs from the one of the class.
    """

    #: Exit status of the program when this error ends it.
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None, code: int | None = None) -> None:
        # Flags, file names and what servers say go into messages; a terminal must not obey any of it.
        self.summary = message = sanitize(message)
        self.hint = hint = None if hint is None else sanitize(hint)
        text = f"{message}\n  {hint}" if hint else message
        super().__init__(message=text, code=self.exit_code if code is None else code)

    def __str__(self) -> str:
        return str(self.message)


class UsageError(AxonError):
    """A flag or an argument that cannot be meant that way; nothing was contacted."""

    exit_code = 2


class ConfigurationError(AxonError):
    """`hosts.yml` is missing or wrong; nothing was contacted."""

    exit_code = 2


class LockedError(AxonError):
    """Somebody else is working on the environment."""

    exit_code = 3


class UnreachableError(AxonError):
    """A server cannot be reached, refuses the login, or does not answer in time."""

    exit_code = 4


class HostKeyError(UnreachableError):
    """A server's host key is unknown, or is not the known one."""


class ConnectionLostError(UnreachableError):
    """The connection to a server broke while a script was running there.

    This is not a failed command: what the script did after the break is unknown.
    """


class StepFailedError(AxonError):
    """A step failed before the switch: the old release is still serving."""


class AfterSwitchError(AxonError):
    """A failure after the switch; the message says what serves now."""

    exit_code = 5

"""The one decorator that every task of this project goes through.

It switches off what makes Fabric's and Invoke's defaults dangerous in a deploy tool: automatic short
flags that change meaning when a parameter is added (invoke #36), and `fab -H`, which would run a whole
deployment once per host over a connection of Fabric's own.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from invoke.tasks import Task
from invoke.tasks import task as invoke_task

from axon_tasks.errors import AxonError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from axon_tasks.config import Environment, Project

P = ParamSpec("P")
R = TypeVar("R")


def task(
    *,
    help: dict[str, str] | None = None,  # noqa: A002  (Invoke's own name for it)
    iterable: list[str] | None = None,
    optional: list[str] | None = None,
    name: str | None = None,
    per_host: bool = False,
) -> Callable[[Callable[P, R]], Task[Callable[P, R]]]:
    """Declare a task without automatic short flags and guarded against `fab -H`.

    Args:
        help: Flag descriptions, by parameter name.
        iterable: Parameters that may be given more than once.
        optional: Parameters that may be given without a value.
        name: The task's name, if it is not the function's.
        per_host: Whether the task makes sense once per host of `fab -H`; others refuse it.
    """

    def decorate(function: Callable[P, R]) -> Task[Callable[P, R]]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if not per_host and args and hasattr(args[0], "transport"):
                raise UsageError(
                    f"{function.__name__.replace('_', '-')} takes its servers from hosts.yml, not from -H.",
                    hint="Leave -H away and name the environment: --env=NAME.",
                )
            try:
                return function(*args, **kwargs)
            except KeyboardInterrupt:
                raise AxonError("Interrupted.", code=130) from None

        made = invoke_task(
            name=name,
            help=help or {},
            iterable=iterable or [],
            optional=optional or (),
            auto_shortflags=False,
        )(guarded)
        return cast("Task[Callable[P, R]]", made)

    return decorate


#: Seconds of a unit; a number without one means seconds.
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str, flag: str) -> float:
    """Seconds from `90s`, `5m` or `1h`.

    Args:
        text: What was typed.
        flag: After which flag, for the message.

    Raises:
        UsageError: It is no duration.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(s|m|h|)", text, re.ASCII)
    if found is None:
        raise UsageError(f"--{flag}={text}: a duration is needed, such as 90s, 5m or 1h.")
    return float(found[1]) * _SECONDS[found[2]]


def whole(text: str, flag: str, *, digits: int = 4) -> int | None:
    """The whole number of a flag; None if it was left out.

    Args:
        text: What was typed.
        flag: After which flag, for the message.
        digits: The most that it may have.

    Raises:
        UsageError: It is none.
    """
    if not text:
        return None
    if not re.fullmatch(rf"\d{{1,{digits}}}", text, re.ASCII):
        raise UsageError(f"--{flag}={text}: a whole number is needed.")
    return int(text)


def release_id(text: str, flag: str, *, hint: str | None = None) -> str:
    """The id of a release; empty if it was left out.

    Args:
        text: What was typed.
        flag: After which flag, for the message.
        hint: What to type or to look at next.

    Raises:
        UsageError: It is none.
    """
    if text and not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise UsageError(f"--{flag}={text}: the id of a release is needed, which is a number.", hint=hint)
    return text


def plain_text(text: str, flag: str, longest: int, *, example: str) -> str:
    """A message on one line, for others to read.

    Args:
        text: What was typed.
        flag: After which flag, for the message.
        longest: The most characters that it may have.
        example: One, for the message.

    Raises:
        UsageError: It is empty, too long, or contains what is no text.
    """
    told = " ".join(text.split())
    if not told:
        raise UsageError(f"--{flag} is empty.", hint=f"For example: --{flag}='{example}'")
    if len(told) > longest:
        raise UsageError(f"--{flag} has {len(told)} characters: at most {longest} are kept.")
    if not told.isprintable():
        raise UsageError(f"--{flag} contains characters that cannot be printed.")
    return told


def must_be_writable(out: Path, *paths: Path) -> None:
    """Tell before a long run, and not after it, if its results cannot be written; nothing new is left.

    Args:
        out: What `--out` names, for the message.
        paths: The files, all of them in one directory, which is made.

    Raises:
        UsageError: One of them cannot be written.
    """
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            path.open("a", encoding="utf-8").close()
            if is_new:
                path.unlink()
    except OSError as error:
        raise UsageError(f"--out={out}: {error.strerror}.") from None


def say(text: str) -> None:
    """Print a line at once, also where the output is no terminal: what it is about takes long."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def confirmed(question: str) -> bool:
    """Ask on the terminal; anything but yes is no.

    Args:
        question: In one line.

    Raises:
        UsageError: There is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on.", hint="Add --yes if you are sure.")
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def typed(question: str, wanted: str) -> bool:
    """Have something typed on the terminal, to the letter.

    Args:
        question: In one line.
        wanted: What must be typed.

    Raises:
        UsageError: There is no terminal to type on.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on.", hint="Add --yes if you are sure.")
    try:
        return input(f"{question}\nTo go on, type {wanted}: ").strip() == wanted
    except EOFError:
        return False


#: What `c` is in a task: typed loosely because Invoke's Context has no useful types.
Context = Any


def environments(
    env: str, hosts_file: str, known: Project | None = None
) -> tuple[Project, list[Environment]]:
    """Load `hosts.yml` and pick the environments of `--env`, which may be several: a target is never guessed.

    Args:
        env: What was typed.
        hosts_file: Same.
        known: The settings, where they have been loaded.

    Raises:
        UsageError: `--env` is missing or unknown.
        ConfigurationError: `hosts.yml` is missing or wrong.
    """
    project = known or _loaded(hosts_file)
    if not env.strip(", "):
        raise UsageError(
            "Which environment? --env is missing.",
            hint=f"{project.source.name} has: {', '.join(project.environments)}. For example: --env={next(iter(project.environments))}",
        )
    return project, project.environments_named(env)


def _loaded(hosts_file: str) -> Project:
    from axon_tasks.config import load

    return load(hosts_file or None)


def one_environment(env: str, hosts_file: str) -> tuple[Project, Environment]:
    """Load `hosts.yml` and pick the environment of `--env`, which must be one.

    Raises:
        UsageError: `--env` is missing or unknown, or names several.
        ConfigurationError: `hosts.yml` is missing or wrong.
    """
    project, found = environments(env, hosts_file)
    if len(found) > 1:
        raise UsageError(
            f"--env={env}: this task takes one environment.", hint="Call it once for each of them."
        )
    return project, found[0]


@contextlib.contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Take SIGTERM and SIGHUP for Ctrl-C: a CI job that is cancelled, a terminal that is closed.

    What was started is taken back then, as it is when somebody presses the keys.
    """

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What the caller has set to be ignored, as nohup(1) does, stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

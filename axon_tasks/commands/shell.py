"""Shell text from values and from the POSIX sh files in `sh/`.

Values reach a script in one way only: as quoted assignments in front of the functions that read them. The
functions themselves are plain files, so that shellcheck and three shells can read them.

A plan can be printed before any server was asked. What a run learns from the servers stands in such a script as
`release="${release:?…}"`: the rest is the same to the letter, and whoever pastes it sets these variables first.
"""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class Learnt(str):
    """A value that a run learns from the servers, in a plan that was made without asking them.

    As a text it is a name in brackets, for people.

    Args:
        name: What it is.
        by: The step that learns it.
    """

    __slots__ = ("by", "name")
    by: str
    name: str

    def __new__(cls, name: str, by: str) -> Self:
        """A text that remembers what it stands for."""
        made = super().__new__(cls, f"<{name}>")
        made.name, made.by = name, by
        return made


@dataclass(frozen=True)
class Var:
    """A shell variable in a word or a value: one of those that the script sets in front."""

    name: str


#: One argument of a command, or one value: text, or text with variables in it.
Word = str | tuple[str | Var, ...]


def word(parts: Word) -> str:
    """One argument as the shell reads it: text is quoted, variables are expanded and not split."""
    if isinstance(parts, str):
        return shlex.quote(parts)
    return "".join(
        f'"${{{part.name}}}"' if isinstance(part, Var) else shlex.quote(part) for part in parts if part != ""
    )


def text(parts: Word, values: dict[str, str]) -> str:
    """One argument as the program receives it.

    Args:
        parts: The argument.
        values: What the variables hold.
    """
    if isinstance(parts, str):
        return parts
    return "".join(values[part.name] if isinstance(part, Var) else part for part in parts)


@functools.cache
def _library(name: str) -> dict[str, str]:
    """The functions of one file of `sh/`, without its comments: they are for people who read the repository."""
    text = (resources.files("axon_tasks.commands") / "sh" / f"{name}.sh").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = {}
    for body in re.split(r"(?m)^(?=\w+\(\) \{$)", "\n".join(kept)):
        if body:
            found[body.partition("(")[0]] = body.rstrip("\n")
    return found


@functools.cache
def _needed(call: str, libraries: tuple[str, ...]) -> str:
    """The functions that a call needs, directly or through others, in the order of their files."""
    known = {name: body for library in libraries for name, body in _library(library).items()}
    words = {name: set(re.findall(r"\w+", body)) & known.keys() - {name} for name, body in known.items()}
    needed = set(re.findall(r"\w+", call)) & known.keys()
    while True:
        more = {other for name in needed for other in words[name]} - needed
        if not more:
            return "\n".join(body for name, body in known.items() if name in needed)
        needed |= more


def script(call: str, libraries: tuple[str, ...], **values: Word | float) -> str:
    """A script that sets `values`, defines the functions of `libraries` and runs `call`.

    Args:
        call: The last line: a function of one of the libraries, with its arguments already quoted.
        libraries: Names of files in `sh/`, without suffix; `base` is always there.
        values: Shell variables, by name, in this order; text is quoted, what is learnt later is asked for.
    """
    assignments = [f"{name}={_value(name, value)}" for name, value in values.items()]
    functions = _needed(call, ("base", *(name for name in libraries if name != "base")))
    return "\n".join(filter(None, [*assignments, functions, call]))


def _value(name: str, value: Word | float) -> str:
    if isinstance(value, Learnt):
        return f'"${{{name}:?the step {value.by} learns it}}"'
    if isinstance(value, (str, tuple)):
        return word(value)
    return shlex.quote(str(int(value) if isinstance(value, bool) else value))


def command(*words: Word | float) -> str:
    """A command line from words, each quoted."""
    return " ".join(word(one if isinstance(one, (str, tuple)) else str(one)) for one in words)


def joined(texts: tuple[str, ...] | Learnt) -> str:
    """Several words as one value, for a loop in the script."""
    return texts if isinstance(texts, Learnt) else " ".join(texts)


def centiseconds(seconds: float) -> int:
    """Seconds as the unit of the scripts' clock, which reads /proc/uptime (proc_uptime(5)): 1/100 s."""
    return round(seconds * 100)

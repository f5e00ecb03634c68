"""Shell text from values and from the POSIX sh files in `sh/`.

Values reach a script in one way only: as quoted assignments in front of the functions that read them. The
functions themselves are plain files, so that shellcheck and three shells can read them.
"""

from __future__ import annotations

import functools
import shlex
from importlib import resources


@functools.cache
def _library(name: str) -> str:
    """One file of `sh/`, without its comments: they are for people who read the repository."""
    text = (resources.files("axon_tasks.commands") / "sh" / f"{name}.sh").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(kept)


def script(call: str, libraries: tuple[str, ...], **values: str | float) -> str:
    """A script that sets `values`, defines the functions of `libraries` and runs `call`.

    Args:
        call: The last line: a function of one of the libraries, with its arguments already quoted.
        libraries: Names of files in `sh/`, without suffix; `base` is always there.
        values: Shell variables, by name; every value is quoted.
    """
    assignments = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    return "\n".join([*assignments, *map(_library, dict.fromkeys(("base", *libraries))), call])


def command(*words: str | float) -> str:
    """A command line from words, each quoted."""
    return shlex.join(str(word) for word in words)


def centiseconds(seconds: float) -> int:
    """Seconds as the unit of the scripts' clock, which reads /proc/uptime (proc_uptime(5)): 1/100 s."""
    return round(seconds * 100)

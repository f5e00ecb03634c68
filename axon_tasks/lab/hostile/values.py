"""Texts that an attack or an accident could put where a value belongs, and the files that tell whether one was obeyed.

Each text that could be taken for a command tries to create a file of its own, a canary. Whatever went wrong, in which
shell, template or parser ever, then shows as a file.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: `{c}` is the path of the canary. No text names a file that exists: some are used as the name of a file to write.
SHELL = (
    "$(touch {c})",
    "`touch {c}`",
    "; touch {c};",
    "| touch {c}",
    "& touch {c} &",
    "a && touch {c}",
    "a || touch {c}",
    "a\ntouch {c}\n",
    "a\r\ntouch {c}",
    "' ; touch {c} ; '",
    '" ; touch {c} ; "',
    "'\"$(touch {c})\"'",
    '\\"; touch {c}; #',
    "\\'; touch {c}; #",
    "\\",
    "'",
    '"',
    "$IFS$(touch${IFS}{c})",
    "${x:-$(touch {c})}",
    "${x:=`touch {c}`}",
    "$((a[$(touch {c})]))",
    "<(touch {c})",
    "> {c}",
    "a >{c}",
    "!touch {c}",
    "EOF\ntouch {c}\nEOF\n",
    "AXON_EOF\ntouch {c}",
    "}}; touch {c}; {{",
    ") ; touch {c} ; (",
    "_axon_main() {{ touch {c}; }}; _axon_main",
    "a\x1e0123456789abcdef0123456789abcdef E 0 0 1.0\n",
    "*",
    "?[a-z]*",
    "~root",
    "{{a,b}}",
    "#",
)
OPTIONS = (
    "-oProxyCommand=touch {c}",
    "-o",
    "-",
    "--",
    "-e",
    "--privileged",
    "--config={c}",
    "--env-file={c}",
    "-v/:/host",
)
TEMPLATES = (
    "{{{{ cycler.__init__.__globals__.os.popen('touch {c}').read() }}}}",
    "{{% set x = cycler.__init__.__globals__.os.system('touch {c}') %}}",
    "{{# a",
    "{{{{ json . }}}}",
    "{{{{.State}}}}",
    "%s%n%(x)s",
    "{{0.__class__}}",
    "\\g<0>\\1",
    "__import__('os').system('touch {c}')",
    "[bold]a[/bold]",
    "[link=file://{c}]a[/link]",
)
NGINX = (
    "a; return 200 pwned;",
    "a;}} server {{ listen 81; }} #",
    "a.test; location /x {{ alias /; }}",
    "$host",
    "$http_x_a",
    "${{host}}",
    "a}}b",
    "a{{b",
    "a;\nload_module {c};",
    "a; error_log {c};",
    "a; access_log {c};",
    "~^(?<x>.*)$",
    "a # b",
    '"a" b',
    "_",
    "unix:{c}",
)
PATHS = (
    "../../axon-none",
    "/../axon-none",
    "..",
    ".",
    "/",
    "/a/../../b",
    "//a",
    "/a/",
    "/a b",
    "file://{c}",
    "C:\\a",
    "/proc/self/fd/99",
    "a/b/c:d@e",
)
UNICODE = (
    "\uff11\uff12\uff13",
    "\u0663\u0660\u0660\u0660\u0660",
    "\uff50rod",
    "\u0440rod",
    "prod\u200b",
    "\u202eprod",
    "\u2066prod\u2069",
    "pro\u0301d",
    "\ufeffprod",
    "prod\u2028x",
    "prod\u0085x",
    "\u00e9",
    "\U0001f525",
    "\u212a",
    "\u0130",
    "\ud800",
    "\udcff",
    "\x00",
    "a\x00b",
)
CONTROL = (
    "\x1b[2J\x1b[1;1H",
    "\x1b]0;title\x07",
    "\x1b]52;c;dG91Y2g=\x07",
    "\x1bP$q\x1b\\",
    "\x9b2J",
    "a\rb",
    "a\bb",
    "a\x7fb",
    "\t",
    "\v\f",
)
SIZES = (
    "",
    " ",
    " prod ",
    "a" * 129,
    "a" * 300,
    "a" * 20_000,
    "9" * 5_000,
    "0" * 200,
    "a." * 200,
    "/a" * 3_000,
    "$(" * 2_000,
)
NUMBERS = (
    "0",
    "-1",
    "65536",
    "99999999999999999999",
    "1e999",
    "0x10",
    "0b1",
    "1_000",
    "1.",
    "NaN",
    "Infinity",
    "-0",
    "+1",
    "null",
    "no",
    "1:30",
    "2026-01-01",
    "!!binary aGk=",
    "[]",
    "{{}}",
    "&a *a",
)
KINDS = {
    "shell": SHELL,
    "option": OPTIONS,
    "template": TEMPLATES,
    "nginx": NGINX,
    "path": PATHS,
    "unicode": UNICODE,
    "control": CONTROL,
    "size": SIZES,
    "number": NUMBERS,
}

#: Longer texts are not put together with others.
_LONGEST_PART = 100

#: Where no character of these is, nothing is special to a shell, to nginx or to a terminal.
SPECIAL = frozenset("\"'`$\\ ;|<>(){}#!^~") | {chr(code) for code in (*range(32), 127)}


@dataclass(frozen=True)
class Hostile:
    """One text.

    Attributes:
        name: What kind it is, and which one.
        text: The text itself, with the path of its own canary in it.
    """

    name: str
    text: str


class Canaries:
    """Makes hostile texts, each with a canary of its own, and finds those that came to life.

    Args:
        folder: Where the canaries would appear; it exists, so that nothing but obedience is missing.
        seed: Decides which texts are chosen and put together: the same seed gives the same ones.
        most: How many texts a place is given; None for all.
    """

    def __init__(self, folder: Path, seed: int = 0, most: int | None = None) -> None:
        self.folder = folder
        self._chance = random.Random(seed)
        self._most = most
        self._count = 0

    def hostile(self, kinds: tuple[str, ...] = tuple(KINDS), *, mixed: int = 0) -> Iterator[Hostile]:
        """The texts of some kinds, and some that are put together of several; with `most`, a part of them.

        Args:
            kinds: Names in KINDS.
            mixed: How many to put together.
        """
        named = [(f"{kind} {index}", one) for kind in kinds for index, one in enumerate(KINDS[kind])]
        short = [one for _, one in named if len(one) <= _LONGEST_PART]
        named += [
            (f"mixed {index}", "".join(self._chance.sample(short, self._chance.randint(2, 4))))
            for index in range(mixed)
        ]
        if self._most is not None and len(named) > self._most:
            named = self._chance.sample(named, self._most)
        for name, template in named:
            yield Hostile(name, self.filled(template))

    def filled(self, template: str) -> str:
        """One text with a canary of its own."""
        self._count += 1
        path = str(self.folder / str(self._count))
        return template.replace("{c}", path).replace("{{", "{").replace("}}", "}")

    def alive(self) -> list[str]:
        """The canaries that were created: commands that were executed."""
        return sorted(str(path) for path in self.folder.iterdir())


def is_plain(text: str) -> bool:
    """Whether a text is safe wherever it is put: in a shell, in nginx, on a terminal, as the first letter of a word."""
    return text.isascii() and not set(text) & SPECIAL and not text.startswith("-")


def is_printable(text: str) -> bool:
    """Whether a terminal shows a text and obeys nothing in it; lines may end."""
    return all(character.isprintable() or character in "\n\t" for character in text)

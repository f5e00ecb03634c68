"""What is made of settings that were accepted: nginx's files and shell scripts, in which every value must stay a value."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import tempfile
from typing import TYPE_CHECKING

from axon_tasks.commands import nginx
from axon_tasks.config import load
from axon_tasks.deploy import plan
from axon_tasks.deploy.preview import preview
from axon_tasks.deploy.run import Options
from axon_tasks.lab.hostile.config import BASE, Field, document, replaced
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from axon_tasks.config import Environment, Project
    from axon_tasks.lab.hostile.outcome import Outcome

CHANNEL = "rendered"

#: A directive: its name, how many arguments it has, and the directives of its block.
Directive = tuple[str, int, tuple["Directive", ...]]

_BACKENDS = (nginx.Backend("10.0.0.21", (30000, 30001)), nginx.Backend("2001:db8::1", (30002, 30003)))
_VERSIONS = ((1, 22, 1), (1, 27, 4))

#: Stands in the place of a hostile text, in the scripts that it is compared with.
_BENIGN = "Zq7benign"

#: What a run learns from the servers.
_LEARNT = {
    "release": "1764000000", "slot": "a", "port": "30000", "digest": f"sha256:{'a' * 64}", "previous": "b",
    "targets": "10.0.0.21:30000", "install": "0", "site_ours": "1", "expected_current": "any", "containers": "c",
    "upstream_text": "u", "site_text": "s", "record": "{}", "line": "a line",
}  # fmt: skip


#: What differs from one run to the next: a batch's markers, and when a lock was asked for.
_MARKER = re.compile(rb"(?m)\x1e[0-9a-f]{32}[^\n]*\n")
#: What a background job is given to do.
_JOB = re.compile(r"""^printf %s ((?:'[^']*'|"'")+) >\S+/cmd""", re.MULTILINE)
_SINCE = re.compile(rb'"since": "[^"]*"')


class NginxSyntaxError(Exception):
    """A text that is no configuration of nginx."""


def tokens(text: str) -> Iterator[str]:
    """The words of a configuration as nginx reads it (ngx_conf_read_token), with `{`, `}` and `;` as words.

    Raises:
        NginxSyntaxError: A quote is not closed.
    """
    pattern = re.compile(
        r"""(?P<space>\s+|\#[^\n]*)
        | (?P<mark>[{};])
        | (?P<quoted>"(?:[^"\\]|\\.)*"(?=[\s;{)]|$) | '(?:[^'\\]|\\.)*'(?=[\s;{)]|$))
        | (?P<word>(?!["'])(?:\\.|\$\{[^}]*\}|[^\s;{}\\])+)""",
        re.VERBOSE | re.DOTALL,
    )
    at = 0
    while at < len(text):
        found = pattern.match(text, at)
        if found is None:
            raise NginxSyntaxError(f"at {text[at : at + 40]!r}")
        at = found.end()
        if found.lastgroup != "space":
            # A quoted mark is a word and must not be taken for the mark.
            yield f"={found.group()}" if found.lastgroup != "mark" else found.group()


def directives(text: str) -> tuple[Directive, ...]:
    """The tree of directives of a configuration.

    Raises:
        NginxSyntaxError: Braces or quotes do not match, or a directive does not end.
    """
    stack: list[list[Directive]] = [[]]
    opened: list[tuple[str, int]] = []
    words: list[str] = []
    for token in tokens(text):
        if token.startswith("="):
            words.append(token[1:])
            continue
        if token == "}":
            if words or not opened:
                raise NginxSyntaxError("a brace closes nothing")
            name, count = opened.pop()
            inner = tuple(stack.pop())
            stack[-1].append((name, count, inner))
            continue
        if not words:
            raise NginxSyntaxError(f"{token!r} without a directive")
        if token == ";":
            stack[-1].append((words[0], len(words) - 1, ()))
        else:
            opened.append((words[0], len(words) - 1))
            stack.append([])
        words = []
    if words or opened:
        raise NginxSyntaxError("a directive does not end")
    return tuple(stack[0])


def _trees(environment: Environment) -> list[tuple[Directive, ...]]:
    """The directives of both files, in both ways of switching, for old and new versions of nginx."""
    made = []
    for way in ("slots", "reload"):
        switched = environment._replace(switch=way)
        for version in _VERSIONS:
            files = nginx.render(nginx.Wanted(switched, _BACKENDS, version, "b"))
            made += [directives(files.upstream), directives(files.site)]
    return made


class Rendered:
    """Checks what is made of accepted settings against what is made of harmless ones.

    Args:
        outcome: Where it is noted.
        folder: For files that are compared with.
    """

    def __init__(self, outcome: Outcome, folder: Path) -> None:
        self._outcome = outcome
        self._folder = folder
        self._trees = _trees(self._project(BASE).environment("prod"))
        self._benign: dict[tuple[str, ...], list[bytes]] = {}

    def check(self, case: str, project: Project, path: tuple[str, ...], text: str) -> None:
        """Check one accepted file.

        Args:
            case: Which one.
            project: What it says.
            path: The field that holds the hostile text.
            text: That text.
        """
        self._outcome.count(CHANNEL)
        environment = next(iter(project.environments.values()))
        try:
            changed = [one for one, tree in enumerate(_trees(environment)) if tree != self._trees[one]]
        except NginxSyntaxError as error:
            self._outcome.violate(CHANNEL, case, f"nginx's files are broken: {error}")
        else:
            if changed:
                self._outcome.violate(CHANNEL, case, "nginx's files have other directives than ours")
        if path and Field(path).is_free and text.isprintable() and text:
            self._check_scripts(case, project, path, text)

    def _check_scripts(self, case: str, project: Project, path: tuple[str, ...], text: str) -> None:
        """The shell must find the same words as in the scripts of a harmless text, but for the text itself."""
        if path not in self._benign:
            self._benign[path] = words(self._project(replaced(path, _BENIGN)))
        expected = [one.replace(_BENIGN.encode(), text.encode()) for one in self._benign[path]]
        if expected != words(project):
            self._outcome.violate(CHANNEL, case, f"a shell does not read {text!r} as a value")

    def _project(self, values: dict[str, object]) -> Project:
        path = self._folder / "benign.yml"
        path.write_bytes(document(values))
        return load(path, {})


def words(project: Project) -> list[bytes]:
    """Run what sets the variables of every script of a deploy, and give what a shell then has.

    Only assignments and the arguments of `docker run` are run, and the input of sections; no function.
    """
    environment = next(iter(project.environments.values()))
    texts, inputs = _texts(project, environment)
    known = [f"export {name}='{value}'" for name, value in _LEARNT.items()]
    said = _shell("\n".join([*known, *(f"(\n{_dump(one)}\n)" for one in texts)]))
    batches = [Batch("input").add("cat", label="cat", stdin=one) for one in inputs]
    fed = [_MARKER.sub(b"", _shell(one.script())) for one in batches]
    return [_SINCE.sub(b"", said), *fed]


def harmless(scripts: Sequence[str]) -> str:
    """Run what sets the variables of some scripts; a canary shows if a value was more than that.

    Returns:
        What the shell complained about; nothing if all is well.
    """
    said = _shell("\n".join(f"(\n{_dump(one, told=False)}\n)" for one in scripts))
    return said.decode(errors="replace")


def _texts(project: Project, environment: Environment) -> tuple[list[str], list[str]]:
    run = preview(project, environment, Options(tag="v1", command="deploy", run_id="1", token="00000000"))
    texts, inputs = [], []
    for step in plan.steps(run):
        for server in step.servers:
            batch = step.batch(server)
            for section in batch.sections if batch else ():
                texts.append(section.text)
                if section.stdin is not None:
                    inputs.append(
                        section.stdin.reveal() if hasattr(section.stdin, "reveal") else str(section.stdin)
                    )
    return texts, inputs


def _dump(text: str, *, told: bool = True) -> str:
    """A script that sets the variables which another one sets, and prints them and the arguments of its `docker run`."""
    job = _JOB.search(text)
    if job is not None:
        return _dump(shlex.split(job[1])[0], told=told)
    head = _assignments(text)
    last = text.rsplit("\n", 1)[-1]
    call = last.removeprefix("start ") if last.startswith("start --") else ""
    if not told:
        return f"{head}\n: {call}"
    # JSON spells a text in its own way; that it is read back as it was is a test of its own (tests/commands/test_start.py).
    values = [f'"${{{name}-}}"' for name in re.findall(r"(?m)^(\w+)=", head) if name != "kept"]
    return f"{head}\nprintf '%s\\0' {' '.join(values)} {call}"


def _assignments(text: str) -> str:
    """What stands before the first function of a script: assignments, whatever came of them, and nothing else."""
    if not re.match(r"\w+=", text):
        return ""
    first = re.search(r"(?m)^\w+\(\) \{$", text)
    if first is not None:
        return text[: first.start()]
    return "\n".join(itertools.takewhile(re.compile(r"\w+=").match, text.split("\n")))


def _shell(script: str) -> bytes:
    """Have the shell of this machine run a script on its standard input, as a server does."""
    with tempfile.TemporaryDirectory(prefix="axon-hostile-") as folder:
        done = subprocess.run(
            ["sh", "-s"],
            input=script.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=False,
            cwd=folder,
            timeout=60,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
    return done.stdout + done.stderr

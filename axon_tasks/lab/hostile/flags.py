"""Hostile command lines: every flag of every task through the program itself, in this process; some in one of their own."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from axon_tasks.config.images import is_digest, is_tag
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.listing import write_fabfile
from axon_tasks.lab.hostile.config import BASE
from axon_tasks.lab.hostile.outcome import heed_ctrl_c
from axon_tasks.lab.hostile.values import is_printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.lab.hostile.outcome import Outcome
    from axon_tasks.lab.hostile.values import Canaries, Hostile

CHANNEL = "flags"
PROCESSES = "programs"

#: Tasks that do something to this machine if their flags are right; a hostile value never is, so that they stop before.
_LOCAL = {"lab.up": ("apps", "rtt"), "lab.shell": ("host",), "bench": ("only", "rtt", "repeat")}

#: Tasks that read no `hosts.yml` and do nothing but what they are asked to.
_OTHERS = {"config.schema": ("out",)}

#: What a deploy ends with that was stopped by Ctrl-C: it has taken back what it did, and of the interrupt only this is left.
_INTERRUPTED = 130

#: Tasks that would have this machine's Docker push something, wherever that leads, if their flags are right after all.
_LOOKS = {"push": "--dry-run"}

#: What a flag of that name needs to be right, where another one is hostile.
_RIGHT = {"env": "prod", "job": "retire-1", "tag": "v1", "run": "2026", "token": "a" * 32}

#: Flags that name a file to write.
_WRITES = frozenset({"html", "chrome", "out"})

#: A wrong flag; and where the value may be right after all: done, or no server could be reached.
_REFUSED, _ANY = frozenset({2}), frozenset({0, 2, 4})

#: Flags in which nothing hostile is right.
_STRICT = frozenset({"job", "only", "keep", "days", "lines", "timeout", "apps", "rtt", "repeat", "host"})


@dataclass(frozen=True)
class Flag:
    """One flag of one task.

    Attributes:
        task: The task's name.
        name: The flag's, as a parameter.
        takes_value: Whether a value belongs to it.
        needs: The other flags that the task must be given.
    """

    task: str
    name: str
    takes_value: bool
    needs: tuple[str, ...]

    @property
    def option(self) -> str:
        """As it is typed."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Ended:
    """How the program ended; the exit code is None if it did with an exception that nobody caught."""

    code: int | None
    out: str
    err: str


def program(words: Sequence[str]) -> Ended:
    """Run `fab` in this process, as its console script does, in the working directory.

    Args:
        words: The command line, without the program's name.
    """
    from fabric.main import make_program

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=one) for one in ("strict", "backslashreplace"))
    before = sys.argv, sys.stdin, sys.dont_write_bytecode, gc.get_threshold()
    code: int | None = 0
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        sys.argv, sys.stdin = ["fab", *words], nothing
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                make_program().run(sys.argv)
        except SystemExit as ended:
            heed_ctrl_c(ended)
            if ended.code == _INTERRUPTED:
                raise KeyboardInterrupt from None
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001  (what a user would see as a traceback is what is looked for)
            code = None
            err.write(traceback.format_exc())
        finally:
            sys.argv, sys.stdin, sys.dont_write_bytecode = before[:3]
            gc.set_threshold(*before[3])
    return Ended(code, _read(out), _read(err))


def _read(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8", errors="replace")


def flags() -> list[Flag]:
    """Every flag of every task that reads `hosts.yml`, and of those whose wrong values stop them.

    A task that is added later is in it.
    """
    from fabric.main import make_program

    made = make_program()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        made.run(["fab", "--list"])
    found = []
    for context in made.collection.to_contexts():
        arguments = {argument.attr_name or argument.name: argument for argument in context.args.values()}
        reads = "hosts_file" in arguments
        needs = tuple(name for name in _RIGHT if name in arguments)
        for name, argument in arguments.items():
            if reads or name in {**_LOCAL, **_OTHERS}.get(context.name, ()):
                found.append(Flag(context.name, name, argument.kind is not bool, needs))
    return found


class Flags:
    """Types them.

    Args:
        outcome: Where it is noted.
        canaries: Makes the texts.
        folder: An empty directory; it becomes the project's.
    """

    def __init__(self, outcome: Outcome, canaries: Canaries, folder: Path) -> None:
        self._outcome = outcome
        self._canaries = canaries
        self._folder = folder
        write_fabfile(folder)
        (folder / "hosts.yml").write_text(yaml.safe_dump(_settings()), encoding="utf-8")
        (folder / "known_hosts").touch()

    def all(self) -> None:
        """Every flag of every task, and words that are no tasks."""
        with inside(self._folder):
            for flag in flags():
                for hostile in self._texts():
                    self._flag(flag, hostile)
            for hostile in self._texts():
                self._try(f"task {hostile.name}", [f"x{hostile.text}"], {1, 2})
                self._try(f"flag {hostile.name}", ["deploy", f"--x{hostile.text}"], _REFUSED)
                self._try(
                    f"word {hostile.name}", ["deploy", "--env=prod", "--tag=v1", f"x{hostile.text}"], _REFUSED
                )

    def _texts(self) -> Iterator[Hostile]:
        """Texts that can be an argument: no NUL, no half characters but those that stand for bytes."""
        kinds = ("shell", "option", "template", "nginx", "path", "unicode", "control", "size", "number")
        for hostile in self._canaries.hostile(kinds, mixed=3):
            if "\0" not in hostile.text and "\ud800" not in hostile.text:
                yield hostile

    def _flag(self, flag: Flag, hostile: Hostile) -> None:
        case = f"{flag.task} {flag.option} {hostile.name}"
        if not flag.takes_value:
            if hostile.text.startswith("-"):
                return  # Invoke takes that for a flag of its own
            self._try(case, [flag.task, *self._others(flag), f"{flag.option}={hostile.text}"], _REFUSED)
            return
        expected = _expected(flag, hostile.text)
        if expected is None:
            return
        self._try(case, [flag.task, *self._others(flag), f"{flag.option}={hostile.text}"], expected)

    @staticmethod
    def _others(flag: Flag) -> list[str]:
        """The other flags, right."""
        looks = [_LOOKS[flag.task]] if flag.task in _LOOKS and flag.name != "dry_run" else []
        return [*looks, *(f"--{name}={_RIGHT[name]}" for name in flag.needs if name != flag.name)]

    def _try(self, case: str, words: list[str], expected: frozenset[int] | set[int]) -> None:
        self._outcome.count(CHANNEL)
        judge(self._outcome, CHANNEL, case, program(words), expected)

    def programs(self, count: int) -> None:
        """The same through real processes, for a few: what a wrapper or an interpreter would make of the words."""
        texts = [one for one in self._texts() if len(one.text) < 5_000]  # noqa: PLR2004  (longer ones are tried above)
        known = [flag for flag in flags() if flag.takes_value and flag.task not in _LOCAL]
        for index in range(count):
            flag, hostile = known[index * 7 % len(known)], texts[index * 11 % len(texts)]
            expected = _expected(flag, hostile.text)
            words = [flag.task, *self._others(flag), f"{flag.option}={hostile.text}"]
            self._outcome.count(PROCESSES)
            done = subprocess.run(
                [*local.fab(), *words], cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                timeout=local.TIMEOUT, env=local.user_environment(),
            )  # fmt: skip
            out, err = (one.decode(errors="replace") for one in (done.stdout, done.stderr))
            case = f"{flag.task} {flag.option} {hostile.name}"
            judge(self._outcome, PROCESSES, case, Ended(done.returncode, out, err), expected or _ANY)


def judge(
    outcome: Outcome, channel: str, case: str, ended: Ended, expected: frozenset[int] | set[int]
) -> None:
    """Note what is wrong with the way in which a program ended."""
    told = ended.err + ended.out
    if ended.code is None or "Traceback (most recent call last)" in told:
        outcome.violate(channel, case, f"a traceback: {ended.err.strip()[-400:]}")
    elif ended.code not in expected:
        outcome.violate(
            channel, case, f"exit code {ended.code} and not {sorted(expected)}: {told.strip()[-300:]}"
        )
    elif ended.code and not ended.err.strip():
        outcome.violate(channel, case, f"exit code {ended.code} without a message")
    elif not is_printable(told):
        outcome.violate(channel, case, f"output that a terminal obeys: {told[-300:]!r}")


def _expected(flag: Flag, text: str) -> frozenset[int] | None:
    """The exit codes that are right for a value; None where it must not be tried."""
    blank = not text.strip(" ,\t\n\r\v\f")
    if flag.task in _LOCAL:
        return None if blank or _is_word(text) else _REFUSED  # what may be right would begin
    if flag.name == "tag":
        return _ANY if is_tag(text) or is_digest(text) else _REFUSED
    if flag.name == "env" or flag.name in _STRICT:
        return _ANY if blank or _is_word(text.strip()) else _REFUSED
    if flag.name in _WRITES and text.startswith("/"):
        return None  # such a file of this machine could exist
    return _ANY


def _is_word(text: str) -> bool:
    """Whether a text is a number or a name: a flag may well take it."""
    return text.isascii() and text.replace(".", "").replace("_", "").replace("-", "").isalnum()


def _settings() -> dict[str, Any]:
    """Settings whose servers refuse every connection at once: port 1 of this machine."""
    hosts = {
        name: {"address": "127.0.0.1", "private_address": "127.0.0.1", "port": 1, "user": "root"}
        for name in ("edge1", "app1")
    }
    environment = {"system": ["edge1"], "app": ["app1"], "domain": "shop.test"}
    return {
        "product": BASE["product"],
        "image": BASE["image"],
        "known_hosts": "known_hosts",
        "hosts": hosts,
        "environments": {"prod": environment},
    }


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work there, and come back (contextlib.chdir is newer than the oldest Python)."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)

"""Looks for secrets where they must not be: in every process of this machine while something runs, and in what it wrote.

The hosts of the lab are namespaces of this machine, so that their processes and files are seen from here: also those
that live for a moment, as far as one thread can be fast enough. What was seen of them is kept, so that whoever asks can
be sure that the moment in question was looked at.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shlex
import stat
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.lab.lab import STORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from axon_tasks.lab.lab import Lab

#: An operator may have a secret in the environment of the shell, and what is started there inherits it. This variable
#: marks such a shell: it does not travel over SSH.
OPERATORS_SHELL = "AXON_LAB_OPERATORS_SHELL"

#: Shorter texts are in everything.
_SHORTEST = 6
#: A file is read in pieces that overlap by more than any form of a secret is long.
_PIECE, _OVERLAP = 1 << 20, 1 << 12

#: The control group of a container: its id, whatever stands before it (docker-run(1), --cgroup-parent).
_CONTAINER = re.compile(rb"[/-][0-9a-f]{64}(?:\.scope)?$", re.MULTILINE)

#: Where Docker and containerd keep what a container is run with; only root may enter these.
_DOCKERS_OWN = re.compile(
    r"/(?:var-lib-docker|var/lib/docker)/(?:containers/[0-9a-f]{64}/config\.v2\.json|containerd/\S*/meta\.db)$"
    r"|/run/(?:docker/)?(?:containerd|runtime-runc)/\S*/[0-9a-f]{64}/(?:config|state)\.json$"
)

#: Where an app server keeps the variables of a release, for a rollback; only its owner may read the file.
_KEPT = re.compile(r"/var/lib/axon/[^/]+/[^/]+/started/\.?[0-9]+\.env(?:\.[0-9]+)?$")


@dataclass(frozen=True)
class Watched:
    """A secret.

    Attributes:
        name: What it is, for messages: they never show it.
        text: The secret itself.
        of_application: Whether it is for the application: then it belongs into the container's environment, and so into
            Docker's own files.
    """

    name: str
    text: str
    of_application: bool = False


@dataclass(frozen=True)
class Leak:
    """A secret where it must not be.

    Attributes:
        secret: Its name.
        form: How it was written there: `raw`, `base64` and so on.
        where: The process or the file.
    """

    secret: str
    form: str
    where: str

    def __str__(self) -> str:
        return f"{self.secret} ({self.form}) in {self.where}"


def forms(text: str) -> dict[str, bytes]:
    """The ways in which a text can be written, so that it is found in any of them; those that are too short are left out.

    Args:
        text: The secret.
    """
    raw = text.encode()
    found = {
        "raw": raw,
        "shell-quoted": shlex.quote(text).removeprefix("'").removesuffix("'").encode(),
        "JSON": json.dumps(text)[1:-1].encode(),
        "JSON in UTF-8": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        "URL-encoded": urllib.parse.quote(text, safe="").encode(),
        "form-encoded": urllib.parse.quote_plus(text).encode(),
        "hexadecimal": raw.hex().encode(),
    }
    for offset in range(3):
        # What stands before a secret shifts it, as in `user:password`; only the characters that hold nothing but bits of
        # the secret are the same wherever it stands.
        padded = base64.b64encode(b"\0" * offset + raw + b"\0" * 3)
        inner = padded[-(-8 * offset // 6) : 8 * (offset + len(raw)) // 6]
        found[f"base64, shifted by {offset}"] = inner
        found[f"base64 for URLs, shifted by {offset}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    unique: dict[bytes, str] = {}
    for form, written in found.items():
        if len(written) >= _SHORTEST:
            unique.setdefault(written, form)
    return {form: written for written, form in unique.items()}


class Needles:
    """Finds any form of any secret.

    Args:
        secrets: What to look for.
    """

    def __init__(self, secrets: Iterable[Watched]) -> None:
        self.secrets = {secret.name: secret for secret in secrets}
        self._known: dict[bytes, tuple[str, str]] = {}
        for secret in self.secrets.values():
            for form, written in forms(secret.text).items():
                self._known.setdefault(written, (secret.name, form))

    def find(self, data: bytes) -> list[tuple[str, str]]:
        """The name and the form of each secret in some bytes."""
        return [named for written, named in self._known.items() if written in data]


class Sampler:
    """Reads arguments and environment of every process of this machine, again and again, while its block runs.

    Args:
        needles: What to look for.
    """

    def __init__(self, needles: Needles) -> None:
        self.leaks: set[Leak] = set()
        #: How often all processes were looked at.
        self.rounds = 0
        #: How many were looked at; one that has become another program counts again.
        self.processes = 0
        #: The programs that were seen, each with its first argument.
        self.seen: set[str] = set()
        self._needles = needles
        self._before: dict[str, tuple[bytes, bytes]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        own = str(os.getpid())
        while not self._ended.is_set():
            for entry in os.scandir("/proc"):
                if entry.name.isdigit() and entry.name != own:
                    self._look(entry.name)
            self.rounds += 1

    def _look(self, number: str) -> None:
        """Look at one process; what has ended meanwhile, and the kernel's own, have no arguments."""
        arguments = _read(f"/proc/{number}/cmdline")
        if not arguments:
            return
        # The control group comes first: whoever ends in between is not taken for somebody else.
        is_container = _CONTAINER.search(_read(f"/proc/{number}/cgroup")) is not None
        environment = b"" if is_container else _read(f"/proc/{number}/environ")
        if self._before.get(number) == (arguments, environment):
            return
        self._before[number] = arguments, environment
        self.processes += 1
        words = arguments.decode(errors="replace").split("\0")
        program = " ".join([words[0].rpartition("/")[2], *words[1:2]]).strip()
        self.seen.add(program)
        for secret, form in self._needles.find(arguments):
            # Not the second word, which may be the secret.
            self.leaks.add(Leak(secret, form, f"the arguments of {program.partition(' ')[0]!r}"))
        if OPERATORS_SHELL.encode() not in environment:
            for secret, form in self._needles.find(environment):
                self.leaks.add(Leak(secret, form, f"the environment of {program!r}"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (hundreds of thousands of times: every call counts)
            return file.read()
    except OSError:
        return b""


def places(lab: Lab) -> list[Path]:
    """Every place that something in the lab can write to: the hosts' files and what they keep in memory, and this machine's.

    Args:
        lab: A lab that is up.
    """
    found = [Path("/tmp"), Path("/var/log"), Path("/var/tmp"), Path("/run/axon-lab")]
    for host in lab.hosts:
        found += [STORE / host.name / part for part in ("upper", "own")]
        found += [lab.path(host.name, part) for part in ("/tmp", "/run", "/dev/shm")]
    return found


def search(
    needles: Needles, roots: Iterable[Path], *, since: float = 0.0, exempt: Iterable[Path] = ()
) -> list[Leak]:
    """Look for secrets in files.

    Args:
        needles: What to look for.
        roots: Where; links are not followed, and what is no ordinary file is left out.
        since: Only what was written after that, in seconds since 1970.
        exempt: Files, and directories with all that is in them, in which the secrets belong.
    """
    left_out = {os.path.realpath(path) for path in exempt}
    leaks: dict[Leak, None] = {}
    for root in roots:
        for path in _files(str(root), left_out, since):
            for secret, form in _find_in(path, needles):
                if not (needles.secrets[secret].of_application and _may_hold_variables(path)):
                    leaks[Leak(secret, form, path)] = None
    return list(leaks)


def _may_hold_variables(path: str) -> bool:
    """Whether a file is one of those that hold an application's variables, and nobody but its owner may read it."""
    if _DOCKERS_OWN.search(path):
        return True
    return _KEPT.search(path) is not None and not os.lstat(path).st_mode & 0o077


def _files(root: str, left_out: set[str], since: float) -> Iterator[str]:
    """The ordinary files below a directory, or the file itself, that were changed since; on any file system."""
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            info = os.lstat(path)
        except OSError:
            continue
        if os.path.realpath(path) in left_out:
            continue
        if stat.S_ISDIR(info.st_mode):
            with contextlib.suppress(OSError):
                waiting += [f"{path}/{name}" for name in os.listdir(path)]  # noqa: PTH208  (names, by the ten thousand)
        elif stat.S_ISREG(info.st_mode) and info.st_ctime >= since:
            yield path


def _find_in(path: str, needles: Needles) -> Iterator[tuple[str, str]]:
    rest = b""
    with contextlib.suppress(OSError), open(path, "rb") as file:  # noqa: PTH123  (see above)
        while piece := file.read(_PIECE):
            yield from needles.find(rest + piece)
            rest = piece[-_OVERLAP:]


def found_in_text(needles: Needles, texts: Mapping[str, str]) -> list[Leak]:
    """Look for secrets in what a program printed.

    Args:
        needles: What to look for.
        texts: The texts by what they are.
    """
    return [
        Leak(secret, form, name)
        for name, text in texts.items()
        for secret, form in needles.find(text.encode("utf-8", "surrogateescape"))
    ]

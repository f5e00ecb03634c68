"""Hostile state on real servers: every file that a deploy leaves there, spoilt, and names that nobody would give.

A deploy, a look, the list of jobs and a clean-up must then do their work or fail with a message, and what serves keeps
serving. The files are found and not listed here, so that a new one is spoilt, too.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from axon_tasks.lab.bench.product import ENVIRONMENT, TAGS, product
from axon_tasks.lab.hostile.flags import inside, judge, program
from axon_tasks.lab.hostile.outcome import Outcome
from axon_tasks.lab.hostile.values import Canaries
from axon_tasks.lab.hosts import EDGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.lab.bench.product import Product
    from axon_tasks.lab.lab import Lab

CHANNEL = "state"

_APP = "app1"
#: Done, or failed; a deploy can also fail after its switch, because it cannot write its record.
_CODES, _DEPLOY_CODES = frozenset({0, 1}), frozenset({0, 1, 5})

#: A file of somebody else, to which links lead.
_SECRET, _SECRET_TEXT = "/etc/axon-h-secret", "this is a secret of somebody else"

#: What is asked of servers whose state is spoilt; each spoilt thing meets the next of these.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("steps.inspect", f"--env={ENVIRONMENT}"),
    ("cleanup", f"--env={ENVIRONMENT}", "--dry-run"),
    ("jobs.list", f"--env={ENVIRONMENT}"),
    ("steps.stage", f"--env={ENVIRONMENT}", "--tag=TAG"),
    ("deploy", f"--env={ENVIRONMENT}", "--tag=TAG"),
    ("history", f"--env={ENVIRONMENT}"),
    ("rollback", f"--env={ENVIRONMENT}"),
    ("status", f"--env={ENVIRONMENT}"),
    ("diff", f"--env={ENVIRONMENT}"),
    ("doctor", f"--env={ENVIRONMENT}"),
    ("restart", f"--env={ENVIRONMENT}"),
    ("sync", f"--env={ENVIRONMENT}"),
    ("maintenance", f"--env={ENVIRONMENT}"),
)

#: What can stand in a file instead of what belongs there.
_CONTENTS = (
    "",
    "$(touch {c})\n",
    "`touch {c}`; touch {c}\n",
    "1\nslot=b\ncurrent=1; touch {c}\nlocked=yes\n",
    "\x1b]0;x\x07\x1b[2J\x1b[31m\n",
    "9" * 5_000 + "\n",
    "-1 -1\n",
    '{"id": [], "digest": {"a": 1}, "image": "$(touch {c})", "who": "\\u001b[2J"}\n',
    "[" * 20_000,
    "../../../etc/passwd\n",
    "\0\x01\xff\xfe" * 200,
)

#: Names of files and directories.
_NAMES = (
    "$(touch {n})",
    "`touch {n}`",
    "; touch {n}",
    "-rf",
    "--help",
    "a b",
    "a\nslot=b",
    "*",
    "\x1b[2J",
    "..x",
    "a'b\"c",
)


@dataclass(frozen=True)
class Spoilt:
    """One thing that is wrong on one server.

    Attributes:
        name: What it is.
        server: Where.
        spoil: A shell command that makes it so.
        repair: One that makes it right again, unless a deploy has done so already.
    """

    name: str
    server: str
    spoil: str
    repair: str


def run(lab: Lab, *, seed: int = 0, most: int | None = None) -> Outcome:
    """Spoil the state of a product in the lab, one thing at a time.

    Args:
        lab: A lab that is up.
        seed: Another one has each thing meet another command, and with `most` chooses other things.
        most: How many things to spoil, spread over all of them; None for all.

    Returns:
        What was tried, and what was not dealt with as it must be.
    """
    outcome = Outcome()
    with product(lab, (_APP,)) as made, _remote_canaries(lab) as canaries:
        for tag in TAGS:
            made.deploy(tag)
        made.settle()
        known = list(_everything(made, canaries))
        step = 1 if most is None else max(1, len(known) // most)
        with inside(made.folder):
            for index, spoilt in enumerate(known[seed % step :: step], start=seed):
                _try(outcome, made, spoilt, COMMANDS[index % len(COMMANDS)])
            _all_names(outcome, made, canaries)
        for server in made.servers:
            for path in lab.exec(server, ["ls", str(canaries.folder)]).stdout.split():
                outcome.violate(CHANNEL, f"{server}: {path}", "a command was executed")
    return outcome


@contextlib.contextmanager
def _remote_canaries(lab: Lab) -> Iterator[Canaries]:
    """Canaries whose folder is on every lab host, and writable for everybody there."""
    folder = Path("/tmp/axon-h")  # a short name, on the lab's hosts alone
    servers = (EDGE.name, _APP)
    for server in servers:
        lab.exec(
            server, f"rm -rf {folder}; mkdir -m 777 {folder}; umask 077; echo '{_SECRET_TEXT}' >{_SECRET}"
        )
    try:
        yield Canaries(folder)
    finally:
        for server in servers:
            lab.exec(server, ["rm", "-rf", str(folder), _SECRET], check=False)


def _try(outcome: Outcome, made: Product, spoilt: Spoilt, command: tuple[str, ...]) -> None:
    """Run one command while one thing is wrong; afterwards the site must answer, and the thing is mended."""
    words = [word.replace("TAG", made.other()) for word in command]
    made.lab.exec(spoilt.server, spoilt.spoil)
    try:
        outcome.count(CHANNEL)
        case = f"{spoilt.server}: {spoilt.name}: fab {words[0]}"
        codes = _DEPLOY_CODES if words[0] in {"deploy", "rollback", "restart", "sync"} else _CODES
        judge(outcome, CHANNEL, case, program(words), codes)
        if not made.version():
            outcome.violate(CHANNEL, case, "the site does not answer any more")
        kept = made.lab.exec(spoilt.server, ["cat", _SECRET]).stdout.strip()
        if kept != _SECRET_TEXT:
            outcome.violate(CHANNEL, case, f"a file of somebody else was changed: {kept[-200:]!r}")
    finally:
        made.lab.exec(spoilt.server, spoilt.repair, check=False)


def _everything(made: Product, canaries: Canaries) -> Iterator[Spoilt]:
    folder = f"/var/lib/axon/{made.name}/{ENVIRONMENT}"
    for server in made.servers:
        for path in _files(made.lab, server, folder):
            yield from _spoilt_file(server, path, canaries)
        yield from _spoilt_names(server, folder, canaries)
    config = f"/etc/nginx/axon.d/{{}}/{made.name}-{ENVIRONMENT}.conf"
    for kind in ("upstreams", "sites"):
        # Not the text of a whole configuration, which nginx would go on using: what stands in front and behind.
        yield from _spoilt_file(EDGE.name, config.format(kind), canaries)
    yield from _spoilt_containers(made, canaries)


def _files(lab: Lab, server: str, folder: str) -> list[str]:
    """Every file of a product's state on a server, and one that a run leaves only while it lasts."""
    found = lab.exec(server, ["find", folder, "-type", "f"]).stdout.splitlines()
    return sorted({*found, f"{folder}/lock.owner", f"{folder}/ports", f"{folder}/current"})


def _spoilt_file(server: str, path: str, canaries: Canaries) -> Iterator[Spoilt]:
    quoted, name = shlex.quote(path), "/".join(PurePosixPath(path).parts[-2:])
    kept = shlex.quote(f"{path}.kept")
    keep = f"if [ -e {quoted} ]; then cp -p {quoted} {kept}; else mkdir -p {shlex.quote(path.rpartition('/')[0])}; fi"
    back = f"if [ -e {kept} ]; then mv {kept} {quoted}; else rm -f {quoted}; fi"
    for index, content in enumerate(_CONTENTS):
        text = "".join(f"\\{byte:03o}" for byte in _filled(content, canaries))
        mark = f"/run/axon-h-{'a' * 8}"
        # What a deploy has written meanwhile is right and stays.
        yield Spoilt(
            f"{name} content {index}",
            server,
            f"{keep}; printf '{text}' >{quoted}; cp {quoted} {mark}",
            f"if cmp -s {mark} {quoted}; then {back}; else rm -f {kept}; fi; rm -f {mark}",
        )
    for kind, make in {
        "a directory": f"mkdir {quoted}",
        "a dangling link": f"ln -s /nonexistent/x {quoted}",
        "a link to itself": f"ln -s {quoted} {quoted}",
        "a link to a secret": f"ln -s {_SECRET} {quoted}",
    }.items():
        if kind == "a directory" and "/axon.d/" in path:
            continue  # nginx itself refuses to start with one, whoever asks
        undo = f"if [ -L {quoted} ] || [ -d {quoted} ]; then rm -rf {quoted}; {back}; else rm -f {kept}; fi"
        yield Spoilt(f"{name} as {kind}", server, f"{keep}; rm -rf {quoted}; {make}", undo)


def _filled(content: str, canaries: Canaries) -> bytes:
    # Braces are JSON's here, so that only the canary is filled in.
    path = canaries.filled("{c}")
    return content.replace("{c}", path).encode("latin-1")


def _spoilt_names(server: str, folder: str, canaries: Canaries) -> Iterator[Spoilt]:
    """Entries with strange names in the directories whose entries are listed."""
    for below, made in {
        "releases": "f",
        "started": "f",
        "jobs": "d",
        ".": "d",
        "..": "d",
        "../..": "d",
    }.items():
        for index, template in enumerate(_NAMES):
            # A name has no slash; a shell that obeyed it would find one.
            name = template.replace("{n}", canaries.filled("{c}").replace("/", "${HOME%${HOME#?}}"))
            end = {"releases": ".json", "started": ".run"}.get(below, "")
            path = shlex.quote(f"{folder}/{below}/{name}{end}")
            make = (
                f"printf '{{}}' >{path}"
                if made == "f"
                else f"mkdir -p {path} && touch {path}/cmd {path}/rc {path}/log"
            )
            yield Spoilt(
                f"{below} name {index}",
                server,
                f"mkdir -p {shlex.quote(f'{folder}/{below}')}; {make}",
                f"rm -rf -- {path}",
            )


def _spoilt_containers(made: Product, canaries: Canaries) -> Iterator[Spoilt]:
    """Containers with our labels and strange values in the others."""
    labels = {
        "axon.product": made.name,
        "axon.environment": ENVIRONMENT,
        "axon.release": "1000000000",
        "axon.slot": "",
        "axon.port": "30000",
        "axon.image": "shop:v1",
        "axon.digest": f"sha256:{'a' * 64}",
    }
    values = ("$(touch {c})", "9" * 5_000, "\x1b[2J", "a b;c", "-1")
    for label in ("axon.release", "axon.slot", "axon.port", "axon.image", "axon.digest"):
        for index, value in enumerate(values):
            chosen = {**labels, label: canaries.filled(value)}
            words = [word for key, text in chosen.items() for word in ("--label", f"{key}={text}")]
            name = f"{made.name}-spoilt"
            image = "$(docker ps -q --no-trunc | head -n 1 | xargs docker inspect --format '{{.Image}}')"
            yield Spoilt(
                f"a container with {label} {index}",
                _APP,
                f"docker create --name {name} {shlex.join(words)} {image} >/dev/null",
                f"docker rm -f {name} >/dev/null",
            )


def _all_names(outcome: Outcome, made: Product, canaries: Canaries) -> None:
    """A real clean-up while everything has a strange name at once: nothing of it is obeyed, and what serves stays."""
    folder = f"/var/lib/axon/{made.name}/{ENVIRONMENT}"
    spoilt = [
        one
        for server in made.servers
        for one in _spoilt_names(server, folder, canaries)
        if "../.." not in one.name
    ]
    for one in spoilt:
        made.lab.exec(one.server, one.spoil)
    try:
        outcome.count(CHANNEL)
        ended = program(["cleanup", f"--env={ENVIRONMENT}", "--days=0", "--json"])
        judge(outcome, CHANNEL, "cleanup among strange names", ended, _CODES)
        if ended.code == 0:
            json.loads(ended.out)
        if not made.version():
            outcome.violate(CHANNEL, "cleanup among strange names", "the site does not answer any more")
    finally:
        for one in spoilt:
            made.lab.exec(one.server, one.repair, check=False)

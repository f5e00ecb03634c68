"""One large section against `ssh host cat`, and the memory of one that is passed on as it arrives."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.figures import Budget, Contender, Count, Ratio, pairs, take_turns
from axon_tasks.lab.bench.target import HOST, fleet, master, ssh
from axon_tasks.remote.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab
    from axon_tasks.remote.connection import Connection

BUDGET = Budget(2, at_least=False)
#: Megabytes by which a program may grow that passes a section on, however large that is: some windows of SSH.
GROWTH = Budget(16, at_least=False)


@dataclass(frozen=True)
class Payload:
    """A file on the lab host, and how to tell that all of it arrived.

    Args:
        path: Where it is there.
        size: Its bytes.
        sha256: Its digest, taken there.
    """

    path: str
    size: int
    sha256: str

    def check(self, data: bytes | None) -> None:
        """Compare what arrived; None is from a contender that throws it away.

        Raises:
            AxonError: It is not the file.
        """
        if data is not None:
            self.compare(len(data), hashlib.sha256(data).hexdigest())

    def compare(self, size: int, sha256: str) -> None:
        """Compare what somebody else has counted.

        Raises:
            AxonError: It is not the file.
        """
        if size != self.size:
            raise AxonError(f"{size} of {self.size} bytes arrived.")
        if sha256 != self.sha256:
            raise AxonError(f"All {self.size} bytes arrived, but not those that were sent.")


class Output:
    """Our side keeps every byte and ssh throws them away; the check of what arrived is not measured.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.repeat = options.rounds(5)
        self.rtts = options.round_trips((0.0,))
        self.size = options.size

    def measure(self, lab: Lab, say: Say) -> list[Figure]:
        """Measure at the round-trip time that the lab has; both log in first, or both have done so before.

        Raises:
            AxonError: What arrived is not what was sent.
        """
        what = f"a section of {self.size / 1e6:g} MB"
        say(f"{what[0].upper()}{what[1:]}, at {lab.rtt:g} ms round-trip time")
        with payload(lab, self.size) as sent:
            seconds = self._turns(lab, sent)
            grown = tuple(streamed(lab, sent) for _ in range(min(3, self.repeat)))
        first, again = pairs(seconds, "section", "ssh"), pairs(seconds, "section again", "ssh again")
        return [
            Ratio("output", f"{what}, login included", lab.rtt, BUDGET, "a batch", "ssh host cat", first),
            Ratio(
                "output", f"{what}, logged in before", lab.rtt, None, "a batch", "ssh -o ControlPath", again
            ),
            Count("output", f"{what}, passed on", lab.rtt, GROWTH, "a batch", "MB of memory more", grown),
        ]

    def _turns(self, lab: Lab, sent: Payload) -> dict[str, list[float]]:
        command = f"cat {sent.path}"
        with fleet(lab) as open_already, master(lab) as through_master:
            connection = open_already[HOST]
            contenders: dict[str, Contender[Any]] = {
                "section": Contender(lambda: _fresh_section(lab, command), sent.check),
                "ssh": Contender(lambda: local.run([*ssh(lab), command], keep=False), _nothing),
                "section again": Contender(lambda: _section(connection, command), sent.check),
                "ssh again": Contender(lambda: local.run([*through_master, command], keep=False), _nothing),
            }
            return take_turns(contenders, self.repeat)


def _nothing(_said: object) -> None:
    """What was thrown away cannot be checked; a failed program has been told already."""


def _fresh_section(lab: Lab, command: str) -> bytes:
    with fleet(lab) as opened:
        return _section(opened[HOST], command)


def _section(connection: Connection, command: str) -> bytes:
    section = Batch("bench").add(command, label="data").run(connection, timeout=local.TIMEOUT)["data"]
    if not section.ok:
        raise AxonError(f"The section failed with exit code {section.exit_code}: {section.stderr.strip()}")
    return section.stdout_bytes


@contextlib.contextmanager
def payload(lab: Lab, size: int) -> Iterator[Payload]:
    """Random bytes in a file on the lab host, gone at the end."""
    made = lab.exec(
        HOST, f'f=$(mktemp) && head -c {size} /dev/urandom > "$f" && echo "$f" && sha256sum < "$f"'
    )
    path, digest = made.stdout.splitlines()
    try:
        yield Payload(path, size, digest.split()[0])
    finally:
        lab.exec(HOST, ["rm", "-f", path], check=False)


def streamed(lab: Lab, sent: Payload) -> float:
    """By how many megabytes a process of its own grows while it passes the section on.

    Raises:
        AxonError: What arrived there is not what was sent.
    """
    with tempfile.TemporaryDirectory(prefix="axon-bench-") as directory:
        work = Path(directory, "work.json")
        where = {
            "address": lab.host(HOST).address,
            "key": str(lab.key_file),
            "known_hosts": str(lab.known_hosts),
        }
        work.write_text(json.dumps({**where, "command": f"cat {sent.path}"}), encoding="utf-8")
        said = json.loads(
            local.run([sys.executable, "-m", "axon_tasks.lab.bench.programs", "stream", str(work)])
        )
    sent.compare(said["size"], said["sha256"])
    return float(said["grown"])

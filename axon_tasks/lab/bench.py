"""How fast the SSH layer is, as ratios: contenders take turns in one run, so that noise hits all of them.

Seconds say something about a machine. A ratio of two things that were measured next to each other says something
about the code, and the median of several rounds holds on a machine that is busy with something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab.lab import Lab
from axon_tasks.remote.batch import Batch
from axon_tasks.remote.fleet import AdHocHost, Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from axon_tasks.lab.hosts import LabHost
    from axon_tasks.remote.connection import Connection

    Say = Callable[[str], None]

T = TypeVar("T")

HOST = "app1"
MAX_REPEAT = 50
#: Seconds for anything that is measured once; it catches what hangs.
TIMEOUT = 120.0

#: Commands that take no time by themselves: what is left is the way there and back, which is what a batch saves. It is
#: what the budget was set for; the time that programs take counts on both sides and pulls every ratio towards 1.
NOTHING = ("true",) * 10
#: What a deploy asks a server for. Their output is the same at each call, so that it can be compared.
PROGRAMS = (
    "uname -n",
    "uname -r",
    "id -u",
    "cat /etc/hostname",
    "ls -d /etc/ssh",
    "test -r /proc/uptime && echo readable",
    "wc -c < /etc/passwd",
    "command -v docker",
    "stat -c %U:%a /srv",
    "cat /proc/sys/kernel/pid_max",
)


@dataclass(frozen=True)
class Budget:
    """What a ratio is held against.

    Args:
        limit: The ratio.
        at_least: Whether more is better; otherwise less is.
        required: Whether the benchmark fails when it is missed.
    """

    limit: float
    at_least: bool
    required: bool

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def met(self, ratio: float) -> bool:
        """Whether a ratio is within it."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit


#: The budgets of the design for speed.
BATCH = Budget(5, at_least=True, required=True)
SECTION = Budget(2, at_least=False, required=True)
LISTING = Budget(1.3, at_least=False, required=False)


@dataclass(frozen=True)
class Figure:
    """One comparison: how many times as long one thing takes as another.

    Args:
        what: What is divided, for people.
        by: What it is divided by.
        rtt: Round-trip time of SSH in milliseconds; None where nothing is sent.
        rounds: Per round, the seconds of both.
        budget: What the ratio is held against; None where it is only of interest.
    """

    what: str
    by: str
    rtt: float | None
    rounds: tuple[tuple[float, float], ...]
    budget: Budget | None = None

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        return [one / other for one, other in self.rounds]

    @property
    def ratio(self) -> float:
        """The median of the ratios: half of the rounds may be spoilt without changing the verdict."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """How it stands against its budget."""
        if self.budget is None:
            return ""
        return "PASS" if self.budget.met(self.ratio) else "over budget"

    @property
    def missed(self) -> bool:
        """Whether the benchmark fails because of it."""
        return self.budget is not None and self.budget.required and not self.budget.met(self.ratio)

    def as_dict(self) -> dict[str, Any]:
        """Everything about it, for JSON; seconds are for information."""
        spread = {"median": self.ratio, "min": min(self.ratios), "max": max(self.ratios)}
        return {**asdict(self), "ratio": spread, "verdict": self.verdict}


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Args:
        repeat: Rounds per comparison, 1 to 50.
        rtts: Round-trip times of SSH in milliseconds; none means the one that the lab has.
        size: Bytes of the large section.
    """

    repeat: int = 7
    rtts: tuple[float, ...] = ()
    size: int = 100_000_000

    def __post_init__(self) -> None:
        """Refuse what would take for ever.

        Raises:
            UsageError: Too many rounds, or none.
        """
        if not 1 <= self.repeat <= MAX_REPEAT:
            raise UsageError(f"--repeat={self.repeat}: between 1 and {MAX_REPEAT} rounds.")


def run(lab: Lab, options: Options, say: Say) -> list[Figure]:
    """Start the lab if needed and measure everything.

    Args:
        lab: Its round-trip time is the same again afterwards.
        options: How much.
        say: Called with what is being measured.

    Raises:
        AxonError: A contender failed, or what arrived is not what was sent.
    """
    lab.up(say)
    figures = []
    for rtt in options.rtts or (lab.rtt,):
        with round_trip(lab, rtt, say) as there:
            say(f"A batch of 10 commands, at {rtt:g} ms round-trip time")
            figures += batch_figures(there, options.repeat)
            say(f"One section of {options.size / 1e6:g} MB, at {rtt:g} ms round-trip time")
            figures += section_figures(there, options.repeat, options.size)
    say("The start of fab --list")
    return [*figures, listing_figure(lab.root, options.repeat)]


@contextlib.contextmanager
def round_trip(lab: Lab, rtt: float, say: Say) -> Iterator[Lab]:
    """The lab with another round-trip time of SSH, which is put back at the end, whatever happens."""
    if rtt == lab.rtt:
        yield lab
        return
    changed = Lab(lab.apps, rtt, lab.root)
    try:
        changed.up(say)
        yield changed
    finally:
        lab.up(say)


# --- taking turns ----------------------------------------------------------------------------------------------


def take_turns(
    contenders: Mapping[str, Callable[[], T]],
    repeat: int,
    check: Callable[[T], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Measure several things, each once per round, after one round that does not count (imports, caches).

    Every other round goes backwards, so that none of them always runs in the wake of the same other one.

    Args:
        contenders: What is measured, by name.
        repeat: How many rounds count.
        check: Called with what each of them returned, outside the time that is measured.
        clock: Seconds.

    Returns:
        The seconds of each, by name, in the order of the rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeat + 1):
        names = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in names:
            began = clock()
            returned = contenders[name]()
            took = clock() - began
            check(returned)
            if number:
                seconds[name].append(took)
    return seconds


def _rounds(seconds: Mapping[str, list[float]], one: str, other: str) -> tuple[tuple[float, float], ...]:
    return tuple(zip(seconds[one], seconds[other], strict=True))


# --- a batch against single calls ------------------------------------------------------------------------------


def batch_figures(lab: Lab, repeat: int) -> list[Figure]:
    """A batch against single calls, over connections that are open: ours, and for information Fabric's own.

    Raises:
        AxonError: The contenders did not get the same output.
    """
    with _fleet(lab) as fleet, _stock(lab) as stock:
        ours = fleet[HOST]
        nothing = _batch_rounds(ours, stock, NOTHING, repeat)
        programs = _batch_rounds(ours, stock, PROGRAMS, repeat)
    calls, batch = "10 calls", "a batch of 10"
    return [
        Figure(f"{calls} of `true`", batch, lab.rtt, _rounds(nothing, "calls", "batch"), BATCH),
        Figure(f"{calls} of `true`, stock Fabric", batch, lab.rtt, _rounds(nothing, "stock", "batch")),
        Figure(f"{calls} of small programs", batch, lab.rtt, _rounds(programs, "calls", "batch")),
        Figure(
            f"{calls} of small programs, stock Fabric", batch, lab.rtt, _rounds(programs, "stock", "batch")
        ),
    ]


def _batch_rounds(
    ours: Connection, stock: Any, commands: Sequence[str], repeat: int
) -> dict[str, list[float]]:
    outputs: set[tuple[str, ...]] = set()

    def check(output: tuple[str, ...]) -> None:
        outputs.add(output)
        if len(outputs) > 1:
            raise AxonError(f"The batch and the single calls got different output: {sorted(outputs)}")

    contenders = {
        "batch": lambda: _in_a_batch(ours, commands),
        "calls": lambda: _one_by_one(ours, commands),
        "stock": lambda: _one_by_one(stock, commands),
    }
    return take_turns(contenders, repeat, check)


def _in_a_batch(connection: Connection, commands: Sequence[str]) -> tuple[str, ...]:
    batch = Batch("bench")
    for command in commands:
        batch.add(command)
    result = batch.run(connection, timeout=TIMEOUT)
    if not result.ok:
        raise AxonError(f"The batch failed: {result!r}")
    return tuple(section.stdout for section in result.values())


def _one_by_one(connection: Any, commands: Sequence[str]) -> tuple[str, ...]:
    """Call by call, on our connection or on Fabric's own."""
    return tuple(
        connection.run(command, hide=True, in_stream=False, timeout=int(TIMEOUT)).stdout
        for command in commands
    )


@dataclass(frozen=True)
class _Inventory:
    hosts: dict[str, AdHocHost]
    known_hosts: Path


def _fleet(lab: Lab) -> Fleet:
    """Connections to the lab, unmoved by the ssh_config of whoever measures."""
    host = AdHocHost(HOST, _target(lab).address, user="root", key=lab.key_file)
    return Fleet(_Inventory({HOST: host}, lab.known_hosts), ssh_config=Path(os.devnull))


@contextlib.contextmanager
def _stock(lab: Lab) -> Iterator[Any]:
    """A connection as Fabric makes it, except that it checks the host key."""
    # The lab measures Fabric itself here; nothing that deploys may make such a connection.
    import fabric
    import paramiko

    keys = {"key_filename": str(lab.key_file), "look_for_keys": False, "allow_agent": False}
    config = fabric.Config(overrides={"load_ssh_configs": False}, lazy=True)
    connection = fabric.Connection(_target(lab).address, user="root", connect_kwargs=keys, config=config)
    connection.client.load_host_keys(str(lab.known_hosts))
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    with connection:
        connection.open()
        yield connection


def _target(lab: Lab) -> LabHost:
    return lab.host(HOST)


# --- one large section against ssh -----------------------------------------------------------------------------


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
        if data is None:
            return
        if len(data) != self.size:
            raise AxonError(f"{len(data)} of {self.size} bytes arrived.")
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise AxonError(f"All {self.size} bytes arrived, but not those that were sent.")


def section_figures(lab: Lab, repeat: int, size: int) -> list[Figure]:
    """One large section against `ssh host cat FILE >/dev/null`: both log in first, or both have done so before.

    Our side keeps every byte and ssh throws them away; the check of what arrived is not measured.
    """
    with _payload(lab, size) as payload, _fleet(lab) as fleet, _master(lab) as through_master:
        open_already = fleet[HOST]
        command = f"cat {payload.path}"
        contenders: dict[str, Callable[[], bytes | None]] = {
            "section": lambda: _fresh_section(lab, command),
            "ssh": lambda: _discard([*_ssh(lab), command]),
            "section again": lambda: _section(open_already, command),
            "ssh again": lambda: _discard([*through_master, command]),
        }
        seconds = take_turns(contenders, repeat, payload.check)
    what, by = f"a section of {size / 1e6:g} MB", "ssh host cat"
    return [
        Figure(f"{what}, login included", by, lab.rtt, _rounds(seconds, "section", "ssh"), SECTION),
        Figure(
            f"{what}, logged in before",
            f"{by} through ControlMaster",
            lab.rtt,
            _rounds(seconds, "section again", "ssh again"),
        ),
    ]


def _fresh_section(lab: Lab, command: str) -> bytes:
    with _fleet(lab) as fleet:
        return _section(fleet[HOST], command)


def _section(connection: Connection, command: str) -> bytes:
    section = Batch("bench").add(command, label="data").run(connection, timeout=TIMEOUT)["data"]
    if not section.ok:
        raise AxonError(f"The section failed with exit code {section.exit_code}: {section.stderr.strip()}")
    return section.stdout_bytes


@contextlib.contextmanager
def _payload(lab: Lab, size: int) -> Iterator[Payload]:
    """Random bytes in a file on the lab host, gone at the end."""
    made = lab.exec(
        HOST, f'f=$(mktemp) && head -c {size} /dev/urandom > "$f" && echo "$f" && sha256sum < "$f"'
    )
    path, digest = made.stdout.splitlines()
    try:
        yield Payload(path, size, digest.split()[0])
    finally:
        lab.exec(HOST, ["rm", "-f", path], check=False)


def _ssh(lab: Lab, *options: str) -> list[str]:
    """The words of `ssh` to the lab host, unmoved by the ssh_config of whoever measures."""
    files = [f"IdentityFile={_ssh_path(lab.key_file)}", f"UserKnownHostsFile={_ssh_path(lab.known_hosts)}"]
    settings = [*files, "IdentitiesOnly=yes", "BatchMode=yes", *options]
    flags = [word for setting in settings for word in ("-o", setting)]
    return ["ssh", "-F", "none", *flags, f"root@{_target(lab).address}"]


def _ssh_path(path: Path) -> str:
    """A path as ssh_config(5) takes it literally: spaces only in quotes, and `%` begins a token."""
    return '"{}"'.format(str(path).replace("%", "%%"))


@contextlib.contextmanager
def _master(lab: Lab) -> Iterator[list[str]]:
    """The words of `ssh` through a connection that is open already (ssh_config(5): ControlMaster)."""
    with tempfile.TemporaryDirectory(prefix="axon-bench-") as directory:
        socket = Path(directory, "master")
        path = f"ControlPath={_ssh_path(socket)}"
        started = subprocess.Popen(
            [*_ssh(lab, path, "ControlMaster=yes"), "-N"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(socket, started)
            yield _ssh(lab, path)
        finally:
            started.terminate()
            started.wait(timeout=TIMEOUT)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AxonError("ssh does not open a shared connection to the lab.")
        time.sleep(0.02)


def _discard(argv: Sequence[str]) -> None:
    _local(argv, stdout=subprocess.DEVNULL)


# --- the start of fab ------------------------------------------------------------------------------------------


def listing_figure(root: Path, repeat: int) -> Figure:
    """`fab --list` of the project against one of a bare fabfile with as many tasks.

    Raises:
        AxonError: One of them does not list all tasks.
    """
    count = _listed(_fab_list(root))

    def check(text: str) -> None:
        if _listed(text) != count:
            raise AxonError(f"fab --list shows {_listed(text)} tasks, not {count}:\n{text}")

    with tempfile.TemporaryDirectory(prefix="axon-bench-") as directory:
        bare = Path(directory)
        (bare / "fabfile.py").write_text(bare_fabfile(count), encoding="utf-8")
        contenders = {"ours": lambda: _fab_list(root), "bare": lambda: _fab_list(bare)}
        seconds = take_turns(contenders, repeat, check)
    return Figure(
        "fab --list", f"bare Fabric, {count} tasks", None, _rounds(seconds, "ours", "bare"), LISTING
    )


def bare_fabfile(count: int) -> str:
    """A fabfile with so many tasks and nothing else."""
    tasks = (
        f'@task\ndef task_{n}(c, env="", tag=None):\n    """Task number {n} of some."""\n'
        for n in range(count)
    )
    return "from fabric import task\n\n\n" + "\n\n".join(tasks)


def _fab_list(directory: Path) -> str:
    return _local([sys.executable, "-m", "fabric", "--list"], cwd=directory, stdout=subprocess.PIPE)


def _listed(text: str) -> int:
    """How many tasks a listing shows; a summary that was wrapped goes on further right."""
    return len(re.findall(r"(?m)^  \S", text))


def _local(argv: Sequence[str], **settings: Any) -> str:
    """Run a program of this machine to its end.

    Raises:
        AxonError: It failed, or did not end.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
            **settings,
        )
    except subprocess.TimeoutExpired:
        raise AxonError(f"`{argv[0]}` did not end within {TIMEOUT:g} s.") from None
    if done.returncode:
        raise AxonError(f"`{argv[0]}` ended with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout or ""


# --- what people and programs read -----------------------------------------------------------------------------


def table(figures: Sequence[Figure]) -> str:
    """One line per figure: the ratio, its spread, the budget; the seconds at the end are for information."""
    head = ("RTT", "WHAT", "DIVIDED BY", "RATIO", "SPREAD", "BUDGET", "VERDICT", "MEDIANS")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    one, other = (statistics.median(side) for side in zip(*figure.rounds, strict=True))
    return (
        "" if figure.rtt is None else f"{figure.rtt:g} ms",
        figure.what,
        figure.by,
        f"{figure.ratio:.2f}",
        f"{min(figure.ratios):.2f}-{max(figure.ratios):.2f}",
        str(figure.budget or ""),
        figure.verdict,
        f"{one * 1000:.0f} / {other * 1000:.0f} ms",
    )


def document(figures: Sequence[Figure], options: Options, facts: Mapping[str, Any]) -> str:
    """Everything that was measured, as JSON, with what is needed to judge it."""
    settings = replace(options, rtts=tuple(sorted({f.rtt for f in figures if f.rtt is not None})))
    content = {**facts, "options": asdict(settings), "figures": [figure.as_dict() for figure in figures]}
    return json.dumps(content, indent=2) + "\n"


def facts(root: Path, command: str) -> dict[str, Any]:
    """The machine, the versions and the commit.

    Args:
        root: The project directory.
        command: What was typed.
    """
    packages = ("axon-tasks", "fabric", "invoke", "paramiko", "cryptography")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "commit": _commit(root),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "ssh": _ssh_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
    }


def _commit(root: Path) -> str | None:
    """The commit that is checked out, with a mark if files differ from it; None outside a repository."""
    try:
        return _local(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            stdout=subprocess.PIPE,
        ).strip()
    except (AxonError, OSError):
        return None


def _ssh_version() -> str:
    """`ssh -V`, which answers on standard error."""
    done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.stderr.strip()

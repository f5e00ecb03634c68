"""What people see while something runs and when it has ended: plain lines, with colour only on a terminal."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, TextIO

from axon_tasks.deploy.servers import flatten
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.deploy.engine import Report
    from axon_tasks.deploy.problems import Diagnosis
    from axon_tasks.deploy.run import Deployment

#: Servers that a step's line names one by one.
_MOST_SERVERS = 8


def style(stream: TextIO, text: str, code: str) -> str:
    """SGR colours (ECMA-48) on a terminal only, and not if NO_COLOR is set (no-color.org)."""
    import os

    return f"\x1b[{code}m{text}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def write_line(stream: TextIO, text: str) -> bool:
    """One line, at once: a pipe must not hold it back.

    Returns:
        Whether somebody may have read it.
    """
    return write(stream, text + "\n")


def write(stream: TextIO, text: str) -> bool:
    """A text, at once, in one piece.

    Returns:
        Whether somebody may have read it. A reader that has gone (`| head`) must not end a deploy half-way.
    """
    try:
        stream.write(fitting(stream, text))
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def forget(stream: TextIO) -> None:
    """Have what is still to be written to a stream whose reader has gone go nowhere: Python would complain at its end."""
    import contextlib
    import os

    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def fitting(stream: TextIO, text: str) -> str:
    """The text in characters that a stream can show; what it cannot becomes a question mark."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="replace").decode(encoding)


class Progress:
    """Tells each step as it ends, on one line: name, seconds, servers, result.

    Args:
        stream: Where to write.
        environment: Stands before each line, where several environments write to the same stream.
    """

    def __init__(self, stream: TextIO | None = None, environment: str = "") -> None:
        self.stream = stream or sys.stdout
        self.prefix = f"{environment}  " if environment else ""

    def line(self, text: str) -> None:
        """One line, at once."""
        write_line(self.stream, text)

    def started(self, step: str, servers: Sequence[str] = ()) -> None:
        """A line for what is about to be done would only be noise."""

    def server(self, step: str, server: str, state: str) -> None:
        """The step's line tells it."""

    def progress(self, step: str, server: str, text: str) -> None:
        """The step's line tells how it ended."""

    def finished(self, step: str, seconds: float, report: Report) -> None:
        """The step's line, and one more for each part that people know by its own name."""
        own = max(report.servers.values(), default=seconds) if report.parts else seconds
        self._step(step, own, report)
        for name, part in report.parts.items():
            self._step(name, max(part.servers.values(), default=0.0), part)

    def _step(self, step: str, seconds: float, report: Report) -> None:
        where = _servers(report.servers)
        told = " · ".join(part for part in (where, one_line(report.note)) if part)
        self._say(step, "32", f"{seconds:6.2f} s  {told}")

    def failed(self, step: str, seconds: float, error: BaseException) -> None:
        """The step's line; the reason stands at the end, with the others."""
        word = "failed" if flatten([error]) else "ended early"
        self._say(step, "31", f"{seconds:6.2f} s  {word}")

    def message(self, server: str, text: str) -> None:
        """Something to know while waiting."""
        self.line(f"  {self.prefix}{server}: {one_line(text)}")

    def _say(self, step: str, colour: str, told: str) -> None:
        self.line(f"  {self.prefix}{style(self.stream, f'{step:<8}', colour)} {told}".rstrip())


def one_line(text: str) -> str:
    """What a server said, safe to print, on one line."""
    return " ".join(sanitize(text).split())


def _servers(seconds: Mapping[str, float]) -> str:
    if len(seconds) < 2:  # noqa: PLR2004  (one server's time is the step's own)
        return ", ".join(seconds)
    if len(seconds) > _MOST_SERVERS:
        slowest = max(seconds, key=lambda name: seconds[name])
        return f"{len(seconds)} servers {min(seconds.values()):.2f} to {seconds[slowest]:.2f} ({slowest})"
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def headline(run_name: str, reference: str, system: tuple[str, ...], app: tuple[str, ...]) -> str:
    """What is about to happen, and where."""
    return (
        f"Deploying {reference} to {run_name} (nginx on {', '.join(system)}; containers on {', '.join(app)})"
    )


def summary(run: Deployment, seconds: float) -> str:
    """The last lines of a deploy that went well."""
    release = run.wanted()
    scheme = "https" if run.environment.tls else "http"
    where = f"{scheme}://{run.environment.domain} (release {release.id}, slot {release.slot})"
    lines = [f"Done in {seconds:.2f} s: {release.reference} serves {where}"]
    if run.again:
        how = "it still ran" if run.again.instant else f"started as release {run.again.release} was"
        way = "forward" if run.again.forward else "back"
        lines.append(f"Rolled {way} from release {run.again.instead_of}; {how}.")
    if run.retired:
        lines.append("The release before it has been removed.")
    elif run.retiring:
        job = next(iter(run.retiring.values()))
        lines.append(
            f"The release before it drains and is removed in the background, on {', '.join(sorted(run.retiring))}:"
            f" fab jobs.show --env={run.environment.name} --job={job}"
        )
    return "\n".join(lines)


def diagnosis(found: Diagnosis) -> str:
    """One block per server that says why a release did not become healthy."""
    rows = [
        ("probed", f"{found.url}  (Host: {found.host}), {found.attempts} times in {found.seconds:.1f} s"),
        ("answer", found.answer + (f"  {_first_line(found.body)}" if found.body else "")),
        ("container", _container_state(found)),
    ]
    if found.docker_health:
        rows.append(("healthcheck", found.docker_health))
    logs = _collapsed(found.logs.rstrip("\n").splitlines())
    rows.append(("log", "" if logs else "(the container wrote nothing)"))
    lines = [f"{found.server}: {found.container} did not become healthy"]
    lines += [f"  {name:<12} {sanitize(text)}".rstrip() for name, text in rows]
    lines += [f"    | {sanitize(line)}" for line in logs]
    if found.hint:
        lines.append(f"  {'hint':<12} {found.hint}")
    return "\n".join(lines)


def _container_state(found: Diagnosis) -> str:
    parts = [found.state]
    if found.exit_code is not None:
        parts.append(f"exit code {found.exit_code}")
    parts.append(f"{found.restarts} restarts")
    parts.append("killed for memory (OOM)" if found.out_of_memory else "not killed for memory")
    return ", ".join(parts)


def _collapsed(lines: list[str]) -> list[str]:
    """Repeated lines once, with their number: a health check that fails writes the same line a hundred times."""
    groups = [(line, len(list(same))) for line, same in itertools.groupby(lines)]
    return [line if count == 1 else f"{line}   ({count} times)" for line, count in groups]


def _first_line(body: str) -> str:
    line = body.splitlines()[0] if body else ""
    return repr(line[:120])

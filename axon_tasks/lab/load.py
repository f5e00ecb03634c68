"""A load generator that counts what a client would notice.

It runs as a process of its own, so that it shares no interpreter lock with the deployment that it watches, and it is
strict: nothing is sent twice, and whatever is not a whole `200` with a version in it is a failure. Half of the clients
keep their connection open and use it again, the others open one per request.

The one thing that is not a failure is a keep-alive connection that the server has closed *before* the next request
was sent on it: a client that looks before it sends opens a new one (RFC 9112, section 9.3.1 and 9.6). A connection
that is closed while the request is on its way is a failure: nobody can know whether the request was carried out.

It sends to this machine and to the lab, and refuses every other address.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import UsageError
from axon_tasks.lab.hosts import NETWORK

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

#: Where load may be sent.
ALLOWED = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network(NETWORK))

#: Bounds of one run, so that a mistake in a number does not become a flood.
MAX_SECONDS = 3600.0
MAX_CLIENTS = 200
MAX_REQUESTS = 1_000_000

#: Seconds after which a request that got no whole answer is a failure.
REQUEST_TIMEOUT = 30.0
#: How often the result so far is written while it runs, in seconds.
SAVE_EVERY = 0.5
EXAMPLES = 20


@dataclass(frozen=True)
class Settings:
    """What to send, where, and for how long.

    Args:
        address: An IPv4 address of the lab or of this machine.
        port: TCP port.
        host: The `Host` header.
        keep_alive: Clients that use their connection again.
        one_shot: Clients that open a connection per request.
        seconds: How long new requests are started.
        requests: At most so many requests.
        slow: Share of requests that take a second and a half.
        post: Share of requests that are POSTs with a body.
        pause: Mean pause of a client between two requests, in seconds.
        seed: For the choice of requests.
    """

    address: str
    port: int = 80
    host: str = "shop.lab"
    keep_alive: int = 12
    one_shot: int = 12
    seconds: float = 10.0
    requests: int = MAX_REQUESTS
    slow: float = 0.005
    post: float = 0.3
    pause: float = 0.02
    seed: int = 1

    def checked(self) -> Settings:
        """These settings, if they are within bounds.

        Raises:
            UsageError: The address is neither this machine nor the lab, or a number is out of bounds.
        """
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            raise UsageError(f"--address={self.address}: an IPv4 address is needed.") from None
        if not any(address in network for network in ALLOWED):
            raise UsageError(
                f"Load is sent to this machine (127.0.0.0/8) and to the lab ({NETWORK}) only, not to {address}."
            )
        bounds = {
            "port": (self.port, 1, 65535),
            "keep-alive": (self.keep_alive, 0, MAX_CLIENTS),
            "one-shot": (self.one_shot, 0, MAX_CLIENTS),
            "seconds": (self.seconds, 0.0, MAX_SECONDS),
            "requests": (self.requests, 0, MAX_REQUESTS),
            "slow": (self.slow, 0.0, 1.0),
            "post": (self.post, 0.0, 1.0),
            "pause": (self.pause, 0.0, 60.0),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise UsageError(f"--{name}={value}: between {low} and {high}.")
        if any(character in self.host for character in "\r\n \0") or not self.host.isascii():
            raise UsageError("--host: a host name is needed.")
        return self


@dataclass
class Seen:
    """When a version answered.

    Args:
        requests: How many of its answers came.
        first: When the first one had come, seconds since the start.
        last: When the last one had come.
    """

    requests: int = 0
    first: float = 0.0
    last: float = 0.0


@dataclass
class Kind:
    """The counts of one kind of client."""

    sent: int = 0
    ok: int = 0
    failed: int = 0
    connections: int = 0


@dataclass
class Result:
    """What came of it.

    Args:
        started: Wall clock at the start, seconds since 1970.
        seconds: How long it took, with the answers that were waited for at the end.
        finished: Whether it came to its end; a result that is read earlier says False.
        kinds: Per kind of client, `keep-alive` and `one-shot`.
        failures: Per kind of failure, how many.
        examples: The first failures, in words.
        versions: Per version, in the order in which they were first seen.
        order: The sequence in which versions took over from each other, by when requests were sent: more than one
            entry of a version means that the site went back to it.
        latency_ms: Median, 99th percentile and maximum of all but the slow requests.
        bounces: Keep-alive connections that the server had closed before the next request was sent.
    """

    started: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    kinds: dict[str, Kind] = field(default_factory=lambda: {"keep-alive": Kind(), "one-shot": Kind()})
    failures: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    versions: dict[str, Seen] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    latency_ms: dict[str, float] = field(default_factory=dict)
    bounces: int = 0

    @property
    def sent(self) -> int:
        """Requests sent."""
        return sum(kind.sent for kind in self.kinds.values())

    @property
    def ok(self) -> int:
        """Requests that got a whole 200 with a version."""
        return sum(kind.ok for kind in self.kinds.values())

    @property
    def failed(self) -> int:
        """Requests that got anything else."""
        return sum(kind.failed for kind in self.kinds.values())

    def as_json(self) -> dict[str, Any]:
        """For a file, with the sums."""
        return {"sent": self.sent, "ok": self.ok, "failed": self.failed, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """From such a file."""
        plain = {key: value for key, value in data.items() if key not in {"sent", "ok", "failed"}}
        plain["kinds"] = {name: Kind(**kind) for name, kind in plain["kinds"].items()}
        plain["versions"] = {name: Seen(**seen) for name, seen in plain["versions"].items()}
        return cls(**plain)


class FailedRequestError(Exception):
    """A request that did not get a whole 200 with a version; the message is the kind of failure."""


@dataclass(frozen=True)
class Request:
    """A request of the sample application.

    Args:
        text: As it goes over the wire.
        expected: How the body of its answer begins; VERSION stands for the version in the header.
    """

    text: bytes
    expected: str

    @property
    def line(self) -> str:
        """Its first line, for people."""
        return self.text.split(b"\r\n", 1)[0].decode()


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Args:
        version: What the application calls itself.
        stays_open: Whether the connection can be used again.
        served_by: The container that gave it, by its short id; empty if the answer does not say.
    """

    version: str
    stays_open: bool
    served_by: str = ""


class Connection:
    """One HTTP/1.1 connection, without any help: what goes wrong on it is seen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, settings: Settings) -> Connection:
        """Connect.

        Raises:
            FailedRequestError: The server cannot be reached.
        """
        try:
            return cls(*await asyncio.open_connection(settings.address, settings.port))
        except OSError as error:
            raise FailedRequestError(f"connect: {_reason(error)}") from None

    async def closed_by_server(self) -> bool:
        """Whether the server's end of the connection is known to be over, as far as a look at it tells."""
        # The loop asks the kernel in its first turn and hands on what it got in its second.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    async def exchange(self, request: Request, *, first: bool) -> Answer:
        """Send a request and read its answer.

        Raises:
            FailedRequestError: Anything but a whole 200 with a version.
        """
        where = "new connection" if first else "used connection"
        try:
            self.writer.write(request.text)
            await self.writer.drain()
            status, headers = await self._head()
            body = await self._body(headers)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise FailedRequestError(f"{_reason(error)} on a {where}") from None
        except (ValueError, KeyError, IndexError, asyncio.LimitOverrunError):
            raise FailedRequestError("not HTTP") from None
        if status != 200:  # noqa: PLR2004  (OK)
            raise FailedRequestError(f"status {status}")
        version = headers.get("x-version", "")
        if not version:
            raise FailedRequestError("200 without a version")
        if not body.decode(errors="replace").startswith(request.expected.replace("VERSION", version)):
            raise FailedRequestError("200 with a wrong body")
        stays_open = headers.get("connection", "").lower() != "close"
        return Answer(version, stays_open, headers.get("x-served-by", ""))

    async def _head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in headers}

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    def close(self) -> None:
        """Close it at once."""
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.close()


class Load:
    """One run of the generator.

    Args:
        settings: What to send.
        output: File that the result goes to, rewritten while it runs.
    """

    def __init__(self, settings: Settings, output: Path | None = None) -> None:
        self.settings = settings.checked()
        self.output = output
        self.result = Result()
        self.random = random.Random(settings.seed)  # the same mix each time, no secret
        self.latencies: list[float] = []
        self.stopping = asyncio.Event()
        self.start = 0.0
        self._sent_versions: list[tuple[float, str]] = []

    async def run(self) -> Result:
        """Send until the time is over, the count is reached or `stop` is called; then wait for the last answers."""
        self.start = time.monotonic()
        self.result.started = time.time()
        keeping = [self._client("keep-alive") for _ in range(self.settings.keep_alive)]
        opening = [self._client("one-shot") for _ in range(self.settings.one_shot)]
        clients = asyncio.gather(*keeping, *opening)
        saver = asyncio.ensure_future(self._save_regularly())
        ending = asyncio.get_running_loop().call_later(self.settings.seconds, self.stop)
        await clients
        ending.cancel()
        saver.cancel()
        self._summarise(finished=True)
        return self.result

    def stop(self) -> None:
        """Start no more requests."""
        self.stopping.set()

    async def _client(self, kind: str) -> None:
        """One client: request, answer, pause, and so on."""
        connection: Connection | None = None
        while not self.stopping.is_set() and self.result.sent < self.settings.requests:
            if connection and await connection.closed_by_server():
                self.result.bounces += 1
                connection.close()
                connection = None
            connection = await self._request(kind, connection)
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), self.random.uniform(0, 2 * self.settings.pause))
        if connection:
            connection.close()

    async def _request(self, kind: str, connection: Connection | None) -> Connection | None:
        """Send one request, count what came of it; the connection, if it can be used again."""
        counts = self.result.kinds[kind]
        counts.sent += 1
        slow = self.random.random() < self.settings.slow
        request = self._choose(slow=slow, keep=kind == "keep-alive")
        first = connection is None
        sent_at = time.monotonic()
        try:
            answer, used = await asyncio.wait_for(
                self._exchange(counts, connection, request), REQUEST_TIMEOUT
            )
        except (FailedRequestError, asyncio.TimeoutError, TimeoutError) as error:
            counts.failed += 1
            self._failed(str(error) or f"no answer in {REQUEST_TIMEOUT:.0f} s", request, sent_at, first=first)
            return None
        counts.ok += 1
        self._answered(answer, sent_at, slow=slow)
        if kind == "keep-alive" and answer.stays_open:
            return used
        used.close()
        return None

    async def _exchange(
        self, counts: Kind, connection: Connection | None, request: Request
    ) -> tuple[Answer, Connection]:
        """Send on a connection, or on a new one; one that went wrong is closed."""
        first = connection is None
        if connection is None:
            counts.connections += 1
            connection = await Connection.open(self.settings)
        try:
            return await connection.exchange(request, first=first), connection
        except BaseException:
            connection.close()
            raise

    def _choose(self, *, slow: bool, keep: bool) -> Request:
        """The next request of the mix."""
        body = b""
        if slow:
            path, expected = "/slow?seconds=1.5", "shop VERSION took 1.5"
        elif self.random.random() < self.settings.post:
            body = b"x" * self.random.randint(1, 2000)
            path, expected = "/echo", f"{len(body)} bytes"
        else:
            path, expected = self.random.choice((("/", "shop VERSION at "), ("/version", "VERSION")))
        head = [
            f"{'POST' if body else 'GET'} {path} HTTP/1.1",
            f"Host: {self.settings.host}",
            "User-Agent: axon-tasks-load",
            f"Connection: {'keep-alive' if keep else 'close'}",
        ]
        if body:
            head.append(f"Content-Length: {len(body)}")
        return Request("\r\n".join([*head, "", ""]).encode() + body, expected)

    def _answered(self, answer: Answer, sent_at: float, *, slow: bool) -> None:
        """Note a whole answer."""
        now = time.monotonic()
        seen = self.result.versions.setdefault(answer.version, Seen(first=round(now - self.start, 3)))
        seen.requests += 1
        seen.last = round(now - self.start, 3)
        self._note(answer, sent_at, now, slow=slow)

    def _note(self, answer: Answer, sent_at: float, now: float, *, slow: bool) -> None:
        """Keep what the conclusions need: a row per answer, which is fine for minutes and not for an hour."""
        if not slow:
            self.latencies.append((now - sent_at) * 1000)
        self._sent_versions.append((sent_at, answer.version))

    def _failed(self, kind: str, request: Request, sent_at: float, *, first: bool) -> None:
        self.result.failures[kind] = self.result.failures.get(kind, 0) + 1
        if len(self.result.examples) < EXAMPLES:
            now = time.monotonic()
            self.result.examples.append(
                f"{sent_at - self.start:.3f} s: {request.line}: {kind} after {(now - sent_at) * 1000:.0f} ms"
                f"{'' if first else ' (keep-alive)'}"
            )

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY)
            self._summarise(finished=False)

    def _summarise(self, *, finished: bool) -> None:
        self.result.seconds = round(time.monotonic() - self.start, 3)
        self.result.finished = finished
        if finished:
            self._conclude()
        if self.output:
            temporary = self.output.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.result.as_json(), indent=1), encoding="utf-8")
            temporary.replace(self.output)

    def _conclude(self) -> None:
        """Draw the conclusions; sorting a long run costs more than a pause between two requests: at the end only."""
        self.result.order = order_of(self._sent_versions)
        self.result.latency_ms = summary_of(self.latencies)


def order_of(answers: list[tuple[float, str]]) -> list[str]:
    """The sequence of versions that served, by when their requests were sent.

    Requests that are under way during a switch are answered by either version; so a version counts as having taken
    over when it has given at least half of ten answers in a row.
    """
    order: list[str] = []
    by_time = [version for _, version in sorted(answers)]
    for start in range(0, len(by_time), 10):
        version, count = Counter(by_time[start : start + 10]).most_common(1)[0]
        if count * 2 >= len(by_time[start : start + 10]) and order[-1:] != [version]:
            order.append(version)
    return order


def summary_of(latencies: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(latencies)
    if not ordered:
        return {}
    at = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {name: round(ordered[index], 1) for name, index in at.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "end of file" if not error.partial else "answer cut short"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return type(error).__name__


async def _until_signalled(settings: Settings, output: Path | None) -> Result:
    load = Load(settings, output)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, load.stop)
    return await load.run()


def main(
    argv: list[str] | None = None,
    run: Callable[[Settings, Path | None], Coroutine[Any, Any, Result]] = _until_signalled,
    program: str = "axon_tasks.lab.load",
) -> int:
    """The command line: send, print the result as JSON, and fail if one request failed.

    Args:
        argv: The arguments; default: those of this process.
        run: What sends, given the settings and the file for the result.
        program: The module's name, for the help.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=(__doc__ or "").split("\n")[0])
    defaults = Settings(address="127.0.0.1")
    for name, value in asdict(defaults).items():
        required = name == "address"
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(value), default=None if required else value, required=required)
    parser.add_argument("--output", type=Path, help="file for the result, kept up to date while it runs")
    options = vars(parser.parse_args(argv))
    output = options.pop("output")
    try:
        result = asyncio.run(run(Settings(**options), output))
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(result.as_json(), indent=1) + "\n")
    return 1 if result.failed or not result.ok else 0


if __name__ == "__main__":
    sys.exit(main())

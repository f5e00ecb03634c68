"""The load generator must see every failure, and only failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from axon_tasks.errors import UsageError
from axon_tasks.lab import load as load_module
from axon_tasks.lab.load import Load, Result, Settings, order_of, summary_of

if TYPE_CHECKING:
    from pathlib import Path

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lengths = [
        line.split(":")[1] for line in head.lower().split("\r\n") if line.startswith("content-length:")
    ]
    return head, await reader.readexactly(int(lengths[0]) if lengths else 0)


def body_for(head: str, body: bytes, version: str) -> str:
    path = head.split()[1]
    texts = {"/": f"shop {version} at x", "/version": version, "/echo": f"{len(body)} bytes"}
    return texts.get(path, f"shop {version} took 1.5 seconds") + "\n"


def answer(body: str, version: str = "v1", *, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nX-Version: {version}\r\nContent-Length: {len(body)}\r\n{extra}\r\n{body}".encode()


class Server:
    """Answers well; subclasses spoil it."""

    version = "v1"
    count = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = await read_request(reader)
                self.count += 1
                if not await self.reply(writer, head, body):
                    break
        writer.close()

    async def reply(self, writer: asyncio.StreamWriter, head: str, body: bytes) -> bool:
        writer.write(answer(body_for(head, body, self.version), self.version))
        return True


class Chunked(Server):
    """Answers in chunks."""

    async def reply(self, writer: asyncio.StreamWriter, head: str, body: bytes) -> bool:
        text = body_for(head, body, "v1").encode()
        parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (text[:1], text[1:]) if part)
        start = b"HTTP/1.1 200 OK\r\nX-Version: v1\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(start + parts + b"0\r\n\r\n")
        return True


class Switching(Server):
    """Answers with another version after a hundred requests."""

    @property
    def version(self) -> str:  # type: ignore[override]
        return "v1" if self.count <= 100 else "v2"


def send(server: Handler, **changes: object) -> Result:
    async def main() -> Result:
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        values: dict[str, object] = {
            "keep_alive": 2,
            "one_shot": 2,
            "requests": 40,
            "pause": 0.001,
            "slow": 0.0,
        }
        settings = Settings("127.0.0.1", port=port, **{**values, **changes})  # type: ignore[arg-type]
        result = await Load(settings).run()
        listening.close()
        return result

    return asyncio.run(main())


def test_all_well() -> None:
    """Whole answers with a version are counted as such, and keep-alive clients keep their connection."""
    result = send(Server())

    assert result.failed == 0
    assert result.ok == result.sent
    assert 40 <= result.sent <= 44
    assert result.kinds["keep-alive"].connections == 2
    assert result.kinds["one-shot"].connections == result.kinds["one-shot"].sent
    assert result.order == ["v1"]
    assert {"p50", "p99", "max"} == set(result.latency_ms)


class Spoilt(Server):
    """Spoils every tenth answer."""

    def __init__(self, spoil: Callable[[asyncio.StreamWriter, str], bool]) -> None:
        self.spoil = spoil

    async def reply(self, writer: asyncio.StreamWriter, head: str, body: bytes) -> bool:
        if self.count % 10 == 5:
            return self.spoil(writer, body_for(head, body, "v1"))
        return await super().reply(writer, head, body)


def bad_gateway(writer: asyncio.StreamWriter, body: str) -> bool:
    writer.write(answer(body, status="502 Bad Gateway"))
    return True


def cut_short(writer: asyncio.StreamWriter, body: str) -> bool:
    writer.write(answer(body)[:-1])
    return False


def silent_close(_writer: asyncio.StreamWriter, _body: str) -> bool:
    return False


def reset(writer: asyncio.StreamWriter, _body: str) -> bool:
    writer.transport.abort()
    return False


def no_version(writer: asyncio.StreamWriter, body: str) -> bool:
    writer.write(answer(body, version=""))
    return True


def other_body(writer: asyncio.StreamWriter, _body: str) -> bool:
    writer.write(answer("<html>Welcome to nginx!</html>"))
    return True


def not_http(writer: asyncio.StreamWriter, _body: str) -> bool:
    writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    return False


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (bad_gateway, "status 502"),
        (cut_short, "answer cut short on a "),
        (silent_close, "end of file on a "),
        (reset, " on a "),
        (no_version, "200 without a version"),
        (other_body, "200 with a wrong body"),
        (not_http, "not HTTP"),
    ],
)
def test_every_spoilt_answer_is_a_failure(
    spoil: Callable[[asyncio.StreamWriter, str], bool], kind: str
) -> None:
    """One failure is counted for each answer that is anything but a whole 200 with a version; none is sent again."""
    server = Spoilt(spoil)
    result = send(server)
    spoilt = sum(number % 10 == 5 for number in range(1, server.count + 1))

    assert spoilt > 0
    assert result.failed == spoilt
    assert result.sent == server.count
    assert result.ok == result.sent - spoilt
    assert all(kind in name for name in result.failures), result.failures
    assert len(result.examples) == min(spoilt, load_module.EXAMPLES)


def test_refused_connection_is_a_failure() -> None:
    """A server that does not listen gives failures, not an error and not silence."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = asyncio.run(Load(Settings("127.0.0.1", port=port, requests=10, pause=0.001)).run())

    assert result.ok == 0
    assert result.failed == result.sent > 0
    assert list(result.failures) == ["connect: connection refused"]


class ClosesAfterEach(Server):
    """Closes after each answer, with or without saying so."""

    def __init__(self, extra: str) -> None:
        self.extra = extra

    async def reply(self, writer: asyncio.StreamWriter, head: str, body: bytes) -> bool:
        writer.write(answer(body_for(head, body, "v1"), extra=self.extra))
        return False


def test_announced_close_is_no_failure() -> None:
    """A server that says `Connection: close` is believed: the next request goes over a new connection."""
    result = send(ClosesAfterEach("Connection: close\r\n"), pause=0.0)

    assert result.failed == 0
    assert result.bounces == 0
    assert result.kinds["keep-alive"].connections == result.kinds["keep-alive"].sent


def test_seen_close_is_no_failure() -> None:
    """A keep-alive connection that was closed while the client paused is not used again, and that is counted."""
    result = send(ClosesAfterEach(""), pause=0.03, one_shot=0)

    assert result.failed == 0
    assert result.bounces > 0


def test_hanging_request_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without an answer becomes a failure when its time is over."""
    monkeypatch.setattr(load_module, "REQUEST_TIMEOUT", 0.2)

    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    result = send(hang, keep_alive=1, one_shot=1, requests=2)

    assert result.failed == result.sent == 2
    assert list(result.failures) == ["no answer in 0 s"]


def test_chunked_answers_are_read() -> None:
    """An answer in chunks, as nginx sends it when the application gives no length, is as whole as any other."""
    result = send(Chunked())

    assert result.failed == 0
    assert result.kinds["keep-alive"].connections == 2


def test_versions_in_order() -> None:
    """A switch in the middle is seen as one version after the other, with when each was seen."""
    result = send(Switching(), requests=200)

    assert result.order == ["v1", "v2"]
    assert result.versions["v1"].requests == 100
    assert result.versions["v1"].first < result.versions["v2"].first <= result.versions["v2"].last


def test_order_shows_a_way_back() -> None:
    """A site that went back to the old version is not mistaken for one that went forward."""
    answers = [(float(n), "v2" if 100 <= n < 200 else "v1") for n in range(300)]
    random.Random(3).shuffle(answers)

    assert order_of(answers) == ["v1", "v2", "v1"]
    assert order_of([]) == []


def test_latency_summary() -> None:
    """The summary holds median, 99th percentile and maximum of what was measured."""
    assert summary_of([float(n) for n in range(1000)]) == {"p50": 500.0, "p99": 990.0, "max": 999.0}
    assert summary_of([]) == {}


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.78.0.1", "0.0.0.0", "8.8.8.8", "::1", "example.com", ""]
)
def test_foreign_addresses_are_refused(address: str) -> None:
    """Load is never sent to an address beyond this machine and the lab."""
    with pytest.raises(UsageError):
        Settings(address).checked()


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 1e9},
        {"seconds": float("nan")},
        {"keep_alive": 100_000},
        {"requests": -1},
        {"port": 0},
        {"post": 2.0},
        {"host": "a\r\nX: y"},
    ],
)
def test_numbers_out_of_bounds_are_refused(change: dict[str, object]) -> None:
    """A run is bounded in time, clients and count, and its host name cannot add headers."""
    with pytest.raises(UsageError):
        Settings("127.0.0.1", **change).checked()  # type: ignore[arg-type]


def run_program(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "axon_tasks.lab.load", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_command_line_refuses_foreign_addresses() -> None:
    """The program ends with exit code 2 and one line when it is pointed at a foreign address."""
    program = run_program("--address", "192.0.2.1")
    out, err = program.communicate(timeout=60)

    assert program.returncode == 2
    assert out == ""
    assert "not to 192.0.2.1" in err
    assert "Traceback" not in err


def test_program_stops_on_sigterm_with_a_result(tmp_path: Path) -> None:
    """On SIGTERM the program finishes the requests under way, writes its result whole, and says how it went."""
    output = tmp_path / "load.json"

    async def main() -> int:
        listening = await asyncio.start_server(Server(), "127.0.0.1", 0)
        port = str(listening.sockets[0].getsockname()[1])
        words = ["--address", "127.0.0.1", "--port", port, "--seconds", "100", "--output", str(output)]
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "axon_tasks.lab.load", *words, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not output.exists() and time.monotonic() < deadline:  # noqa: ASYNC110  (another process makes it)
            await asyncio.sleep(0.05)
        assert json.loads(output.read_text())["finished"] is False
        program.send_signal(signal.SIGTERM)
        return await program.wait()

    assert asyncio.run(main()) == 0
    data = json.loads(output.read_text())
    result = Result.from_json(data)
    assert result.finished
    assert (data["sent"], data["ok"], data["failed"]) == (result.sent, result.ok, 0)
    assert result.ok == result.sent > 0

"""The delay proxy makes the way longer and changes nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from axon_tasks.lab.delay import CHUNK, REMEMBERED, Move, Proxy, _Talk, moves_file

if TYPE_CHECKING:
    from pathlib import Path

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.close()


def through_proxy(
    rtt: float, state: Path, client: Client, server: Client = echo, *, log: bool = False
) -> Any:
    """Run a client against a server behind a proxy with a round-trip time in milliseconds."""

    async def main() -> Any:
        target = await asyncio.start_server(server, "127.0.0.1", 0)
        proxy = Proxy(target.sockets[0].getsockname()[1], rtt, state)
        listening = await proxy._bind(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.sockets[0].getsockname()[1])
        try:
            return await client(reader, writer)
        finally:
            writer.close()
            for _ in range(100):
                await asyncio.sleep(0.02)
                if not proxy.stats.open:
                    break
            if log:
                proxy.save_moves()

    return asyncio.run(main())


def test_each_exchange_costs_a_round_trip(tmp_path: Path) -> None:
    """Opening a connection costs one round trip and each exchange on it another, never less."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        begun = time.monotonic()
        for _ in range(3):
            writer.write(b"x")
            assert await reader.read(1) == b"x"
        return time.monotonic() - begun

    assert through_proxy(50, tmp_path / "state.json", client) >= (1 + 3) * 0.05


def test_many_bytes_arrive_whole_and_in_order(tmp_path: Path) -> None:
    """Ten megabytes come back as they were sent, held for less time than chunks would need one after the other."""
    content = os.urandom(10_000_000)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        async def send() -> None:
            writer.write(content)
            await writer.drain()
            writer.write_eof()

        received, _ = await asyncio.gather(reader.read(-1), send())
        return received

    assert through_proxy(30, tmp_path / "state.json", client) == content
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["to_server"], state["to_client"]) == (len(content), len(content))


def test_connections_are_counted(tmp_path: Path) -> None:
    """The state file tells how many connections were made, how many are open, and whose it is."""
    seen: list[dict[str, Any]] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await reader.read(1)
        seen.append(json.loads((tmp_path / "state.json").read_text()))

    through_proxy(1, tmp_path / "state.json", client)
    after = json.loads((tmp_path / "state.json").read_text())

    assert (seen[0]["connections"], seen[0]["open"], seen[0]["pid"]) == (1, 1, os.getpid())
    assert (after["connections"], after["open"]) == (1, 0)


def test_turns_and_moves_are_counted(tmp_path: Path) -> None:
    """A turn begins when the client speaks after the server; the log tells way, size and times of each chunk."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(b"abc")
            assert await reader.readexactly(3) == b"abc"

    state = tmp_path / "app1.delay.json"
    through_proxy(20, state, client, log=True)
    moves = [Move(*one) for one in json.loads(moves_file(state).read_text())]

    assert json.loads(state.read_text())["turns"] == 3
    assert [True, False] * 3 == [move.up for move in moves]
    assert {(1, 3)} == {(move.connection, move.size) for move in moves}
    assert all(move.arrived - move.sent >= 0.01 for move in moves)
    assert [one.sent for one in moves] == sorted(one.sent for one in moves)


def test_log_is_bounded(tmp_path: Path) -> None:
    """A proxy that runs for days remembers the last chunks and no more."""
    proxy = Proxy(1, 1, tmp_path / "state.json")
    for number in range(REMEMBERED + 5):
        proxy._note(Move(1, True, number, number, 1), _Talk(1))

    assert REMEMBERED == len(proxy.moves)
    assert proxy.moves[-1].sent == REMEMBERED + 4


def test_server_that_hangs_up_ends_the_connection(tmp_path: Path) -> None:
    """When the server breaks off, the client learns it instead of waiting."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def client(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bytes:
        try:
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            return b""

    assert through_proxy(5, tmp_path / "state.json", client, hang_up) == b""


def test_nobody_behind_the_proxy(tmp_path: Path) -> None:
    """When nothing listens behind the proxy, the connection is closed and the proxy goes on."""

    async def main() -> tuple[bytes, int]:
        proxy = Proxy(1, 1, tmp_path / "state.json")
        listening = await proxy._bind(0)
        port = listening.sockets[0].getsockname()[1]
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = await asyncio.wait_for(reader.read(), 30)
            writer.close()
        return said, proxy.stats.connections

    assert asyncio.run(main()) == (b"", 2)

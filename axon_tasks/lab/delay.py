"""A TCP proxy that adds a round-trip time, for machines whose kernel has no netem.

It runs as a program of its own in the network namespace of a lab host, in front of sshd. What it models is a longer
way, not a slower one: bytes are held for half a round trip in each direction while others follow behind them, and the
opening of a connection costs its own round trip.

It sees every byte and knows nothing of SSH, which makes it a witness: it counts, and on SIGUSR1 it writes down which
way bytes went last and when, for whoever wants to know how often somebody waited for an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import NamedTuple

CHUNK = 256 * 1024
#: Chunks under way per direction; with CHUNK it bounds the memory of one connection.
WINDOW = 256
#: Chunks that the log remembers; the oldest go first. A deployment is some hundreds.
REMEMBERED = 20_000
#: Seconds in which the port must become free: sshd leaves it when it reads its new configuration.
BIND_TIMEOUT = 10.0


@dataclass
class Stats:
    """What the proxy has seen, kept in a file for whoever wants to count.

    Args:
        pid: The proxy's own process, as a number of the host's PID namespace.
        rtt: The round-trip time in milliseconds.
        connections: Connections accepted so far.
        open: Connections that are open now.
        to_server: Bytes that went to the server.
        to_client: Bytes that came back.
        turns: How often a client spoke after the server had: each of them begins a round trip.
    """

    pid: int
    rtt: float
    connections: int = 0
    open: int = 0
    to_server: int = 0
    to_client: int = 0
    turns: int = 0

    def save(self, path: pathlib.Path) -> None:
        """Replace the file as a whole."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(path)


class Move(NamedTuple):
    """One chunk on its way; times are those of CLOCK_MONOTONIC, which all processes of a machine share.

    Args:
        connection: The number of the connection, counted from 1.
        up: Whether it went to the server.
        sent: When the proxy took it from its sender.
        arrived: When the proxy handed it on, half a round trip later.
        size: Bytes.
    """

    connection: int
    up: bool
    sent: float
    arrived: float
    size: int


@dataclass
class _Talk:
    """One connection: its number, and who spoke last."""

    number: int
    server_spoke: bool = True


class Proxy:
    """Forwards connections with a delay.

    Args:
        target: Port on this host that connections go to.
        rtt: Round-trip time in milliseconds.
        state: The file for the statistics.
    """

    def __init__(self, target: int, rtt: float, state: pathlib.Path) -> None:
        self.target = target
        self.rtt = rtt / 1000
        self.state = state
        self.stats = Stats(os.getpid(), rtt)
        self.moves: deque[Move] = deque(maxlen=REMEMBERED)

    def save_moves(self) -> None:
        """Write the log beside the statistics, as a whole."""
        temporary = self.state.with_suffix(".moves.tmp")
        temporary.write_text(json.dumps(list(self.moves)), encoding="utf-8")
        temporary.replace(moves_file(self.state))

    async def serve(self, port: int) -> None:
        """Listen on all addresses for ever."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.save_moves)
        server = await self._bind(port)
        self.stats.save(self.state)
        async with server:
            await server.serve_forever()

    async def _bind(self, port: int) -> asyncio.Server:
        deadline = asyncio.get_running_loop().time() + BIND_TIMEOUT
        while True:
            try:
                return await asyncio.start_server(self._serve_one, "0.0.0.0", port, limit=CHUNK, backlog=256)
            except OSError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.02)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stats.connections += 1
        self.stats.open += 1
        self.stats.save(self.state)
        try:
            await self._connect_and_pump(reader, writer, _Talk(self.stats.connections))
        finally:
            writer.close()
            self.stats.open -= 1
            self.stats.save(self.state)

    async def _connect_and_pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: _Talk
    ) -> None:
        # The client's kernel believes that it is connected at once. On a real way its SYN needs half a round trip,
        # the answer another, and its first bytes another: then the server begins.
        await asyncio.sleep(1.5 * self.rtt)
        try:
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self.target, limit=CHUNK
            )
        except OSError:
            return
        _no_delay(writer)
        _no_delay(server_writer)
        try:
            pumps = (
                asyncio.ensure_future(self._pump(reader, server_writer, talk, up=True)),
                asyncio.ensure_future(self._pump(server_reader, writer, talk, up=False)),
            )
            # A connection that broke on one side is of no use on the other; one that was closed properly in one
            # direction may still carry bytes in the other.
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            if all(pump in done and pump.exception() is None for pump in pumps):
                return
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            server_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: _Talk, *, up: bool
    ) -> None:
        """Move bytes one way: take them as they come, hand each on half a round trip later."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW)

        async def take() -> None:
            while True:
                chunk = await reader.read(CHUNK)
                await under_way.put((time.monotonic(), chunk))
                if not chunk:
                    return

        taking = asyncio.ensure_future(take())
        try:
            while True:
                # Both are waited for: a connection that breaks must not leave the other side waiting for ever.
                sent, chunk = await _next(under_way, taking)
                await asyncio.sleep(max(0.0, sent + self.rtt / 2 - time.monotonic()))
                if not chunk:
                    break
                self._note(Move(talk.number, up, sent, time.monotonic(), len(chunk)), talk)
                writer.write(chunk)
                await writer.drain()
        finally:
            taking.cancel()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def _note(self, move: Move, talk: _Talk) -> None:
        self.moves.append(move)
        if move.up:
            self.stats.to_server += move.size
            self.stats.turns += talk.server_spoke
        else:
            self.stats.to_client += move.size
        talk.server_spoke = not move.up


def moves_file(state: pathlib.Path) -> pathlib.Path:
    """Where a proxy writes its log: beside its statistics."""
    return state.with_suffix(".moves.json")


async def _next(
    under_way: asyncio.Queue[tuple[float, bytes]], taking: asyncio.Future[None]
) -> tuple[float, bytes]:
    """The next chunk, or what ended the reading."""
    if under_way.empty() and not taking.done():
        getting = asyncio.ensure_future(under_way.get())
        await asyncio.wait((getting, taking), return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        getting.cancel()
    if under_way.empty():
        taking.result()
    return await under_way.get()


def _no_delay(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="A TCP proxy that adds a round-trip time.")
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    parser.add_argument("--target", type=int, required=True, help="port of this host to forward to")
    parser.add_argument("--rtt", type=float, required=True, help="milliseconds")
    parser.add_argument("--state", type=pathlib.Path, required=True, help="JSON file for the statistics")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Proxy(options.target, options.rtt, options.state).serve(options.port))


if __name__ == "__main__":
    main()

"""A TCP proxy that adds a round-trip time, for machines whose kernel has no netem.

It runs as a program of its own in the network namespace of a lab host, in front of sshd. What it models is a longer
way, not a slower one: bytes are held for half a round trip in each direction while others follow behind them, and the
opening of a connection costs its own round trip.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import socket
from dataclasses import asdict, dataclass

CHUNK = 256 * 1024
#: Chunks under way per direction; with CHUNK it bounds the memory of one connection.
WINDOW = 256
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
    """

    pid: int
    rtt: float
    connections: int = 0
    open: int = 0
    to_server: int = 0
    to_client: int = 0

    def save(self, path: pathlib.Path) -> None:
        """Replace the file as a whole."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(path)


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

    async def serve(self, port: int) -> None:
        """Listen on all addresses for ever."""
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
            await self._connect_and_pump(reader, writer)
        finally:
            writer.close()
            self.stats.open -= 1
            self.stats.save(self.state)

    async def _connect_and_pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
                asyncio.ensure_future(self._pump(reader, server_writer, "to_server")),
                asyncio.ensure_future(self._pump(server_reader, writer, "to_client")),
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

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        """Move bytes one way: take them as they come, hand each on half a round trip later."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW)

        async def take() -> None:
            while True:
                chunk = await reader.read(CHUNK)
                await under_way.put((loop.time() + self.rtt / 2, chunk))
                if not chunk:
                    return

        taking = asyncio.ensure_future(take())
        try:
            while True:
                # Both are waited for: a connection that breaks must not leave the other side waiting for ever.
                due, chunk = await _next(under_way, taking)
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not chunk:
                    break
                setattr(self.stats, counter, getattr(self.stats, counter) + len(chunk))
                writer.write(chunk)
                await writer.drain()
        finally:
            taking.cancel()
        with contextlib.suppress(OSError):
            writer.write_eof()


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

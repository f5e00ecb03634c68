"""The connections of a run: opened before they are needed, each once, and noted in the timeline."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from axon_tasks.deploy.inventory import inventory_of
from axon_tasks.errors import AxonError
from axon_tasks.remote import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Self

    from axon_tasks.deploy.timeline import Recorder
    from axon_tasks.remote import Connection
    from axon_tasks.remote.fleet import ProjectLike

#: Threads that connect at the same time.
_THREADS = 32


class Connections:
    """One connection per server, shared by all runs that go on at the same time; leaving the block closes all.

    Connecting takes several round trips. It can go on while this program still imports what it needs, and a server
    that cannot be reached is tried once, however many steps ask for it.

    Args:
        inventory: How to reach the servers.
        recorder: Notes when each was connected to.
        prepare: Whether to open shells before they are needed; not where one thing is done after the other.
    """

    def __init__(self, inventory: ProjectLike, recorder: Recorder, *, prepare: bool = True) -> None:
        self.recorder = recorder
        self.span = recorder.begin("run", "run")
        self._inventory = inventory
        self._prepare = prepare
        self._fleet = Fleet(inventory, prepare=prepare)
        self._opening: dict[str, Future[Connection]] = {}
        self._guard = threading.Lock()

    def lead_to(self, inventory: ProjectLike) -> bool:
        """Use these settings from now on. What was opened is closed if it may lead somewhere else.

        Returns:
            Whether they lead to the same servers as those of before.
        """
        if inventory_of(inventory) == inventory_of(self._inventory):
            return True
        self._fleet.close()
        with self._guard:
            self._inventory, self._opening = inventory, {}
            self._fleet = Fleet(inventory, prepare=self._prepare)
        return False

    def open_early(self, servers: Iterable[str]) -> None:
        """Begin to connect, in the background; what fails is told to whoever needs the server."""
        names = tuple(dict.fromkeys(servers))
        for number in range(min(len(names), _THREADS)):
            mine = names[number::_THREADS]
            threading.Thread(target=self._open_all, args=(mine,), name="axon-connect", daemon=True).start()

    def _open_all(self, servers: Iterable[str]) -> None:
        for server in servers:
            self._claimed(server).exception()

    def __getitem__(self, server: str) -> Connection:
        """Give the open connection to a server; one that has broken is opened again.

        Raises:
            UnreachableError: It cannot be reached; HostKeyError if its key is not the known one.
        """
        return self._claimed(server).result()

    def _claimed(self, server: str) -> Future[Connection]:
        """The connection or the reason why there is none; whoever asks first opens it."""
        with self._guard:
            future = self._opening.get(server)
            broken = future is not None and future.done() and _has_broken(future)
            if future is not None and not broken:
                return future
            future = self._opening[server] = Future()
        self._open(server, future)
        return future

    def _open(self, server: str, future: Future[Connection]) -> None:
        span = self.recorder.begin("connect", server, parent=self.span, server=server)
        try:
            connection = self._fleet[server]
            # Each server is sent two scripts at once at the beginning of a deploy: both shells start now.
            connection.refill(started=2)
        except BaseException as error:  # noqa: BLE001  (handed to everybody who asks for this server)
            self.recorder.end(
                span, outcome="failed", note=error.summary if isinstance(error, AxonError) else ""
            )
            future.set_exception(error)
        else:
            self.recorder.end(span)
            future.set_result(connection)

    def close(self) -> None:
        """Close every connection, and end what runs over it."""
        self._fleet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _has_broken(future: Future[Connection]) -> bool:
    return future.exception() is None and not future.result().is_connected

"""Batches to the servers of one run: started together, cancelled together, their failures told together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from axon_tasks.remote import Batch, BatchResult, Fleet, PendingBatch


class ServersFailedError(AxonError):
    """The same work failed on one or more servers."""

    def __init__(self, errors: Iterable[AxonError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)), code=self.errors[0].code)


class AbortedError(AxonError):
    """This work was ended because other work had failed; that failure is the one to tell."""


def flatten(errors: Iterable[BaseException]) -> list[AxonError]:
    """Every single failure once, without those that are only the consequence of another one."""
    single: list[BaseException] = []
    for error in errors:
        single += error.errors if isinstance(error, ServersFailedError) else (error,)
    told = {
        str(one): one for one in single if isinstance(one, AxonError) and not isinstance(one, AbortedError)
    }
    return list(told.values())


class Servers:
    """Runs batches on the servers of a run, and can end all of them at once.

    Args:
        fleet: The connections; one per server.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._running: set[PendingBatch] = set()
        self._guard = threading.Lock()
        self._aborted = False

    def abort(self) -> None:
        """End what runs, except what must not stop half-way; nothing new starts."""
        with self._guard:
            self._aborted = True
            running = tuple(self._running)
        for pending in running:
            pending.cancel()

    def resume(self) -> None:
        """Allow new batches again, for undoing."""
        self._aborted = False

    def run(
        self,
        server: str,
        batch: Batch,
        *,
        fail_fast: bool = False,
        timeout: float | None = None,
        on_output: Callable[[str, str, bytes], None] | None = None,
        abortable: bool = True,
    ) -> BatchResult:
        """Run one batch on one server.

        Args:
            server: Its name in `hosts.yml`.
            batch: What to run.
            fail_fast: Whether to stop at the first failing section.
            timeout: Seconds after which the batch is ended, or None.
            on_output: Is given the output as it arrives: label, stream, bytes.
            abortable: Whether `abort` ends it; what is short and only looks may as well finish, because the
                message about the failure can then say what serves.

        Raises:
            AbortedError: `abort` was called.
            UnreachableError: The server cannot be reached, or the connection broke.
        """
        if self._aborted and abortable:
            raise AbortedError(f"{server}: not started")
        connection = self.fleet[server]
        pending = batch.start(connection, fail_fast=fail_fast, timeout=timeout, on_output=on_output)
        if abortable:
            with self._guard:
                self._running.add(pending)
                aborted = self._aborted
            if aborted:
                pending.cancel()
        try:
            return pending.result()
        except AxonError:
            if self._aborted and abortable:
                raise AbortedError(f"{server}: {batch.name} was ended early") from None
            raise
        finally:
            with self._guard:
                self._running.discard(pending)

    def each(self, names: Iterable[str], work: Callable[[str], BatchResult]) -> dict[str, BatchResult]:
        """Do the same on several servers at the same time.

        Args:
            names: The servers.
            work: Is called with each name, in a thread of its own.

        Raises:
            ServersFailedError: It failed on at least one; every failure is in it.
        """
        wanted = tuple(dict.fromkeys(names))
        errors: list[AxonError] = []
        results: dict[str, BatchResult] = {}
        with ThreadPoolExecutor(max_workers=max(1, min(32, len(wanted)))) as pool:
            futures = {name: pool.submit(work, name) for name in wanted}
            for name, future in futures.items():
                try:
                    results[name] = future.result()
                except AxonError as error:
                    errors.append(error)
        if errors:
            raise ServersFailedError(errors)
        return results

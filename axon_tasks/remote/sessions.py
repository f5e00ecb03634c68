"""A shell that is ready before it is needed.

Opening a session takes a round trip, asking for `sh -s` and waiting for its first byte
another one, and a login shell that reads `.bashrc` some 100 ms. A spare session has all
this behind it, so that a batch costs one round trip.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from axon_tasks.remote.transport import BROKEN, close_quietly

if TYPE_CHECKING:
    import paramiko

    from axon_tasks.remote.transport import Transport


class Shells:
    """Hand out channels on which `SHELL -s` waits for its script.

    Args:
        transport: The connection.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._spare: paramiko.Channel | None = None
        self._filling: threading.Thread | None = None
        self._closed = False
        transport.on_scarcity = self._drop_spare

    def take(self, shell: str) -> tuple[paramiko.Channel, bool]:
        """Give a fresh shell: the spare one if there is one, else a new one.

        Args:
            shell: The program, such as `sh`; only `sh` is kept in reserve.

        Returns:
            The shell, and whether it was there already, so that nothing had to be waited for.

        Raises:
            paramiko.SSHException: If the connection grants no session.
        """
        if shell == "sh":
            spare = self._take_spare()
            if spare is not None:
                return spare, True
        return self._transport.run_in_session(f"exec {shell} -s"), False

    def refill(self) -> None:
        """Open a spare shell in the background, unless there is one or the sessions are scarce."""
        with self._lock:
            if self._closed or self._spare is not None or self._filling is not None:
                return
            # Two: the spare must not be what the next command has to wait for.
            if not self._transport.slots.has_room(2):
                return
            self._filling = threading.Thread(target=self._fill, name="axon-spare-shell", daemon=True)
            self._filling.start()

    def close(self) -> None:
        """Open no more spare shells, and close the one there is."""
        with self._lock:
            self._closed = True
            filling = self._filling
        if filling is not None:
            filling.join(timeout=1)
        self._drop_spare()

    def _fill(self) -> None:
        channel = None
        with contextlib.suppress(*BROKEN):
            # No waiting: whoever needs a session for a command comes first.
            channel = self._transport.run_in_session("exec sh -s", wait=0)
        with self._lock:
            self._filling = None
            if not self._closed:
                self._spare, channel = channel, None
        if channel is not None:
            close_quietly(channel)

    def _take_spare(self) -> paramiko.Channel | None:
        with self._lock:
            filling = self._filling
        if filling is not None:
            # It has started earlier than a new one would.
            filling.join()
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None and (spare.closed or spare.eof_received):
            close_quietly(spare)
            return None
        return spare

    def _drop_spare(self) -> None:
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            close_quietly(spare)

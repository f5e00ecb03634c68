"""Shells that are ready before they are needed.

A batch that has to open its session waits three round trips: for the session, for the
window that sshd opens only when it has started a program, and for the result. A login shell
that reads `.bashrc` adds some 100 ms. Spares have this behind them. There are two kinds:

* an *empty* session, which costs the server nothing and saves one round trip;
* a *started* shell, which costs it a process, and saves two and the start.

After the login there is one of each. While the first batch runs, the second is started as
well: a batch that follows at once finds it ready. From the second batch on, two are started.
Whoever begins with two batches at once says so, and gets an empty session beside two shells:
it is a shell by the time that the first of them has answered, however quick that was.

No thread waits for a spare: Paramiko's own thread notes that it is there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import paramiko

from axon_tasks.remote.transport import CHANNEL_TIMEOUT, NEW, close_quietly

if TYPE_CHECKING:
    from axon_tasks.remote.transport import Opening, Transport, Wake

#: Sessions in reserve: a started shell takes two round trips to come, so that batches which follow each other at
#: once, each a round trip long, need two of them on their way.
_SPARES = 2
#: The program that is started ahead.
_PROGRAM = "sh"


class Shells:
    """Hand out channels on which `SHELL -s` waits for its script.

    Args:
        transport: The connection.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._spares: list[Opening] = []
        self._taken = 0
        self._wanted = 1
        self._reserve = _SPARES
        self._closed = False
        transport.on_scarcity = self._drop_spares

    def take(self, program: str, turn: Wake | None = None) -> tuple[paramiko.Channel, int]:
        """Give a fresh shell: a spare one if there is one, else a new one.

        Args:
            program: Such as `sh`.
            turn: Ends the waiting for a free session when it is abandoned.

        Returns:
            The shell, and how many round trips it takes until it can read its script.

        Raises:
            paramiko.SSHException: If the connection grants no session.
        """
        with self._lock:
            self._taken += 1
        while (spare := self._take_spare(program)) is not None:
            distance = spare.distance
            # One that was asked for earlier is there earlier than a new one.
            if not spare.wait(CHANNEL_TIMEOUT):
                spare.drop()
                msg = "Timeout opening channel."
                raise paramiko.SSHException(msg)
            if spare.usable:
                if spare.program is None:
                    spare.start(program)
                return spare.channel, distance
            close_quietly(spare.channel)
        return self._transport.run_in_session(f"exec {program} -s", turn=turn), NEW

    def take_ready(self) -> paramiko.Channel | None:
        """Give a shell that can read a script now, or None; nothing is waited for."""
        with self._lock:
            for spare in self._spares:
                if spare.program == _PROGRAM and spare.is_set() and spare.usable and spare.distance == 0:
                    self._spares.remove(spare)
                    return spare.channel
        return None

    def refill(self, started: int | None = None) -> None:
        """Ask for what is missing in the reserve, unless the sessions are scarce; nothing is waited for.

        Args:
            started: How many shells to have started from now on; None leaves it as it is.
        """
        with self._lock:
            if started is not None:
                self._wanted = min(_SPARES, started)
                self._reserve = self._wanted + 1
            if self._taken > 1:
                self._wanted = _SPARES
            self._spares = [one for one in self._spares if not one.is_set() or one.usable]
            self._start_more()
            while not self._closed and len(self._spares) < self._reserve:
                # One more must stay free: the spare must not be what the next command has to wait for.
                spare = self._transport.request_session(_PROGRAM if self._lacks_started() else None, spare=1)
                if spare is None:
                    return
                self._spares.append(spare)

    def close(self) -> None:
        """Ask for no more, and give up what there is."""
        with self._lock:
            self._closed = True
        self._drop_spares()

    def _start_more(self) -> None:
        """Start shells in sessions of the reserve."""
        for spare in self._spares:
            if self._lacks_started() and spare.program is None:
                spare.start(_PROGRAM)

    def _lacks_started(self) -> bool:
        return sum(spare.program is not None for spare in self._spares) < self._wanted

    def _take_spare(self, program: str) -> Opening | None:
        """Take the spare that is ready first, if any fits."""
        with self._lock:
            fitting = [one for one in self._spares if one.program in {program, None}]
            if not fitting:
                return None
            best = min(fitting, key=lambda one: (one.distance, one.program is None))
            self._spares.remove(best)
            return best

    def _drop_spares(self) -> None:
        with self._lock:
            spares, self._spares = self._spares, []
        for spare in spares:
            spare.drop()

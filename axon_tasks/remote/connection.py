"""A Fabric connection that can be trusted with a deploy.

What differs from the stock one: the host key is checked before anything is sent; every
wait has an end; sockets are tuned; opening is locked; jump hosts are shared; errors say
which server, and what to do; closing ends what still runs and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import random
import shlex
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fabric
import paramiko
from fabric.config import Config

from axon_tasks.errors import HostKeyError, UnreachableError
from axon_tasks.remote.auth import Identities, Strategy
from axon_tasks.remote.known_hosts import KnownHosts, fingerprint, host_name
from axon_tasks.remote.runner import Runner
from axon_tasks.remote.sessions import Shells
from axon_tasks.remote.transport import BROKEN, CHANNEL_TIMEOUT, Transport, close_quietly, connect

if TYPE_CHECKING:
    from axon_tasks.remote.exchange import Exchange
    from axon_tasks.remote.transport import Wake

#: Seconds for the version line of sshd; one that is overloaded by logins takes its time.
_BANNER_TIMEOUT = 15.0
#: Seconds for all of the key exchange, and for each answer about a key.
_HANDSHAKE_TIMEOUT = 20.0
#: sshd drops logins at random when too many come at once (sshd_config(5): MaxStartups 10:30:100).
_ATTEMPTS = 4
_HOST_KEY_TYPES = {
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


class Login(NamedTuple):
    """Everything that is needed to log in to one server.

    Args:
        name: Its name in the inventory, for messages.
        hostname: Name or address to connect to.
        port: TCP port.
        identities: User and keys.
        key_name: Its name in known_hosts, if it is another one (`HostKeyAlias`).
        known_hosts: The keys that are known.
        accept_new: Take the key of a server that was never seen, and write it down.
        new_keys: The file where such a key goes.
        connect_timeout: Seconds for the TCP connection.
        proxy_command: A program whose input and output are the connection.
        forward_agent: Let the server use the agent; off unless ssh_config says so.
    """

    name: str
    hostname: str
    port: int
    identities: Identities
    known_hosts: KnownHosts
    key_name: str | None = None
    accept_new: bool = False
    new_keys: Path | None = None
    connect_timeout: float = 10.0
    proxy_command: str | None = None
    forward_agent: bool = False

    @property
    def place(self) -> str:
        """The server as messages name it: `app1 (203.0.113.21:22)`."""
        return f"{self.name} ({self.hostname}:{self.port})"


class Connection(fabric.Connection):  # type: ignore[misc]
    """An SSH connection to one server; thread-safe once it is open.

    Args:
        login: Where, as whom, and with which keys.
        gateway: An open or closed connection to the last jump host; it is opened when needed and not closed here.
        config: Fabric's settings for `run`.
        prepares: Whether shells are opened before they are needed.
    """

    # Fabric writes unknown attributes into its configuration, so each is declared here.
    login: Login
    name: str
    exchanges: set[Exchange]
    prepares: bool
    _opening: threading.RLock
    _abandoned: bool
    _underway: Any
    _shells: Shells | None
    _proxy: subprocess.Popen[bytes] | None
    transport: Any
    _sftp: Any

    def __init__(
        self,
        login: Login,
        *,
        gateway: Connection | None = None,
        config: Config | None = None,
        prepares: bool = True,
    ) -> None:
        self._set(
            login=login,
            name=login.name,
            exchanges=set(),
            prepares=prepares,
            _opening=threading.RLock(),
            _abandoned=False,
            _underway=None,
            _shells=None,
            _proxy=None,
        )
        super().__init__(
            host=login.hostname,
            user=login.identities.user,
            port=login.port,
            config=config if config is not None else quiet_config(),
            # False and not None: None would look for a jump host in Fabric's own way.
            gateway=gateway if gateway is not None else False,
            forward_agent=login.forward_agent,
            connect_timeout=_whole(login.connect_timeout),
        )
        self.host, self.user, self.port = login.hostname, login.identities.user, login.port
        # Not used to connect; should anything reach for it, it must refuse.
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())

    @property
    def destination(self) -> str:
        """What to type after `ssh` to get there."""
        port = "" if self.port == 22 else f"-p {self.port} "  # noqa: PLR2004 - ssh's own default
        return f"{port}{self.user}@{self.host}"

    def open(self) -> None:
        """Connect and log in, unless that is done already.

        Raises:
            UnreachableError: If the server cannot be reached or lets nobody in.
            HostKeyError: If its key is not the known one; nothing was sent to it.
        """
        with self._opening:
            if self.is_connected:
                return
            self._abandoned = False
            self.transport = self._connect_patiently()
            self._shells = Shells(self.transport)

    def close(self) -> None:
        """End what still runs, and leave nothing: no channel, no thread, no socket, no process."""
        self._abandon()
        # All are told before the first is waited for.
        exchanges = self.exchanges.copy()
        for exchange in exchanges:
            exchange.abandon()
        for exchange in exchanges:
            exchange.cancel()
        with self._opening:
            self._abandoned = True
            if self._shells is not None:
                self._shells.close()
                self._shells = None
            if self._sftp is not None:
                with contextlib.suppress(*BROKEN):
                    self._sftp.close()
                self._sftp = None
            if self.transport is not None:
                self.transport.close()
                self.transport.join(timeout=5)
                self.transport = None
            self._end_proxy()

    def create_session(self) -> paramiko.Channel:
        """Open a session for `run`, within the limits of sshd.

        Raises:
            UnreachableError: If the server grants none.
        """
        self.open()
        try:
            channel: paramiko.Channel = self.transport.session()
        except BROKEN as error:
            raise self._unreachable(
                f"{self.login.place} grants no session: {error}", "see MaxSessions in its sshd_config"
            ) from error
        if self.forward_agent:
            self._agent_handler = paramiko.agent.AgentRequestHandler(channel)
        return channel

    def sftp(self) -> paramiko.SFTPClient:
        """Give the one SFTP session of this connection."""
        self.open()
        if self._sftp is None:
            self._sftp = self.transport.open_sftp_client()
        return self._sftp  # type: ignore[no-any-return]

    def ready_shell(self, program: str = "sh", turn: Wake | None = None) -> tuple[paramiko.Channel, int]:
        """Give a channel on which a shell waits for its script.

        Args:
            program: The shell.
            turn: Ends the waiting for a free session when it is abandoned.

        Returns:
            The channel, and how many round trips it takes until the shell can read.

        Raises:
            paramiko.SSHException: If the server grants no session.
        """
        with self._opening:
            if self._abandoned:
                msg = "it was closed"
                raise paramiko.SSHException(msg)
            self.open()
            shells = self._shells
        assert shells is not None  # noqa: S101 - open has just made it
        return shells.take(program, turn)

    def refill(self, *, started: int | None = None) -> None:
        """Ask for the shells that come next, without waiting for them.

        Args:
            started: How many of them to have started, at most two: as many as there will be batches at the
                same time. At first it is one; None leaves it as it is.
        """
        shells = self._shells
        if self.prepares and shells is not None and self.is_connected:
            with contextlib.suppress(*BROKEN):
                shells.refill(started)

    def ask(self, question: str, *, within: float = 5.0) -> int | None:
        """Run one short, silent command and give its exit code; None if there was no answer in time.

        Args:
            question: Shell text without secrets.
            within: Seconds to wait.
        """
        try:
            channel = self.transport.run_in_session(question, wait=within)
        except BROKEN:
            return None
        try:
            channel.status_event.wait(within)
            return None if channel.exit_status == -1 else int(channel.exit_status)
        finally:
            close_quietly(channel)

    def end_session(self, session: int, *, privileged: bool, within: float, confirmed: bool = True) -> None:
        """Terminate all processes of a session on the server, and kill after a grace of two seconds what remains.

        sshd gives every command without a terminal a session of its own. What has left it
        on purpose (`setsid`, background jobs) stays.

        Args:
            session: Its number.
            privileged: Some of them may run as root.
            within: Seconds to wait until they have been told, once there is a session for it.
            confirmed: Whether to wait for that; without, the order goes to a shell that is ready, if there is one.

        Raises:
            paramiko.SSHException: If there was no session for it.
        """
        shell, script = "sh -s", _END_SESSION.replace("@SESSION@", str(session))
        if privileged and self.user != "root":
            shell = "sudo -n sh -s"
        ready = None if confirmed or self._shells is None else self._shells.take_ready()
        if ready is not None:
            order = script if shell == "sh -s" else f"printf %s {shlex.quote(script)} | {shell}"
            ready.sendall(order.encode())
            ready.shutdown_write()
            return
        # Beyond the usual limit: what is to be ended here may be what holds all the sessions.
        channel = self.transport.run_in_session(f"exec {shell}", wait=_TURN, beyond=1)
        try:
            channel.settimeout(within)
            channel.sendall(script.encode())
            channel.shutdown_write()
            channel.recv(1)
        finally:
            close_quietly(channel)

    def _remote_runner(self) -> Any:
        cls = self.config.runners.remote
        if cls is fabric.runners.Remote:
            cls = Runner
        return cls(context=self, inline_env=self.inline_ssh_env)

    def _abandon(self) -> None:
        """Have an `open` that is still under way in another thread fail now."""
        if self._opening.acquire(blocking=False):
            self._opening.release()
            return
        self._abandoned = True
        underway = self._underway
        with contextlib.suppress(OSError):
            if isinstance(underway, socket.socket):
                # Closing would not wake a connect(2) in another thread; this does.
                underway.shutdown(socket.SHUT_RDWR)
            elif underway is not None:
                underway.close()

    def _connect_patiently(self) -> Transport:
        """Connect; when the server drops logins because too many come at once, try again."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._establish()
            except _DroppedError as dropped:
                if attempt == _ATTEMPTS or self._abandoned:
                    raise self._unreachable(
                        f"{self.login.place} closed the connection before the login{_reason(dropped)}",
                        "too many logins at once? see MaxStartups in the server's sshd_config, and its log",
                    ) from dropped
            # At random, so that those who were dropped together do not come back together.
            time.sleep(random.uniform(0.1, 0.5) * attempt)  # noqa: S311 - spreads load, hides nothing

    def _establish(self) -> Transport:
        """Go through all the steps from a socket to an accepted login."""
        try:
            sock = self._socket()
            transport = self._underway = Transport(sock)
        except BaseException:
            self._end_proxy()
            raise
        transport.banner_timeout = _BANNER_TIMEOUT
        transport.auth_timeout = _HANDSHAKE_TIMEOUT
        try:
            self._negotiate(transport)
            self._check_host_key(transport)
            self._log_in(transport)
        except BaseException:
            transport.close()
            self._end_proxy()
            raise
        finally:
            self._underway = None
        return transport

    def _socket(self) -> Any:
        login = self.login
        if self.gateway:
            return self._through_gateway()
        if login.proxy_command is not None:
            return self._through_command(login.proxy_command)
        try:
            return connect(login.hostname, login.port, login.connect_timeout, self._note)
        except ConnectionResetError as error:
            raise _DroppedError from error
        except OSError as error:
            raise self._unreachable(*_told(login, error)) from error

    def _note(self, sock: socket.socket) -> None:
        """Remember the socket that is being connected; see `_abandon`."""
        if self._abandoned:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it was closed meanwhile")
        self._underway = sock

    def _through_gateway(self) -> paramiko.Channel:
        self.gateway.open()
        try:
            return self.gateway.transport.open_channel(  # type: ignore[no-any-return]
                "direct-tcpip",
                (self.host, self.port),
                ("", 0),
                timeout=max(CHANNEL_TIMEOUT, self.connect_timeout),
            )
        except BROKEN as error:
            raise self._unreachable(
                f"{self.login.place} cannot be reached from the jump host {self.gateway.login.place}: {error}",
                f"try: ssh {self.gateway.destination} nc -vz {self.host} {self.port}",
            ) from error

    def _through_command(self, command: str) -> socket.socket:
        """Run a ProxyCommand as OpenSSH does, with a socket for its input and output."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._proxy = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
            )
        return ours

    def _negotiate(self, transport: Transport) -> None:
        """Exchange keys; ask for a type of host key that is known, as ssh(1) does."""
        known = self.login.known_hosts.key_types(self._key_name, self._key_port)
        wanted = [name for kind in known for name in _HOST_KEY_TYPES.get(kind, (kind,))]
        options = transport.get_security_options()
        ours = list(options.key_types)
        options.key_types = tuple(dict.fromkeys([*(name for name in wanted if name in ours), *ours]))
        try:
            transport.start_client(timeout=_HANDSHAKE_TIMEOUT + self.login.connect_timeout)
        except EOFError as error:
            raise _DroppedError from error
        except (paramiko.SSHException, OSError) as error:
            if (
                isinstance(error, ConnectionError)
                or "banner" in str(error)
                or str(error) == "Negotiation failed."
            ):
                raise _DroppedError(str(error)) from error
            raise self._unreachable(
                f"{self.login.place} speaks no SSH that is understood here: {error}",
                f"try: ssh -v {self.destination}",
            ) from error
        if not transport.initial_kex_done:
            raise self._unreachable(
                f"{self.login.place} did not finish the key exchange within {_HANDSHAKE_TIMEOUT:g} s",
                f"try: ssh -v {self.destination}",
            )

    @property
    def _key_name(self) -> str:
        return self.login.key_name or self.login.hostname

    @property
    def _key_port(self) -> int:
        # ssh_config(5): a HostKeyAlias stands in known_hosts without a port.
        return 22 if self.login.key_name else self.login.port

    def _check_host_key(self, transport: Transport) -> None:
        """Compare the server's key with the known ones.

        Raises:
            HostKeyError: Unless they are the same, or the server is new and may be.
        """
        login = self.login
        key = transport.get_remote_server_key()
        kind, blob = key.get_name(), key.asbytes()
        verdict = login.known_hosts.check(self._key_name, self._key_port, blob)
        offered = f"{kind} {fingerprint(blob)}"
        name = host_name(self._key_name, self._key_port)
        if verdict.finding == "known":
            return
        if verdict.finding == "unknown" and login.accept_new and login.new_keys is not None:
            self._write_down(kind, blob, login.new_keys)
            return
        if verdict.finding == "changed":
            known = ", ".join(f"{one.kind} {fingerprint(one.blob)} ({one.place})" for one in verdict.entries)
            raise HostKeyError(
                f"the host key of {login.place} has changed; nothing was sent to it."
                f"\n  it shows  {offered}\n  known is  {known}",
                hint=f"somebody may be in between. If the server was set up anew: {self._forget(name, verdict.entries[0].place)}",
            )
        if verdict.finding == "revoked":
            raise HostKeyError(
                f"{login.place} shows a revoked host key: {offered}", hint="do not trust this server"
            )
        if verdict.finding == "authority":
            raise HostKeyError(
                f"{login.place} is known only through a certificate authority, which is not supported here",
                hint=f"add its own key, {offered}: {self._learn(kind)}",
            )
        raise HostKeyError(
            f"the host key of {login.place} is not known; it shows {offered}",
            hint=f"to see and add it: {self._learn(kind)}",
        )

    def _forget(self, name: str, place: str) -> str:
        file = place.rpartition(":")[0] or place
        return f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(file)}"

    def _learn(self, kind: str) -> str:
        login = self.login
        file = login.new_keys or Path("~/.ssh/known_hosts")
        if self.gateway or login.proxy_command is not None or login.key_name:
            return f"ssh -o StrictHostKeyChecking=ask -o UserKnownHostsFile={shlex.quote(str(file))} {self.destination} true"
        port = "" if login.port == 22 else f"-p {login.port} "  # noqa: PLR2004 - the tool's own default
        family = "ecdsa" if kind.startswith("ecdsa") else kind.removeprefix("ssh-")
        return f"ssh-keyscan {port}-t {family} {login.hostname} | tee -a {shlex.quote(str(file))} | ssh-keygen -lf -"

    def _write_down(self, kind: str, blob: bytes, file: Path) -> None:
        try:
            self.login.known_hosts.add(self._key_name, self._key_port, kind, blob, file)
        except OSError as error:
            raise HostKeyError(
                f"the new host key of {self.login.place} cannot be written to {file}: {error.strerror}"
            ) from error

    def _log_in(self, transport: Transport) -> None:
        strategy = Strategy(self.login.identities)
        try:
            strategy.authenticate(transport)
        except BROKEN as error:
            tried = (
                "".join(f"\n    {line}" for line in strategy.tried)
                or "\n    nothing: there is no key and no agent"
            )
            raise self._unreachable(
                f"{self.login.place} does not let {self.user!r} in; tried:{tried}",
                f"try: ssh {self.destination}",
            ) from error

    def _end_proxy(self) -> None:
        if self._proxy is not None:
            with contextlib.suppress(ProcessLookupError):
                self._proxy.terminate()
            try:
                self._proxy.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._proxy.kill()
                self._proxy.wait()
            self._proxy = None

    def _unreachable(self, what: str, hint: str) -> UnreachableError:
        return UnreachableError(what, hint=hint)


class _DroppedError(Exception):
    """The server took the connection and dropped it before the login: worth another try."""


def _reason(dropped: _DroppedError) -> str:
    return f" ({dropped})" if str(dropped) else ""


def quiet_config() -> Config:
    """Give Fabric settings that read no files and never touch the operator's standard input."""
    return Config(
        ssh_config=paramiko.SSHConfig(),
        overrides={"run": {"in_stream": False, "hide": True}},
    )


def _whole(seconds: float) -> int:
    """Round up to whole seconds, at least one: Fabric cuts fractions off."""
    return max(1, int(-(-seconds // 1)))


def _told(login: Login, error: OSError) -> tuple[str, str]:
    """Say what a socket error means, and what to do about it."""
    ssh = f"try: ssh -v -p {login.port} {login.identities.user}@{login.hostname}"
    if isinstance(error, socket.gaierror):
        return (
            f"{login.name}: there is no host {login.hostname!r} ({error.strerror})",
            "is `address` right in hosts.yml?",
        )
    if isinstance(error, ConnectionRefusedError):
        return f"{login.place} refused the connection", "is sshd running there, and is the port right?"
    if isinstance(error, TimeoutError):
        return (
            f"{login.place} did not answer within {login.connect_timeout:g} s",
            f"a firewall, or the wrong address? {ssh}",
        )
    return f"{login.place} cannot be reached: {error.strerror or error}", ssh


#: Seconds that an order to end something waits for its turn behind others: nobody else gives it if this one does not.
_TURN = 30.0
#: Ends a session in POSIX sh with nothing but builtins, sleep aside. One byte says that TERM was sent; what is left to
#: do then goes on without the shell, so that its session is free for the next order.
#: Field 4 after the name in /proc/PID/stat is the session, field 1 the state (proc(5)); Z is dead already.
_END_SESSION = """\
_axon_signal() {
_axon_found=1
for _axon_dir in /proc/[0-9]*; do
{ read -r _axon_stat <"$_axon_dir/stat"; } 2>/dev/null || continue
set -- "$1" ${_axon_stat##*) }
[ "$5" = @SESSION@ ] && [ "$2" != Z ] && [ "$2" != X ] || continue
_axon_found=0
kill -s "$1" "${_axon_dir#/proc/}" 2>/dev/null
done
return $_axon_found
}
_axon_rest() {
for _axon_try in 1 2 3 4 5 6 7 8 9 10; do
_axon_signal 0 || return 0
sleep 0.2 2>/dev/null || sleep 1
done
_axon_signal KILL
}
_axon_main() {
trap '' HUP PIPE
_axon_signal TERM
printf .
{ _axon_rest; } >/dev/null 2>&1 &
}
</dev/null _axon_main"""

"""The servers of a project, each with one connection per run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from axon_tasks.errors import AxonError, ConfigurationError, UnreachableError
from axon_tasks.remote.auth import Identities
from axon_tasks.remote.connection import Connection, Login, quiet_config
from axon_tasks.remote.known_hosts import KnownHosts
from axon_tasks.remote.ssh_config import SshConfig, SshSettings, split_destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from fabric import Config, ThreadingGroup
    from typing_extensions import Self

    from axon_tasks.remote.script import Revealable

#: Simultaneous logins per endpoint; sshd starts to drop them at ten (sshd_config(5): MaxStartups).
_HANDSHAKES = 8
#: Threads at a time, however many servers there are.
_THREADS = 32
#: Jump hosts behind jump hosts; more than a few are a loop.
_HOPS = 8
_CONNECT_TIMEOUT = 10.0

T = TypeVar("T")


class HostLike(Protocol):
    """What a connection needs to know of a host; `axon_tasks.config.Host` has it."""

    @property
    def name(self) -> str:
        """Its name in the inventory."""

    @property
    def address(self) -> str:
        """Host name, alias of ssh_config, or address."""

    @property
    def user(self) -> str | None:
        """Login name; None leaves it to ssh_config."""

    @property
    def port(self) -> int | None:
        """Port; None leaves it to ssh_config."""

    @property
    def key(self) -> Path | None:
        """Private key; None leaves it to ssh_config."""

    @property
    def passphrase(self) -> Revealable | None:
        """Opens the private key."""

    @property
    def jump(self) -> str | None:
        """A name in the inventory, or `[user@]host[:port]`."""

    @property
    def host_keys(self) -> str:
        """`strict` or `accept-new`."""

    @property
    def connect_timeout(self) -> float | None:
        """Seconds for the TCP connection."""


class ProjectLike(Protocol):
    """What a fleet needs to know of a project; `axon_tasks.config.Project` has it."""

    @property
    def hosts(self) -> Mapping[str, HostLike]:
        """The inventory."""

    @property
    def known_hosts(self) -> Path | None:
        """The project's own known_hosts file."""


class AdHocHost(NamedTuple):
    """A host that stands in no inventory, such as one given with `-H` or as a jump host."""

    name: str
    address: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    passphrase: Revealable | None = None
    jump: str | None = None
    host_keys: str = "strict"
    connect_timeout: float | None = None


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of the work on one server.

    Args:
        result: What the work returned, if it did.
        error: What it raised, if it did.
    """

    result: T | None = None
    error: Exception | None = None

    @property
    def value(self) -> T:
        """The result.

        Raises:
            Exception: What the work raised.
        """
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class Fleet:
    """Open connections by inventory name; leaving the `with` block closes all of them, jump hosts too.

    Args:
        project: The inventory.
        ssh_config: Read this instead of the operator's ssh_config (`ssh -F`).
        prepare: Whether connections open shells before they are needed, so that a batch costs one round trip.
    """

    def __init__(self, project: ProjectLike, *, ssh_config: Path | None = None, prepare: bool = True) -> None:
        self._project = project
        self._prepare = prepare
        self._ssh_config = SshConfig(ssh_config)
        self._config = quiet_config()
        self._lock = threading.RLock()
        self._connections: dict[str, Connection] = {}
        self._jumps: dict[tuple[str, ...], Connection] = {}
        self._known: dict[tuple[Path, ...], KnownHosts] = {}
        self._handshakes: dict[tuple[str, int], threading.Semaphore] = {}
        self._closed = False

    def __getitem__(self, name: str) -> Connection:
        """Give the open connection to a server of the inventory.

        Raises:
            ConfigurationError: If there is no such server.
            UnreachableError: If it cannot be reached; HostKeyError if its key is not the known one.
        """
        return self._opened(self.connection(name))

    def connection(self, name: str) -> Connection:
        """Give the connection to a server of the inventory, not opened yet if nobody needed it."""
        with self._lock:
            known = self._connections.get(name)
        if known is not None:
            return known
        try:
            host = self._project.hosts[name]
        except KeyError:
            names = ", ".join(self._project.hosts) or "none"
            raise ConfigurationError(f"no host {name!r} in the inventory; there are: {names}") from None
        # A program is asked, which takes a moment: many servers are asked about at the same time, before the lock.
        self._ssh_config.settings(host.address, host.user, host.port)
        with self._lock:
            if name not in self._connections:
                self._connections[name] = self._build(host, ())
            return self._connections[name]

    def adhoc(
        self, destination: str, *, changes: Mapping[str, Any] | None = None, config: Config | None = None
    ) -> Connection:
        """Give the connection to `[user@]host[:port]`, or to a server of the inventory by its name.

        Args:
            destination: As typed after `fab -H`.
            changes: Fields of AdHocHost that were given beside it, such as `key`.
            config: Fabric's settings for its `run`.

        Raises:
            ConfigurationError: If it cannot be a host.
        """
        with self._lock:
            if destination not in self._connections:
                known = self._project.hosts.get(destination)
                host = copied(known) if known else _adhoc(destination)
                self._connections[destination] = self._build(host._replace(**(changes or {})), (), config)
            return self._connections[destination]

    def open(self, names: Iterable[str]) -> dict[str, Connection]:
        """Open several connections at the same time.

        Args:
            names: Inventory names.

        Raises:
            UnreachableError: If one cannot be opened; if several cannot, all of them are named.
        """
        outcomes = self.gather({name: lambda connection: connection for name in names})
        errors = [outcome.error for outcome in outcomes.values() if outcome.error is not None]
        if len(errors) > 1 and all(isinstance(error, UnreachableError) for error in errors):
            raise UnreachableError("\n".join(str(error) for error in errors)) from errors[0]
        return {name: outcome.value for name, outcome in outcomes.items()}

    def gather(self, work: Mapping[str, Callable[[Connection], T]]) -> dict[str, Outcome[T]]:
        """Do something on several servers at the same time, in a bounded number of threads.

        Args:
            work: What to do with the open connection, by inventory name.

        Returns:
            What came of it by name, in the order of `work`; a failure on one server stops none of the others.
        """
        if not work:
            return {}
        pool = ThreadPoolExecutor(max_workers=min(len(work), _THREADS), thread_name_prefix="axon-fleet")
        try:
            futures = {name: pool.submit(self._attempt, name, task) for name, task in work.items()}
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self.close()
            raise
        finally:
            pool.shutdown(wait=True)

    def group(self, names: Iterable[str]) -> ThreadingGroup:
        """Give Fabric's group for one and the same query on several servers; the connections are open.

        Its results are keyed by connection (`.name` is the inventory name); two names of
        the same user, address and port share one result.
        """
        from fabric import ThreadingGroup

        return ThreadingGroup.from_connections(list(self.open(names).values()))

    def close(self) -> None:
        """Close every connection: targets first, then the jump hosts they went through, last opened first."""
        with self._lock:
            self._closed = True
            targets, jumps = list(self._connections.values()), list(self._jumps.values())
            self._connections.clear()
            self._jumps.clear()
        _close_all(targets)
        for jump in reversed(jumps):
            jump.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, name: str, task: Callable[[Connection], T]) -> Outcome[T]:
        try:
            return Outcome(task(self[name]))
        except Exception as error:  # noqa: BLE001 - the outcome carries it to whoever asks
            return Outcome(error=error)

    def _opened(self, connection: Connection) -> Connection:
        if connection.is_connected:
            return connection
        if connection.gateway:
            self._opened(connection.gateway)
        endpoint = (connection.host, connection.port)
        with self._lock:
            if self._closed:
                msg = "the fleet is closed"
                raise AxonError(msg)
            gate = self._handshakes.setdefault(endpoint, threading.Semaphore(_HANDSHAKES))
        with gate:
            connection.open()
        connection.refill()
        return connection

    def _build(self, host: HostLike, path: tuple[str, ...], config: Config | None = None) -> Connection:
        """Put a connection together, with those to its jump hosts."""
        settings = self._ssh_config.settings(host.address, host.user, host.port)
        hops = (host.jump,) if host.jump else settings.proxy_jump
        gateway = self._gateway(hops, (*path, host.name)) if hops else None
        login = self._login(host, settings, proxied=bool(hops))
        return Connection(login, gateway=gateway, config=config or self._config, prepares=self._prepare)

    def _gateway(self, hops: tuple[str, ...], path: tuple[str, ...]) -> Connection:
        """Give the connection to the last of some hops, each reached through the one before."""
        if len(path) > _HOPS or hops[-1] in path:
            raise ConfigurationError(f"the jump hosts go round in a circle: {' -> '.join([*path, *hops])}")
        if hops not in self._jumps:
            *before, last = hops
            host = self._project.hosts.get(last) or _adhoc(last)
            if before:
                gateway = self._gateway(tuple(before), (*path, last))
                settings = self._ssh_config.settings(host.address, host.user, host.port)
                jump = Connection(
                    self._login(host, settings, proxied=True), gateway=gateway, config=self._config
                )
            else:
                jump = self._build(host, path)
            self._jumps[hops] = jump
        return self._jumps[hops]

    def _login(self, host: HostLike, settings: SshSettings, *, proxied: bool) -> Login:
        project_file = self._project.known_hosts
        files = [
            *settings.user_known_hosts,
            *settings.global_known_hosts,
            *([project_file] if project_file else []),
        ]
        user_file = settings.user_known_hosts[0] if settings.user_known_hosts else None
        key = host.key.expanduser() if host.key is not None else None
        return Login(
            name=host.name,
            hostname=settings.hostname,
            port=settings.port,
            identities=Identities(
                user=settings.user,
                files=(key,) if key is not None else settings.identity_files,
                certificates=() if key is not None else settings.certificate_files,
                agent=settings.identity_agent,
                only=key is not None or settings.identities_only,
                required=key is not None,
                passphrase=host.passphrase,
            ),
            known_hosts=self._known_hosts(tuple(files)),
            key_name=settings.host_key_alias,
            accept_new=host.host_keys == "accept-new",
            new_keys=project_file or user_file,
            connect_timeout=host.connect_timeout or settings.connect_timeout or _CONNECT_TIMEOUT,
            proxy_command=None if proxied else settings.proxy_command,
            forward_agent=settings.forward_agent,
        )

    def _known_hosts(self, files: tuple[Path, ...]) -> KnownHosts:
        if files not in self._known:
            self._known[files] = KnownHosts(files)
        return self._known[files]


def _close_all(connections: list[Connection]) -> None:
    """Close connections at the same time, or one after the other where the interpreter starts no more threads."""
    try:
        with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="axon-close") as pool:
            list(pool.map(Connection.close, connections))
    except RuntimeError:
        for connection in connections:
            connection.close()


def _adhoc(destination: str) -> AdHocHost:
    user, address, port = split_destination(destination)
    return AdHocHost(destination, address, user, port)


def copied(host: HostLike) -> AdHocHost:
    """Copy what leads to a host of the inventory, so that it can be changed for one run, compared or kept."""
    return AdHocHost(**{name: getattr(host, name) for name in AdHocHost._fields})

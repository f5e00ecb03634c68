"""No connection of Fabric's own slips past: `fab -H` verifies host keys, too.

`fab -H HOST task` hands the task a stock `fabric.Connection`, which accepts any host
key, even one that differs from known_hosts (fabric #1804, #2071). `install` makes Fabric
build a hardened connection there instead, and lets `-H` take names of `hosts.yml`.

One way remains that no fabfile can close: `fab -H HOST -- command` without a task never
loads a fabfile. Who uses it puts this into `~/.fabric.yaml` or `/etc/fabric.yaml`:

    tasks:
      executor_class: axon_tasks.remote.guard.Executor
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from axon_tasks.remote.connection import Connection
    from axon_tasks.remote.fleet import Fleet, ProjectLike
    from axon_tasks.remote.script import Revealable

_fleets: dict[Path | None, Fleet] = {}


def install() -> None:
    """Make `fab -H` use hardened connections; does nothing under `invoke`, which has no `-H`.

    It costs nothing: everything is imported when the first such connection is made.
    """
    if "fabric" in sys.modules:
        from fabric.tasks import ConnectionCall

        ConnectionCall.make_context = _make_context


def __getattr__(name: str) -> Any:
    """Give `Executor`, which installs the guard and is Fabric's in everything else (PEP 562: made when asked for)."""
    if name != "Executor":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from fabric.executor import Executor

    install()
    return Executor


class _NoProject(NamedTuple):
    """What stands in for `hosts.yml` where there is none: no inventory, and the operator's own known_hosts."""

    hosts: dict[str, Any]
    known_hosts: Path | None = None


class _Typed:
    """A passphrase that was typed in."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "********"

    def reveal(self) -> str:
        """Give the passphrase."""
        return self._text


def _make_context(call: Any, config: Any) -> Connection:
    """Stand in for `fabric.tasks.ConnectionCall.make_context`."""
    destination, changes = _destination(dict(call.init_kwargs))
    given = dict(config.connect_kwargs)
    if given.get("password"):
        raise UsageError(
            "there is no login with a password here", hint="use a key, or an agent (man ssh-add)"
        )
    changes |= _flags(config, given)
    ssh_config = getattr(config, "_runtime_ssh_path", None)
    fleet = _fleet(Path(ssh_config).absolute() if ssh_config else None)
    return fleet.adhoc(destination, changes=changes, config=config.clone())


def _destination(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Read the host that `-H` or `@task(hosts=...)` names, and what is said about it."""
    destination = str(arguments.pop("host", ""))
    changes = {key: arguments.pop(key) for key in ("user", "port", "connect_timeout") if arguments.get(key)}
    if arguments:
        raise UsageError(
            f"hosts of a task take host, user, port and connect_timeout, not {', '.join(arguments)}",
            hint="put the server into hosts.yml and name it",
        )
    return destination, changes


def _flags(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Read what `-i`, `-t` and `--prompt-for-passphrase` say."""
    changes: dict[str, Any] = {}
    keys = given.get("key_filename")
    if keys:
        changes["key"] = Path(keys if isinstance(keys, str) else keys[0])
    passphrase = given.get("passphrase")
    if passphrase:
        secret: Revealable = _Typed(passphrase)
        changes["passphrase"] = secret
    timeout = given.get("timeout") or config.timeouts.connect
    if timeout:
        changes["connect_timeout"] = float(timeout)
    return changes


def _fleet(ssh_config: Path | None) -> Fleet:
    """Give the connections of this process; they are closed when it ends."""
    if ssh_config not in _fleets:
        from axon_tasks.remote.fleet import Fleet

        _fleets[ssh_config] = Fleet(_project(), ssh_config=ssh_config)
        atexit.register(_fleets[ssh_config].close)
    return _fleets[ssh_config]


def _project() -> ProjectLike:
    from axon_tasks.config import find_hosts_file, load

    try:
        file = find_hosts_file()
    except ConfigurationError:
        return _NoProject(hosts={})
    return load(file)

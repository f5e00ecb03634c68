"""How a server is reached: what the operator's own `ssh` would do.

`ssh -G` prints the settings for a host with `Include`, `Match` and everything else that
OpenSSH knows applied, so nothing has to be parsed twice and nothing can differ.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

from axon_tasks.errors import ConfigurationError

_HOST = re.compile(r"[A-Za-z0-9_.:%\[\]][A-Za-z0-9_.:%\[\]-]*", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_.@+\\][A-Za-z0-9_.@+\\-]*\$?", re.ASCII)
#: Seconds for `ssh -G`; it does not connect, but a `Match exec` may run programs.
_TIMEOUT = 15.0


class SshSettings(NamedTuple):
    """The settings of ssh_config(5) that matter here, for one host.

    Args:
        hostname: `HostName`: what to connect to.
        user: `User`.
        port: `Port`.
        host_key_alias: `HostKeyAlias`: the name in known_hosts, if it is another one.
        identity_files: `IdentityFile`, in order.
        certificate_files: `CertificateFile`, in order.
        identities_only: `IdentitiesOnly`: offer no other key of the agent.
        identity_agent: Path of the agent's socket, if there is one.
        forward_agent: `ForwardAgent`.
        proxy_jump: `ProxyJump` hops, the first one first.
        proxy_command: `ProxyCommand`, ready for a shell.
        user_known_hosts: `UserKnownHostsFile`.
        global_known_hosts: `GlobalKnownHostsFile`.
        connect_timeout: `ConnectTimeout` in seconds, if set.
    """

    hostname: str
    user: str
    port: int
    host_key_alias: str | None = None
    identity_files: tuple[Path, ...] = ()
    certificate_files: tuple[Path, ...] = ()
    identities_only: bool = False
    identity_agent: Path | None = None
    forward_agent: bool = False
    proxy_jump: tuple[str, ...] = ()
    proxy_command: str | None = None
    user_known_hosts: tuple[Path, ...] = ()
    global_known_hosts: tuple[Path, ...] = ()
    connect_timeout: float | None = None


class SshConfig:
    """Ask `ssh -G`, once per host.

    Args:
        file: Read this file instead of `~/.ssh/config` and the system's one (`ssh -F`).
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[tuple[str, str | None, int | None], SshSettings] = {}
        self._lock = threading.Lock()

    def settings(self, host: str, user: str | None = None, port: int | None = None) -> SshSettings:
        """Give the settings for a host.

        Args:
            host: Name, alias or address, as one would type it after `ssh`.
            user: Login name that wins over ssh_config.
            port: Port that wins over ssh_config.

        Raises:
            ConfigurationError: If the host or user cannot be one, or `ssh -G` fails.
        """
        key = (host, user, port)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = _interpret(host, self._ask(host, user, port))
            with self._lock:
                self._known[key] = known
        return known

    def _ask(self, host: str, user: str | None, port: int | None) -> str:
        # A host such as `-oProxyCommand=...` would be taken for an option (CVE-2017-1000117 and its kin).
        _check("host", host, _HOST)
        command = ["ssh", "-G"]
        if self._file is not None:
            command += ["-F", str(self._file)]
        if user is not None:
            _check("user", user, _USER)
            command += ["-l", user]
        if port is not None:
            command += ["-p", str(port)]
        try:
            done = subprocess.run(
                [*command, "--", host],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_TIMEOUT,
                check=False,
            )
        except FileNotFoundError:
            raise ConfigurationError(
                "the program `ssh` is not installed here, so ssh_config cannot be read",
                hint="install the OpenSSH client (Debian: apt install openssh-client)",
            ) from None
        except subprocess.TimeoutExpired:
            raise ConfigurationError(
                f"`ssh -G {host}` did not end within {_TIMEOUT:g} s",
                hint="is there a `Match exec` in ~/.ssh/config?",
            ) from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise ConfigurationError(
                f"ssh_config is not valid for {host}: {said[0] if said else 'no message'}",
                hint=f"try: ssh -G {host}",
            )
        return done.stdout


def split_destination(text: str) -> tuple[str | None, str, int | None]:
    """Split `[user@]host[:port]`, also with an IPv6 address in brackets or without a port.

    Returns:
        User, host and port; None where nothing is said.

    Raises:
        ConfigurationError: If the port is not a number from 1 to 65535.
    """
    text = text.removeprefix("ssh://").removesuffix("/")
    user, at, rest = text.rpartition("@")
    host, colon, port = rest.rpartition(":")
    bracketed = rest.startswith("[")
    if not colon or (bracketed and rest.endswith("]")) or (not bracketed and ":" in host):
        host, port = rest, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):  # noqa: PLR2004 - the highest port
        raise ConfigurationError(f"no port between 1 and 65535: {port!r} in {text!r}")
    return (user if at else None), host.removeprefix("[").removesuffix("]"), int(port) if port else None


def _check(what: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise ConfigurationError(f"not a {what} to connect to: {value!r}")


def _interpret(host: str, text: str) -> SshSettings:
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key.lower(), []).append(value.strip())

    def one(key: str) -> str | None:
        value = said.get(key, ["none"])[0]
        return None if value.lower() in {"none", ""} else value

    hostname = one("hostname") or host
    user = one("user") or pwd.getpwuid(os.getuid()).pw_name
    port = int(one("port") or 22)
    tokens = _tokens(host, hostname, user, port, one("hostkeyalias"))

    def files(values: list[str]) -> tuple[Path, ...]:
        return tuple(_path(value, tokens) for value in values if value.lower() != "none")

    command = one("proxycommand")
    jump = one("proxyjump")
    timeout = one("connecttimeout")
    return SshSettings(
        hostname=hostname,
        user=user,
        port=port,
        host_key_alias=one("hostkeyalias"),
        identity_files=files(said.get("identityfile", [])),
        certificate_files=files(said.get("certificatefile", [])),
        identities_only=one("identitiesonly") == "yes",
        identity_agent=_agent(one("identityagent") if "identityagent" in said else "SSH_AUTH_SOCK", tokens),
        forward_agent=one("forwardagent") == "yes",
        proxy_jump=tuple(hop.strip() for hop in jump.split(",")) if jump else (),
        proxy_command=_expand(command, tokens) if command else None,
        user_known_hosts=files((one("userknownhostsfile") or "").split()),
        global_known_hosts=files((one("globalknownhostsfile") or "").split()),
        connect_timeout=float(timeout) if timeout and timeout.isdigit() else None,
    )


def _tokens(host: str, hostname: str, user: str, port: int, alias: str | None) -> dict[str, str]:
    """List the TOKENS of ssh_config(5)."""
    local = socket.gethostname()
    account = pwd.getpwuid(os.getuid())
    return {
        "%": "%",
        "d": account.pw_dir,
        "h": hostname,
        "i": str(account.pw_uid),
        "k": alias or host,
        "L": local.split(".")[0],
        "l": local,
        "n": host,
        "p": str(port),
        "r": user,
        "u": account.pw_name,
    }


def _expand(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _path(text: str, tokens: dict[str, str]) -> Path:
    # As OpenSSH, which takes the home directory from the account and not from $HOME.
    text = _expand(text, tokens)
    text = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], ""), text)
    return Path(tokens["d"] + text[1:] if text == "~" or text.startswith("~/") else text)


def _agent(value: str | None, tokens: dict[str, str]) -> Path | None:
    if value is None:
        return None
    if value == "SSH_AUTH_SOCK":
        value = os.environ.get("SSH_AUTH_SOCK", "")
    elif value.startswith("$") and not value.startswith("${"):
        value = os.environ.get(value[1:], "")
    return _path(value, tokens) if value else None

"""Who a server is: known_hosts files, read as OpenSSH reads them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Paramiko's own reader raises on `@revoked` and `@cert-authority` lines, knows no
wildcards, and needs a tenth of a second per thousand lines and connection.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import re
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Finding = Literal["known", "unknown", "changed", "revoked", "authority"]

_MARKERS = {"@revoked", "@cert-authority"}
_SSH_PORT = 22


class Entry(NamedTuple):
    """One line of a known_hosts file.

    Args:
        marker: `@revoked`, `@cert-authority`, or nothing.
        names: Its comma-separated patterns, or one hashed name.
        kind: Key type, such as `ssh-ed25519`.
        blob: The public key.
        place: File and line, for messages.
    """

    marker: str
    names: str
    kind: str
    blob: bytes
    place: str

    def matches(self, name: str) -> bool:
        """Whether the line speaks of this name; a negated pattern wins."""
        if self.names.startswith("|1|"):
            return _is_hash_of(self.names, name)
        found = False
        for pattern in self.names.lower().split(","):
            if _fits(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


class Verdict(NamedTuple):
    """What known_hosts says about the key that a server has shown.

    Args:
        finding: `known` is the only one that lets a connection through.
        entries: The lines that speak of this host.
    """

    finding: Finding
    entries: tuple[Entry, ...] = ()


class KnownHosts:
    """The lines of some files, read once and shared by all connections.

    Args:
        files: The files, most important first; missing ones are empty.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(dict.fromkeys(files))
        self._lock = threading.Lock()
        self._plain: dict[str, list[Entry]] = {}
        self._others: list[Entry] = []
        for file in self.files:
            for entry in _read(file):
                self._index(entry)

    def key_types(self, host: str, port: int) -> list[str]:
        """List the key types that are known for a host, so that the server is asked for one of them.

        Args:
            host: Address, name, or `HostKeyAlias`.
            port: TCP port.
        """
        entries = self._entries(host, port) or self._without_port(host, port)
        return list(dict.fromkeys(entry.kind for entry in entries if not entry.marker))

    def check(self, host: str, port: int, blob: bytes) -> Verdict:
        """Judge the key that a server has shown.

        Args:
            host: Address, name, or `HostKeyAlias`.
            port: TCP port.
            blob: The public key.
        """
        entries = self._entries(host, port)
        nearby = self._without_port(host, port)
        if any(one.marker == "@revoked" and one.blob == blob for one in [*entries, *nearby]):
            return Verdict("revoked", tuple(entries))
        plain = tuple(one for one in entries if not one.marker)
        # OpenSSH accepts the key of the same name without a port, too; it never takes that one for a changed key.
        if any(one.blob == blob for one in plain) or (
            not plain and any(one.blob == blob and not one.marker for one in nearby)
        ):
            return Verdict("known", plain)
        if plain:
            return Verdict("changed", plain)
        authorities = tuple(one for one in entries if one.marker == "@cert-authority")
        return Verdict("authority", authorities) if authorities else Verdict("unknown")

    def add(self, host: str, port: int, kind: str, blob: bytes, file: Path) -> None:
        """Append one line for a host to a file, and remember it.

        Args:
            host: Address, name, or `HostKeyAlias`.
            port: TCP port.
            kind: Key type.
            blob: The public key.
            file: Where the line goes; the other lines stay as they are.

        Raises:
            OSError: If the file cannot be written.
        """
        name = host_name(host, port)
        line = f"{name} {kind} {base64.b64encode(blob).decode()}\n"
        with self._lock:
            self._index(Entry("", name, kind, blob, str(file)))
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
            with file.open("a+b") as out:
                fcntl.flock(out, fcntl.LOCK_EX)
                size = out.seek(0, os.SEEK_END)
                out.seek(max(0, size - 1))
                torn = size > 0 and out.read(1) != b"\n"
                out.write(("\n" if torn else "").encode() + line.encode())

    def _index(self, entry: Entry) -> None:
        if re.search(r"[|*?!]", entry.names):
            self._others.append(entry)
            return
        for name in entry.names.lower().split(","):
            self._plain.setdefault(name, []).append(entry)

    def _entries(self, host: str, port: int) -> list[Entry]:
        name = host_name(host, port)
        return self._plain.get(name, []) + [entry for entry in self._others if entry.matches(name)]

    def _without_port(self, host: str, port: int) -> list[Entry]:
        return [] if port == _SSH_PORT else self._entries(host, _SSH_PORT)


def host_name(host: str, port: int) -> str:
    """Write a host as known_hosts does: `name`, or `[name]:port` where the port is not 22."""
    host = host.lower()
    return host if port == _SSH_PORT else f"[{host}]:{port}"


def fingerprint(blob: bytes) -> str:
    """Give the fingerprint that `ssh-keygen -lf` shows."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _read(file: Path) -> list[Entry]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    entries = (_parse(line, f"{file}:{number}") for number, line in enumerate(text.splitlines(), start=1))
    return [entry for entry in entries if entry is not None]


def _parse(line: str, place: str) -> Entry | None:
    """Read one line; a line that is none of known_hosts' is ignored, as OpenSSH does."""
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if (marker and marker not in _MARKERS) or len(fields) < 3:  # noqa: PLR2004 - names, type, key
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Entry(marker, fields[0], fields[1], blob, place)


def _is_hash_of(hashed: str, name: str) -> bool:
    """Compare `|1|SALT|HASH`, an HMAC-SHA1 of the name."""
    try:
        salt, expected = (base64.b64decode(part, validate=True) for part in hashed[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), expected)


def _fits(pattern: str, name: str) -> bool:
    """Whether a pattern with `*` and `?` fits a whole name; everything else stands for itself, brackets too.

    No regular expression: a line of many stars, such as a repository can bring along, would keep one busy for years. Here
    only the last star is ever tried again, which takes at most the product of both lengths.
    """
    at = begin = 0
    star = -1
    for_star = 0
    while begin < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, for_star = at, begin
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[begin]):
            at, begin = at + 1, begin + 1
        elif star >= 0:
            for_star += 1
            at, begin = star + 1, for_star
        else:
            return False
    return not pattern[at:].strip("*")

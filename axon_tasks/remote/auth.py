"""Which keys are offered to a server, in OpenSSH's order, and what came of it.

Nobody is ever asked for anything here: a deploy runs in a pipeline as well as at a desk.
A key with a passphrase is used through the agent, or with the passphrase of the inventory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import paramiko
from paramiko.agent import AgentKey, AgentSSH
from paramiko.auth_strategy import AuthResult, AuthSource, AuthStrategy, SourceResult
from paramiko.pkey import PublicBlob

from axon_tasks.remote.known_hosts import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from axon_tasks.remote.script import Revealable

_KEY_CLASSES: dict[str, type[paramiko.PKey]] = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}
_OPENSSH_MAGIC = b"openssh-key-v1\0"
#: Seconds for an answer of the agent; one that shows a window to confirm needs its time.
_AGENT_TIMEOUT = 30.0


class Identities(NamedTuple):
    """What may be offered.

    Args:
        user: Login name.
        files: Private keys, in order; missing files are passed over, unless `required`.
        certificates: Certificates beside those that stand next to their keys.
        agent: Socket of the agent.
        only: Offer only those keys of the agent that are among the files.
        required: The files were named in the inventory: a missing one is worth a message.
        passphrase: Opens encrypted key files.
    """

    user: str
    files: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    agent: Path | None = None
    only: bool = False
    required: bool = False
    passphrase: Revealable | None = None


class KeySource(AuthSource):
    """One key, ready to be offered.

    Args:
        user: Login name.
        key: The private key, or its stand-in in the agent.
        title: What to call it in messages.
    """

    def __init__(self, user: str, key: paramiko.PKey, title: str) -> None:
        super().__init__(username=user)
        self.key = key
        self.title = title

    def __repr__(self) -> str:
        return self.title

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Offer the key; the answer lists what else the server wants, nothing if it is content."""
        return transport.auth_publickey(self.username, self.key)


class Strategy(AuthStrategy):
    """Offer keys until the server is content: certificates first, then the agent's keys, then files.

    Args:
        identities: What may be offered.
    """

    def __init__(self, identities: Identities) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._identities = identities
        #: One line per attempt, for messages.
        self.tried: list[str] = []

    def get_sources(self) -> Iterator[AuthSource]:
        """Yield the keys in the order in which ssh(1) offers them."""
        ours = self._identities
        agent = _Agent(ours.agent)
        try:
            held = {_blob(key): key for key in agent.get_keys() if not _is_certificate(key)}
            certified = [key for key in agent.get_keys() if _is_certificate(key)]
            listed = [(file, _public_blob(file)) for file in ours.files]
            blobs = {blob for _, blob in listed if blob is not None}
            yield from self._certificates(held)
            if not ours.only:
                yield from (self._from_agent(key) for key in certified)
            yield from (self._from_agent(held[blob]) for _, blob in listed if blob in held)
            if not ours.only:
                yield from (self._from_agent(key) for blob, key in held.items() if blob not in blobs)
            for file, blob in listed:
                if blob is None or blob not in held:
                    yield from self._from_file(file)
        finally:
            agent.close()

    def authenticate(self, transport: paramiko.Transport) -> AuthResult:
        """Offer one key after the other.

        Raises:
            paramiko.AuthenticationException: If none was accepted; `tried` says what happened.
        """
        results = AuthResult(strategy=self)
        for source in self.get_sources():
            try:
                wanted = source.authenticate(transport)
            except (paramiko.SSHException, ValueError, OSError, EOFError) as error:
                self.tried.append(f"{source!r}: {_reason(error)}")
                if not transport.is_active():
                    self.tried.append("then the server closed the connection (sshd_config: MaxAuthTries)")
                    break
                continue
            if not wanted:
                results.append(SourceResult(source, wanted))
                return results
            self.tried.append(f"{source!r}: accepted, but the server also wants {' or '.join(wanted)}")
        msg = "no key was accepted"
        raise paramiko.AuthenticationException(msg)

    def _certificates(self, held: dict[bytes, AgentKey]) -> Iterator[AuthSource]:
        """Pair certificates with their keys: those named in ssh_config, and `KEY-cert.pub` beside each key."""
        ours = self._identities
        beside = [(file.with_name(file.name + "-cert.pub"), file) for file in ours.files]
        named = [(certificate, None) for certificate in ours.certificates]
        for certificate, file in [*named, *beside]:
            if not certificate.is_file():
                continue
            keys = [file] if file is not None else list(ours.files)
            for one in keys:
                yield from self._certified(certificate, one, held)

    def _certified(self, certificate: Path, file: Path, held: dict[bytes, AgentKey]) -> Iterator[AuthSource]:
        blob = _public_blob(file)
        key: paramiko.PKey | None = held.get(blob) if blob is not None else None
        key = key or self._load(file, quiet=True)
        if key is None:
            return
        try:
            key.load_certificate(str(certificate))
        except (ValueError, OSError, paramiko.SSHException) as error:
            if certificate not in self._identities.certificates:
                self.tried.append(f"certificate {certificate}: {error}")
            return
        yield KeySource(self._identities.user, key, f"certificate {certificate}")

    def _from_agent(self, key: AgentKey) -> KeySource:
        if _is_certificate(key):
            # Paramiko would send the bare key under the certificate's name.
            key.public_blob = PublicBlob(key.get_name(), _blob(key))  # type: ignore[assignment]
        title = f"agent key {fingerprint(_blob(key))} ({key.comment})"
        return KeySource(self._identities.user, key, title)

    def _from_file(self, file: Path) -> Iterator[AuthSource]:
        key = self._load(file)
        if key is not None:
            yield KeySource(self._identities.user, key, f"key {file}")

    def _load(self, file: Path, *, quiet: bool = False) -> paramiko.PKey | None:
        """Read a private key; what is wrong with it goes to `tried`, once."""
        problem = None
        try:
            return _private_key(file, self._identities.passphrase)
        except FileNotFoundError:
            problem = "no such file" if self._identities.required else None
        except paramiko.PasswordRequiredException:
            problem = "is encrypted; give `passphrase:` in hosts.yml or add it to the agent (ssh-add)"
        except (paramiko.SSHException, ValueError, OSError) as error:
            problem = _reason(error)
        if problem is not None and not quiet:
            self.tried.append(f"key {file}: {problem}")
        return None


class _Agent(AgentSSH):
    """The agent behind one socket; without a socket, or if nobody listens there, it holds no keys."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        if path is None:
            return
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_AGENT_TIMEOUT)
        try:
            connection.connect(str(path))
            self._connect(connection)  # type: ignore[attr-defined]
        except (OSError, paramiko.SSHException):
            connection.close()

    def close(self) -> None:
        """Close the connection to the agent."""
        self._close()  # type: ignore[attr-defined]


def _private_key(file: Path, passphrase: Revealable | None) -> paramiko.PKey:
    """Read a private key of any kind.

    Raises:
        OSError, ValueError, paramiko.SSHException: If there is none, or it cannot be opened.
    """
    secret = passphrase.reveal() if passphrase is not None else None
    blob = _public_blob(file)
    kind = _kind_of(blob) if blob is not None else None
    classes = [_KEY_CLASSES[kind]] if kind in _KEY_CLASSES else list(dict.fromkeys(_KEY_CLASSES.values()))
    failure: Exception = paramiko.SSHException("not a private key that is supported")
    for cls in classes:
        try:
            return _open_key(cls, file, secret)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError) as error:
            failure = error
    raise failure


def _open_key(cls: type[paramiko.PKey], file: Path, secret: str | None) -> paramiko.PKey:
    try:
        # A passphrase may be given for all keys of a host; one that is not encrypted needs none.
        return cls.from_private_key_file(str(file))
    except paramiko.PasswordRequiredException:
        if secret is None:
            raise
    with contextlib.suppress(UnicodeEncodeError):
        secret.encode()
    return cls.from_private_key_file(str(file), password=secret)


def _public_blob(file: Path) -> bytes | None:
    """Give the public key that belongs to a private key file, without opening it.

    It stands in `FILE.pub`, in the file itself if that is a public key, and unencrypted in
    OpenSSH's own format (openssh-portable, PROTOCOL.key).
    """
    for candidate in (file.with_name(file.name + ".pub"), file):
        with contextlib.suppress(OSError, ValueError, binascii.Error, IndexError):
            fields = candidate.read_text(encoding="utf-8", errors="replace").split()
            if fields[0] in _KEY_CLASSES:
                return base64.b64decode(fields[1], validate=True)
    with contextlib.suppress(OSError, ValueError, binascii.Error):
        lines = file.read_text(encoding="ascii").strip().splitlines()
        raw = base64.b64decode("".join(lines[1:-1]))
        if raw.startswith(_OPENSSH_MAGIC):
            message = paramiko.Message(raw[len(_OPENSSH_MAGIC) :])
            for _ in range(3):  # cipher, key derivation, its options
                message.get_string()
            message.get_int()
            return message.get_string()
    return None


def _kind_of(blob: bytes) -> str:
    return paramiko.Message(blob).get_string().decode("ascii", errors="replace")


def _is_certificate(key: AgentKey) -> bool:
    return key.get_name().endswith("-cert-v01@openssh.com")


def _blob(key: AgentKey) -> bytes:
    blob: Any = key.blob
    return bytes(blob)


def _reason(error: Exception) -> str:
    if isinstance(error, paramiko.AuthenticationException) and "timeout" not in str(error).lower():
        return "refused"
    return str(error) or type(error).__name__

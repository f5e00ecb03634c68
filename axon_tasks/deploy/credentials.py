"""Logins to registries: from the settings, from a file, or from a program of this machine that knows them.

Whoever is asked is asked once per run, when a login is needed and not before: that takes a second or more with some, and
it may ask a person for a finger.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import registry as commands
from axon_tasks.commands.registry import Login
from axon_tasks.config import Secret
from axon_tasks.config.images import DOCKER_HUB
from axon_tasks.errors import AxonError
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.config import Registry

#: Seconds for whoever knows a password; somebody may have to press a button for it.
LIMIT = 60.0
#: Bytes of a file that can be a password.
_LONGEST = 64 * 1024
#: Where Docker keeps the login to its own registry (docker/cli, cli/config: the address of the first version of its API).
_HUB = "https://index.docker.io/v1/"
#: What a helper says of a server that it does not know (docker-credential-helpers, credentials: ErrCredentialsNotFound).
_NOT_FOUND = "credentials not found"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class CredentialsError(AxonError):
    """A login cannot be had; no registry and no server was contacted for it."""

    exit_code = 2


class Logins:
    """The logins of one run; it may be asked in several threads."""

    def __init__(self) -> None:
        self._found: dict[Registry, Future[Login]] = {}
        self._guard = threading.Lock()

    def get(self, registry: Registry) -> Login:
        """The login for a registry. The first one who asks finds it; others wait for that.

        Raises:
            CredentialsError: It cannot be had.
        """
        with self._guard:
            future = self._found.get(registry)
            if future is not None:
                mine = None
            else:
                future = mine = self._found[registry] = Future()
        if mine is not None:
            try:
                mine.set_result(find(registry))
            except BaseException as error:  # noqa: BLE001  (handed to everybody who asks for this registry)
                mine.set_exception(error)
        return future.result()

    def passwords(self) -> list[Secret]:
        """Those that were found so far."""
        with self._guard:
            ended = [one for one in self._found.values() if one.done() and one.exception() is None]
        return [one.result().password for one in ended]


def known_user(registry: Registry) -> str | None:
    """The name to log in with, where nobody has to be asked for it."""
    return registry.username or commands.USERS.get(registry.credentials or "")


def find(registry: Registry) -> Login:
    """Find a login, wherever it is.

    Raises:
        CredentialsError: It cannot be had.
    """
    if registry.credentials == "docker":
        return _of_docker(registry.server)
    user = known_user(registry) or ""
    if registry.password is not None:
        return Login(registry.server, user, registry.password)
    if registry.password_file is not None:
        return _of_file(registry.server, user, registry.password_file)
    return _of_command(registry.server, user, registry.credentials or "")


def _of_file(server: str, user: str, path: Path) -> Login:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that is no file name"
        raise CredentialsError(
            f"The password for {server} cannot be read from {path}: {reason}.",
            hint="`registry: {password_file}` in hosts.yml names it.",
        ) from None
    password = _password(content, f"{path} holds no password: one line of text is needed.")
    others = f"{path} can be read by others: chmod 600 {path}" if mode & 0o077 else ""
    return Login(server, user, password, others)


def _of_command(server: str, user: str, credentials: str) -> Login:
    words = commands.asking(credentials, server)
    told = _ask(words, server)
    return Login(server, user, _password(told.stdout, f"{words[0]} said no password for {server}."))


def _password(content: bytes, complaint: str) -> Secret:
    """One line of text.

    Raises:
        CredentialsError: It is none.
    """
    try:
        text = content.decode().strip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or len(content) > _LONGEST:
        raise CredentialsError(complaint)
    return Secret(text)


def _ask(
    words: Sequence[str], server: str, *, given: bytes | None = None, may_fail: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run whoever knows a password. What it says on stdout is shown to nobody.

    Args:
        words: The command.
        server: The registry, for messages.
        given: What it reads; None for nothing.
        may_fail: Whether the caller judges how it has ended.

    Raises:
        CredentialsError: It cannot be run, takes too long, or fails.
    """
    shown = " ".join(words)
    hint = "It must work in this shell by itself. `registry: {credentials}` in hosts.yml names whom to ask."
    try:
        told = subprocess.run(words, input=given or b"", capture_output=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise CredentialsError(
            f"The login for {server}: `{shown}` had not ended after {LIMIT:g} s.", hint=hint
        ) from None
    except (OSError, ValueError) as error:
        reason = "is not installed" if isinstance(error, FileNotFoundError) else f"cannot be started: {error}"
        raise CredentialsError(f"The login for {server}: {words[0]} {reason}.", hint=hint) from None
    if told.returncode and not may_fail:
        raise CredentialsError(
            f"The login for {server}: `{shown}` ended with exit code {told.returncode}: {_said(told.stderr)}",
            hint=hint,
        )
    return told


def _said(stderr: bytes) -> str:
    """The last words of a program, on one line."""
    words = sanitize(stderr.decode("utf-8", errors="replace")).split()
    return " ".join(words)[-500:] or "it said nothing"


# --- what `docker login` has left on this machine ---------------------------------------------------------------------


def docker_folder() -> Path:
    """Where the docker client keeps its configuration (docker(1), DOCKER_CONFIG)."""
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))  # noqa: PTH111  (Path.home raises where there is none)


def docker_settings() -> dict[str, Any]:
    """The client's settings; none if there is no file.

    Raises:
        CredentialsError: It cannot be read.
    """
    path = docker_folder() / "config.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CredentialsError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None
    return found if isinstance(found, dict) else {}


def _of_docker(server: str) -> Login:
    """The login that `docker login` has left: with a helper for this registry, in the store for all, or in the file."""
    settings = docker_settings()
    name = _HUB if server == DOCKER_HUB else server
    helpers = settings.get("credHelpers")
    helper = helpers.get(name) or helpers.get(server) if isinstance(helpers, dict) else None
    helper = helper or settings.get("credsStore")
    found = _of_helper(name, server, str(helper)) if helper else None
    found = found or _of_settings(server, settings.get("auths"))
    if found is None:
        raise CredentialsError(
            f"Docker has no login for {server} on this machine.", hint=f"Log in: docker login {server}"
        )
    if found.username in {"", "<token>"}:
        raise CredentialsError(
            f"Docker's login for {server} is an identity token, which cannot be passed on.",
            hint="Name a user and a password or an access token in `registry:` of hosts.yml.",
        )
    return found


def _of_helper(name: str, server: str, helper: str) -> Login | None:
    """Ask one of Docker's credential helpers; None if it knows no login.

    Source: docker-credential-helpers, README: `get` reads the server from stdin and writes Username and Secret as JSON.
    """
    if not _HELPER.fullmatch(helper):
        raise CredentialsError(f"{docker_folder() / 'config.json'}: {helper[:60]!a} is no credential helper.")
    words = commands.helper(helper)
    told = _ask(words, server, given=name.encode(), may_fail=True)
    if told.returncode:
        if _NOT_FOUND in (told.stdout + told.stderr).decode("utf-8", errors="replace").lower():
            return None
        raise CredentialsError(
            f"The login for {server}: {words[0]} ended with exit code {told.returncode}: {_said(told.stderr)}",
            hint=f"Log in again: docker login {server}",
        )
    try:
        answer = json.loads(told.stdout)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise CredentialsError(f"The login for {server}: {words[0]} answered nonsense.") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise CredentialsError(f"The login for {server}: {words[0]} answered nonsense.")
    return Login(server, user, _password(secret.encode(), f"{words[0]} said no password for {server}."))


def _of_settings(server: str, entries: object) -> Login | None:
    """The login that stands in the client's settings; None if there is none."""
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if _host(str(name)) != (_host(_HUB) if server == DOCKER_HUB else server) or not isinstance(
            entry, dict
        ):
            continue
        if entry.get("identitytoken"):
            return Login(server, "<token>", Secret(""))
        try:
            user, colon, password = base64.b64decode(str(entry.get("auth", "")), validate=True).partition(
                b":"
            )
        except ValueError:
            continue
        if colon and password:
            return Login(
                server, user.decode("utf-8", errors="replace"),
                _password(password.rstrip(b"\0"), f"Docker's login for {server} is no text."),
            )  # fmt: skip
    return None


def _host(name: str) -> str:
    """The registry of an entry, which older clients have written as a URL."""
    return re.sub(r"^https?://", "", name).partition("/")[0]

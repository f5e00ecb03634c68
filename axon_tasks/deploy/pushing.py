"""Pushing an image from this machine to its registry, with a login that exists for that push alone."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import registry as commands
from axon_tasks.config import ImageReference, registries
from axon_tasks.config.images import DOCKER_HUB
from axon_tasks.deploy import local
from axon_tasks.deploy.credentials import docker_folder, docker_settings
from axon_tasks.errors import AxonError
from axon_tasks.remote import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from axon_tasks.commands.registry import Login

#: What of the client's settings is a login, or leads to one.
_LOGINS = ("auths", "credsStore", "credHelpers")
#: What of its folder leads to its daemon, and what adds commands to it.
_KEPT = ("contexts", "cli-plugins")


def push(reference: str, login: Login | None, hear: Callable[[str], object]) -> None:
    """Push an image.

    Args:
        reference: The image, with its tag.
        login: The login; None leaves it to what `docker login` has left on this machine.
        hear: Is given what Docker complains about, as it comes.

    Raises:
        UsageError: There is no Docker here.
        AxonError: The registry refuses the login or the image, or cannot be reached.
    """
    with logged_in(login) as variables:
        code, complaints = local.heard_run(commands.push(reference), variables, hear)
    if code:
        raise _explained(reference, complaints, code)


@contextlib.contextmanager
def logged_in(login: Login | None) -> Iterator[dict[str, str]]:
    """Log in for the time of the block, and give the variables with which the docker client knows it.

    The login is in a folder of its own that nobody else may enter, and that is gone afterwards: `docker login` would leave
    it in ~/.docker/config.json, base64 being no protection, or in a key chain. What else stands there stays in force:
    proxies, and the context that leads to the daemon.

    Raises:
        AxonError: The registry refuses it.
    """
    if login is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="axon-login.") as name:
        _furnish(Path(name), login.server)
        variables = {"DOCKER_CONFIG": name}
        told = local.asked(commands.log_in(login), given=login.password.reveal(), variables=variables)
        if told.returncode:
            raise _refused(login, told.stderr)
        yield variables


def _furnish(folder: Path, server: str) -> None:
    """Have everything of the client's folder but its logins."""
    settings: dict[str, Any] = {
        name: value for name, value in docker_settings().items() if name not in _LOGINS
    }
    # Where there is no entry at all, the client looks for a key chain and puts the login there (docker/cli, config.go).
    settings["auths"] = {server: {}}
    path = folder / "config.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings), encoding="utf-8")
    for one in _KEPT:
        there = docker_folder().absolute() / one
        if there.exists():
            (folder / one).symlink_to(there)


def _refused(login: Login, said: str) -> AxonError:
    words = " ".join(sanitize(said).split())[-500:]
    if re.search(
        r"unauthorized|incorrect username or password|denied|authentication required|401|403",
        said,
        re.IGNORECASE,
    ):
        return AxonError(
            f"{login.server} refuses the login of {login.username}: {words}; nothing was pushed.",
            hint="Check `registry:` in hosts.yml: the username, and whom the password comes from.",
        )
    return AxonError(f"Cannot log in to {login.server}: {words}; nothing was pushed.")


def _explained(reference: str, said: str, code: int) -> AxonError:
    """Why a push has failed, and what to type next; what Docker said has been shown."""
    image = ImageReference.parse(reference)
    failed = f"Pushing {reference} failed"
    if re.search(r"does not exist locally|No such image|tag does not exist", said, re.IGNORECASE):
        return AxonError(
            f"{failed}: there is no such image on this machine.",
            hint=f"Build it: fab build --env=ENVIRONMENT --tag={image.tag}",
        )
    if registries.belongs("aws", image.server) and re.search(
        r"repository .*does not exist|name unknown", said, re.IGNORECASE
    ):
        return AxonError(
            f"{failed}: there is no repository {image.repository} in {image.server}.",
            hint=f"Create it: {commands.create_repository(image.server, image.repository)}",
        )
    if re.search(
        r"no basic auth|unauthorized|denied|authentication required|insufficient_scope", said, re.IGNORECASE
    ):
        where = "" if image.server == DOCKER_HUB else f" {image.server}"
        return AxonError(
            f"{failed}: {image.server} asks for another login.",
            hint=f"`registry:` in hosts.yml names one; without it, that of this machine counts: docker login{where}",
        )
    return AxonError(f"{failed}: docker ended with exit code {code}.", hint="What it said stands above.")

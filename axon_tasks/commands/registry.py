"""Command lines of this machine around a registry's login; no password stands in any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.config import registries

if TYPE_CHECKING:
    from axon_tasks.config import Secret

#: The names that go with passwords of these.
USERS = {"aws": "AWS", "azure": "00000000-0000-0000-0000-000000000000", "gcloud": "oauth2accesstoken"}


class Login(NamedTuple):
    """A login to a registry.

    Attributes:
        server: Its `host` or `host:port`.
        username: The user's name.
        password: Travels on stdin.
        warning: What is not as it should be about where it comes from; empty if nothing is.
    """

    server: str
    username: str
    password: Secret
    warning: str = ""


def asking(credentials: str, server: str) -> tuple[str, ...]:
    """The command that prints a password for a registry.

    Sources: AWS CLI Command Reference, `ecr get-login-password`; Azure CLI, `az acr login --expose-token`; Artifact
    Registry, "Access token"; GitHub CLI manual, `gh auth token`.

    Args:
        credentials: `aws`, `azure`, `gcloud` or `gh`.
        server: The registry.
    """
    if credentials == "aws":
        return ("aws", "ecr", "get-login-password", "--region", registries.region(server))
    if credentials == "azure":
        return (
            "az", "acr", "login", "--name", registries.azure_name(server),
            "--expose-token", "--output", "tsv", "--query", "accessToken",
        )  # fmt: skip
    if credentials == "gcloud":
        return ("gcloud", "auth", "print-access-token")
    return ("gh", "auth", "token")


def helper(name: str) -> tuple[str, ...]:
    """The command that asks one of Docker's credential helpers; it reads the server's name."""
    return (f"docker-credential-{name}", "get")


def log_in(login: Login) -> tuple[str, ...]:
    """The command that logs in; it reads the password."""
    return ("docker", "login", "--username", login.username, "--password-stdin", login.server)


def push(reference: str) -> tuple[str, ...]:
    """The command that pushes an image."""
    return ("docker", "push", reference)


def create_repository(server: str, repository: str) -> str:
    """What creates a repository in AWS ECR, where a push does not."""
    return f"aws ecr create-repository --region {registries.region(server)} --repository-name {repository}"

"""Registries whose passwords another program of this machine knows, and by which names they are recognised."""

from __future__ import annotations

import re

#: How the registries of each of them are called: AWS ECR, Azure Container Registry, Google Artifact Registry (and gcr.io,
#: which it has taken over), GitHub Packages. With `docker`, any registry will do.
_NAMES = {
    "aws": re.compile(r"([0-9]{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?", re.ASCII),
    "azure": re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)\.azurecr\.(?:io|cn|us)", re.ASCII),
    "gcloud": re.compile(r"[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io", re.ASCII),
    "gh": re.compile(r"ghcr\.io", re.ASCII),
}

#: What such a registry is called, for messages.
EXAMPLES = {
    "aws": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    "azure": "example.azurecr.io",
    "docker": "registry.example.com",
    "gcloud": "europe-west1-docker.pkg.dev",
    "gh": "ghcr.io",
}


def belongs(credentials: str, server: str) -> bool:
    """Whether whoever is asked for a login knows one for this registry.

    Args:
        credentials: A key of `EXAMPLES`.
        server: The registry's `host` or `host:port`.
    """
    return credentials not in _NAMES or _NAMES[credentials].fullmatch(server) is not None


def region(server: str) -> str:
    """The AWS region of an ECR registry (Amazon ECR User Guide, "Private registry": ACCOUNT.dkr.ecr.REGION.amazonaws.com).

    Raises:
        ValueError: It is none.
    """
    return _part("aws", server, 2)


def azure_name(server: str) -> str:
    """The name of an Azure registry, without its domain.

    Raises:
        ValueError: It is none.
    """
    return _part("azure", server, 1)


def _part(credentials: str, server: str, number: int) -> str:
    found = _NAMES[credentials].fullmatch(server)
    if found is None:
        raise ValueError(server)
    return found[number]

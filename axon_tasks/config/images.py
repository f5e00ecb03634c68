"""Image references by the grammar of the distribution project (`distribution/reference`, reference.go and normalize.go).

Splitting at the last colon is wrong for `host:5000/shop` and for digests, and what is not checked here reaches a shell.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from axon_tasks.config.faults import ValueFault, shown

#: The registry that Docker means when an image names none.
DOCKER_HUB = "docker.io"

_LONGEST_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_REGISTRY = re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?", re.ASCII)
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
#: The algorithms that go-digest, and so Docker, accepts.
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", re.ASCII)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}", re.ASCII)


def is_tag(text: str) -> bool:
    """Whether a text can be an image's tag."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether a text can be an image's digest."""
    return _DIGEST.fullmatch(text) is not None


def is_registry(text: str) -> bool:
    """Whether a text can be a registry's `host` or `host:port`."""
    return _REGISTRY.fullmatch(text) is not None and len(text) <= _LONGEST_NAME


class ImageReference(NamedTuple):
    """Where an image is and which version of it is meant. Made by `parse`.

    Attributes:
        repository: The name within the registry, as written: `shop`, `team/shop`.
        registry: The registry's `host[:port]`, if one is named; otherwise Docker means its own.
        tag: The tag, if one is named.
        digest: The digest, if one is named: `sha256:` and 64 digits.
    """

    repository: str
    registry: str | None = None
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse `[registry/]path[:tag][@digest]`.

        Raises:
            ValueFault: It is no image reference.
        """
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise ValueFault("has no valid digest after the @", expected="sha256: and 64 hexadecimal digits")
        head, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        if colon and not is_tag(tag):
            raise ValueFault(
                "has no valid tag after the colon",
                expected="at most 128 letters, digits, dots, dashes or underscores",
            )
        name = head + slash + last
        registry, repository = _split(name)
        if len(name) > _LONGEST_NAME or not _PATH.fullmatch(repository) or _IMAGE_ID.fullmatch(name):
            raise ValueFault("is no image name", expected="[registry[:port]/]name in lower case")
        if registry is not None and not is_registry(registry):
            raise ValueFault("names no valid registry before the first slash", expected="host or host:port")
        return cls(repository, registry, tag if colon else None, digest if at else None)

    @property
    def name(self) -> str:
        """The reference without tag and digest, as `docker image ls` shows it."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    @property
    def server(self) -> str:
        """The registry to log in to: the one that is named, else Docker's own."""
        return self.registry or DOCKER_HUB

    def with_tag(self, tag: str) -> ImageReference:
        """Return the reference of another tag, without a digest, which would contradict it.

        Raises:
            ValueFault: It is no tag.
        """
        if not is_tag(tag):
            raise ValueFault(
                f"{shown(tag)} is no tag", expected="at most 128 letters, digits, dots, dashes or underscores"
            )
        return self._replace(tag=tag, digest=None)

    def with_digest(self, digest: str) -> ImageReference:
        """Return the reference of exactly one image, without a tag, which would no longer decide anything.

        Raises:
            ValueFault: It is no digest.
        """
        if not is_digest(digest):
            raise ValueFault(f"{shown(digest)} is no digest", expected="sha256: and 64 hexadecimal digits")
        return self._replace(tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split(name: str) -> tuple[str | None, str]:
    """Split a name into registry and repository, as Docker does (splitDockerDomain)."""
    first, slash, rest = name.partition("/")
    named = slash and (any(c in first for c in ".:[") or first == "localhost" or first != first.lower())
    return (first, rest) if named else (None, name)

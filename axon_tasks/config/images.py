"""Image references by the grammar of the distribution project (`distribution/reference`, reference.go and normalize.go).

Splitting at the last colon is wrong for `host:5000/shop` and for digests, and what is not checked here reaches a shell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from axon_tasks.config.faults import ValueFault, shown

#: The registry that Docker means when an image names none.
DOCKER_HUB = "docker.io"

_LONGEST_NAME = 255
_SHA256_LENGTH = 64

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_REGISTRY = re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?", re.ASCII)
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"([A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*):([0-9a-fA-F]{32,128})", re.ASCII)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}", re.ASCII)


def is_tag(text: str) -> bool:
    """Whether a text can be an image's tag."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether a text can be an image's digest; for sha256 it must have the full length, in lower case."""
    match = _DIGEST.fullmatch(text)
    if match is None:
        return False
    algorithm, digits = match.groups()
    return algorithm != "sha256" or (len(digits) == _SHA256_LENGTH and digits == digits.lower())


def is_registry(text: str) -> bool:
    """Whether a text can be a registry's `host` or `host:port`."""
    return _REGISTRY.fullmatch(text) is not None and len(text) <= _LONGEST_NAME


@dataclass(frozen=True)
class ImageReference:
    """Where an image is and which version of it is meant. Made by `parse`.

    Attributes:
        repository: The name without tag and digest, as written and as `docker images` shows it.
        tag: The tag, if one is named.
        digest: The digest, if one is named: `sha256:…`.
    """

    repository: str
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
        repository = head + slash + last
        registry, path = _split(repository)
        if len(repository) > _LONGEST_NAME or not _PATH.fullmatch(path) or _IMAGE_ID.fullmatch(repository):
            raise ValueFault("is no image name", expected="[registry[:port]/]name in lower case")
        if registry and not is_registry(registry):
            raise ValueFault(f"names no valid registry: {shown(registry)}", expected="host or host:port")
        return cls(repository, tag if colon else None, digest if at else None)

    @property
    def registry(self) -> str:
        """The registry's `host[:port]`; Docker's own where the name has none."""
        return _split(self.repository)[0] or DOCKER_HUB

    @property
    def path(self) -> str:
        """The name within the registry, as it stands in the registry's URLs."""
        registry, path = _split(self.repository)
        return path if registry or "/" in path else f"library/{path}"

    def with_tag(self, tag: str) -> ImageReference:
        """Return the reference of another tag, without a digest, which would contradict it.

        Raises:
            ValueFault: It is no tag.
        """
        if not is_tag(tag):
            raise ValueFault(
                f"{shown(tag)} is no tag", expected="at most 128 letters, digits, dots, dashes or underscores"
            )
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> ImageReference:
        """Return the reference of exactly one image, without a tag, which would no longer decide anything.

        Raises:
            ValueFault: It is no digest.
        """
        if not is_digest(digest):
            raise ValueFault(f"{shown(digest)} is no digest", expected="sha256: and 64 hexadecimal digits")
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def _split(repository: str) -> tuple[str, str]:
    """Split a name into registry ("" if none is named) and path, as Docker does (splitDockerDomain)."""
    first, slash, rest = repository.partition("/")
    named = slash and (any(c in first for c in ".:[") or first == "localhost" or first != first.lower())
    return (first, rest) if named else ("", repository)

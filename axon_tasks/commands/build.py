"""Command lines of this machine that build an image, and those that say what is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The label that tells the commit (OCI Image Format Specification, annotations).
REVISION = "org.opencontainers.image.revision"

#: What `uname -m` says, and what Docker calls it (Go's GOARCH, and the variants of containerd's platforms package).
_PLATFORMS = {
    "x86_64": "linux/amd64",
    "amd64": "linux/amd64",
    "aarch64": "linux/arm64",
    "arm64": "linux/arm64",
    "armv7l": "linux/arm/v7",
    "armv6l": "linux/arm/v6",
    "i386": "linux/386",
    "i686": "linux/386",
    "ppc64le": "linux/ppc64le",
    "riscv64": "linux/riscv64",
    "s390x": "linux/s390x",
}


class Wanted(NamedTuple):
    """What is to be built.

    Attributes:
        reference: The image, with its tag.
        context: The folder, absolute.
        dockerfile: The Dockerfile, absolute.
        arguments: Names of build arguments; their values are variables of the client, and so in no command line.
        target: The stage; None for the last one.
        platform: The platform; None for that of the builder.
        revision: The commit; empty if there is none.
    """

    reference: str
    context: str
    dockerfile: str
    arguments: tuple[str, ...]
    target: str | None
    platform: str | None
    revision: str


def platform_of(machine: str) -> str | None:
    """The platform of a machine by what `uname -m` said there; None if it is not known."""
    return _PLATFORMS.get(machine.strip())


def build(wanted: Wanted, *, buildx: bool) -> tuple[str, ...]:
    """The command that builds, and leaves the image in Docker.

    Args:
        wanted: What.
        buildx: Whether there is buildx. A builder of its own kind leaves the image with itself unless it is told to load it.
    """
    words = ["docker", "buildx", "build", "--load"] if buildx else ["docker", "build"]
    words += ["--tag", wanted.reference, "--file", wanted.dockerfile]
    for flag, value in (("--platform", wanted.platform), ("--target", wanted.target)):
        if value:
            words += [flag, value]
    if wanted.revision:
        words += ["--label", f"{REVISION}={wanted.revision}"]
    # Without a value, the client takes that of its variable (docker build, --build-arg).
    for name in wanted.arguments:
        words += ["--build-arg", name]
    return (*words, wanted.context)


def has_buildx() -> tuple[str, ...]:
    """The command that ends with 0 if there is buildx."""
    return ("docker", "buildx", "version")


def save(reference: str) -> tuple[str, ...]:
    """The command that writes an image to stdout."""
    return ("docker", "save", reference)


def image_id(reference: str) -> tuple[str, ...]:
    """The command that tells the id of an image."""
    return ("docker", "image", "inspect", "--format", "{{.Id}}", reference)


def image_layers(reference: str) -> tuple[str, ...]:
    """The command that tells the id of an image and its layers."""
    return ("docker", "image", "inspect", "--format", "{{.Id}} {{json .RootFS.Layers}}", reference)


def head() -> tuple[str, ...]:
    """The command that tells the commit; git runs it in the context."""
    return ("git", "rev-parse", "--verify", "HEAD")


def changes(paths: Iterable[str]) -> tuple[str, ...]:
    """The command that tells what no commit has: changes of tracked files, and new ones that are not ignored.

    Args:
        paths: Where to look.
    """
    return ("git", "status", "--porcelain=v1", "-z", "--untracked-files=normal", "--", *paths)

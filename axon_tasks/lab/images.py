"""Builds the sample application's images and puts them into the lab's registry."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab.hosts import REGISTRY, REGISTRY_PORT

if TYPE_CHECKING:
    from axon_tasks.lab.lab import Lab

#: The image's name, without a tag.
IMAGE = f"{REGISTRY.address}:{REGISTRY_PORT}/shop"

_SAMPLE = Path(__file__).with_name("sample")
_SOURCE_LABEL = "axon-tasks.lab.source"
_HEALTHCHECK = "HEALTHCHECK --interval=1s --timeout=2s --retries=3 CMD"

#: How an image can behave, and what its Dockerfile says besides.
VARIANTS: dict[str, str] = {
    "ok": "",
    "crash": "",
    "sick": "",
    "slowstart": "",
    "healthcheck": f'{_HEALTHCHECK} ["/app/busybox", "wget", "-qO", "/dev/null", "http://127.0.0.1:3000/api/health"]\n',
    "unhealthy": f'{_HEALTHCHECK} ["/app/busybox", "sh", "-c", "echo the queue is not reachable; exit 1"]\n',
    "noshell": "",
}

#: The programs of an ordinary image; in `noshell` nothing can be started by these names.
_TOOLS = ("sh", "ls", "cat", "ps", "env", "wget", "sleep", "printenv", "id")


def build_sample(lab: Lab, tag: str, variant: str = "ok", *, host: str = "app1") -> str:
    """Build the sample application and push it to the lab's registry, unless the same is there already.

    The host that builds it forgets it again, so that a deployment really pulls.

    Args:
        lab: A running lab.
        tag: The image's tag; also the version that it shows.
        variant: How it behaves: `ok`; `crash` exits at once with 3; `sick` is never healthy; `slowstart` is after
            3 s; `healthcheck` and `unhealthy` have a Docker HEALTHCHECK that passes and that fails; `noshell` holds
            no program but the server.
        host: The app server whose Docker builds it.

    Returns:
        The image's reference.

    Raises:
        UsageError: There is no such variant.
        AxonError: Docker could not build or push; the message has what it said.
    """
    if variant not in VARIANTS:
        raise UsageError(f"The sample has no variant {variant!r}.", hint=f"It has: {', '.join(VARIANTS)}")
    reference = f"{IMAGE}:{tag}"
    context = build_context(variant)
    source = hashlib.sha256(f"{tag} {variant} ".encode() + context).hexdigest()
    if _labels_in_registry(tag).get(_SOURCE_LABEL) == source:
        return reference
    arguments = ["--build-arg", f"VERSION={tag}", "--build-arg", f"VARIANT={variant}"]
    label = ["--label", f"{_SOURCE_LABEL}={source}"]
    build = [
        "env",
        "DOCKER_BUILDKIT=0",
        "docker",
        "build",
        "--quiet",
        "--tag",
        reference,
        *arguments,
        *label,
        "-",
    ]
    lab.exec(host, build, stdin=context)
    lab.exec(host, ["docker", "push", "--quiet", reference])
    lab.exec(host, ["docker", "rmi", reference], check=False)  # stays where a container runs it
    return reference


def build_context(variant: str) -> bytes:
    """The build context as a tar archive: the same bytes for the same sources, whenever it is made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "Dockerfile", (_SAMPLE / "Dockerfile").read_bytes() + VARIANTS[variant].encode(), 0o644)
        _add(archive, "root/app/busybox", _busybox(), 0o755)
        for name in ("server.sh", "handler.sh"):
            _add(archive, f"root/app/{name}", (_SAMPLE / name).read_bytes(), 0o755)
        if variant != "noshell":
            for tool in _TOOLS:
                _link(archive, f"root/bin/{tool}", "/app/busybox")
    return buffer.getvalue()


def _busybox() -> bytes:
    from axon_tasks.lab.machine import busybox_path

    path = busybox_path()
    if path is None:
        raise AxonError("There is no static busybox on this machine.", hint="Run: invoke lab.up")
    return path.read_bytes()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _labels_in_registry(tag: str) -> dict[str, str]:
    """The labels of an image in the lab's registry; none if it is not there (HTTP API V2 of the registry)."""
    try:
        manifest = _get(f"manifests/{tag}", accept="application/vnd.docker.distribution.manifest.v2+json")
        config = _get(f"blobs/{manifest['config']['digest']}")
    except (urllib.error.URLError, KeyError, ValueError):
        return {}
    labels: dict[str, str] | None = config.get("config", {}).get("Labels")
    return labels or {}


def _get(path: str, accept: str = "*/*") -> Any:
    url = f"http://{REGISTRY.address}:{REGISTRY_PORT}/v2/shop/{path}"
    request = urllib.request.Request(url, headers={"Accept": accept})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the lab is never behind a proxy
    with opener.open(request, timeout=10) as response:
        return json.load(response)

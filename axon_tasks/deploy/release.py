"""A release: one deployed version, as it is recorded on the system servers."""

from __future__ import annotations

import datetime as dt
import getpass
import socket
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


#: How a release ended: it served, it never did, or it was taken back by a rollback.
GOOD, FAILED, ROLLED_BACK = "ok", "failed", "rolled back"


class Release(NamedTuple):
    """One deployed version.

    Attributes:
        id: Unix time of its start, raised where needed so that ids only grow within an environment.
        reference: The image as people wrote it, with its tag.
        digest: The image's digest: the same bytes on every server.
        slot: `a` or `b`.
        containers: Container name per app server.
        ports: Host port per app server, as text.
        by_id: Whether the digest is the image's id: it was sent to the servers, and no registry has it.
    """

    id: str
    reference: str
    digest: str
    slot: str
    containers: Mapping[str, str]
    ports: Mapping[str, str]
    by_id: bool = False

    @property
    def tag(self) -> str:
        """The tag, for people."""
        last = self.reference.rsplit("/", 1)[-1]
        return last.partition(":")[2].partition("@")[0] or last

    def record(
        self,
        *,
        action: str,
        commit: str,
        arguments: Mapping[str, list[str]],
        environments: Mapping[str, str],
        seconds: float,
        of: str = "",
    ) -> dict[str, Any]:
        """The record as it is kept, with nothing secret in it.

        Args:
            action: What made it: `deploy` or `rollback`.
            commit: The git commit of the working directory, or empty.
            arguments: The arguments of `docker run`, per app server; variables travel on stdin and are not in them.
            environments: SHA-256 of the variables, per app server.
            seconds: From the start of the run until it was about to switch.
            of: The release whose settings this one runs with, if it is not new.
        """
        return {
            "id": self.id,
            "image": self.reference,
            "digest": self.digest,
            "slot": self.slot,
            "servers": {
                server: {
                    "container": name,
                    "port": int(self.ports[server]),
                    "run": arguments.get(server, []),
                    "environment": environments.get(server, ""),
                }
                for server, name in self.containers.items()
            },
            "action": action,
            **({"of": of} if of else {}),
            "outcome": GOOD,
            "seconds": round(seconds, 2),
            "git_commit": commit,
            "deployed_by": who(),
            "deployed_at": utc_now(),
        }


def who() -> str:
    """`user@host` of the person at the keyboard; a user without a name counts as `unknown`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def utc_now() -> str:
    """The current time as ISO 8601 in UTC, to the second."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def git_commit(folder: Path) -> str:
    """The commit of the working directory that holds `folder`, or empty: recorded for people, never relied on."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""

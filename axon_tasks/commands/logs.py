"""Shell text for what an application and nginx have written, and go on to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming
from axon_tasks.commands.shell import command, script

if TYPE_CHECKING:
    from axon_tasks.config import Environment

#: What can be read: the containers' output, and nginx's two logs of the site.
APP, ACCESS, ERROR = "app", "access", "error"
SERVICES = (APP, ACCESS, ERROR)


def clock() -> str:
    """The server's time: seconds since 1970, and its distance from UTC as in `+0100`."""
    return "date '+%s %z'"


def container(container_id: str, *, lines: int | None, since: int | None, follow: bool) -> str:
    """What a container has written, each line with its time (RFC 3339, nanoseconds).

    Args:
        container_id: Whose output.
        lines: How many of the last lines; None for all.
        since: Only what was written after this time, in seconds since 1970.
        follow: Whether to go on with what is written from now on.
    """
    words = ["docker", "logs", "--timestamps", *(["--follow"] if follow else [])]
    words += [] if since is None else ["--since", str(since)]
    words += [] if lines is None else ["--tail", str(lines)]
    return f"{command(*words, container_id)} 2>&1"


def started(environment: Environment, since: int) -> str:
    """This environment's containers that are started from some time on, without end: time, id and release, one a line."""
    labels = {"product": environment.product, "environment": environment.name}
    filters = [word for key, value in labels.items() for word in ("--filter", f"label=axon.{key}={value}")]
    return command(
        "docker", "events", "--since", str(since), "--filter", "type=container", "--filter", "event=start",
        *filters, "--format", '{{.Time}} {{.Actor.ID}} {{index .Actor.Attributes "axon.release"}}',
    )  # fmt: skip


def path(environment: Environment, service: str) -> str:
    """Where nginx writes a log of the site, as its configuration says."""
    name = naming.config_name(environment.product, environment.name)
    return f"/var/log/nginx/{name}{'-error' if service == ERROR else ''}.log"


def nginx(environment: Environment, service: str, *, lines: int | None, follow: bool) -> str:
    """What nginx has written about the site; the parameters are those of `container`."""
    # By name: logrotate(8) puts a new file there. `+1` is the first line (tail(1)).
    words = ["tail", "-n", "+1" if lines is None else str(lines), *(["-F"] if follow else [])]
    return command(*words, path(environment, service))


def until_gone(program: str) -> str:
    """A program that runs until it ends or whoever reads it is gone; what it has started ends with it.

    Args:
        program: Shell text. It must read nothing.
    """
    return script("until_gone", ("follow",), program=program)

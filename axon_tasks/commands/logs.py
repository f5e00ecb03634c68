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


def container(container_id: str, *, lines: int | None, since: int | None, text: str, follow: bool) -> str:
    """What a container has written, each line with its time (RFC 3339, nanoseconds).

    Args:
        container_id: Whose output.
        lines: How many of the last lines; None for all.
        since: Only what was written after this time, in seconds since 1970.
        text: Only lines that contain this, and then all of them; empty for any. While following, whoever reads chooses.
        follow: Whether to go on with what is written from now on.
    """
    words = ["docker", "logs", "--timestamps", *(["--follow"] if follow else [])]
    if since is not None:
        words += ["--since", str(since)]
    if text and not follow:
        # The last of those that contain it, so all are read; grep exits with 1 if there is none.
        return f"{command(*words, container_id)} 2>&1 | {{ {command('grep', '-a', '-F', '-e', text)} || [ $? = 1 ]; }}"
    tail = [] if lines is None else ["--tail", str(lines)]
    return f"{command(*words, *tail, container_id)} 2>&1"


def started(environment: Environment, since: int) -> str:
    """The ids of this environment's containers that are started from some time on, one a line, without end."""
    labels = {"product": environment.product, "environment": environment.name}
    filters = [word for key, value in labels.items() for word in ("--filter", f"label=axon.{key}={value}")]
    return command(
        "docker", "events", "--since", str(since), "--filter", "type=container", "--filter", "event=start",
        *filters, "--format", '{{.Actor.ID}} {{index .Actor.Attributes "axon.release"}}',
    )  # fmt: skip


def path(environment: Environment, service: str) -> str:
    """Where nginx writes a log of the site, as its configuration says."""
    name = naming.config_name(environment.product, environment.name)
    return f"/var/log/nginx/{name}{'-error' if service == ERROR else ''}.log"


def nginx(environment: Environment, service: str, *, lines: int | None, text: str, follow: bool) -> str:
    """What nginx has written about the site; the parameters are those of `container`."""
    file = path(environment, service)
    if text and not follow:
        return f"{command('grep', '-a', '-F', '-e', text, file)} || [ $? = 1 ]"
    if follow:
        # By name: logrotate(8) puts a new file there.
        return command("tail", "-n", str(lines or 0), "-F", file)
    return command("cat", file) if lines is None else command("tail", "-n", str(lines), file)


def until_gone(program: str) -> str:
    """A program that runs until it ends or whoever reads it is gone; what it has started ends with it.

    Args:
        program: Shell text. It must read nothing.
    """
    return script("until_gone", ("follow",), program=program)

"""Shell text that looks for what is no longer needed on a server, and that removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming
from axon_tasks.commands.shell import centiseconds, command, script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from axon_tasks.config import Environment

#: An audit log above the first number of bytes is shortened to about the second.
AUDIT_LIMIT = 1_000_000
AUDIT_KEEP = 500_000

#: Releases that can be gone back to: so many records stay on a system server, and so many starts on an app server.
RECORDS = 20

#: Where shadow copies of nginx's configuration are made (sh/nginx.sh).
_TEMPORARY = "/tmp"  # noqa: S108  (only directories of this user are touched)


def _place(environment: Environment) -> dict[str, str]:
    return {
        "state": naming.state_directory(environment.product, environment.name),
        "name": naming.config_name(environment.product, environment.name),
        "nginx_directory": environment.nginx.directory,
    }


def states() -> str:
    """What serves and which releases are recorded, for every environment with state on a system server."""
    return script("tell_states", ("cleanup", "records"), axon_root=naming.STATE_ROOT)


def upstream(environment: Environment) -> str:
    """The environment's upstream file; nothing if there is none."""
    place = _place(environment)
    return script(
        '[ ! -e "$file" ] || cat "$file"',
        (),
        file=f"{place['nginx_directory']}/upstreams/{place['name']}.conf",
    )


def containers() -> str:
    """State, age, image and networks of every container, one JSON array a line."""
    return script("tell_containers", ("cleanup",))


def images() -> str:
    """Names, age and size of every image, one JSON array a line."""
    return script("tell_images", ("cleanup",))


def networks(product: str) -> str:
    """The networks that are labelled as the product's, one JSON array a line."""
    return script("tell_networks", ("cleanup",), product=product)


def free_space(*, with_docker: bool) -> str:
    """Free space, in KiB (POSIX df -Pk), of the file systems that a cleanup frees."""
    docker = " \"$(docker info --format '{{.DockerRootDir}}')\"" if with_docker else ""
    return script(f"tell_free {command(naming.STATE_ROOT, _TEMPORARY)}{docker}", ("cleanup",))


def sweep_app(environment: Environment, *, dry_run: bool) -> str:
    """Abandoned temporary files on an app server, and how old releases were started: told in a dry run, else removed."""
    return script(
        "sweep_state; sweep_started",
        ("cleanup",),
        **_place(environment),
        dry_run=int(dry_run),
        started_keep=RECORDS,
    )


def sweep_system(environment: Environment, *, dry_run: bool) -> str:
    """Abandoned temporary files and an audit log that is too large, on a system server."""
    return script(
        "sweep_state; sweep_nginx; shorten_audit",
        ("cleanup",),
        **_place(environment),
        dry_run=int(dry_run),
        audit_limit=AUDIT_LIMIT,
        audit_keep=AUDIT_KEEP,
    )


def sweep_abandoned(*, dry_run: bool, temporary: str = _TEMPORARY) -> str:
    """Shadow copies of nginx's configuration, and logins to a registry, that a killed run left."""
    return script("sweep_abandoned", ("cleanup",), temporary=temporary, dry_run=int(dry_run))


def remove_containers(environment: Environment, stopped: Iterable[str], running: Iterable[str]) -> str:
    """Remove containers by id; `docker rm` refuses one that was started meanwhile, running ones drain first.

    Args:
        environment: Whose drain and stop times count.
        stopped: Ids of those that do not run.
        running: Ids of those that do.
    """
    calls = [command("discard", "container", one, "docker", "rm", one) for one in stopped]
    calls += [command("discard", "container", one, "retire", one) for one in running]
    return script(
        "\n".join(calls),
        ("drain", "cleanup"),
        drain_time=centiseconds(environment.drain.timeout),
        stop_time=max(1, round(environment.container.stop_timeout)),
    )


def remove_images(references: Mapping[str, tuple[str, ...]]) -> str:
    """Remove images by their references, given by image id."""
    return script(
        "\n".join(command("discard_image", one, *names) for one, names in references.items()), ("cleanup",)
    )


def remove_networks(ids: Iterable[str]) -> str:
    """Remove networks by id; docker refuses one that is in use."""
    return script(
        "\n".join(command("discard", "network", one, "docker", "network", "rm", one) for one in ids),
        ("cleanup",),
    )


def remove_records(environment: Environment, releases: Iterable[str]) -> str:
    """Remove the records of releases by id."""
    folder = f"{naming.state_directory(environment.product, environment.name)}/releases"
    calls = [command("sweep", "record", f"{folder}/{release}.json") for release in releases]
    return script("\n".join(calls), ("cleanup",), dry_run=0)

"""Shell text that takes an environment away from its servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming
from axon_tasks.commands.shell import joined, script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from axon_tasks.commands.shell import Learnt
    from axon_tasks.config import Environment


def _place(environment: Environment) -> dict[str, str]:
    return {
        "product": environment.product,
        "environment": environment.name,
        "name": naming.config_name(environment.product, environment.name),
        "nginx_config": environment.nginx.config,
        "nginx_directory": environment.nginx.directory,
        "state": naming.state_directory(environment.product, environment.name),
    }


def files(environment: Environment, kinds: tuple[str, ...] | Learnt) -> str:
    """Take nginx files away, with a test and a reload, or put them back.

    Args:
        environment: Whose files.
        kinds: Which: `upstreams`, `sites`.
    """
    return script("delete_files", ("nginx", "switch", "delete"), **_place(environment), kinds=joined(kinds))


def containers(environment: Environment, ids: tuple[str, ...] | Learnt) -> str:
    """Stop and remove containers by their ids, and those of a release command that still runs."""
    return script(
        "delete_containers", ("cleanup", "delete"), **_place(environment),
        stop_time=max(1, round(environment.container.stop_timeout)), containers=joined(ids),
    )  # fmt: skip


def networks(ids: tuple[str, ...] | Learnt) -> str:
    """Remove networks by id; docker refuses one that is in use."""
    call = (
        'for delete_one in $networks; do discard network "$delete_one" docker network rm "$delete_one"; done'
    )
    return script(call, ("cleanup",), networks=joined(ids))


def images(found: Iterable[tuple[str, tuple[str, ...]]] | Learnt) -> str:
    """Remove images by their names; one that has another name as well, or that a container uses, stays.

    Args:
        found: Each image's id, and the names to take away.
    """
    # One a line: its id, and its names. None of them can hold a space (docker image inspect).
    lines = found if isinstance(found, str) else "\n".join(" ".join((one, *names)) for one, names in found)
    # shellcheck reads it in tests: words are split on purpose.
    call = 'printf "%s\\n" "$images" | while read -r delete_image; do discard_image $delete_image; done'
    return script(call, ("cleanup",), images=lines)


def state(environment: Environment) -> str:
    """Remove the state directory, with the lock in it."""
    return script("delete_state", ("delete",), **_place(environment))

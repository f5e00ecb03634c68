"""Shell text for what a server needs, and whether it has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming
from axon_tasks.commands.shell import script

if TYPE_CHECKING:
    from axon_tasks.config import Environment
    from axon_tasks.config.project import Tls

#: Programs that the scripts call, beside those of POSIX that every system has.
TOOLS = ("flock", "timeout", "awk", "setsid", "sha256sum", "stat", "mktemp", "sync")


def host() -> str:
    """The time, the user, missing programs, and which HTTP client there is."""
    return script("doctor_host", ("doctor",), tools=" ".join(TOOLS))


def state(environment: Environment) -> str:
    """Whether this user may keep the environment's state."""
    where = naming.state_directory(environment.product, environment.name)
    return script("doctor_state", ("doctor",), state=where)


def listens(ports: tuple[int, ...]) -> str:
    """Who listens on these ports; as root."""
    return script("doctor_listens", ("doctor",), ports=" ".join(map(str, ports)))


def ports(environment: Environment) -> str:
    """Which of the environment's own ports somebody else has."""
    return script(
        "doctor_ports",
        ("doctor",),
        product=environment.product,
        environment=environment.name,
        state=naming.state_directory(environment.product, environment.name),
    )


def certificate(tls: Tls) -> str:
    """The site's certificate, and whether its key is there; as root."""
    return script("doctor_certificate", ("doctor",), certificate=tls.certificate, key=tls.key)

"""`hosts.yml` to typed settings; every fault with file, line and path of the key.

What checks the file is imported when it is needed: it takes as long as connecting to a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axon_tasks.config.faults import ConfigurationFaults, Fault, ValueFault, nearest
from axon_tasks.config.images import ImageReference
from axon_tasks.config.project import (
    Build,
    Container,
    Drain,
    Environment,
    Health,
    Host,
    LogOptions,
    Nginx,
    PortRange,
    Project,
    Registry,
    Tls,
)
from axon_tasks.config.secret import MASK, Secret
from axon_tasks.hosts_file import find_hosts_file

if TYPE_CHECKING:
    from axon_tasks.config.reading import Loaded, load, read

__all__ = [
    "MASK",
    "Build",
    "ConfigurationFaults",
    "Container",
    "Drain",
    "Environment",
    "Fault",
    "Health",
    "Host",
    "ImageReference",
    "Loaded",
    "LogOptions",
    "Nginx",
    "PortRange",
    "Project",
    "Registry",
    "Secret",
    "Tls",
    "ValueFault",
    "find_hosts_file",
    "load",
    "nearest",
    "read",
]


def __getattr__(name: str) -> Any:
    """Give what reads and checks the file (PEP 562)."""
    if name not in {"Loaded", "load", "read"}:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from axon_tasks.config import reading

    return getattr(reading, name)

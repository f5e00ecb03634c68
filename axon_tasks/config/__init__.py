"""`hosts.yml` to typed settings; every fault with file, line and path of the key."""

from axon_tasks.config.faults import ConfigurationFaults, Fault, ValueFault, nearest
from axon_tasks.config.images import ImageReference
from axon_tasks.config.load import Loaded, load, read
from axon_tasks.config.models import (
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

__all__ = [
    "MASK",
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

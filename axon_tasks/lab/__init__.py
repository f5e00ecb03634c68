"""A throw-away data centre on one Linux machine, and a sample application."""

from axon_tasks.lab.hosts import LabHost
from axon_tasks.lab.lab import HostStatus, Lab, LabState

__all__ = ["HostStatus", "Lab", "LabHost", "LabState"]

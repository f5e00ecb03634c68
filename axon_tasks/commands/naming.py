"""Names and places on the servers (design: the contract that AXON's servers move over to without a gap)."""

from __future__ import annotations

import re

#: Where the state of every product and environment lives on a server.
STATE_ROOT = "/var/lib/axon"

#: A slot is one of two places for a release; nginx sends traffic to one of them.
SLOTS = ("a", "b")


def state_directory(product: str, environment: str) -> str:
    """The directory of an environment's state, on system and app servers alike."""
    return f"{STATE_ROOT}/{product}/{environment}"


def flag_file(product: str, environment: str) -> str:
    """The file whose existence means that slot b serves; nginx looks for it at every request."""
    return f"{state_directory(product, environment)}/slot_b"


#: The file whose existence means that maintenance is on, and the page that is answered then, beside it.
MAINTENANCE_FILE, MAINTENANCE_PAGE = "maintenance", "maintenance.html"


def maintenance_flag(product: str, environment: str) -> str:
    """The file whose existence means that maintenance is on; nginx looks for it at every request."""
    return f"{state_directory(product, environment)}/{MAINTENANCE_FILE}"


def config_name(product: str, environment: str) -> str:
    """The base name of the environment's two nginx files."""
    return f"{product}-{environment}"


def container_name(product: str, environment: str, release: str) -> str:
    """The name of a release's container on every app server."""
    return f"{product}-{environment}-{release}"


def upstream_name(product: str, environment: str, slot: str) -> str:
    """The upstream of a slot. Names have no underscore of their own, so two environments never share one."""
    return f"{product}_{environment}_{slot}"


def backend_name(product: str, environment: str) -> str:
    """AXON's single upstream, which `switch: reload` keeps: hyphens become underscores, as AXON wrote it."""
    return f"{product}_{environment}_backend".replace("-", "_")


def other_slot(slot: str) -> str:
    """The slot that is not `slot`."""
    return "b" if slot == "a" else "a"


def is_axon_container(name: str, product: str, environment: str) -> bool:
    """Whether AXON, which sets no labels, made a container of this name for this environment.

    The whole name decides, never a prefix: `shop-prod` must not match `my-shop-prod-1` or `shop-prod2-1`.
    """
    return re.fullmatch(rf"{re.escape(product)}-{re.escape(environment)}-[0-9]{{9,11}}", name) is not None

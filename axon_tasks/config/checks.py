"""What only shows when several entries of `hosts.yml` are seen together."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from axon_tasks.config.document import Block, Items, Scalar
from axon_tasks.config.faults import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.config.faults import Report


def check_relations(values: Block, report: Report) -> None:
    """Note jump hosts that lead in a circle and domains that two sites of one server claim.

    Args:
        values: The file's values with `defaults` merged; they may have other faults.
        report: Where faults are noted.
    """
    hosts, environments = values.get("hosts"), values.get("environments")
    if isinstance(hosts, Block):
        _check_jumps(hosts, report)
    if isinstance(environments, Block):
        _check_domains(environments, report)
    if isinstance(hosts, Block) and isinstance(environments, Block):
        _check_addresses(hosts, environments, report)


def _check_jumps(hosts: Block, report: Report) -> None:
    jumps = {name: host["jump"] for name, host in hosts.items() if isinstance(host, Block) and "jump" in host}
    for name, jump in jumps.items():
        seen = [name]
        following = jump
        while isinstance(following, Scalar) and following in hosts and following not in seen:
            seen.append(following)
            following = jumps.get(following)
        if following == name and isinstance(jump, Scalar):
            circle = " -> ".join(dotted((host,)) for host in (*seen, name))
            report.add(jump.place, f"the jump hosts lead in a circle: {circle}", expected="a way that ends")


def _check_domains(environments: Block, report: Report) -> None:
    """Two sites of one nginx that claim a domain: nginx would only warn, and serve whichever it read first."""
    owners: dict[tuple[str, str], str] = {}
    for name, environment in environments.items():
        if not isinstance(environment, Block):
            continue
        for domain in _scalars(environment, "domain", "aliases"):
            for server in _scalars(environment, "system"):
                owner = owners.setdefault((server, domain), name)
                if owner != name:
                    message = f"this domain is already the one of {dotted((owner,))} on {dotted((server,))}"
                    report.add(domain.place, message, expected="a domain of its own")


def _check_addresses(hosts: Block, environments: Block, report: Report) -> None:
    """What nginx tells of an upstream is its number: that proves a switch, and names do not do."""
    told = set()
    for environment in environments.values():
        if not isinstance(environment, Block):
            continue
        for server in _scalars(environment, "app"):
            host = hosts.get(server)
            if not isinstance(host, Block) or "private_address" in host or server in told:
                continue
            address = host.get("address")
            if isinstance(address, Scalar) and not _is_ip(address):
                told.add(server)
                message = "an app server whose address is a name needs a private_address for nginx"
                report.add(address.place, message, expected="private_address: an IP address, beside it")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _scalars(block: Block, *keys: str) -> Iterator[Scalar]:
    for key in keys:
        value = block.get(key)
        yield from (
            part for part in (value if isinstance(value, Items) else [value]) if isinstance(part, Scalar)
        )

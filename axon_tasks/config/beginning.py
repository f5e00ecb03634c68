"""The first `hosts.yml` of a project, from a few answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from axon_tasks.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Question(NamedTuple):
    """One thing that has to be known.

    Attributes:
        name: Its flag.
        text: What is asked.
        usual: What it is if nothing is answered; empty if something must be.
    """

    name: str
    text: str
    usual: str = ""


QUESTIONS = (
    Question("product", "Name of the product (a-z, 0-9 and dashes)"),
    Question("image", "Image, without a tag (registry.example.com/shop)"),
    Question("environment", "Name of the first environment", "prod"),
    Question("domain", "Domain of the site (shop.example.com)"),
    Question("system", "System servers, where nginx runs, as NAME=ADDRESS, separated by commas"),
    Question("app", "App servers, where Docker runs, likewise; an address may be the one of a system server"),
    Question("user", "User that logs in; nothing leaves it to your ssh_config", " "),
    Question("port", "Port on which the application listens in its container", "3000"),
    Question("health", "Path of its health check", "/health"),
)

_HEAD = """\
# Servers and environments. Every key: `invoke config.schema`, and the commented hosts.yml of axon-tasks.
# `invoke config.validate` checks this file, `fab doctor --env={environment}` the servers, and then:
#   fab deploy --env={environment} --tag=TAG
"""


def servers(text: str, flag: str) -> dict[str, str]:
    """Addresses by name, from `edge1=203.0.113.10,edge2=203.0.113.11`.

    Raises:
        UsageError: That is not what it is.
    """
    found: dict[str, str] = {}
    for one in text.replace(",", " ").split():
        name, equals, address = one.partition("=")
        if not (name and equals and address) or name in found:
            raise UsageError(
                f"--{flag}={text}: NAME=ADDRESS is needed, each name once.",
                hint=f"For example: --{flag}={flag}1=203.0.113.10",
            )
        found[name] = address
    if not found:
        raise UsageError(
            f"--{flag}: at least one server is needed.", hint=f"For example: --{flag}={flag}1=203.0.113.10"
        )
    return found


def text(answers: Mapping[str, str]) -> str:
    """The file.

    Args:
        answers: To all of `QUESTIONS`, by name.

    Raises:
        UsageError: The servers are not written as they must be, or one name has two addresses.
    """
    system, app = servers(answers["system"], "system"), servers(answers["app"], "app")
    for name in system.keys() & app.keys():
        if system[name] != app[name]:
            raise UsageError(f"{name} has two addresses: {system[name]} and {app[name]}.")
    user, port = answers["user"].strip(), answers["port"]
    login = {"user": user} if user else {}
    settings = {
        "product": answers["product"],
        "image": answers["image"],
        "hosts": {name: {"address": address, **login} for name, address in {**system, **app}.items()},
        "defaults": {
            "container": {"port": int(port) if port.isascii() and port.isdecimal() else port},
            "health": {"path": answers["health"]},
        },
        "environments": {
            answers["environment"]: {"system": list(system), "app": list(app), "domain": answers["domain"]}
        },
    }
    body = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    return _HEAD.format(environment=answers["environment"]) + "\n" + body


def check(content: str) -> None:
    """Check a file before it is written.

    Raises:
        UsageError: It would be wrong; every fault is told, by the key that it would stand in.
    """
    from axon_tasks.config.faults import ConfigurationFaults
    from axon_tasks.config.reading import load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hosts.yml"
        path.write_text(content, encoding="utf-8")
        try:
            load(path)
        except ConfigurationFaults as error:
            faults = [str(fault).removeprefix(f"{fault.file}:{fault.line}: ") for fault in error.faults]
            raise UsageError("\n".join(faults), hint="Nothing was written.") from None

"""nginx: the text of an environment's two files, and the scripts that inspect, test and switch."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from axon_tasks.commands import naming, records
from axon_tasks.commands.docker import probe_values
from axon_tasks.commands.shell import Learnt, joined, script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment as Templates

    from axon_tasks.config import Environment

#: Answered on loopback only, through the same decision as any request: by which app server.
PROBE_PATH = "/.well-known/axon/probe"
#: Where the page is that is answered while maintenance is on; nobody can ask for it.
MAINTENANCE_PATH = "/.well-known/axon/maintenance"
#: Answered on loopback only: 200 if maintenance is on, else 404.
MAINTENANCE_PROBE = "/.well-known/axon/maintenance-flag"


def target(address: str, port: int) -> str:
    """`ADDRESS:PORT` as it stands in nginx's files; an IPv6 address stands in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Backend(NamedTuple):
    """One app server as nginx reaches it: its address and its two ports."""

    address: str
    ports: tuple[int, int]

    def target(self, slot: str) -> str:
        """`ADDRESS:PORT` of a slot."""
        return target(self.address, self.ports[naming.SLOTS.index(slot)])


class Files(NamedTuple):
    """The wanted content of both files; an empty site means that the site is somebody else's."""

    upstream: str
    site: str


@functools.cache
def _templates() -> Templates:
    from jinja2 import Environment, StrictUndefined

    # nginx is no HTML, and every value has been validated by its type in `config`.
    return Environment(  # noqa: S701  (see above: escaping for HTML would corrupt the file)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


#: What the templates know of an environment, beside the backends: whatever decides about the files.
SETTINGS = ("product", "name", "domain", "aliases", "tls", "nginx", "switch", "health_host", "maintenance")


def header(environment: Environment) -> str:
    """The first line of each file: how a file of ours is recognised, and whose it is."""
    return f"# axon-tasks: product {environment.product}, environment {environment.name}."


def is_ours(text: str, environment: Environment) -> bool:
    """Whether a file was written by this tool for this very environment."""
    return text.startswith(header(environment))


class Wanted(NamedTuple):
    """What decides about the two files of an environment on one system server.

    Attributes:
        environment: Its settings.
        backends: Every app server, in the order of `hosts.yml`.
        version: nginx's version on that server; directives differ (`http2` moved in 1.25.1).
        slot: With `switch: reload`, the slot that serves; otherwise not used, the flag decides.
    """

    environment: Environment
    backends: tuple[Backend, ...]
    version: tuple[int, ...]
    slot: str

    def values(self) -> dict[str, Any]:
        """What the templates are given."""
        environment = self.environment
        has_slots = environment.switch == "slots"
        return {
            "header": header(environment),
            "env": environment,
            "backends": self.backends,
            "slot": "" if has_slots else self.slot,
            "slots": has_slots,
            "upstreams": {
                one: naming.upstream_name(environment.product, environment.name, one) for one in naming.SLOTS
            },
            "backend": naming.backend_name(environment.product, environment.name),
            "name": naming.config_name(environment.product, environment.name),
            "variable": "axon_" + re.sub(r"[^a-z0-9]", "_", f"{environment.product}_{environment.name}"),
            "flag": naming.flag_file(environment.product, environment.name),
            "probe_path": PROBE_PATH,
            "state": naming.state_directory(environment.product, environment.name),
            "maintenance_flag": naming.maintenance_flag(environment.product, environment.name),
            "maintenance_page": naming.MAINTENANCE_PAGE,
            "maintenance_path": MAINTENANCE_PATH,
            "maintenance_probe": MAINTENANCE_PROBE,
            "maintenance_file": naming.MAINTENANCE_FILE,
            "retry_after": retry_after(environment),
            "health_location": health_location(environment),
            "http2_directive": self.version >= (1, 25, 1),
            "acme_root": environment.nginx.acme_root or ("/var/www/html" if environment.tls else None),
        }

    @property
    def seal(self) -> str:
        """A digest of all that decides: two files with the same one were made from the same."""
        told = {name: getattr(self.environment, name) for name in SETTINGS}
        decides = {**self.values(), "env": (told, self.environment.health.path)}
        return _digest(repr(decides) + "".join(map(_template, KINDS)))


def retry_after(environment: Environment) -> int:
    """Seconds after which clients may ask again while maintenance is on; whole ones (RFC 9110, section 10.2.3)."""
    return max(1, round(environment.maintenance.retry_after))


def health_location(environment: Environment) -> str:
    """The path that is answered as always while maintenance is on; empty where there is none of its own.

    The start page is none: maintenance would not show where it is looked for first. Nor is what cannot stand in quotes.
    """
    path = unquote(environment.health.path.partition("?")[0])
    if path in {"/", PROBE_PATH, MAINTENANCE_PATH, MAINTENANCE_PROBE} or not re.fullmatch(
        r"[ !#-\[\]-~]+", path, re.ASCII
    ):
        return ""
    return path


def has_maintenance(site: str, environment: Environment) -> bool:
    """Whether a site file looks for the maintenance flag, and says what is said then; older ones of this tool do not."""
    flag = naming.maintenance_flag(environment.product, environment.name)
    told = f"add_header Retry-After {retry_after(environment)} always;"
    return is_ours(site, environment) and all(
        one in site for one in (f"if (-e {flag})", told, f"location = {MAINTENANCE_PROBE} {{")
    )


#: The two files, by the names of their templates.
KINDS = ("upstream", "site")
_SEAL = re.compile(r"^# Sealed: ([0-9a-f]{32}) ([0-9a-f]{32})\n", re.MULTILINE)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _template(kind: str) -> str:
    place = resources.files("axon_tasks.commands") / "templates" / f"{kind}.conf.j2"
    return place.read_text(encoding="utf-8")


def is_made_from(text: str, wanted: Wanted) -> bool:
    """Whether a file is what would be made now, and nobody has changed it: then it need not be made to know it.

    Args:
        text: The file.
        wanted: What decides about it.
    """
    found = _SEAL.search(text)
    if found is None or found[1] != wanted.seal:
        return False
    return found[2] == _digest(text[: found.start()] + text[found.end() :])


def _sealed(text: str, seal: str) -> str:
    """A file with what tells later that it is still the same: from what it was made, and what it says."""
    first, _, rest = text.partition("\n")
    return f"{first}\n# Sealed: {seal} {_digest(text)}\n{rest}"


def render(wanted: Wanted) -> Files:
    """The two files of an environment on one system server."""
    templates = _templates()
    # Macros leave blank lines behind, and the files are read by people.
    texts = (
        re.sub(r"\n\s*\n+", "\n", templates.from_string(_template(kind)).render(wanted.values()))
        for kind in KINDS
    )
    return Files(*(_sealed(text, wanted.seal) for text in texts))


def upstream_targets(text: str, name: str = "") -> tuple[str, ...]:
    """The `ADDRESS:PORT`s of an upstream in a file, without backups.

    Args:
        text: The file.
        name: Of the upstream; by default the first one, as a single one is read.
    """
    called = re.escape(name) if name else r"[\w.-]+"
    block = re.search(rf"upstream\s+{called}\s*\{{([^}}]*)\}}", re.sub(r"#[^\n]*", "", text))
    servers = re.findall(r"\bserver\s+([^\s;]+)([^;]*);", block.group(1)) if block else []
    return tuple(target for target, parameters in servers if "backup" not in parameters.split())


def targets(environment: Environment, upstream: str, slot: str) -> tuple[str, ...]:
    """To what nginx sends requests: where there are slots, the flag decides.

    Args:
        environment: Whose traffic.
        upstream: The content of its upstream file.
        slot: The slot that the flag selects.
    """
    named = naming.upstream_name(environment.product, environment.name, slot)
    is_there = re.search(rf"\bupstream\s+{re.escape(named)}\s*\{{", upstream)
    return upstream_targets(upstream, named if is_there else "")


def present_backends(environment: Environment, upstream: str) -> tuple[Backend, ...]:
    """The app servers that stand in an upstream file of this tool, with their two ports.

    Args:
        environment: Whose file.
        upstream: Its content.

    Raises:
        ValueError: They cannot be read from it.
    """
    if environment.switch == "slots":
        sides = [
            upstream_targets(upstream, naming.upstream_name(environment.product, environment.name, slot))
            for slot in naming.SLOTS
        ]
    else:
        block = re.sub(r"#[^\n]*", "", upstream)
        found = re.findall(r"\bserver\s+([^\s;]+)([^;]*);", block)
        sides = [
            tuple(one for one, words in found if ("backup" in words.split()) is is_backup)
            for is_backup in (False, True)
        ]
    made = [Backend(*_joint(*map(_address_and_port, pair))) for pair in zip(*sides, strict=True) if any(pair)]
    if not made:
        raise ValueError("no app server stands in it")
    return tuple(made)


def _address_and_port(text: str) -> tuple[str, int]:
    """Take a target of nginx's files apart.

    Raises:
        ValueError: It is no address with a port.
    """
    address, _, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
        raise ValueError(f"{text[:60]!a} is no address with a port")
    return str(ipaddress.ip_address(address)), int(port)


def _joint(a: tuple[str, int], b: tuple[str, int]) -> tuple[str, tuple[int, int]]:
    if a[0] != b[0]:
        raise ValueError(f"{a[0]} and {b[0]} are not the same app server")
    return a[0], (a[1], b[1])


def is_changed_by_hand(text: str, environment: Environment) -> bool:
    """Whether somebody has changed a file that this tool had written."""
    found = _SEAL.search(text) if is_ours(text, environment) else None
    return found is not None and found[2] != _digest(text[: found.start()] + text[found.end() :])


def _place(environment: Environment) -> dict[str, str | float]:
    return {
        "name": naming.config_name(environment.product, environment.name),
        "nginx_config": environment.nginx.config,
        "nginx_directory": environment.nginx.directory,
        "state": naming.state_directory(environment.product, environment.name),
        "flag": naming.flag_file(environment.product, environment.name),
    }


def inspect() -> str:
    """The version of nginx."""
    return script("inspect_nginx", ("inspect",))


def inspect_running(environment: Environment) -> str:
    """Whether nginx runs with the configuration that is meant."""
    return script("inspect_running", ("nginx", "inspect"), nginx_config=environment.nginx.config)


def inspect_included(environment: Environment) -> str:
    """Whether nginx's configuration includes ours."""
    place = environment.nginx
    return script(
        "inspect_included", ("inspect",), nginx_config=place.config, nginx_directory=place.directory
    )


def inspect_valid(environment: Environment) -> str:
    """Whether nginx's configuration, with everybody's files, passes its own test."""
    return script("inspect_valid", ("inspect",), nginx_config=environment.nginx.config)


def inspect_file(environment: Environment, kind: str) -> str:
    """The content of the environment's file in `upstreams` or `sites`; nothing if there is none."""
    path = f"{environment.nginx.directory}/{kind}/{naming.config_name(environment.product, environment.name)}.conf"
    return script('inspect_file "$file"', ("inspect",), file=path)


def inspect_state(environment: Environment) -> str:
    """Which slot serves by the flag, and the record of the current release."""
    return script("inspect_state", ("inspect",), **_place(environment))


def look_through(environment: Environment, times: int) -> str:
    """Health checks from this server through nginx, which says by whom each was answered.

    Args:
        environment: Whose site.
        times: How many.
    """
    return script(
        "look_through", ("http", "look"), **probe_values(environment),
        http_port=environment.nginx.http_port, probe_path=PROBE_PATH, domain=_name(environment), look_times=times,
    )  # fmt: skip


def _name(environment: Environment) -> str:
    """A name that the site answers to; nginx would not match the asterisk itself."""
    return environment.domain.replace("*", "axon-probe")


def stage(environment: Environment, files: Files) -> str:
    """`nginx -t` with the candidate files on a shadow copy of the server's whole configuration."""
    return script(
        "shadow_test", ("nginx",), **_place(environment), upstream_text=files.upstream, site_text=files.site
    )


def page(message: str) -> str:
    """The page that is answered while maintenance is on, with a message of plain text."""
    from jinja2 import Environment, StrictUndefined

    templates = Environment(undefined=StrictUndefined, autoescape=True, keep_trailing_newline=True)
    place = resources.files("axon_tasks.commands") / "templates" / "maintenance.html.j2"
    return templates.from_string(place.read_text(encoding="utf-8")).render(message=message)


def install(environment: Environment, files: Files) -> str:
    """Have nginx load the files, with a reload, or put the previous ones back; what serves stays."""
    return script(
        "install_files", ("nginx", "switch", "maintain"), **_place(environment),
        upstream_text=files.upstream, site_text=files.site,
    )  # fmt: skip


def maintain(environment: Environment, run: str, note: str, message: str = "") -> str:
    """Have nginx answer with the maintenance page, or no more, and prove it from the outside; or put it back.

    Args:
        environment: Whose site.
        run: The id of the run, by which `maintain_back` knows what it may take back.
        note: What is kept of who does it; empty to end it.
        message: What the page says.
    """
    return script(
        "maintain", ("http", "nginx", "maintain"), **_maintain(environment, run),
        maintenance_note=note, maintenance_text=page(message) if note else "",
    )  # fmt: skip


def maintain_back(environment: Environment, run: str) -> str:
    """Take back what `maintain` has done in this run, and nothing else."""
    return script("maintain_back", ("nginx", "maintain"), **_maintain(environment, run))


def maintained(environment: Environment, run: str) -> str:
    """Forget what `maintain_back` would need: all system servers have done it."""
    return script("maintain_forget", ("maintain",), **_maintain(environment, run))


def _maintain(environment: Environment, run: str) -> dict[str, str | float]:
    return {
        "state": naming.state_directory(environment.product, environment.name),
        "maintenance_page": naming.MAINTENANCE_PAGE,
        "run": run or "-",
        "http_port": environment.nginx.http_port,
        "probe_path": MAINTENANCE_PROBE,
        "probe_timeout": f"{environment.health.probe_timeout:g}",
        "domain": _name(environment),
    }


class Switch(NamedTuple):
    """What the switch needs to know.

    Attributes:
        environment: Its settings.
        release: The release that is to serve.
        slot: Its slot.
        previous: The slot that serves now; empty if none does.
        targets: `ADDRESS:PORT` of the release on every app server.
        files: The wanted files.
        install: Whether the files on the server differ from the wanted ones.
        site_ours: Whether the site has the probe location, so that the switch can be proven from the outside.
        expected_current: What `current` must still say there; `any` where that does not matter.
        run: The id of the run, for the journal.
        record: The release's record, which the journal keeps until it is written; empty on the way back.
    """

    environment: Environment
    release: str
    slot: str
    previous: str
    targets: tuple[str, ...] | Learnt
    files: Files
    install: bool | Learnt
    site_ours: bool | Learnt = True
    expected_current: str = "any"
    run: str = "-"
    record: Mapping[str, Any] | Learnt | None = None


def reach(wanted: Switch) -> str:
    """Every app server must answer from the system server, over the address that nginx will use."""
    return script(
        "reach_targets",
        ("http", "switch"),
        **probe_values(wanted.environment),
        targets=joined(wanted.targets),
    )


def switch(wanted: Switch) -> str:
    """Send traffic to the release, prove it from the outside, or put everything back."""
    environment = wanted.environment
    return script(
        "switch_slots" if environment.switch == "slots" else "switch_reload",
        ("http", "nginx", "switch"),
        **_place(environment),
        **probe_values(environment),
        release=wanted.release,
        slot=wanted.slot,
        previous=wanted.previous,
        targets=joined(wanted.targets),
        install=wanted.install,
        upstream_text=wanted.files.upstream if wanted.install else "",
        site_text=wanted.files.site if wanted.install else "",
        site_ours=wanted.site_ours,
        expected_current=wanted.expected_current,
        run=wanted.run or "-",
        record=records.text(wanted.record) if wanted.record else "",
        http_port=environment.nginx.http_port,
        probe_path=PROBE_PATH,
        domain=_name(environment),
    )

r"""The types of single values: what each may be, decided by allow-lists.

Names, paths, domains, ports and image references end in shell scripts and in nginx's configuration. So every check
names what is allowed, matches the whole text, and knows ASCII only: `$` would accept a trailing newline, `\d` and
`int()` would accept digits of other scripts.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import core_schema

from axon_tasks.config.document import Scalar, quoted, yaml_meaning
from axon_tasks.config.faults import ValueFault, listed, nearest
from axon_tasks.config.images import ImageReference, is_digest, is_registry, is_tag
from axon_tasks.config.secret import Secret, one_line

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

Check: TypeAlias = Callable[[object], Any]

_LONGEST_DOMAIN = 253
_LONGEST_TEXT = 10_000
_LONGEST_DURATION = 86_400.0
_LARGEST_PORT = 65_535
_TWO_COLUMNS = 2

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", re.ASCII)
_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"
_DOMAIN_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*", re.ASCII)
_PATH = re.compile(r"(?:/[A-Za-z0-9._@+,=-]+)+", re.ASCII)
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+", re.ASCII)
_VOLUME_OPTIONS = {
    *("ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated"),
    *("shared", "slave", "private", "rshared", "rslave", "rprivate"),
}
_NETWORKS_WITHOUT_PORTS = ("host", "none", "bridge", "default")

#: A variable may stand wherever another value may; its content is checked when the file is loaded.
_VARIABLE_SCHEMA = {"type": "string", "pattern": r"\$\{"}


@dataclass(frozen=True, eq=False)  # hashed by identity, as annotations must be
class Rule:
    """How one kind of value is checked, and how an editor is told about it.

    Attributes:
        check: Takes what was written and returns what is meant; raises ValueFault. It must accept its own results.
        schema: The JSON schema for what may be written.
    """

    check: Check
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [self.schema, _VARIABLE_SCHEMA]}


@dataclass(frozen=True, eq=False)  # hashed by identity, as annotations must be
class KnownHost(Rule):
    """A host name that must be one of the inventory's, where the inventory is known (validation context `hosts`)."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def check(value: object, info: core_schema.ValidationInfo) -> str:
            host = str(self.check(value))
            known = (info.context or {}).get("hosts")
            if known is not None and host not in known:
                raise ValueFault(
                    "is no host of this file",
                    expected=None if nearest(host, known) else listed(sorted(known)),
                    nearest=nearest(host, known),
                )
            return host

        return core_schema.with_info_plain_validator_function(check)


def text(value: object, expected: str = "text") -> str:
    """Return the text that was written.

    Raises:
        ValueFault: It is no text, or is not quoted and YAML would make something else of it.
    """
    if value is None:
        raise ValueFault("is empty", expected=expected)
    if not isinstance(value, str):
        raise ValueFault(
            "is a list or a mapping" if isinstance(value, (list, dict)) else "is no text", expected=expected
        )
    if isinstance(value, Scalar) and value.plain and (meaning := yaml_meaning(value)):
        raise ValueFault(f"is unquoted, and YAML makes {meaning} of it", expected=quoted(value))
    return str(value)


def _not(complaint: str, value: object) -> str:
    """Say that a value is not what it should be, and what YAML would have made of it, if that is a surprise."""
    if value is None:
        return "is empty"
    meaning = yaml_meaning(value) if isinstance(value, Scalar) and value.plain else None
    surprise = f", and YAML makes {meaning} of it" if meaning and str(value) not in meaning else ""
    return f"is {complaint}{surprise}"


def _matching(pattern: str, expected: str, longest: int = _LONGEST_DOMAIN, *, loose: bool = False) -> Rule:
    """Make the rule for texts that match a pattern as a whole.

    Args:
        pattern: A regular expression.
        expected: The same in words.
        longest: The largest length, in characters.
        loose: Whether YAML's idea of an unquoted value is of no interest, because a number means the same as text.
    """
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object) -> str:
        if loose and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        written = str(value) if loose and isinstance(value, str) else text(value, expected)
        if len(written) > longest or not compiled.fullmatch(written):
            raise ValueFault("is not allowed here", expected=expected)
        return written

    kinds = ["string", "number"] if loose else "string"
    return Rule(check, {"type": kinds, "pattern": f"^(?:{pattern})$"})


def _one_of(*choices: str) -> Rule:
    """Make the rule for one of a few words."""

    def check(value: object) -> str:
        expected = listed(choices)
        written = text(value, expected)
        if written not in choices:
            raise ValueFault("is not known here", expected=expected, nearest=nearest(written, choices))
        return written

    return Rule(check, {"enum": list(choices)})


def _whole(least: int, most: int) -> Rule:
    """Make the rule for whole numbers within bounds, written in plain decimal digits."""
    expected = f"a whole number from {least} to {most}"

    def check(value: object) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueFault(_not("no such number", value), expected=expected)
        return value

    return Rule(check, {"type": "integer", "minimum": least, "maximum": most})


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in {"true", "false"}:
        return value == "true"
    raise ValueFault(_not("not clear", value), expected="true or false")


def _duration(*, zero: bool) -> Rule:
    """Make the rule for durations; seconds as a float come out."""
    bound = "up to 24h" if zero else "above 0, up to 24h"
    expected = f"a duration such as 30s, 500ms, 2m, or a number of seconds, {bound}"

    def check(value: object) -> float:
        seconds: float
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match:
            seconds = float(match[1]) * _SECONDS[match[2] or ""]
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            seconds = float(value)
        else:
            raise ValueFault(_not("no duration", value), expected=expected)
        if not 0 <= seconds <= _LONGEST_DURATION or (seconds == 0 and not zero):
            raise ValueFault("is out of range", expected=expected)
        return seconds

    pattern = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)?$"
    schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": pattern}]}
    return Rule(check, schema)


def _address(value: object) -> str:
    expected = "a host name or an IP address"
    written = text(value, expected)
    if _is_ip(written):
        return written
    numeric = re.fullmatch(r"[0-9.]+", written) is not None
    if numeric or len(written) > _LONGEST_DOMAIN or ".." in written or not _HOST_NAME.fullmatch(written):
        raise ValueFault("is no address", expected=expected)
    return written


def _ip(value: object) -> str:
    written = text(value, "an IP address")
    if not _is_ip(written):
        raise ValueFault(
            "is no IP address", expected="an IP address, because Docker binds the container's port to it"
        )
    return written


def _is_ip(written: str) -> bool:
    if "%" in written or not written.isascii():
        return False
    try:
        ipaddress.ip_address(written)
    except ValueError:
        return False
    return True


def _jump(value: object) -> str:
    expected = "a host of this file or [user@]host[:port]"
    written = text(value, expected)
    match = re.fullmatch(
        rf"(?:{_USER}@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]+))?", written, re.ASCII
    )
    if match is None:
        raise ValueFault("is no jump host", expected=expected)
    _address(match[1].strip("[]"))
    if match[2] is not None:
        _PORT.check(match[2])
    return written


def _domain(value: object) -> str:
    expected = "a domain in lower case, such as shop.example.com or *.example.com"
    written = text(value, expected)
    if len(written) > _LONGEST_DOMAIN or not _DOMAIN.fullmatch(written.removeprefix("*.")):
        raise ValueFault("is no domain", expected=expected)
    return written


def _host_header(value: object) -> str:
    expected = "a host name, with :port if it needs one"
    host, colon, port = text(value, expected).partition(":")
    if len(host) > _LONGEST_DOMAIN or not _HOST_NAME.fullmatch(host):
        raise ValueFault("is no Host header", expected=expected)
    if colon:
        _PORT.check(port)
    return host + colon + port


def _remote_path(value: object) -> str:
    expected = "an absolute path of letters, digits and . _ - @ + , = without .."
    written = text(value, expected)
    if len(written) > _LONGEST_TEXT or not _PATH.fullmatch(written):
        raise ValueFault("is no path that is safe on a server", expected=expected)
    if {".", ".."} & set(written.split("/")):
        raise ValueFault("is no plain path", expected=expected)
    return written


def _local_path(value: object) -> str:
    return _printable(value, "the path of a local file")


def _printable(value: object, expected: str = "text on one line") -> str:
    written = text(value, expected)
    if not written or len(written) > _LONGEST_TEXT or not written.isprintable():
        raise ValueFault("is empty, too long or holds control characters", expected=expected)
    return written


def _argument(value: object) -> str:
    written = text(value, "text on one line")
    return written if not written else _printable(value)


def _image(value: object) -> str:
    written = text(value, "an image, such as registry.example.com/shop")
    image = ImageReference.parse(written)
    if image.tag or image.digest:
        raise ValueFault(
            "names a version", expected="the image alone; the version goes under `tag:` or --tag"
        )
    return written


def _version(value: object) -> str:
    expected = "a tag, or sha256: and 64 hexadecimal digits"
    written = text(value, expected)
    if not is_tag(written) and not is_digest(written):
        raise ValueFault("is no tag", expected=expected)
    return written


def _registry(value: object) -> str:
    written = text(value, "host or host:port")
    if not is_registry(written):
        raise ValueFault("is no registry", expected="host or host:port, without https:// and without a path")
    return written


def _volume(value: object) -> str:
    expected = "/path/on/host:/path/in/container[:ro] or name:/path/in/container[:ro]"
    source, *rest = text(value, expected).split(":")
    if not 1 <= len(rest) <= _TWO_COLUMNS:
        raise ValueFault("is no volume", expected=expected)
    if not _VOLUME_NAME.fullmatch(source):
        _remote_path(source)
    _remote_path(rest[0])
    unknown = set(rest[1].split(",")) - _VOLUME_OPTIONS if rest[1:] else set()
    if unknown:
        raise ValueFault("has options that Docker does not know", expected=expected)
    return ":".join((source, *rest))


def _extra_host(value: object) -> str:
    expected = "name:address, such as db:10.0.0.5 or host.docker.internal:host-gateway"
    name, _, address = text(value, expected).partition(":")
    if not _HOST_NAME.fullmatch(name) or (address != "host-gateway" and not _is_ip(address)):
        raise ValueFault("is no host entry", expected=expected)
    return f"{name}:{address}"


def _network(value: object) -> str:
    written: str = _DOCKER_NAME.check(value)
    if written in _NETWORKS_WITHOUT_PORTS:
        raise ValueFault(
            "is one of Docker's own networks, which cannot publish a port or know aliases",
            expected="a network of your own, or nothing",
        )
    return written


def _label_name(value: object) -> str:
    written: str = _LABEL_NAME.check(value)
    if written.startswith("axon."):
        raise ValueFault("starts with axon., which marks what this program owns", expected="another label")
    return written


def _build_argument(value: object) -> str:
    written: str = _VARIABLE_NAME.check(value)
    if written in _OF_THE_CLIENT or written.startswith(_OF_THE_CLIENT_ALL):
        raise ValueFault(
            "is a variable that the docker client itself listens to, and its arguments reach it as variables",
            expected="another name",
        )
    return written


def _list_of(value: object) -> object:
    """Accept a single value where a list is expected (`expect_status: 200`)."""
    return [value] if isinstance(value, (str, int)) else value


_PORT = _whole(1, _LARGEST_PORT)
_DOCKER_NAME = _matching(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits, dots, dashes and underscores", 128)
_VARIABLE_NAME = _matching(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and underscores", 200)
#: Variables that decide which program runs, and what it talks to (docker(1), ld.so(8)).
_OF_THE_CLIENT = frozenset({"PATH", "HOME", "TMPDIR", "XDG_CONFIG_HOME"})
_OF_THE_CLIENT_ALL = ("DOCKER_", "BUILDX_", "LD_", "DYLD_")
_LABEL_NAME = _matching(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "letters, digits and . _ / -", 128)
_NAME = _matching(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", "up to 40 of a-z, 0-9 and dashes inside", 40)
_INVENTORY_NAME = _matching(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?",
    "up to 60 letters, digits, and dots, dashes or underscores inside",
    60,
)
_TEXT_SCHEMA = {"type": "string"}

Name = Annotated[str, _NAME]
HostName = Annotated[str, _INVENTORY_NAME]
HostReference = Annotated[str, KnownHost(_INVENTORY_NAME.check, _TEXT_SCHEMA)]
Address = Annotated[str, Rule(_address, _TEXT_SCHEMA)]
IpAddress = Annotated[str, Rule(_ip, _TEXT_SCHEMA)]
Jump = Annotated[str, Rule(_jump, _TEXT_SCHEMA)]
User = Annotated[str, _matching(_USER, "a user name", 32)]
LocalPath = Annotated[str, Rule(_local_path, _TEXT_SCHEMA)]
RemotePath = Annotated[str, Rule(_remote_path, {"type": "string", "pattern": "^/"})]
Domain = Annotated[str, Rule(_domain, {"type": "string", "pattern": r"^(\*\.)?[a-z0-9.-]+$"})]
HostHeader = Annotated[str, Rule(_host_header, _TEXT_SCHEMA)]
UrlPath = Annotated[
    str, _matching(r"/[A-Za-z0-9._~&+,=:@%/?-]*", "a path from / on, other characters percent-encoded", 2000)
]
Image = Annotated[str, Rule(_image, _TEXT_SCHEMA)]
Version = Annotated[str, Rule(_version, _TEXT_SCHEMA)]
RegistryServer = Annotated[str, Rule(_registry, _TEXT_SCHEMA)]
RegistryUser = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9_.@$+=/~-]*", "a user name without spaces and colons", 200)
]
Port = Annotated[int, _PORT]
HostPort = Annotated[int, _whole(1024, _LARGEST_PORT)]
Count = Annotated[int, _whole(1, 1000)]
Lines = Annotated[int, _whole(0, 10_000)]
#: Days of HSTS: up to two years, which is what preload lists ask for.
Days = Annotated[int, _whole(1, 730)]
_STATUS = _whole(100, 599)
Statuses = Annotated[
    tuple[Annotated[int, _STATUS], ...],
    BeforeValidator(_list_of),
    WithJsonSchema({"anyOf": [_STATUS.schema, {"type": "array", "items": _STATUS.schema}, _VARIABLE_SCHEMA]}),
]
Duration = Annotated[float, _duration(zero=True)]
PositiveDuration = Annotated[float, _duration(zero=False)]
Flag = Annotated[bool, Rule(_boolean, {"type": "boolean"})]
Size = Annotated[str, _matching(r"[1-9][0-9]{0,14}[bkmgBKMG]?", "a size such as 512m or 2g", loose=True)]
BodySize = Annotated[
    str, _matching(r"[0-9]{1,15}[kKmMgG]?", "a size such as 1m, or 0 for no limit", loose=True)
]
Cpus = Annotated[
    str,
    _matching(
        r"(?=.*[1-9])[0-9]{1,4}(?:\.[0-9]{1,3})?", "a number of processors above 0, such as 1.5", loose=True
    ),
]
Restart = Annotated[
    str,
    _matching(
        r"no|always|unless-stopped|on-failure(?::[0-9]{1,4})?",
        '"no", always, unless-stopped or on-failure[:N]',
    ),
]
ContainerUser = Annotated[
    str,
    _matching(rf"(?:{_USER}|[0-9]{{1,10}})(?::(?:{_USER}|[0-9]{{1,10}}))?", "user[:group], names or numbers"),
]
LogDriver = Annotated[str, _matching(r"[a-z0-9][a-z0-9./_-]*", "the name of a Docker logging driver", 100)]
Network = Annotated[str, Rule(_network, _TEXT_SCHEMA)]
DockerName = Annotated[str, _DOCKER_NAME]
Volume = Annotated[str, Rule(_volume, _TEXT_SCHEMA)]
ExtraHost = Annotated[str, Rule(_extra_host, _TEXT_SCHEMA)]
Argument = Annotated[str, Rule(_argument, _TEXT_SCHEMA)]
Line = Annotated[str, Rule(_printable, _TEXT_SCHEMA)]
LabelName = Annotated[str, Rule(_label_name, _TEXT_SCHEMA)]
VariableName = Annotated[str, _VARIABLE_NAME]
EnvironmentValue = Annotated[Secret, AfterValidator(one_line)]
HostKeys = Annotated[Literal["strict", "accept-new"], _one_of("strict", "accept-new")]
#: Those that know with which name to log in, too.
KNOW_THE_USER = frozenset({"aws", "azure", "docker", "gcloud"})
Credentials = Annotated[
    Literal["aws", "azure", "docker", "gcloud", "gh"], _one_of("aws", "azure", "docker", "gcloud", "gh")
]
Push = Annotated[Literal["registry", "ssh"], _one_of("registry", "ssh")]
Platform = Annotated[
    str,
    _matching(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9]+)?", "a platform such as linux/amd64 or linux/arm64", 60),
]
BuildArgument = Annotated[str, Rule(_build_argument, _TEXT_SCHEMA)]
Ending = Annotated[Literal["success", "failure"], _one_of("success", "failure")]
Switch = Annotated[Literal["slots", "reload"], _one_of("slots", "reload")]

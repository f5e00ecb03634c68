"""From `hosts.yml` to a `Project`, with every fault of the file reported at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from axon_tasks.config import models, project
from axon_tasks.config.checks import check_relations
from axon_tasks.config.document import MOST_BYTES, Block, Items, Scalar, read_document
from axon_tasks.config.faults import ConfigurationFaults, Place, Report, ValueFault, listed, nearest, shown
from axon_tasks.config.images import ImageReference
from axon_tasks.config.merging import inherit
from axon_tasks.config.project import Environment, Host, Project
from axon_tasks.errors import ConfigurationError
from axon_tasks.hosts_file import VARIABLE, find_hosts_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

T = TypeVar("T")

#: More faults than this are not worked out: a file of nothing but mistakes must not keep the program busy.
_MOST_FAULTS = 1000

#: What pydantic reports about shapes, in the words of the file.
_SHAPES = {
    "model_type": ("is no mapping", "a mapping: `key: value` on lines of their own, indented"),
    "model_attributes_type": ("is no mapping", "a mapping: `key: value` on lines of their own, indented"),
    "dict_type": ("is no mapping", "a mapping: `name: value` on lines of their own, indented"),
    "tuple_type": ("is no list", "a list, such as [one, two]"),
    "list_type": ("is no list", "a list, such as [one, two]"),
}


@dataclass(frozen=True)
class Loaded:
    """A project together with the text it was made of.

    Attributes:
        project: The settings.
        values: The file's values, with `defaults` merged under each environment; each knows its place.
        content: The file's text.
    """

    project: Project
    values: Block
    content: bytes


def load(path: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Project:
    """Load the settings.

    Args:
        path: The file, as from `--hosts-file`; default: what `find_hosts_file` finds.
        environ: Where `${VAR}` and AXON_HOSTS are looked up; default: the environment of the process.

    Raises:
        ConfigurationError: There is no file, or it cannot be read.
        ConfigurationFaults: The file is wrong; carries all faults.
    """
    return read(path, environ).project


def read(path: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Loaded:
    """Load the settings and keep where each value came from; parameters and errors as for `load`."""
    environ = os.environ if environ is None else environ
    source = Path(path) if path else find_hosts_file(environ=environ)
    report = Report(_as_typed(source))
    content = _content(source)
    values = inherit(read_document(content, environ, report))
    settings = _validated(values, report)
    check_relations(values, report)
    if settings is None or report.faults:
        raise ConfigurationFaults(report.faults.values())
    return Loaded(_project(settings, source.absolute()), values, content)


def _content(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no file name"
        raise ConfigurationError(
            f"Cannot read {shown(str(source))}: {reason}.",
            hint=f"Name a readable file: --hosts-file=FILE or {VARIABLE}=FILE.",
        ) from None


def _as_typed(source: Path) -> str:
    relative = os.path.relpath(source.absolute())
    name = str(source) if relative.startswith("..") else relative
    return name if name.isprintable() else ascii(name)


def _validated(values: Block, report: Report) -> models.FileSettings | None:
    hosts = values.get("hosts")
    known = set(hosts) if isinstance(hosts, Block) else None
    context = {"hosts": known}
    if values.get("defaults") is not None:
        try:
            models.EnvironmentSettings.model_validate(values["defaults"], context=context)
        except ValidationError as error:
            # What is missing here is what the environments add.
            _note_all(error, ("defaults",), values, report, ignored="missing")
    try:
        rest = {key: value for key, value in values.items() if key != "defaults"}
        return models.FileSettings.model_validate(rest, context=context)
    except ValidationError as error:
        _note_all(error, (), values, report)
        return None


def _note_all(
    error: ValidationError,
    prefix: tuple[str, ...],
    values: Block,
    report: Report,
    *,
    ignored: str | None = None,
) -> None:
    for detail in error.errors(include_url=False)[:_MOST_FAULTS]:
        if detail["type"] != ignored:
            _note(detail, prefix, values, report)


def _note(detail: ErrorDetails, prefix: tuple[str, ...], values: Block, report: Report) -> None:
    """Translate one of pydantic's errors into a fault of the file."""
    location = (*prefix, *detail["loc"])
    named = _blames_name(location, values)
    if named:
        location = location[:-1]
    value, place = _locate(values, location)
    if detail["type"] == "missing":
        field = _model_at(location[:-1]).model_fields[str(location[-1])]
        report.add(place, "is missing", expected=field.description)
    elif detail["type"] == "extra_forbidden":
        known = list(_model_at(location[:-1]).model_fields)
        close = nearest(str(location[-1]), known)
        report.add(place, "unknown key", expected=None if close else listed(known), nearest=close)
    elif detail["type"] in _SHAPES:
        message, expected = _SHAPES[detail["type"]]
        report.add(place, "is empty" if value is None else message, expected=expected)
    else:
        _note_value(detail, None if named else value, place, report, named=named)


def _blames_name(location: tuple[str | int, ...], values: Block) -> bool:
    """Whether the fault is in the name of an entry: pydantic then adds `[key]`, which might also be a real name."""
    parent, _ = _locate(values, location[:-1])
    return location[-1:] == ("[key]",) and not (isinstance(parent, Block) and "[key]" in parent)


def _note_value(detail: ErrorDetails, value: object, place: Place, report: Report, *, named: bool) -> None:
    fault = detail.get("ctx", {}).get("error")
    if not isinstance(fault, ValueFault):
        fault = ValueFault(detail["msg"])
    if named:
        message = f"the name {fault.message}"
    elif isinstance(value, Scalar) and not fault.secret:
        message = f"{'the value' if value.expanded else shown(value)} {fault.message}"
    else:
        message = fault.message
    hidden = isinstance(value, Scalar) and value.expanded
    report.add(place, message, expected=fault.expected, nearest=None if hidden else fault.nearest)


def _locate(values: Block, location: tuple[str | int, ...]) -> tuple[object, Place]:
    """Find a value and its place; of what is missing, the place of the mapping that should hold it."""
    value: Any = values
    place = values.place
    for part in location:
        if isinstance(value, Block) and part in value:
            place = value.keys_at[str(part)]
            value = value[str(part)]
        elif isinstance(value, Items) and isinstance(part, int):
            place = value.items_at[part]
            value = value[part]
        else:
            return None, place._replace(path=(*place.path, part))
        place = getattr(value, "place", place)
    return value, place


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model that describes the mapping at a location."""
    annotation: Any = models.FileSettings
    for part in location:
        fields = getattr(annotation, "model_fields", None)
        annotation = fields[str(part)].annotation if fields else get_args(annotation)[-1]
        if get_origin(annotation) in {Union, UnionType}:
            annotation = get_args(annotation)[0]  # the other one is None
    return cast("type[BaseModel]", annotation)


def _project(settings: models.FileSettings, source: Path) -> Project:
    root = source.parent
    hosts = {
        name: _made(Host, host, name=name, key=_absolute(host.key, root))
        for name, host in settings.hosts.items()
    }
    environments = {
        name: _made(
            Environment, one, name=name, product=settings.product, registry=_registry(one.registry, root)
        )
        for name, one in settings.environments.items()
    }
    registry = settings.registry
    if registry is not None and registry.server is None:
        server = ImageReference.parse(settings.image).server
        registry = registry.model_copy(update={"server": server})
    return Project(
        product=settings.product,
        image=settings.image,
        registry=_registry(registry, root),
        hosts=hosts,
        environments=environments,
        known_hosts=_absolute(settings.known_hosts, root),
        source=source,
        root=root,
    )


def _registry(settings: models.RegistrySettings | None, root: Path) -> project.Registry | None:
    if settings is None:
        return None
    return _made(project.Registry, settings, password_file=_absolute(settings.password_file, root))


#: What becomes of the settings that others hold.
_MADE: dict[type[BaseModel], type[Any]] = {
    models.RegistrySettings: project.Registry,
    models.TlsSettings: project.Tls,
    models.LogOptionsSettings: project.LogOptions,
    models.ContainerSettings: project.Container,
    models.HealthSettings: project.Health,
    models.ReleaseCommandSettings: project.ReleaseCommand,
    models.HooksSettings: project.Hooks,
    models.NotifySettings: project.Notify,
    models.DrainSettings: project.Drain,
    models.MaintenanceSettings: project.Maintenance,
    models.NginxSettings: project.Nginx,
    models.PortRangeSettings: project.PortRange,
    models.BuildSettings: project.Build,
}


def _made(kind: type[T], settings: BaseModel, **more: object) -> T:
    """Make what tasks work with of what was written."""
    values = {name: _inner(getattr(settings, name)) for name in type(settings).model_fields}
    return kind(**values | more)


def _inner(value: Any) -> Any:
    return _made(_MADE[type(value)], value) if isinstance(value, BaseModel) else value


def _absolute(path: str | None, root: Path) -> Path | None:
    return None if path is None else root / os.path.expanduser(path)  # noqa: PTH111  (Path.expanduser raises for an unknown user)

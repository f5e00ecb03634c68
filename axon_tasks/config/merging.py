"""What an environment inherits: the project's image and registry, and `defaults`, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axon_tasks.config.document import Block, Scalar
from axon_tasks.config.faults import ValueFault
from axon_tasks.config.images import ImageReference

if TYPE_CHECKING:
    from axon_tasks.config.faults import Place


def inherit(document: Block) -> Block:
    """Put the project's image and registry, and `defaults`, under every environment.

    Args:
        document: The file, as it was read; it stays as it is.
    """
    inherited = Block(document.place)
    for key in ("image", "registry"):
        if key in document:
            _set(inherited, key, document[key], document.keys_at[key])
    _name_registry(inherited)
    defaults = document.get("defaults")
    if isinstance(defaults, Block):
        inherited = _merge(inherited, defaults)
    environments = document.get("environments")
    if not isinstance(environments, Block):
        return document
    merged = Block(environments.place)
    for name, environment in environments.items():
        value = _merge(inherited, environment) if isinstance(environment, Block) else environment
        if isinstance(value, Block):
            if value.get("image") is None and "image" in document:
                _set(
                    value, "image", document["image"], document.keys_at["image"]
                )  # `image: ~` takes others away
            _name_registry(value)
        _set(merged, name, value, environments.keys_at[name])
    top = Block(document.place)
    for key, value in document.items():
        _set(top, key, merged if key == "environments" else value, document.keys_at[key])
    return top


def _merge(below: Block, above: Block) -> Block:
    """Merge mappings key by key; of anything else, the upper value replaces the lower one."""
    merged = Block(above.place)
    for source in (below, above):
        for key, value in source.items():
            lower = merged.get(key)
            if isinstance(lower, Block) and isinstance(value, Block):
                value = _merge(lower, value)  # noqa: PLW2901  (what follows is the same for both)
            _set(merged, key, value, source.keys_at[key])
    return merged


def _set(block: Block, key: str, value: Any, place: Place) -> None:
    block[key] = value
    block.keys_at[key] = place


def _name_registry(block: Block) -> None:
    """Fill in the registry's server from the image beside it.

    This happens before anything is inherited: an environment that names an image elsewhere must not send the
    project's password there.
    """
    registry, image = block.get("registry"), block.get("image")
    if not isinstance(registry, Block) or "server" in registry or not isinstance(image, Scalar):
        return
    try:
        server = ImageReference.parse(image).server
    except ValueFault:
        return
    named = _merge(Block(registry.place), registry)
    _set(named, "server", Scalar(server, image.place, expanded=image.expanded), image.place)
    block["registry"] = named

"""Whatever a file holds: a project or a ConfigurationError, never anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_samples import FULL, SECRETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axon_tasks.config import Project, read
from axon_tasks.config.models import FileSettings
from axon_tasks.config.show import effective
from axon_tasks.errors import ConfigurationError

CANARY = "C4n4ry;'$(x)"

_FOLDER = Path(tempfile.mkdtemp(prefix="axon-config-"))

_YAML_BITS = st.sampled_from(
    [
        *(
            "a",
            "product",
            "hosts",
            "environments",
            "defaults",
            "prod",
            "app1",
            "shop",
            "${A}",
            "${",
            "$${",
            "~",
            "no",
        ),
        *(
            ": ",
            ":",
            "- ",
            "\n",
            "\n  ",
            "\n    ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "'",
            '"',
            "&a ",
            "*a",
            "<<: ",
            "!!x ",
            "!",
        ),
        *(
            "|",
            ">",
            "#",
            "%",
            "@",
            "`",
            "---",
            "...",
            "? ",
            "\t",
            "\r",
            "1.10",
            "0755",
            "22:22",
            "\x00",
            "\u2028",
            "é",
        ),
    ]
)

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 100_000),
    st.floats(),
    st.dates(),
    st.text(max_size=12),
    st.sampled_from(
        ["edge1", "app1", "a.io/shop", "shop.example.com", "/srv/x", "30s", "[key]", "${A}", "-x", "a;b", ""]
    ),
)

_KEYS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["product", "image", "hosts", "defaults", "environments", "registry", "known_hosts", "[key]"]
    ),
    st.sampled_from(
        [
            name
            for model in ("EnvironmentSettings",)
            for name in FileSettings.model_json_schema()["$defs"][model]["properties"]
        ]
    ),
)

_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=15,
)


def _outcome(data: bytes, environ: dict[str, str] | None = None) -> Project | ConfigurationError:
    path = _FOLDER / "hosts.yml"
    path.write_bytes(data)
    try:
        loaded = read(path, SECRETS if environ is None else environ)
    except ConfigurationError as error:
        return _told(error)
    for environment in loaded.project.environments.values():
        effective(loaded, environment)
    return loaded.project


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes(data: bytes) -> None:
    """Any bytes at all."""
    _outcome(data)


@given(st.lists(_YAML_BITS, max_size=40).map("".join))
def test_yaml_like(text: str) -> None:
    """Text made of what YAML's grammar is made of."""
    _outcome(text.encode())


@given(_TREES)
def test_any_values(tree: Any) -> None:
    """Well-formed YAML of any shape."""
    _outcome(yaml.safe_dump(tree, allow_unicode=True).encode())


def _told(error: ConfigurationError) -> ConfigurationError:
    assert str(error)
    assert 2 == error.code
    assert all(character.isprintable() or character == "\n" for character in str(error))
    return error


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every position in a tree, as a container and a key."""
    pairs = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [(value, key) for key, _ in pairs] + [place for _, inner in pairs for place in _places(inner)]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_values(data: st.DataObject) -> None:
    """A valid file in which any value was replaced by any other, or a key removed or added."""
    tree = yaml.safe_load(FULL)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_places(tree)))
        if isinstance(container, dict) and data.draw(st.booleans()):
            container[data.draw(_KEYS)] = container.pop(key)
        else:
            container[key] = data.draw(_TREES)
    _outcome(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode())


@given(data=st.data())
def test_mutated_text(data: st.DataObject) -> None:
    """A valid file with a piece cut out and another put in."""
    start = data.draw(st.integers(0, len(FULL)))
    end = data.draw(st.integers(start, min(len(FULL), start + 20)))
    _outcome(
        (FULL[:start] + data.draw(_YAML_BITS | st.text(max_size=5)) + FULL[end:]).encode("utf-8", "replace")
    )


@given(st.text(st.characters(exclude_characters="\0"), max_size=30))
def test_any_variable(value: str) -> None:
    """A variable with any content, in every place that holds text."""
    tree = yaml.safe_load(FULL)
    for container, key in _places(tree):
        if isinstance(container[key], str):
            container[key] = "${A}"
    _outcome(yaml.safe_dump(tree).encode(), {"A": value})


def _replaceable() -> list[int]:
    return list(range(len(_places(yaml.safe_load(FULL)))))


@pytest.mark.parametrize("index", _replaceable())
def test_variable_never_shown(index: int) -> None:
    """In whatever place a variable stands, no fault shows its value."""
    tree = yaml.safe_load(FULL)
    container, key = _places(tree)[index]
    container[key] = "${A}"
    outcome = _outcome(yaml.safe_dump(tree, sort_keys=False).encode(), SECRETS | {"A": CANARY})

    assert (
        "C4n4ry" not in str(outcome)
        if isinstance(outcome, ConfigurationError)
        else "C4n4ry" not in repr(outcome.registry)
    )


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30))
def test_secrets_arrive_unchanged(text: str) -> None:
    """A password from a variable arrives as it is, whatever YAML, shell or ${} characters it has, and is not shown."""
    project = _outcome(FULL.encode(), SECRETS | {"PASSWORD": text})

    assert isinstance(project, Project)
    assert project.registry is not None
    assert text == project.registry.password.reveal()


@pytest.fixture(scope="module", autouse=True)
def _clean() -> Any:
    yield
    (_FOLDER / "hosts.yml").unlink(missing_ok=True)
    _FOLDER.rmdir()

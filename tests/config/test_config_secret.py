from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest
from pydantic import BaseModel

from axon_tasks.config import MASK, Secret
from axon_tasks.config.models import RegistrySettings

TEXT = "correct-horse"


@pytest.mark.parametrize(
    "render", [str, repr, "{}".format, "{:>20}".format, "{!r}".format, lambda s: f"{[s]}", ascii]
)
def test_never_rendered(render: object) -> None:
    """No way to turn a secret into text shows it."""
    rendered = render(Secret(TEXT))  # type: ignore[operator]

    assert TEXT not in rendered
    assert MASK in rendered


def test_reveal() -> None:
    """Asking for it by name gives the text."""
    assert TEXT == Secret(TEXT).reveal()


def test_not_json() -> None:
    """JSON refuses it instead of leaking it."""
    with pytest.raises(TypeError):
        json.dumps(Secret(TEXT))


def test_not_pickled() -> None:
    """A pickle would carry the text, so there is none."""
    with pytest.raises(TypeError):
        pickle.dumps(Secret(TEXT))


def test_model_dump() -> None:
    """A model's JSON has the mask, and its fields keep the secret."""
    registry = RegistrySettings(server="a.io", username="u", password=TEXT)  # type: ignore[arg-type]

    assert f'"password":"{MASK}"' in registry.model_dump_json()
    assert TEXT not in registry.model_dump_json()
    assert Secret(TEXT) == registry.password
    assert TEXT not in repr(registry)
    assert TEXT not in repr(registry.model_dump())


def test_copies() -> None:
    """Invoke copies its configuration deeply; a secret survives that."""
    secret = Secret(TEXT)

    assert secret == copy.copy(secret) == copy.deepcopy([secret])[0]


def test_equality() -> None:
    """Secrets compare by their text and never equal a plain text."""
    assert Secret(TEXT) == Secret(TEXT)
    assert hash(Secret(TEXT)) == hash(Secret(TEXT))
    assert Secret(TEXT) != Secret("other")
    assert Secret(TEXT) != TEXT
    assert Secret("\u00e9") != Secret("e")


def test_truth() -> None:
    """An empty secret is false, like an empty text."""
    assert (True, False) == (bool(Secret("x")), bool(Secret("")))


def test_no_attribute_shows_it() -> None:
    """There is no __dict__ that a debugger or `vars` would print."""
    assert not hasattr(Secret(TEXT), "__dict__")


@pytest.mark.parametrize("value", [12345, None, [TEXT], {"a": TEXT}, TEXT + "\ud800"])
def test_refusal_is_silent(value: object) -> None:
    """What is no secret is refused without showing it."""

    class Model(BaseModel):
        secret: Secret

    with pytest.raises(ValueError) as caught:  # noqa: PT011  (pydantic's error is a ValueError; its text is asserted)
        Model.model_validate({"secret": value})
    fault = caught.value.errors()[0]["ctx"]["error"]  # type: ignore[attr-defined]

    assert TEXT not in str(fault)
    assert TEXT not in "".join(traceback.format_exception(fault))

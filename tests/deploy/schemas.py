"""What tasks print as JSON, held against the schema that goes with it."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema


def conforming(name: str, text: str) -> Any:
    """Read a document, which must have the shape of `report/schemas/NAME.json`."""
    schema = json.loads((resources.files("axon_tasks.report") / "schemas" / f"{name}.json").read_text())
    document = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document

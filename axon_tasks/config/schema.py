"""The JSON schema of `hosts.yml`, for completion and warnings in editors."""

from __future__ import annotations

import json
from typing import Any

from axon_tasks.config.models import FileSettings

#: The JSON schema dialect that editors' YAML servers know best.
_DIALECT = "http://json-schema.org/draft-07/schema#"


def hosts_schema() -> dict[str, Any]:
    """Return the schema, derived from the models that check the file.

    It is looser than they are in one respect: an environment may leave out what `defaults` has, which a schema
    cannot express.
    """
    schema = FileSettings.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    definitions["EnvironmentSettings"].pop("required")
    return {"$schema": _DIALECT, **schema, "title": "hosts.yml of axon-tasks", "definitions": definitions}


def schema_text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(hosts_schema(), indent=2) + "\n"

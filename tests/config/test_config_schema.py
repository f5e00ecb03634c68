from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_samples import FULL

import axon_tasks.config
from axon_tasks.config.schema import hosts_schema, schema_text

COMMITTED = Path(axon_tasks.config.__file__).with_name("hosts.schema.json")


def test_current() -> None:
    """The committed schema is the one that the models give: `invoke config.schema --out=...` renews it."""
    assert schema_text() == COMMITTED.read_text(encoding="utf-8")


def test_shipped_file_names_it(pytestconfig: pytest.Config) -> None:
    """The first line of hosts.yml leads editors to the schema."""
    first = (pytestconfig.rootpath / "hosts.yml").read_text().splitlines()[0]

    assert f"# yaml-language-server: $schema={COMMITTED.relative_to(pytestconfig.rootpath)}" == first


def _problems(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """What a JSON schema has against a value; knows the keywords that ours uses, and refuses others."""
    known = {
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "default",
        "definitions",
        "description",
        "enum",
    }
    known |= {
        "items",
        "maximum",
        "minimum",
        "pattern",
        "properties",
        "propertyNames",
        "required",
        "title",
        "type",
    }
    assert set(schema) <= known, schema
    if "$ref" in schema:
        return _problems(value, hosts_schema()["definitions"][schema["$ref"].rpartition("/")[2]], path)
    found = []
    if "anyOf" in schema and all(_problems(value, option, path) for option in schema["anyOf"]):
        found += [path, *_problems(value, schema["anyOf"][0], path)]
    if "enum" in schema and value not in schema["enum"]:
        found.append(path)
    types = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(
        value is None if kind == "null" else isinstance(value, types[kind]) for kind in kinds
    ):
        found.append(path)
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(path)
    if isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get(
        "maximum", value
    ):
        found.append(path)
    if isinstance(value, list):
        found += [p for part in value for p in _problems(part, schema.get("items", {}), f"{path}[]")]
    if isinstance(value, dict):
        found += [f"{path}.{key}" for key in schema.get("required", []) if key not in value]
        for key, part in value.items():
            other = schema.get("additionalProperties", {})
            rule = schema.get("properties", {}).get(key, other)
            found += [f"{path}.{key}"] if rule is False else _problems(part, rule, f"{path}.{key}")
    return found


def _schema_problems(text: str) -> list[str]:
    return _problems(yaml.safe_load(text), hosts_schema())


def test_accepts_valid_files(pytestconfig: pytest.Config) -> None:
    """An editor has nothing against files that load, with every kind of setting in them."""
    assert [] == _schema_problems((pytestconfig.rootpath / "hosts.yml").read_text())
    assert [] == _schema_problems(FULL)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("product: shop", "produkt: shop", ".produkt"),
        ("product: shop", "x: y", ".product"),
        ("expect_status: 204", "expect_state: 204", ".defaults.health.expect_state"),
        ("switch: reload", "switch: relod", ".environments.prod.switch"),
        ("switch: reload", "tag: 1.10", ".environments.prod.tag"),
        ("interval: 250ms", "interval: soon", ".environments.prod.health.interval"),
        ("port: 2222", "port: 222222", ".hosts.app1.port"),
        ("system: [edge1], app: [app2]", "system: edge1, app: [app2]", ".environments.staging.system"),
    ],
)
def test_refuses(old: str, new: str, path: str) -> None:
    """An editor marks unknown keys, missing ones and values of the wrong kind."""
    assert path in _schema_problems(FULL.replace(old, new, 1))


def test_every_setting_is_described() -> None:
    """Each setting says what it is for; durations and sizes name their unit."""
    schema = hosts_schema()
    for model in (schema, *schema["definitions"].values()):
        for name, field in model["properties"].items():
            assert field.get("description"), name
            if name in {
                "timeout",
                "interval",
                "probe_timeout",
                "stop_timeout",
                "connect_timeout",
                "proxy_timeout",
            }:
                assert "seconds" in field["description"], name
            if name in {"memory", "max_size", "client_max_body_size"}:
                assert "bytes" in field["description"], name


def test_is_json() -> None:
    """The schema is JSON with a dialect."""
    assert "http://json-schema.org/draft-07/schema#" == json.loads(schema_text())["$schema"]

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from config_samples import FULL, SECRETS, VALID
from invoke import Context

from axon_tasks.config import MASK, ConfigurationFaults, read
from axon_tasks.config.schema import schema_text
from axon_tasks.config.show import Row, effective
from axon_tasks.errors import UsageError
from axon_tasks.tasks import config as tasks

Writer = Callable[[str], Path]


@pytest.fixture
def rows(write: Writer) -> dict[str, Row]:
    text = FULL + '    tag: "${TAG:-v3}"\n'
    text = text.replace(
        "command: [serve,", 'labels: {a: "${LABEL}", b: plain}\n      command: [serve, "${TOKEN}",'
    )
    loaded = read(write(text), SECRETS | {"LABEL": "s3cret", "TOKEN": "s3cret"})
    return {row.path: row for row in effective(loaded, loaded.project.environment("prod"))}


@pytest.mark.parametrize(
    ("path", "value", "origin"),
    [
        ("product", "shop", "hosts.yml:1"),
        ("image", "other.example.com/shop", "hosts.yml:21"),
        ("tag", "v3", "hosts.yml:31"),
        ("health.timeout", 60.0, "defaults hosts.yml:12"),
        ("health.interval", 0.25, "hosts.yml:29"),
        ("health.expect_status", [200, 204], "hosts.yml:29"),
        ("health.path", "/", "built-in default"),
        ("aliases", ["www.example.com", "m.example.com"], "defaults hosts.yml:10"),
        ("tls.key", "/etc/ssl/a.key", "defaults hosts.yml:13"),
        ("container.env.A", MASK, "defaults hosts.yml:11"),
        ("container.env.B", MASK, "hosts.yml:24"),
        ("container.labels.a", MASK, "hosts.yml:25"),
        ("container.labels.b", "plain", "hosts.yml:25"),
        ("container.command", ["serve", MASK, "--port", "8080"], "hosts.yml:26"),
        ("container.cpus", "1.50", "hosts.yml:27"),
        ("container.log.max_size", "10m", "built-in default"),
        ("registry.username", "deploy", "hosts.yml:3"),
        ("registry.password", MASK, "hosts.yml:3"),
        ("registry.server", "registry.example.com:5000", "hosts.yml:2"),
        ("hosts.edge1.passphrase", MASK, "hosts.yml:6"),
        ("hosts.app2.connect_timeout", 3.0, "hosts.yml:8"),
        ("hosts.app1.user", "deploy", "hosts.yml:7"),
        ("hosts.app1.host_keys", "strict", "built-in default"),
    ],
)
def test_effective(rows: dict[str, Row], path: str, value: object, origin: str) -> None:
    """Each setting is shown with its value, secrets masked, and with the line that set it."""
    assert Row(path, value, origin) == rows[path]


def test_no_secret(rows: dict[str, Row]) -> None:
    """No secret is in any row, and neither is free text that came from a variable."""
    text = json.dumps([(row.path, row.value, row.origin) for row in rows.values()])

    for secret in ("hunter2", "opensesame", "s3cret", "three"):
        assert secret not in text


def test_every_setting_once(write: Writer) -> None:
    """A short file shows every setting there is, so that defaults can be looked up."""
    loaded = read(write(VALID), {})
    paths = [row.path for row in effective(loaded, loaded.project.environment("prod"))]

    assert len(paths) == len(set(paths))
    assert {
        "switch",
        "drain.timeout",
        "nginx.directory",
        "ports.last",
        "container.init",
        "hosts.edge1.jump",
    } <= set(paths)


def test_validate(write: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    """A valid file is summed up in one line."""
    tasks.validate(Context(), hosts_file=str(write(VALID)))

    assert "hosts.yml: valid: product shop, environments prod, hosts edge1, app1\n" == capsys.readouterr().out


def test_validate_faults(write: Writer) -> None:
    """A faulty file ends with exit code 2."""
    with pytest.raises(ConfigurationFaults) as caught:
        tasks.validate(Context(), hosts_file=str(write(VALID + "x: y\n")))

    assert 2 == caught.value.code


def test_show(write: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has one line for each setting: path, value, origin."""
    tasks.show(Context(), env="prod", hosts_file=str(write(VALID)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]

    assert ["environment", "prod"] == lines[0]
    assert ["health.timeout", "60", "defaults", "hosts.yml:7"] in lines
    assert ["tls", "-", "built-in", "default"] in lines
    assert ["container.init", "false", "built-in", "default"] in lines
    assert ["system", "edge1", "hosts.yml:10"] in lines


def test_show_json(write: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives the same for programs, by environment."""
    tasks.show(Context(), env="prod", hosts_file=str(write(VALID)), json=True)
    shown = json.loads(capsys.readouterr().out)

    assert {"path": "domain", "value": "shop.example.com", "origin": "hosts.yml:12"} in shown["prod"]


@pytest.mark.parametrize("env", ["", "prd"])
def test_show_needs_environment(write: Writer, env: str) -> None:
    """A missing or unknown environment is wrong usage and lists those that exist."""
    with pytest.raises(UsageError, match="Known environments: prod") as caught:
        tasks.show(Context(), env=env, hosts_file=str(write(VALID)))

    assert 2 == caught.value.code


def test_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The schema goes to standard output, or to a file."""
    tasks.schema(Context())
    assert schema_text() == capsys.readouterr().out

    tasks.schema(Context(), out=str(tmp_path / "x.json"))
    assert schema_text() == (tmp_path / "x.json").read_text()


def test_schema_cannot_write(tmp_path: Path) -> None:
    """A file that cannot be written is told as such."""
    with pytest.raises(UsageError, match="Cannot write"):
        tasks.schema(Context(), out=str(tmp_path / "no" / "x.json"))


def test_task_module_is_light() -> None:
    """Importing the task module loads none of the heavy libraries, so that listing tasks stays fast."""
    heavy = ["pydantic", "pydantic_core", "jinja2", "rich", "paramiko", "fabric", "axon_tasks.config"]
    code = f"import sys, axon_tasks.tasks.config; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]\n" == result.stdout


def test_command_line(write: Writer, tmp_path: Path) -> None:
    """From the command line a faulty file gives exit code 2 and the faults on stderr, without a traceback."""
    (tmp_path / "tasks.py").write_text(
        "from invoke import Collection\nfrom axon_tasks.tasks import config\nns = Collection(config.namespace)\n"
    )
    write(VALID + "x: y\n")
    result = subprocess.run(
        [sys.executable, "-m", "invoke", "config.validate"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == result.returncode
    assert "hosts.yml:13: x: unknown key" in result.stderr
    assert "Traceback" not in result.stderr

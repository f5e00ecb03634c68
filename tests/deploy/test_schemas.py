"""What tasks print as JSON without asking a server has the shape that is written down for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from schemas import conforming

from axon_tasks.deploy import timeline as runs

PROJECT = Path(__file__).resolve().parents[2]


def said(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "fab"), *words],
        cwd=PROJECT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
        env=os.environ,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_settings_in_force() -> None:
    """config.show tells each setting of each environment with its path, value and origin."""
    shown = conforming("config.show", said("config.show", "--env=staging,prod", "--json"))
    assert {"staging", "prod"} == set(shown)
    assert {"path": "maintenance.retry_after", "value": 120.0, "origin": "built-in default"} in shown["prod"]


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    """A project with a run that ended, one that was killed, and a damaged one."""
    (tmp_path / "hosts.yml").write_text("x\n")
    for ends in (True, False):
        recorder = runs.Recorder(command="fab deploy --env=prod", folder=tmp_path)
        span = recorder.begin("environment", "prod", environment="prod")
        step = recorder.begin("step", "lock", parent=span, environment="prod", needs=("a",))
        recorder.end(
            recorder.begin("batch", "lock", parent=step, environment="prod", server="edge1"), round_trips=1
        )
        if ends:
            recorder.end(step, outcome="failed", note="why")
            recorder.finish(outcome="failed", exit_code=1)
        else:
            recorder.save_soon()
    broken = runs.runs_folder(tmp_path) / "20200101-000000-1" / runs.FILE_NAME
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    return f"--hosts-file={tmp_path / 'hosts.yml'}"


def test_timelines(recorded: str) -> None:
    """The list and each run that can be read, ended or not."""
    listed = conforming("timeline", said("timeline", "--list", "--json", recorded))
    whole = [one["run"] for one in listed if not one["broken"]]
    assert (True, True) == (len(whole) >= 1, len(listed) > len(whole))
    for run in whole:
        assert run == conforming("timeline", said("timeline", f"--run={run}", "--json", recorded))["run"]


def test_every_schema_is_one() -> None:
    """Each is a valid JSON schema, refuses what it does not know, and stands in the file of its task."""
    folder = resources.files("axon_tasks.report") / "schemas"
    names = [Path(str(one)).stem for one in folder.iterdir() if str(one).endswith(".json")]
    assert {"timeline", "cleanup", "config.show", "maintenance", "lock", "status"} <= set(names)
    for name in names:
        schema = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate({"x": 1})

"""`fab timeline`, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from timeline_samples import record

from axon_tasks.deploy import timeline as runs

BIN = Path(sys.executable).parent


def fab(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `fab` as a user does, with output that is no terminal."""
    return subprocess.run(
        [str(BIN / "fab"), *words],
        cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
        env={**os.environ, "COLUMNS": "100", **env},
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of three runs and a damaged one; its hosts.yml need not be valid for that."""
    (tmp_path / "hosts.yml").write_text("not: valid\n")
    (tmp_path / "fabfile.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    broken = runs.runs_folder(tmp_path) / "20200101-000000-1" / runs.FILE_NAME
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    record(tmp_path, ("staging", "prod"))
    record(tmp_path, failing="start")
    record(tmp_path)
    return tmp_path


def test_the_last_run_is_drawn(project: Path) -> None:
    """Without a flag the last run's chart is printed, without colour where nobody watches; a folder below will do."""
    (project / "below").mkdir()
    said = fab("timeline", cwd=project / "below")
    assert (0, "") == (said.returncode, said.stderr)
    assert "ok after 1.20 s" in said.stdout
    assert "critical path: connect app2 0.17" in said.stdout
    assert "\x1b" not in said.stdout


def test_a_run_and_an_environment_are_chosen(project: Path) -> None:
    """`--run` takes a place counted from the last, `--env` one of the run's environments."""
    assert "failed (exit code 1)" in fab("timeline", "--run=-2", cwd=project).stdout
    said = fab("timeline", "--run=-3", "--env=prod", cwd=project).stdout
    assert "fab deploy --env=staging,prod" in said
    assert "critical path of staging" not in said


def test_the_list_marks_what_cannot_be_read(project: Path) -> None:
    """Every run has a line, the newest first, and a damaged one says what is wrong with it; JSON has the same."""
    lines = fab("timeline", "--list", cwd=project).stdout.splitlines()
    assert [["ok"], ["failed", "(1)"], ["ok"]] == [
        line.split()[3 : 5 if "failed" in line else 4] for line in lines[:3]
    ]
    assert ["20200101-000000-1", "broken", "it", "is", "no", "JSON"] == lines[3].split()
    listed = json.loads(fab("timeline", "--list", "--json", cwd=project).stdout)
    assert ["", "", "", "is no JSON"] == [one["broken"] for one in listed]


def test_files_are_written_where_they_are_named(project: Path) -> None:
    """One call can write the page and the trace and print JSON; what it says beside that goes to the other stream."""
    said = fab("timeline", "--html=run.html", "--chrome=run.json", "--json", cwd=project)
    assert ["run.html: written", "run.json: written"] == said.stderr.splitlines()
    assert (project / "run.html").read_text().startswith("<!DOCTYPE html>")
    spans = json.loads(said.stdout)["spans"]
    events = json.loads((project / "run.json").read_text())["traceEvents"]
    assert len(spans) == len([one for one in events if one["ph"] == "X"])


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--run=2019"], 2, "No run begins with '2019'"),
        (["--run=-5"], 2, "There are only 4 runs"),
        (["--env=demo"], 2, "did not work on demo; its environments: prod."),
        (["--run=20200101"], 1, "timeline.json: it is no JSON."),
        (["--html=nowhere/run.html"], 2, "Cannot write 'nowhere/run.html'"),
        (["--hosts-file=nothing.yml"], 2, "There is no file nothing.yml"),
    ],
)
def test_what_cannot_be_meant_is_told(project: Path, words: list[str], code: int, expected: str) -> None:
    """A message and what to type next, with the exit code of its kind, and never a traceback."""
    said = fab("timeline", *words, cwd=project)
    assert (code, True) == (said.returncode, expected in said.stderr), said.stderr
    assert "Traceback" not in said.stderr
    assert "\n  " in said.stderr


def test_a_terminal_without_unicode_is_no_obstacle(project: Path) -> None:
    """Where only ASCII can be written, the chart is ASCII."""
    said = fab("timeline", cwd=project, PYTHONIOENCODING="ascii")
    assert (0, True) == (said.returncode, said.stdout.isascii())
    assert "####" in said.stdout


def test_a_newcomer_learns_what_records_a_run(tmp_path: Path) -> None:
    """Without any run the message names the command that makes one, and the list is no failure."""
    (tmp_path / "hosts.yml").write_text("")
    (tmp_path / "fabfile.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    said = fab("timeline", cwd=tmp_path)
    assert (2, True) == (said.returncode, "fab deploy --env=NAME" in said.stderr)
    listed = fab("timeline", "--list", cwd=tmp_path)
    assert (0, True) == (listed.returncode, "No run has been recorded" in listed.stdout)

"""The command line: help, wrong usage, exit codes, start-up."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def call(program: str, *words: str, cwd: Path = PROJECT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `fab` or `invoke` as a user does."""
    return subprocess.run(
        [str(BIN / program), *words],
        cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
        env={**os.environ, "COLUMNS": "80", **env},
    )  # fmt: skip


@pytest.mark.parametrize("program", ["fab", "invoke"])
def test_both_programs_list_every_task_with_one_line(program: str) -> None:
    """Each task has one line that says what it does, and none needs a second one in 80 columns."""
    said = call(program, "--list")
    lines = [line for line in said.stdout.splitlines() if line.startswith("  ")]
    names = {line.split()[0] for line in lines}
    assert {"deploy", "demo", "bench", "steps.inspect", "steps.retire", "config.validate", "lab.up"} <= names
    assert [] == [line for line in lines if not re.match(r"  [a-z][\w.-]+ +(\([\w, ]+\) +)?[A-Z].*\.$", line)]


def test_help_has_examples_and_exit_codes() -> None:
    """`fab --help deploy` shows how to call it and what its exit codes mean."""
    said = call("fab", "--help", "deploy").stdout
    for words in ("fab deploy --env=prod --tag=v2", "Exit codes:", "--env=STRING"):
        assert words in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["deploy"], "--env is missing"),
        (["deploy", "--evn=prod"], "Did you mean --env?"),
        (["deplyo"], "Did you mean deploy?"),
        (["deploy", "--env=prdo"], "Did you mean prod?"),
        (["deploy", "--env=prod", "--tag="], "neither a tag nor a digest"),
        (["deploy", "--env=prod", "--tag=a b"], "neither a tag nor a digest"),
        (["deploy", "--env=prod", "--tag=$(id)"], "neither a tag nor a digest"),
        (["deploy", "--env=prod", "v2"], "there is no 'v2'"),
        (["-H", "10.77.0.10", "deploy", "--env=prod"], "takes its servers from hosts.yml"),
        (["steps.pull", "--env=nowhere"], "nowhere"),
        (["history", "--env=prod", "--limit=0"], "a whole number from 1"),
        (["history", "--env=prod", "--limit="], "a whole number from 1"),
        (["rollback", "--env=prod", "--to=v1"], "the id of a release is needed"),
        (["rollback", "--env=prod,staging"], "takes one environment"),
        (["push", "--env=prod", "--tag=v1", "--push=scp"], "registry or ssh is needed"),
        (["build", "--env=prod", "--tag=v1"], "Dockerfile to build from"),
        (["build", "--env=prod", "--tag=a b"], "neither a tag nor a digest"),
        (["ship", "--env=prod", "--tag=v1", "--wait-lock=soon"], "a duration is needed"),
        (["ship", "--env=prod,staging"], "takes one environment"),
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], expected: str) -> None:
    """A wrong flag, task, environment or tag is told with the nearest right one, and nothing is contacted."""
    said = call("fab", *words)
    assert (2, True) == (said.returncode, expected in said.stderr), said.stderr
    assert "Traceback" not in said.stderr


def test_no_hosts_file(tmp_path: Path) -> None:
    """Without a hosts.yml the message says where one was looked for."""
    (tmp_path / "fabfile.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    said = call("fab", "deploy", "--env=prod", cwd=tmp_path)
    assert (2, True) == (said.returncode, "hosts.yml" in said.stderr), said.stderr


def test_a_fabfile_of_ones_own_needs_two_lines(tmp_path: Path) -> None:
    """The two lines of the README mount every task."""
    (tmp_path / "fabfile.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    assert call("fab", "--list", cwd=PROJECT).stdout == call("fab", "--list", cwd=tmp_path).stdout


def test_every_fault_of_the_configuration_is_told_with_its_line(tmp_path: Path) -> None:
    """A wrong hosts.yml ends with 2 and all of its faults; no server is contacted."""
    (tmp_path / "hosts.yml").write_text(
        "product: shop\nimage: r.test/shop\nhosts:\n  web: {address: 192.0.2.1, prot: 22}\n"
        "environments:\n  prod: {system: [web], app: [wbe], domain: shop.test, switch: slot}\n"
    )
    said = call("fab", "deploy", "--env=prod", f"--hosts-file={tmp_path / 'hosts.yml'}")
    assert 2 == said.returncode
    for words in ("hosts.yml:4", "port", "hosts.yml:6", "wbe", "slots"):
        assert words in said.stderr


def test_start_up_imports_nothing_heavy() -> None:
    """Listing tasks loads neither the settings' models nor templates, nor our SSH layer."""
    code = (
        "import sys; from axon_tasks.tasks import namespace; namespace();"
        "heavy = {'pydantic', 'jinja2', 'axon_tasks.config.models', 'axon_tasks.remote.connection',"
        " 'axon_tasks.deploy.run', 'axon_tasks.lab.lab'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert "[]" == said.stdout.strip()


@pytest.mark.lab
def test_after_lab_up_there_is_something_to_deploy(lab: object) -> None:
    """Right after `invoke lab.up`, the registry has two versions that work and one that never gets healthy."""
    said = call("invoke", "lab.up")
    assert 0 == said.returncode, said.stderr
    registry = http.client.HTTPConnection("10.77.0.5", 5000, timeout=20)
    registry.request("GET", "/v2/shop/tags/list")
    assert {"v1", "v2", "sick", "crash"} <= set(json.loads(registry.getresponse().read())["tags"])
    assert "fab deploy --env=prod --tag=v1" in said.stdout

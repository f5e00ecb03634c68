"""What the doctor makes of what servers say: what is well, what is not, and what mends it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from axon_tasks.config import load
from axon_tasks.deploy import doctor
from axon_tasks.deploy.doctor import FAILED, OK, WARNING, Answer, Check
from axon_tasks.lab.hostile import answers
from axon_tasks.report import doctor as report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from axon_tasks.config import Environment

TEXT = """
product: shop
image: registry.test:5000/shop
hosts: {edge1: {address: 10.0.0.1}, app1: {address: 10.0.0.21}}
environments: {prod: {system: [edge1], app: [app1], domain: shop.test, env_file: /srv/env}}
"""
NOW = 1795600860
SOUND = {
    "host": f"epoch={NOW}\nuser=deploy\nclient=curl\n", "root": "0\n", "docker": "version=24.0.5\nfree=9000000\n",
    "prod: writable": "writable=yes\n", "prod: nginx": "version=1.22.1\n", "prod: running": "running=yes\n",
    "prod: included": "included=yes\n", "prod: state": "slot=a\n", "prod: listens": "listens=80 nginx\n",
    "prod: env_file": "ok\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment prod of the product shop."""
    path: Path = tmp_path_factory.mktemp("doctor") / "hosts.yml"
    path.write_text(TEXT)
    return load(path).environment("prod")


def judged(prod: Environment, server: str, said: Mapping[str, str], **codes: int) -> list[Check]:
    batch = doctor.doctor_batch([prod], server)
    told = answers.answered(
        batch, server, {**SOUND, **said}, {"prod: " + k if k == "listens" else k: v for k, v in codes.items()}
    )
    return list(doctor.judge(Answer(server, told, NOW - 1, 2.0), [prod]))


@pytest.mark.parametrize("server", ["edge1", "app1"])
def test_all_is_well(prod: Environment, server: str) -> None:
    """A server that has everything has no finding, and nothing to mend."""
    found = judged(prod, server, {})
    assert ({OK}, {""}) == ({one.verdict for one in found}, {one.fix for one in found}), found


@pytest.mark.parametrize(
    ("server", "said", "name", "verdict", "words"),
    [
        ("app1", {"host": f"epoch={NOW}\nmissing=flock\nmissing=awk\nclient=curl"}, "programs", FAILED, "flock, awk"),
        ("app1", {"host": f"epoch={NOW}\nclient=none"}, "programs", FAILED, "no HTTP client"),
        ("app1", {"host": f"epoch={NOW + 60}\nclient=curl"}, "clock", WARNING, "by 59 s"),
        ("app1", {"host": f"epoch={NOW - 60}\nclient=curl"}, "clock", WARNING, "by 58 s"),
        ("app1", {"host": "epoch=soon\nclient=curl"}, "clock", WARNING, "does not say"),
        ("app1", {"docker": "version=19.03.1\nfree=9000000"}, "docker", WARNING, "older"),
        ("app1", {"docker": "version=new\nfree=9000000"}, "docker", WARNING, "older"),
        ("app1", {"docker": "version=24.0\nfree=900000"}, "disk", FAILED, "0.9 GiB"),
        ("app1", {"docker": "version=24.0\nfree=3000000"}, "disk", WARNING, "2.9 GiB"),
        ("app1", {"prod: writable": "writable=/var/lib"}, "state", FAILED, "/var/lib"),
        ("app1", {"prod: ports": "taken=30000\ntaken=30001\n"}, "ports", FAILED, "30000, 30001"),
        ("app1", {"prod: env_file": "missing\n"}, "env file", FAILED, "/srv/env is missing"),
        ("edge1", {"root": "1000\n"}, "privileges", FAILED, "another user than root"),
        ("edge1", {"prod: nginx": "version=1.10.3\n"}, "nginx", WARNING, "older"),
        ("edge1", {"prod: running": "running=no\n"}, "nginx", FAILED, "does not run"),
        ("edge1", {"prod: included": "included=no\n"}, "includes", FAILED, "does not include"),
        ("edge1", {"prod: valid": "broken=[emerg] unknown directive\n"}, "configuration", FAILED, "unknown directive"),
        ("edge1", {"prod: listens": "listens=80 apache2\n"}, "port", FAILED, "80 is taken by apache2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once(
    prod: Environment, server: str, said: Mapping[str, str], name: str, verdict: str, words: str
) -> None:
    """With its verdict, what was found, and what mends it; everything else is well."""
    wrong = [one for one in judged(prod, server, said) if one.verdict != OK]
    assert [(name, verdict, True)] == [(one.name, one.verdict, words in one.told) for one in wrong], wrong
    assert wrong[0].fix or "does not say" in words


def test_a_question_that_could_not_be_answered(prod: Environment) -> None:
    """It is a finding in itself, in the words that explain a failed deploy, and hides no other."""
    said = {"docker": "docker: command not found", "root": "sudo: a password is required"}
    [one] = [one for one in judged(prod, "app1", said, docker=127) if one.verdict == FAILED]
    assert ("docker", True) == (one.name, "Docker is not installed" in one.told), one
    [one] = [one for one in judged(prod, "edge1", said, root=1) if one.verdict == FAILED]
    assert ("privileges", True) == (one.name, "sudo refuses" in one.told), one


def test_a_report() -> None:
    """One line per check, below it what mends it, and how many there are of each kind; as JSON, the same."""
    checks = [
        Check("edge1", "prod", "nginx", OK, "1.22.1 runs"),
        Check("app1", "", "clock", WARNING, "differs by 9 s", "Set it."),
        Check("app1", "", "disk", FAILED, "full\x1b[2J", "Free some."),
    ]
    assert (
        "edge1  ok       prod nginx  1.22.1 runs\n"
        "app1   warning  clock       differs by 9 s\n"
        "                Set it.\n"
        "app1   failed   disk        full\n"
        "                Free some.\n"
        "\n1 ok, 1 warning, 1 failed"
    ) == report.text(io.StringIO(), checks)
    assert ["ok", "warning", "failed"] == [
        one["verdict"] for one in json.loads(report.as_json(checks))["checks"]
    ]

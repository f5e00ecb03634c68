"""Deployments with secrets of every kind, watched on all hosts of the lab."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from axon_tasks.lab import leaks, sampler
from axon_tasks.lab.sampler import Needles, Sampler, Watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def secretive(lab: Lab) -> Iterator[leaks.Secretive]:
    """A product with secrets of every kind."""
    with leaks.secretive(lab) as made:
        yield made


def test_no_secret_leaks_in_success_and_failure(secretive: leaks.Secretive) -> None:
    """Deploys that succeed and that fail, dry runs and looks leave no secret in a process, a file or an output."""
    for name, words, code in leaks.stories():
        seen = secretive.watch(*words)
        assert (name, code, []) == (name, seen.code, [str(leak) for leak in seen.leaks]), seen.out
        if words[0] == "deploy" and code == 0 and "--dry-run" not in words:
            # Otherwise the moments that matter were not looked at.
            assert {"docker login", "docker pull", "docker run"} <= seen.seen


def test_no_secret_leaks_when_it_goes_wrong(secretive: leaks.Secretive) -> None:
    """A registry that refuses, SIGKILL during the pull, and a user that is not root: nothing leaks, no login is left."""
    for name, seen, code in leaks.failures(secretive):
        assert (name, code, []) == (name, seen.code, [str(leak) for leak in seen.leaks]), seen.out
    assert [] == secretive.logins()


def test_the_application_has_its_variables(secretive: leaks.Secretive, lab: Lab) -> None:
    """The values arrive where they belong: in the container's environment, which is why Docker's files are left out."""
    secretive.write()
    assert 0 == secretive.watch("deploy", "--env=prod", f"--tag={secretive.made.other()}", "--wait").code
    container = secretive.made.containers("app1")[0]
    inside = lab.exec("app1", ["docker", "exec", container, "/app/busybox", "env"]).stdout.splitlines()
    assert f"TOKEN={secretive.variable.text}" in inside
    assert f"FILED={secretive.filed.text}" in inside


def test_a_planted_secret_is_found_on_a_lab_host(lab: Lab) -> None:
    """Negative control: in the arguments of a process of a host, in its files, and in its memory file system."""
    planted = Watched("planted", "planted-4711-$(id)")
    needles, began = Needles([planted]), time.time() - 1
    paths = (
        "/var/lib/planted",
        "/tmp/planted",
        "/run/planted",
        "/srv/planted",
        "/root/.bash_history.planted",
    )
    argv = [*lab.enter("app1"), "sh", "-c", "read x", "sh", planted.text]
    with Sampler(needles) as looking, subprocess.Popen(argv, stdin=subprocess.PIPE) as running:
        for path in paths:
            lab.exec("app1", f"cat >{path}", stdin=f"x{planted.text}")
        deadline = time.monotonic() + 20
        while not any("'sh'" in leak.where for leak in looking.leaks):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.communicate()
    found = {leak.where for leak in sampler.search(needles, sampler.places(lab), since=began)}
    lab.exec("app1", ["rm", "-f", *paths])
    missing = [path for path in paths if not any(where.endswith(path.rpartition("/")[2]) for where in found)]
    assert ([], len(paths)) == (missing, len(found)), found

"""A secret that is where it must not be is found, whatever its form."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.parse
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.lab import sampler
from axon_tasks.lab.sampler import Leak, Needles, Sampler, Watched

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the sampler reads Linux's /proc")

SECRET = Watched("it", "pw-4711'\"$(id)+/=%ü")
NEEDLES = Needles([SECRET])
WRITTEN = {
    "as it is": SECRET.text,
    "in a shell": f"docker login -p {shlex.quote('x' + SECRET.text)}",
    "in JSON": json.dumps({"password": SECRET.text}),
    "in a URL": f"https://user:{urllib.parse.quote(SECRET.text, safe='')}@r.test/",
    "in a form": urllib.parse.urlencode({"password": SECRET.text}),
    "in Docker's file": base64.b64encode(f"user:{SECRET.text}".encode()).decode(),
    "in a token": base64.urlsafe_b64encode(f"ab{SECRET.text}c".encode()).decode(),
    "as hexadecimal": SECRET.text.encode().hex(),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_each_form_is_found(form: str) -> None:
    """A secret is found as it is, quoted, escaped, encoded, and shifted by what stands before it."""
    assert ["it"] == sorted({name for name, _ in NEEDLES.find(f"a {WRITTEN[form]} b".encode())})


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_base64_is_found_wherever_the_secret_stands(before: bytes, after: bytes) -> None:
    """However many bytes stand before and behind it, the characters that hold only the secret are the same."""
    assert NEEDLES.find(base64.b64encode(before + SECRET.text.encode() + after))


def test_what_is_too_short_is_not_looked_for() -> None:
    """A secret of a few letters would be found in everything."""
    assert [] == Needles([Watched("it", "abc")]).find(b"abcdef abc")


#: A shell that does nothing until its input ends; what stands behind are arguments of its own.
WAITING = ["sh", "-c", "read x", "sh"]


def sampled(argv: list[str], env: dict[str, str] | None = None) -> set[Leak]:
    """What a sampler finds in a program that waits for its input."""
    with (
        Sampler(NEEDLES) as looking,
        subprocess.Popen(argv, env={**os.environ, **(env or {})}, stdin=subprocess.PIPE) as running,
    ):
        started, deadline = looking.rounds, time.monotonic() + 20
        while looking.rounds < started + 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "sh -c" in looking.seen
        running.communicate()
    return {leak for leak in looking.leaks if leak.where.endswith(("'sh'", "'sh -c'"))}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_secret_in_argv_is_found(form: str) -> None:
    """Arguments can be read by everybody on a machine; the finding does not repeat them."""
    found = sampled([*WAITING, WRITTEN[form]])
    assert {("it", "the arguments of 'sh'")} == {(leak.secret, leak.where) for leak in found}
    assert "4711" not in str(found)


def test_a_secret_in_an_environment_is_found() -> None:
    """The environment of a process belongs to whoever started it, and is inherited by what it starts."""
    found = sampled(WAITING, {"PASSWORD": SECRET.text})
    assert {("it", "the environment of 'sh -c'")} == {(leak.secret, leak.where) for leak in found}


def test_the_operators_own_shell_is_left_out() -> None:
    """A secret that the operator has in the environment is there by intention, but not in arguments."""
    marked = {"PASSWORD": SECRET.text, sampler.OPERATORS_SHELL: "1"}
    assert set() == sampled(WAITING, marked)
    assert sampled([*WAITING, SECRET.text], marked)


@pytest.mark.parametrize("form", WRITTEN)
def test_a_secret_in_a_file_is_found(form: str, tmp_path: Path) -> None:
    """Whatever form it has, at any depth, and also where two pieces that are read meet."""
    file = tmp_path / "a" / "b"
    file.parent.mkdir()
    text = WRITTEN[form].encode()
    file.write_bytes(b"x" * ((1 << 20) - len(text) // 2) + text + b"y" * 100)
    found = sampler.search(NEEDLES, [tmp_path])
    assert {("it", str(file))} == {(leak.secret, leak.where) for leak in found}


def test_only_what_was_written_since_counts(tmp_path: Path) -> None:
    """A file from before is not read, nor one that is declared, nor what a link leads to."""
    (tmp_path / "in").mkdir()
    (tmp_path / "declared").write_text(SECRET.text)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "declared")
    assert [] == sampler.search(NEEDLES, [tmp_path], exempt=[tmp_path / "declared"])
    assert [] == sampler.search(NEEDLES, [tmp_path], since=time.time() + 60)
    assert 1 == len(sampler.search(NEEDLES, [tmp_path]))


@pytest.mark.parametrize(
    ("path", "of_application", "leaks"),
    [
        ("var/lib/docker/containers/" + "a" * 64 + "/config.v2.json", True, 0),
        ("var/lib/docker/containers/" + "a" * 64 + "/config.v2.json", False, 1),
        ("var/lib/docker/containers/" + "a" * 64 + "/json.log", True, 1),
        ("run/docker/containerd/daemon/x/moby/" + "a" * 64 + "/config.json", True, 0),
        ("root/.docker/config.json", True, 1),
        ("var/lib/axon/shop/prod/releases/1.json", True, 1),
    ],
)
def test_docker_may_keep_what_is_for_the_application(
    tmp_path: Path, path: str, of_application: bool, leaks: int
) -> None:
    """A variable of the container is in Docker's own files; a password of the registry is nowhere, and nothing in others."""
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Env": [f"TOKEN={SECRET.text}"]}))
    needles = Needles([Watched("it", SECRET.text, of_application)])
    assert leaks == len({leak.where for leak in sampler.search(needles, [tmp_path])})


@pytest.mark.parametrize(
    ("name", "mode", "leaks"), [("7.env", 0o600, 0), ("7.env", 0o640, 1), ("7.run", 0o600, 1)]
)
def test_variables_are_kept_for_a_rollback(tmp_path: Path, name: str, mode: int, leaks: int) -> None:
    """A release's variables may stand in one file, which nobody but its owner can read."""
    file = tmp_path / "var/lib/axon/shop/prod/started" / name
    file.parent.mkdir(parents=True)
    file.write_text(SECRET.text)
    file.chmod(mode)
    needles = Needles([Watched("it", SECRET.text, of_application=True)])
    assert leaks == len(sampler.search(needles, [tmp_path]))


def test_what_is_printed_is_searched() -> None:
    """Output counts as written."""
    assert [Leak("it", "raw", "out")] == sampler.found_in_text(
        NEEDLES, {"out": f"a {SECRET.text}", "err": "b"}
    )

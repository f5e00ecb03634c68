"""Server errors become messages that say what happened, where, and what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.deploy import problems
from axon_tasks.errors import AfterSwitchError, AxonError, LockedError, StepFailedError, UnreachableError
from axon_tasks.report import console

#: What Docker 20.10, nginx and sudo really print, and the word that explains it.
SAYINGS = [
    ("Error response from daemon: manifest for r:5000/shop:v9 not found: manifest unknown: manifest unknown", "no such tag"),
    ("Error response from daemon: Get https://r:5000/v2/: dial tcp 10.0.0.5:5000: connect: connection refused", "cannot be reached"),
    ("Error response from daemon: unauthorized: authentication required", "refuses the login"),
    ("Error response from daemon: Get http://r:5001/v2/shop/manifests/v1: no basic auth credentials", "refuses the login"),
    ("http: server gave HTTP response to HTTPS client", "plain HTTP"),
    ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "disk is full"),
    ("sh: 1: docker: not found", "Docker is not installed"),
    ("Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock", "may not use Docker"),
    ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "does not run"),
    ('docker: Error response from daemon: Conflict. The container name "/shop-prod-1" is already in use by container "f".', "name is taken"),
    ("port 30000 is taken by the container other, which is not ours", "port is taken"),
    ("port 30000 is taken by a docker-proxy that Docker has left behind", "Docker has lost track"),
    ("Bind for 10.0.0.21:30001 failed: port is already allocated", "port is taken"),
    ("no two free ports left between 30001 and 30002", "port range is full"),
    ("sudo: a password is required", "sudo refuses"),
    ("cannot create /var/lib/axon/shop/prod: this user may not write there", "no permission"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "meaning"), SAYINGS)
def test_known_failures_are_explained(said: str, meaning: str) -> None:
    """A known failure names its server, its meaning, the server's own words, and what to do."""
    error = problems.explain("app1", "working", said)
    assert str(error).startswith("app1: working: ")
    assert meaning in str(error)
    assert said in str(error)
    assert error.hint


def test_an_unknown_failure_shows_the_servers_words() -> None:
    """A failure that is not known is told with what the server said, and never as nothing."""
    assert "app1: working failed\n    strange\n    words" == str(
        problems.explain("app1", "working", "strange\nwords\n")
    )
    assert "exit status 3" in str(problems.explain("app1", "working", "", code=3))


@given(st.text(), st.text(), st.text())
def test_a_diagnosis_survives_any_answer(answer: str, state: str, logs: str) -> None:
    """Whatever container, daemon and application say, the block can be shown, without control characters."""
    told = {"answer": answer, "body": logs, "elapsed_ms": "20000"}
    shown = console.diagnosis(problems.diagnose("app1", "shop-prod-1", told, state, logs))
    assert shown.startswith("app1: shop-prod-1 did not become healthy")
    assert "\x1b" not in shown


@pytest.mark.parametrize("wrong", [None, [], {}, "x", -1, 1.5, True, 10**30])
@pytest.mark.parametrize("key", ["state", "restarts", "Status", "ExitCode", "OOMKilled", "Health", "Log"])
def test_a_diagnosis_survives_what_docker_never_says(key: str, wrong: object) -> None:
    """Any part of Docker's answer may be of any kind: it counts as not said, and is no traceback."""
    state: dict[str, object] = {
        "Status": "exited",
        "ExitCode": 3,
        "Health": {"Status": "unhealthy", "Log": []},
    }
    told: dict[str, object] = {"state": state, "restarts": 0}
    if key in told:
        told[key] = wrong
    elif key == "Log":
        state["Health"] = {"Status": "unhealthy", "Log": [wrong]}
    else:
        state[key] = wrong
    found = problems.diagnose("app1", "c", {"elapsed_ms": "9" * 5_000}, json.dumps(told), "")
    assert console.diagnosis(found).startswith("app1: c did not become healthy")


def test_a_diagnosis_survives_an_answer_that_nests_too_deep() -> None:
    """What no parser of JSON can hold counts as nothing."""
    assert "gone" == problems.diagnose("app1", "c", {}, "[" * 100_000, "").state


def _state(**values: object) -> str:
    return json.dumps({"state": {"Status": "running", **values}, "restarts": 2, "image": "shop"})


@pytest.mark.parametrize(
    ("answer", "state", "logs", "hint"),
    [
        ("curl: (7) Failed to connect: Connection refused", _state(), "", "container: {port}"),
        ("HTTP 301", _state(), "", "redirects"),
        ("HTTP 403", _state(), "", "Host header"),
        ("HTTP 404", _state(), "", "health: {path}"),
        ("HTTP 503", _state(), "", "error of its own"),
        ("", _state(Status="exited", ExitCode=0), "", "as long as its command"),
        ("", _state(Status="exited", ExitCode=137, OOMKilled=True), "", "memory"),
        ("", _state(Status="exited", ExitCode=127), "", "not found"),
        ("", _state(Status="exited", ExitCode=1), "exec format error", "another processor"),
        ("HTTP 200", _state(Health={"Status": "unhealthy", "Log": [{"Output": "no"}]}), "", "HEALTHCHECK"),
    ],
)
def test_known_patterns_have_a_hint(answer: str, state: str, logs: str, hint: str) -> None:
    """The patterns that people meet most are recognised."""
    found = problems.diagnose("app1", "c", {"answer": answer}, state, logs)
    assert hint in found.hint
    assert f"hint         {found.hint}" in console.diagnosis(found)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([StepFailedError("a")], 1),
        ([StepFailedError("a"), UnreachableError("b")], 4),
        ([UnreachableError("b"), LockedError("c")], 3),
        ([UnreachableError("b"), AfterSwitchError("d")], 5),
    ],
)
def test_the_exit_code_is_the_one_that_matters_most(errors: list[AxonError], code: int) -> None:
    """Of several failures, the one that a calling script must know first decides."""
    assert code == problems.DeployFailedError(errors, "outcome").code

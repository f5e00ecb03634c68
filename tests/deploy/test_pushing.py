"""Pushing, with a docker client that only writes down how it was called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from axon_tasks.commands.registry import Login
from axon_tasks.config import Secret
from axon_tasks.deploy.pushing import push
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from pathlib import Path

    from programs import Programs

LOGIN = Login("r.test:5000", "deploy", Secret("hunter2"))
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def test_a_login_is_for_one_push(programs: Programs, tmp_path: Path) -> None:
    """It is in a private folder that is gone afterwards, with the operator's proxies and contexts and none of his logins."""
    home = tmp_path / "home" / ".docker"
    (home / "contexts" / "meta").mkdir(parents=True)
    mine = json.dumps(
        {
            "auths": {"other.test": {"auth": "x"}},
            "credsStore": "pass",
            "proxies": {"default": {"httpProxy": "p"}},
        }
    )
    (home / "config.json").write_text(mine)
    programs.add("docker")
    push("r.test:5000/shop:v1", LOGIN, lambda _line: None)
    login, pushed = programs.calls
    assert (["docker", "login", "--username", "deploy", "--password-stdin", "r.test:5000"], "hunter2") == (
        login["words"], login["input"],
    )  # fmt: skip
    assert (["docker", "push", "r.test:5000/shop:v1"], "") == (pushed["words"], pushed["input"])
    assert (login["config"], "0o700") == (pushed["config"], pushed["mode"])
    assert {
        "contexts": None,
        "config.json": {"proxies": {"default": {"httpProxy": "p"}}, "auths": {"r.test:5000": {}}},
    } == {name: json.loads(text) if text else None for name, text in pushed["files"].items()}
    assert (mine, []) == ((home / "config.json").read_text(), list(tmp_path.glob("axon-login.*")))
    assert "hunter2" not in json.dumps([one["words"] for one in programs.calls])


def test_without_a_login_that_of_the_operator_counts(programs: Programs) -> None:
    """Nobody logs in, and the client's own folder is used."""
    programs.add("docker")
    push("r.test:5000/shop:v1", None, lambda _line: None)
    assert [(["docker", "push", "r.test:5000/shop:v1"], "")] == [
        (one["words"], one["config"]) for one in programs.calls
    ]


@pytest.mark.parametrize(
    ("image", "said", "expected", "hint"),
    [
        (
            f"{ECR}/team/shop:v1",
            "name unknown: The repository with name 'team/shop' does not exist in the registry with id '123456789012'",
            "there is no repository team/shop",
            "aws ecr create-repository --region eu-west-1 --repository-name team/shop",
        ),
        (
            "r.test/shop:v1",
            "An image does not exist locally with the tag: r.test/shop",
            "there is no such image on this machine",
            "fab build --env=ENVIRONMENT --tag=v1",
        ),
        ("r.test/shop:v1", "no basic auth credentials", "asks for another login", "docker login r.test"),
        ("r.test/shop:v1", "something else", "docker ended with exit code 1", "What it said stands above"),
    ],
)
def test_why_a_push_fails(programs: Programs, image: str, said: str, expected: str, hint: str) -> None:
    """What Docker says is passed on as it comes, and the message says what to type next."""
    programs.add("docker", (["push"], "", f"{said}\n", 1))
    heard: list[str] = []
    with pytest.raises(AxonError) as caught:
        push(image, None, heard.append)
    assert (1, [f"{said}\n"]) == (caught.value.code, heard)
    assert expected in caught.value.summary
    assert hint in str(caught.value.hint)


def test_a_login_that_is_refused(programs: Programs) -> None:
    """Nothing is pushed, and the password is in no message."""
    programs.add(
        "docker",
        (
            ["login"],
            "",
            "Error response from daemon: login attempt failed with status: 401 Unauthorized\n",
            1,
        ),
    )
    with pytest.raises(AxonError, match=r"r.test:5000 refuses the login of deploy") as caught:
        push("r.test:5000/shop:v1", LOGIN, lambda _line: None)
    assert (1, False) == (len(programs.calls), "hunter2" in str(caught.value))

"""Logins to registries: whom is asked with which words, and what is made of the answer."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reading import PROJECT

from axon_tasks.commands.registry import Login
from axon_tasks.config import Registry, Secret
from axon_tasks.deploy import credentials
from axon_tasks.deploy.credentials import CredentialsError, Logins, find

if TYPE_CHECKING:
    from programs import Programs

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def asked(name: str, server: str, user: str | None = None) -> Registry:
    return Registry(server, user, None, None, name)


@pytest.mark.parametrize(
    ("registry", "words", "user"),
    [
        (asked("aws", ECR), ["aws", "ecr", "get-login-password", "--region", "eu-west-1"], "AWS"),
        (
            asked("azure", "example.azurecr.io"),
            ["az", "acr", "login", "--name", "example", "--expose-token", "--output", "tsv", "--query", "accessToken"],
            "00000000-0000-0000-0000-000000000000",
        ),
        (
            asked("gcloud", "europe-west1-docker.pkg.dev"),
            ["gcloud", "auth", "print-access-token"],
            "oauth2accesstoken",
        ),
        (asked("gh", "ghcr.io", "octocat"), ["gh", "auth", "token"], "octocat"),
    ],
)  # fmt: skip
def test_who_knows_a_password_is_asked(
    programs: Programs, registry: Registry, words: list[str], user: str
) -> None:
    """Each program is called with the words of its documentation; its one line is the password, which nothing shows."""
    programs.add(words[0], (words[1:], "t0ken-4711\n", "a warning\n", 0))
    found = find(registry)
    assert (Login(registry.server, user, Secret("t0ken-4711")), [words]) == (found, programs.words)
    assert "t0ken" not in repr(found)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            ("", "Error: token expired\x1b[2J\n", 3),
            "`gh auth token` ended with exit code 3: Error: token expired",
        ),
        (("", "", 3), "it said nothing"),
        (("", "", 0), "gh said no password for ghcr.io"),
        (("one\ntwo\n", "", 0), "gh said no password for ghcr.io"),
    ],
)
def test_what_is_no_answer(programs: Programs, answer: tuple[str, str, int], expected: str) -> None:
    """A program that fails or says no password is told with what it said on stderr, and with exit code 2."""
    programs.add("gh", (["auth", "token"], *answer))
    with pytest.raises(CredentialsError) as caught:
        find(asked("gh", "ghcr.io", "octocat"))
    assert (2, True) == (caught.value.code, expected in str(caught.value)), str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_program_that_is_not_there(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which one is missing."""
    monkeypatch.setenv("PATH", str(programs.folder))
    with pytest.raises(CredentialsError, match="gcloud is not installed"):
        find(asked("gcloud", "gcr.io"))


def test_a_program_that_does_not_end(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after a time, and told."""
    (programs.folder / "gh").write_text("#!/bin/sh\nexec sleep 60\n")
    (programs.folder / "gh").chmod(0o755)
    monkeypatch.setattr(credentials, "LIMIT", 0.2)
    with pytest.raises(CredentialsError, match=r"had not ended after 0.2 s"):
        find(asked("gh", "ghcr.io", "octocat"))


def test_each_is_asked_once(programs: Programs) -> None:
    """However many ask for the same registry at the same time, the program runs once; nobody is asked before that."""
    programs.add("gh", (["auth", "token"], "t0ken\n", "", 0))
    logins, found = Logins(), []
    assert [] == programs.calls
    threads = [
        threading.Thread(target=lambda: found.append(logins.get(asked("gh", "ghcr.io", "octocat"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (8, 1, [["gh", "auth", "token"]]) == (len(found), len(set(found)), programs.words)


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o644, True)])
def test_a_password_in_a_file(tmp_path: Path, mode: int, warns: bool) -> None:
    """The file's one line is the password; that others may read it is a warning, which says what mends it."""
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    path.chmod(mode)
    found = find(Registry("r.test", "me", None, path))
    assert (Secret("hunter2"), warns) == (found.password, f"chmod 600 {path}" in found.warning)


def test_a_file_that_holds_none(tmp_path: Path) -> None:
    """A file that is not there, empty, or no text is told by its name."""
    path = tmp_path / "password"
    with pytest.raises(CredentialsError, match=r"cannot be read from .*No such file"):
        find(Registry("r.test", "me", None, path))
    for content in (b"\n", b"a\nb\n", b"\xff\n", b"x" * 70_000):
        path.write_bytes(content)
        with pytest.raises(CredentialsError, match="holds no password"):
            find(Registry("r.test", "me", None, path))


def docker_login(home: Path, **settings: object) -> None:
    folder = home / "home" / ".docker"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))


def basic(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("server", "entry"),
    [
        ("r.test:5000", "r.test:5000"),
        ("r.test", "https://r.test/v1/"),
        ("docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_the_login_that_docker_has_in_its_file(
    programs: Programs, tmp_path: Path, server: str, entry: str
) -> None:
    """What `docker login` has written is found under each of the names that Docker gives it."""
    docker_login(tmp_path, auths={"other.test": basic("no", "no"), entry: basic("me", "a:b")})
    assert Login(server, "me", Secret("a:b")) == find(asked("docker", server))


def test_the_login_that_a_helper_has(programs: Programs, tmp_path: Path) -> None:
    """The registry's own helper is asked, else the store for all; both read the server's name."""
    answer = json.dumps({"ServerURL": "r.test", "Username": "me", "Secret": "s3cret"})
    for name in ("mine", "all"):
        programs.add(f"docker-credential-{name}", (["get"], answer, "", 0))
    docker_login(tmp_path, credsStore="all", credHelpers={"r.test": "mine"})
    assert Login("r.test", "me", Secret("s3cret")) == find(asked("docker", "r.test"))
    assert "me" == find(asked("docker", "docker.io")).username
    assert [
        (["docker-credential-mine", "get"], "r.test"),
        (["docker-credential-all", "get"], "https://index.docker.io/v1/"),
    ] == [(one["words"], one["input"]) for one in programs.calls]


@pytest.mark.parametrize(
    ("settings", "answer", "expected"),
    [
        ({}, None, "Docker has no login for r.test"),
        ({"credsStore": "all"}, ("credentials not found in native keychain\n", "", 1), "Docker has no login"),
        ({"credsStore": "all"}, ("", "the keychain is locked\n", 1), "exit code 1: the keychain is locked"),
        ({"credsStore": "all"}, ("[]", "", 0), "answered nonsense"),
        ({"credsStore": "all"}, ('{"Username": "<token>", "Secret": "x"}', "", 0), "is an identity token"),
        ({"credsStore": "../x"}, None, "is no credential helper"),
        ({"auths": {"r.test": {"identitytoken": "x"}}}, None, "is an identity token"),
        ({"auths": {"r.test": {"auth": "%%%"}}}, None, "Docker has no login for r.test"),
    ],
)
def test_what_docker_does_not_have(
    programs: Programs,
    tmp_path: Path,
    settings: dict[str, object],
    answer: tuple[str, str, int] | None,
    expected: str,
) -> None:
    """A login that Docker does not have, or cannot give, is told with what mends it."""
    if answer:
        programs.add("docker-credential-all", (["get"], *answer))
    docker_login(tmp_path, **settings)
    with pytest.raises(CredentialsError) as caught:
        find(asked("docker", "r.test"))
    assert (2, True) == (caught.value.code, expected in str(caught.value)), str(caught.value)


TEXT = f"""
product: shop
image: {ECR}/shop
registry: {{credentials: aws}}
hosts: {{edge1: {{address: 192.0.2.1}}, app1: {{address: 192.0.2.2}}}}
environments: {{prod: {{system: [edge1], app: [app1], domain: shop.test}}}}
"""


def called(folder: Path, program: str, *words: str, text: str = TEXT) -> subprocess.CompletedProcess[str]:
    (folder / "hosts.yml").write_text(text)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return subprocess.run(
        [str(Path(sys.executable).parent / program), *words, f"--hosts-file={folder / 'hosts.yml'}"],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("fab", ("deploy", "--env=prod", "--tag=v1", "--dry-run")),
        ("fab", ("push", "--env=prod", "--tag=v1", "--dry-run")),
        ("fab", ("ship", "--env=prod", "--tag=v1", "--dry-run")),
        ("invoke", ("config.show", "--env=prod")),
        ("invoke", ("config.validate",)),
    ],
)
def test_nobody_is_asked_for_a_look(
    programs: Programs, tmp_path: Path, program: str, words: tuple[str, ...]
) -> None:
    """A dry run and the settings say with which user and from whom, and ask nobody."""
    programs.add("aws", ([], "s3cret\n", "", 0))
    programs.add("docker")
    said = called(tmp_path, program, *words)
    assert 0 == said.returncode, said.stderr
    assert [] == [one for one in programs.words if one[:2] != ["docker", "buildx"]]
    if program == "fab":
        assert "AWS" in said.stdout


def test_a_push_asks_and_logs_in(programs: Programs, tmp_path: Path) -> None:
    """The password goes from one program to the other and is shown nowhere; a failure ends it before anything is contacted."""
    programs.add("aws", (["ecr", "get-login-password"], "s3cret\n", "", 0))
    programs.add("docker")
    said = called(tmp_path, "fab", "push", "--env=prod", "--tag=v1")
    assert (0, False) == (said.returncode, "s3cret" in said.stdout + said.stderr), said.stderr
    assert [
        (["aws", "ecr", "get-login-password", "--region", "eu-west-1"], ""),
        (["docker", "login", "--username", "AWS", "--password-stdin", ECR], "s3cret"),
        (["docker", "push", f"{ECR}/shop:v1"], ""),
    ] == [(one["words"], one["input"]) for one in programs.calls]
    programs.add("aws", (["ecr"], "", "Unable to locate credentials.\n", 255))
    said = called(tmp_path, "fab", "push", "--env=prod", "--tag=v1")
    assert (2, True, 4) == (
        said.returncode, "exit code 255: Unable to locate credentials." in said.stderr, len(programs.calls),
    ), said.stderr  # fmt: skip


def test_build_arguments_are_variables(programs: Programs, tmp_path: Path) -> None:
    """Their values stand in no command line; buildx is used where it is there, and its failure is that of the task."""
    programs.add("docker", (["buildx", "build"], "no such stage\n", "", 7), variables=("TOKEN",))
    text = TEXT.replace(
        "environments:", "defaults: {build: {args: {TOKEN: s3cret}, platform: linux/arm64}}\nenvironments:"
    )
    said = called(tmp_path, "fab", "build", "--env=prod", "--tag=v1", text=text)
    assert (1, True) == (said.returncode, "the builder ended with exit code 7" in said.stderr), said.stderr
    asked_first, built = programs.calls
    assert ["docker", "buildx", "version"] == asked_first["words"]
    assert ["docker", "buildx", "build", "--load", "--tag", f"{ECR}/shop:v1"] == built["words"][:6]
    assert ("s3cret", False) == (
        built["variables"]["TOKEN"],
        "s3cret" in " ".join(built["words"]) + said.stdout,
    )

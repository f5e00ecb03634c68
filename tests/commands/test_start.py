"""Starting a release on an app server: its variables, what is kept of it, and what is kept running; docker is a stand-in."""

from __future__ import annotations

import hashlib
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from axon_tasks.commands import docker
from axon_tasks.commands.shell import script
from axon_tasks.config.project import ReleaseCommand
from axon_tasks.deploy import facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from axon_tasks.config import Project

    Run = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")

DIGEST = "sha256:" + "ab" * 32
#: Notes what it is given, and says what docker would.
DOCKER = """
docker() {
    case $1 in
        run) printf '%s\\n' "$@" >"$NOTES/arguments"; cat >"$NOTES/stdin"; echo 0123456789abcdef ;;
        inspect) grep -qx "${4:-}" "$NOTES/running" && echo true || echo false ;;
        update) printf '%s\\n' "$2 $3" >>"$NOTES/updated" ;;
    esac
}
"""


def candidate(project: Project, **changes: object) -> docker.Candidate:
    """What app1 runs of a release."""
    made = docker.Candidate(
        environment=project.environment("prod"), release="1764000001", slot="b", port="30001", address="10.0.0.21",
        reference="r.test/shop:v2", bind="10.0.0.21", digest=DIGEST,
    )  # fmt: skip
    return made._replace(**changes)  # type: ignore[arg-type]


def in_folder(text: str, folder: Path) -> str:
    """The script with the state in a folder of the test's."""
    place = "/var/lib/axon/shop/prod"
    assert place in text
    (folder / "shop/prod").mkdir(parents=True, exist_ok=True)
    (folder / "notes").mkdir(exist_ok=True)
    return f"NOTES={folder}/notes\n{DOCKER}\n" + text.replace(place, f"{folder}/shop/prod")


def test_what_was_started_can_be_started_again(run: Run, project: Project, tmp_path: Path) -> None:
    """The second start has the arguments and variables of the first one, though the file and the settings have changed."""
    file = tmp_path / "env"
    file.write_text("A=1\nB= two words # $x")
    prod = project.environment("prod")
    first = candidate(project, environment=prod._replace(env_file=str(file)))
    result = run(in_folder(docker.start(first), tmp_path))
    assert 0 == result.returncode, result.stderr
    told = facts.pairs(result.stdout)
    arguments = (tmp_path / "notes/arguments").read_text().splitlines()
    assert "A=1\nB= two words # $x\n" == (tmp_path / "notes/stdin").read_text()
    kept = tmp_path / "shop/prod/started/1764000001.env"
    assert told["environment"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert {0o600} == {stat.S_IMODE(one.stat().st_mode) for one in kept.parent.iterdir()}

    said = run(in_folder(docker.started(prod), tmp_path)).stdout.strip()
    release, _, line = said.removeprefix("started=").partition(" ")
    again = docker.parse_started(release, line)
    assert again is not None
    file.write_text("A=2\n")
    second = candidate(
        project,
        release="1764000002",
        slot="a",
        port="30000",
        again=again._replace(checksum=told["environment"]),
    )
    result = run(in_folder(docker.start(second), tmp_path))
    assert 0 == result.returncode, result.stderr
    assert "A=1\nB= two words # $x\n" == (tmp_path / "notes/stdin").read_text()
    changed = {"1764000001": "1764000002", "30001": "30000", "axon.slot=b": "axon.slot=a"}
    for old, new in changed.items():
        arguments = [one.replace(old, new) for one in arguments]
    assert arguments == (tmp_path / "notes/arguments").read_text().splitlines()
    assert told["environment"] == facts.pairs(result.stdout)["environment"]


@pytest.mark.parametrize(
    "word", ["a'b\"c", "$(touch x) `id`", "\\n\\\\", "é ü \u2603 \U0001f600", "a  b\tc", "{}[]", "-"]
)
def test_any_argument_is_kept_as_it_was(run: Run, project: Project, tmp_path: Path, word: str) -> None:
    """What an argument holds is the same after it was kept on the server and read back."""
    prod = project.environment("prod")
    prod = prod._replace(container=prod.container._replace(command=(word,), labels={"note": word}))
    assert 0 == run(in_folder(docker.start(candidate(project, environment=prod)), tmp_path)).returncode
    said = run(in_folder(docker.started(prod), tmp_path)).stdout.rstrip("\n")
    again = docker.parse_started("1764000001", said.partition(" ")[2])
    assert again is not None
    assert tuple(docker.run_arguments(candidate(project, environment=prod))) == again.arguments


@pytest.mark.parametrize(("by_id", "image"), [(True, DIGEST), (False, f"r.test/shop@{DIGEST}")])
def test_an_image_that_no_registry_has_is_run_by_its_id(
    run: Run, project: Project, tmp_path: Path, by_id: bool, image: str
) -> None:
    """Where it was sent to the servers, no name stands before what is its id; what is kept of the start says so, too."""
    assert 0 == run(in_folder(docker.start(candidate(project, by_id=by_id)), tmp_path)).returncode
    assert image in (tmp_path / "notes/arguments").read_text().splitlines()
    said = run(in_folder(docker.started(project.environment("prod")), tmp_path)).stdout.rstrip("\n")
    again = docker.parse_started("1764000001", said.partition(" ")[2])
    assert again is not None
    assert (by_id, DIGEST) == (again.by_id, again.digest)
    command = docker.release_command(candidate(project, by_id=by_id), ReleaseCommand(("migrate",), None, 60))
    assert f'{"" if by_id else "r.test/shop@"}"${{digest}}" migrate' in command


def test_what_a_killed_start_has_left_goes(run: Run, project: Project, tmp_path: Path) -> None:
    """A copy that was only half written when its script was killed is removed by the next start, and nothing else is."""
    started = tmp_path / "shop/prod/started"
    started.mkdir(parents=True)
    for name in (".1764000000.env.77", "1763000000.env", "1763000000.run"):
        (started / name).write_text("x")
    assert 0 == run(in_folder(docker.start(candidate(project)), tmp_path)).returncode
    names = {"1763000000.env", "1763000000.run", "1764000001.env", "1764000001.run"}
    assert names == {one.name for one in started.iterdir()}


@pytest.mark.parametrize(("other", "code"), [("1764000000", 0), ("1764000002", 45)])
def test_a_late_start_never_clears_a_newer_release(
    run: Run, project: Project, tmp_path: Path, other: str, code: int
) -> None:
    """A run that has lost its lock finds somebody else's release in its slot: that stays, an older one is retired."""
    docker_told = f"""
docker() {{
    case "$1 $*" in
        ps*) [ -e "$NOTES/removed" ] || echo {"e" * 64} ;;
        inspect*.Name*) echo "/shop-prod-{other} {other}" ;;
        inspect*) [ ! -e "$NOTES/removed" ] ;;
        rm*) touch "$NOTES/removed" ;;
    esac
}}
"""
    text = in_folder(docker.clear_slot(candidate(project), now=True), tmp_path).replace(DOCKER, docker_told)
    result = run(text)
    assert (code, code == 0) == (result.returncode, (tmp_path / "notes/removed").exists()), result.stderr
    assert (code != 0) == ("somebody else has deployed in the meantime" in result.stderr)


def test_variables_that_are_not_what_was_kept_start_nothing(
    run: Run, project: Project, tmp_path: Path
) -> None:
    """A copy that was changed, cut or emptied by a crash is refused before anything is started."""
    assert 0 == run(in_folder(docker.start(candidate(project)), tmp_path)).returncode
    again = docker.Started("1764000001", "r.test/shop:v2", DIGEST, "always", ("image",), "0" * 64)
    (tmp_path / "notes/arguments").unlink()
    result = run(in_folder(docker.start(candidate(project, release="1764000002", again=again)), tmp_path))
    assert (36, False) == (result.returncode, (tmp_path / "notes/arguments").exists())
    assert "is not what was kept there" in result.stderr


def test_a_missing_env_file_starts_nothing(run: Run, project: Project, tmp_path: Path) -> None:
    """A file that has gone since the inspection is told."""
    prod = project.environment("prod")._replace(env_file=str(tmp_path / "none"))
    result = run(in_folder(docker.start(candidate(project, environment=prod)), tmp_path))
    assert (35, False) == (result.returncode, (tmp_path / "notes/arguments").exists())


def test_what_is_not_stopped_yet_is_held_back(run: Run, project: Project, tmp_path: Path) -> None:
    """Of cancelled jobs: what runs and is not being stopped stays, with its restart policy; ended jobs are not looked at."""
    runs, ending, gone, done = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
    jobs = tmp_path / "shop/prod/jobs"
    for name, code, log in (
        ("retire-1", 143, f"{ending}: drained\n"),
        ("retire-2", 0, f"{done}: drained\n{done}: removed\n"),
        ("other", 143, ""),
    ):
        (jobs / name).mkdir(parents=True)
        (jobs / name / "rc").write_text(f"{code}\n")
        (jobs / name / "log").write_text(log)
        ids = (runs, ending, gone) if name == "retire-1" else (done,)
        body = script("retire_all", ("drain",), drain_time=100, stop_time=5, containers=" ".join(ids))
        (jobs / name / "cmd").write_text(body)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/running").write_text(f"{runs}\n{ending}\n{done}\n")
    result = run(
        in_folder(docker.hold_back(project.environment("prod"), "/var/lib/axon/shop/prod/jobs"), tmp_path)
    )
    assert (0, [f"held={runs}", f"ending={ending}"]) == (result.returncode, result.stdout.splitlines()), (
        result.stderr
    )
    assert [f"--restart=unless-stopped {runs}"] == (tmp_path / "notes/updated").read_text().splitlines()

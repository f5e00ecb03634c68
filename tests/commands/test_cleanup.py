"""What the cleanup's shell functions select, in every shell: exactly what is ours, and old enough."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from axon_tasks.commands import cleanup
from axon_tasks.commands.shell import script
from axon_tasks.deploy import history

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Run = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")

DAY = 86400


def old(path: Path, seconds: float = 2 * DAY) -> Path:
    """Make a file or directory look untouched for so long."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    moment = time.time() - seconds
    os.utime(path, (moment, moment), follow_symlinks=False)
    return path


def told(output: str, word: str) -> list[str]:
    return sorted(
        line.removeprefix(f"{word}=") for line in output.splitlines() if line.startswith(f"{word}=")
    )


@pytest.mark.parametrize("dry_run", [True, False])
def test_only_abandoned_temporary_files_of_this_environment_go(
    run: Run, tmp_path: Path, dry_run: bool
) -> None:
    """Of files that only look alike, are recent, are links or belong to a neighbour, none is touched."""
    state, axon = tmp_path / "shop/prod", tmp_path / "axon.d"
    gone = [
        old(state / ".current.123"),
        old(state / ".lock.owner.4567"),
        old(state / "releases/.1764000000.json.99"),
        old(axon / "upstreams/.shop-prod.conf.12"),
        old(axon / "sites/.shop-prod.conf.34"),
    ]
    for name in ("nginx-before.new", "maintenance-before"):
        (state / name).mkdir()
        gone.append(old(state / name))
    stays = [
        old(state / "current"),
        old(state / ".current.12x"),
        old(state / ".current"),
        old(state / ".current.1.2"),
        old(state / ".other.123"),
        old(state / ".ports.55", seconds=DAY / 2),
        old(state / "releases/1764000000.json"),
        old(state / "releases/.1764000000.json.9x"),
        old(state / "releases/.x1764000000.json.9"),
        old(axon / "upstreams/.shop-prod2.conf.12"),
        old(axon / "upstreams/.my-shop-prod.conf.12"),
        old(axon / "sites/.shop-production.conf.12"),
        old(tmp_path / "shop/prod2/.current.123"),
        old(tmp_path / "my-shop/prod/.current.123"),
    ]
    (state / "nginx-before").mkdir()
    stays.append(old(state / "nginx-before"))
    (state / ".slot_b.77").symlink_to(stays[0])
    stays.append(old(state / ".slot_b.77"))
    result = run(
        script(
            "sweep_state; sweep_nginx; shorten_audit",
            ("cleanup",),
            state=str(state),
            name="shop-prod",
            nginx_directory=str(axon),
            dry_run=int(dry_run),
            audit_limit=10,
            audit_keep=5,
        )
    )
    assert (0, "") == (result.returncode, result.stderr)
    assert sorted(f"staging {path}" for path in gone) == told(
        result.stdout, "found" if dry_run else "removed"
    )
    assert [dry_run] * len(gone) == [path.exists() for path in gone]
    assert [True] * len(stays) == [os.path.lexists(path) for path in stays]


def test_what_others_abandoned_stays(run: Run, tmp_path: Path) -> None:
    """In /tmp only old directories with exactly our name go: no link, no file, nothing of another user."""
    names = ["axon-stage.AbCd1234", "axon-stage.AbCd123", "axon-stage.AbCd12345", "my-axon-stage.AbCd1234"]
    for name in [*names, "axon-login.EfGh5678", "axon-stage.Recent12", "axon-stage.Foreign1"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "nginx.conf").write_text("x")
        old(tmp_path / name, seconds=60 if "Recent" in name else 2 * DAY)
    if os.geteuid() == 0:
        os.chown(tmp_path / "axon-stage.Foreign1", 65534, 65534)
    else:
        (tmp_path / "axon-stage.Foreign1").rename(tmp_path / "foreign")
    (tmp_path / "axon-stage.Linked12").symlink_to(tmp_path / names[1])
    old(tmp_path / "axon-stage.Linked12")
    old(tmp_path / "axon-stage.File1234")
    before = {path.name for path in tmp_path.iterdir()}
    gone = ["axon-login.EfGh5678", "axon-stage.AbCd1234"]
    result = run(cleanup.sweep_abandoned(dry_run=False, temporary=str(tmp_path)))
    assert [f"staging {tmp_path}/{name}" for name in gone] == told(result.stdout, "removed")
    assert before - set(gone) == {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / names[1] / "nginx.conf").exists()


def test_of_a_large_audit_log_the_last_lines_stay(run: Run, tmp_path: Path) -> None:
    """An audit log above the limit loses its oldest lines, and only whole ones; a small one is left alone."""
    log = tmp_path / "audit.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    values = {"state": str(tmp_path), "audit_limit": 1000, "audit_keep": 100}
    seen = run(script("shorten_audit", ("cleanup",), **values, dry_run=1))
    assert ([f"audit {log}"], 1000) == (told(seen.stdout, "found"), len(log.read_text().splitlines()))
    done = run(script("shorten_audit", ("cleanup",), **values, dry_run=0))
    lines = log.read_text().splitlines()
    assert ([f"audit {log}"], "line 999") == (told(done.stdout, "removed"), lines[-1])
    assert [f"line {number}" for number in range(1000 - len(lines), 1000)] == lines
    assert "" == run(script("shorten_audit", ("cleanup",), **values, dry_run=0)).stdout


def test_states_of_all_environments_are_read(run: Run, tmp_path: Path) -> None:
    """Slot, current release and records come back as they were written, for every product on the server."""
    for place, current, slot_b in (("shop/prod", "3", True), ("my-shop/prod", "7", False)):
        folder = tmp_path / place
        (folder / "releases").mkdir(parents=True)
        (folder / "current").write_text(f"{current}\n")
        (folder / "releases" / f"{current}.json").write_text(json.dumps({"digest": f"d{current}"}) + "\n")
        (folder / "releases" / "1.json").write_text('{"digest": "no newline at the end"}')
        (folder / "releases" / "2.json").write_text("")
        if slot_b:
            (folder / "slot_b").touch()
    (tmp_path / "shop/staging/jobs").mkdir(parents=True)
    result = run(script("tell_states", ("cleanup", "records"), axon_root=str(tmp_path)))
    states = history.parse_states(result.stdout)
    assert (0, "") == (result.returncode, result.stderr)
    assert {("shop", "prod"), ("my-shop", "prod"), ("shop", "staging")} == set(states)
    assert ("b", "3", "a", "7") == tuple(
        value for place in (("shop", "prod"), ("my-shop", "prod"))
        for value in (states[place].slot, states[place].current)
    )  # fmt: skip
    assert {"1": {"digest": "no newline at the end"}, "2": {}, "3": {"digest": "d3"}} == states[
        "shop", "prod"
    ].records
    assert {"d3", "no newline at the end"} >= set(states["shop", "prod"].digests())


def test_one_failure_stops_nothing_else(run: Run) -> None:
    """What fails is told with its reason on one line, and the next thing is still done."""
    result = run(
        script(
            "discard image a false; discard image b sh -c 'echo x; echo y; exit 3'; discard job c true",
            ("cleanup",),
        )
    )
    assert ["failed=image a", "failed=image b x y", "removed=job c"] == [
        line.rstrip() for line in result.stdout.splitlines()
    ]


def test_free_space_is_counted_once_per_file_system(run: Run, tmp_path: Path) -> None:
    """Two directories of one file system have its free space once."""
    one = run(script('tell_free "$a"', ("cleanup",), a=str(tmp_path))).stdout
    two = run(script('tell_free "$a" "$a"', ("cleanup",), a=str(tmp_path))).stdout
    amounts = [int(text.removeprefix("free=")) for text in (one, two)]
    assert amounts[1] < amounts[0] * 1.5
    assert 0 < amounts[0]


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_newest_starts_stay(run: Run, tmp_path: Path, dry_run: bool) -> None:
    """How the newest releases were started is kept, by their ids as numbers; older ones go with their variables."""
    started = tmp_path / "shop/prod/started"
    for release in (9, 10, 11, 100):
        for kind in ("run", "env"):
            old(started / f"{release}.{kind}")
    other = old(started / "notes.run")
    temporary = old(started / ".100.env.77")
    text = script(
        "sweep_started", ("cleanup",), state=str(started.parent), started_keep=2, dry_run=int(dry_run)
    )
    result = run(text)
    gone = [str(started / f"{release}.{kind}") for release in (9, 10) for kind in ("env", "run")]
    word = "found" if dry_run else "removed"
    assert sorted([*(f"start {path}" for path in gone), f"staging {temporary}"]) == told(result.stdout, word)
    left = {started / f"{release}.{kind}" for release in (11, 100) for kind in ("run", "env")} | {other}
    kept = {*map(Path, gone), temporary} if dry_run else set()
    assert left | kept == set(started.iterdir())

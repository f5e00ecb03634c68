"""What a delete removes of an environment's state, in every shell: exactly its own directory, and what a killed one left."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands.shell import script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: the scripts are for Linux servers")


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "current").write_text("1")
    return folder


def deleting(state: Path) -> str:
    return script("delete_state", ("delete",), state=str(state))


def test_only_this_environments_state_goes(run: Any, tmp_path: Path) -> None:
    """Neighbours whose names begin or end alike stay, also with what a delete of theirs has left."""
    gone = [made(tmp_path / "shop/prod"), made(tmp_path / "shop/.prod.deleted.12")]
    stays = [
        made(tmp_path / name)
        for name in (
            "shop/prod2",
            "shop/my-prod",
            "my-shop/prod",
            "shop2/prod",
            "shop/.prod2.deleted.12",
            "shop/.prod",
        )
    ]
    done = run(deleting(gone[0]))
    assert (0, f"removed=state {gone[0]}\n") == (done.returncode, done.stdout), done.stderr
    assert ([], stays) == ([one for one in gone if one.exists()], [one for one in stays if one.exists()])
    again = run(deleting(gone[0]))
    assert (0, "") == (again.returncode, again.stdout)


def test_the_products_directory_goes_with_its_last_environment(run: Any, tmp_path: Path) -> None:
    """What is left empty is removed, and no more than that."""
    run(deleting(made(tmp_path / "shop/prod")))
    assert ([], True) == (list(tmp_path.iterdir()), tmp_path.exists())


def test_a_link_is_not_followed(run: Any, tmp_path: Path) -> None:
    """A link in the place of the state, or of what was left, leads nowhere."""
    target = made(tmp_path / "other")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/prod").symlink_to(target)
    (tmp_path / "shop/.prod.deleted.7").symlink_to(target)
    run(deleting(tmp_path / "shop/prod"))
    assert (target / "current").exists()

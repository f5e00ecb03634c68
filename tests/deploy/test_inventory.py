"""How servers are reached is kept for the next run, if that is sure, and never a secret."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from axon_tasks.config import load
from axon_tasks.deploy.inventory import inventory_of, recall, remember

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
product: shop
image: registry.test/shop
registry: {username: deploy, password: "${PASSWORD}"}
known_hosts: keys/known_hosts
hosts:
  edge1: {address: 10.0.0.10, user: deploy, port: 2222, key: keys/id}
  app1: {address: "${APP:-10.0.0.21}", jump: edge1, connect_timeout: 3s}
environments:
  prod: {system: [edge1], app: [app1], domain: shop.test, tag: v1}
  staging: {system: [edge1], app: [edge1], domain: staging.shop.test}
"""
ENVIRON = {"PASSWORD": "secret-4711"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A project that was deployed before."""
    (tmp_path / ".axon").mkdir()
    path = tmp_path / "hosts.yml"
    path.write_text(TEXT)
    remember(load(path, ENVIRON), ENVIRON)
    return path


def kept(file: Path) -> Path:
    return file.parent / ".axon" / "inventory.json"


def test_the_servers_are_known_before_the_settings_are_checked(file: Path) -> None:
    """What is recalled leads to the same servers in the same way as the settings do."""
    found = recall(str(file), "prod", None, ENVIRON)
    assert found is not None
    assert ("edge1", "app1") == found.servers
    assert inventory_of(load(file, ENVIRON)) == found.inventory


def test_several_environments_have_each_server_once(file: Path) -> None:
    """The servers of all environments that are named are recalled, and no others."""
    found = recall(str(file), "staging, prod", "v2", ENVIRON)
    assert found is not None
    assert ("edge1", "app1") == found.servers
    alone = recall(str(file), "staging", "v2", ENVIRON)
    assert alone is not None
    assert ("edge1",) == alone.servers


@pytest.mark.parametrize(
    ("env", "tag", "environ"),
    [
        ("prod", "not a tag", ENVIRON),
        ("prod", "", ENVIRON),
        ("staging", None, ENVIRON),
        ("prood", None, ENVIRON),
        ("", None, ENVIRON),
        ("prod", None, {}),
        ("prod", None, {**ENVIRON, "APP": "10.0.0.99"}),
    ],
)
def test_what_may_be_refused_contacts_nobody(
    file: Path, env: str, tag: str | None, environ: dict[str, str]
) -> None:
    """A wrong flag, or a variable that is missing or new, leaves it to the settings whom to contact."""
    assert recall(str(file), env, tag, environ) is None


def test_a_changed_file_is_checked_first(file: Path) -> None:
    """One character more, and nothing of the file is known."""
    file.write_text(TEXT + "\n")
    assert recall(str(file), "prod", None, ENVIRON) is None


def test_no_secret_is_kept_and_only_the_owner_reads_it(file: Path) -> None:
    """The file has addresses, users and paths of keys, and mode 0600."""
    assert "secret-4711" not in kept(file).read_text()
    assert 0o600 == stat.S_IMODE(kept(file).stat().st_mode)


@pytest.mark.parametrize(
    ("before", "after", "environ"),
    [
        ("key: keys/id}", 'key: keys/id, passphrase: "${PASSWORD}"}', ENVIRON),
        ("address: 10.0.0.10", 'address: "${EDGE}"', {**ENVIRON, "EDGE": "10.0.0.10"}),
    ],
)
def test_what_depends_on_a_variable_is_not_kept(
    file: Path, before: str, after: str, environ: dict[str, str]
) -> None:
    """A passphrase, or a way to a server that a variable's value is part of, removes what was kept."""
    file.write_text(TEXT.replace(before, after))
    remember(load(file, environ), environ)
    assert not kept(file).exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"digest": 1}', '{"digest": "DIGEST", "environments": {"prod": 1}}',
                                  '{"digest": "DIGEST", "environments": {"prod": {"tag": true, "servers": ["x"]}}, "known_hosts": null, "hosts": {}}'])  # fmt: skip
def test_a_damaged_file_is_no_file(file: Path, text: str) -> None:
    """Whatever stands there, the run goes on without it."""
    digest = json.loads(kept(file).read_text())["digest"]
    kept(file).write_text(text.replace("DIGEST", digest))
    assert recall(str(file), "prod", None, ENVIRON) is None


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    """A link in its place is not read."""
    other = tmp_path / "other"
    kept(file).rename(other)
    kept(file).symlink_to(other)
    assert recall(str(file), "prod", None, ENVIRON) is None


def test_what_can_be_read_once_is_left_alone(file: Path) -> None:
    """A pipe is not read a second time, which would wait for ever or swallow what the settings need."""
    project = load(file, ENVIRON)
    file.unlink()
    os.mkfifo(file)
    remember(project, ENVIRON)
    assert recall(str(file), "prod", None, ENVIRON) is None


def test_a_folder_that_cannot_be_written_is_no_failure(file: Path) -> None:
    """Without the folder for runs nothing is kept, and nothing fails."""
    kept(file).unlink()
    kept(file).parent.rmdir()
    remember(load(file, ENVIRON), ENVIRON)
    assert not kept(file).exists()

"""Settings, or how servers are reached, are kept for the next run, if that is sure, and never a secret."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from axon_tasks.config import load, read
from axon_tasks.deploy import inventory
from axon_tasks.deploy.inventory import inventory_of, place_of, recall, remember
from axon_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

#: A variable leads to a server, so that the settings themselves are not kept.
TEXT = """\
product: shop
image: registry.test/shop
registry: {username: deploy, password: "${PASSWORD}"}
known_hosts: keys/known_hosts
hosts:
  edge1: {address: 10.0.0.10, user: deploy, port: 2222, key: keys/id}
  app1: {address: 10.0.0.21, jump: edge1, connect_timeout: 3s}
environments:
  prod: {system: [edge1], app: [app1], domain: "${DOMAIN:-shop.test}", tag: v1}
  staging: {system: [edge1], app: [edge1], domain: staging.shop.test}
"""
ENVIRON = {"PASSWORD": "secret-4711"}


def deployed_before(folder: Path, text: str, environ: dict[str, str] = ENVIRON) -> Path:
    """The hosts.yml of a project whose settings were found right."""
    path = folder / "hosts.yml"
    path.write_text(text)
    remember(read(path, environ), environ)
    return path


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test does to the cache is of no concern to others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A project that was deployed before."""
    return deployed_before(tmp_path, TEXT)


def kept(file: Path) -> Path:
    return place_of(file)


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
        ("prod", None, {**ENVIRON, "DOMAIN": "other.test"}),
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
        ("address: 10.0.0.10", 'address: "${EDGE:-10.0.0.10}"', {**ENVIRON, "EDGE": ""}),
        ("address: 10.0.0.10", r'address: "\x24{EDGE}"', {**ENVIRON, "EDGE": "10.0.0.10"}),
        ("key: keys/id", 'key: "${KEY}"', {**ENVIRON, "KEY": "~/.ssh/id"}),
        ("connect_timeout: 3s", 'connect_timeout: "${EDGE}"', {**ENVIRON, "EDGE": "3s"}),
        ("keys/known_hosts", '"${KEY}"', {**ENVIRON, "KEY": "keys/known_hosts"}),
        ("app: [app1]", 'app: ["${APP}"]', {**ENVIRON, "APP": "app1"}),
        (
            "environments:",
            'defaults: {app: ["${APP}"]}\nenvironments:\n  third: {system: [edge1], domain: third.test}',
            {**ENVIRON, "APP": "app1"},
        ),
    ],
)
def test_what_depends_on_a_variable_is_not_kept(
    file: Path, before: str, after: str, environ: dict[str, str]
) -> None:
    """A passphrase, or a variable in the way to a server or in which servers there are, removes what was kept."""
    assert before in TEXT
    file.write_text(TEXT.replace(before, after))
    remember(read(file, environ), environ)
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
    loaded = read(file, ENVIRON)
    file.unlink()
    os.mkfifo(file)
    remember(loaded, ENVIRON)
    assert recall(str(file), "prod", None, ENVIRON) is None


@pytest.mark.parametrize("cache", ["a file", "a link", "open to others"])
def test_a_folder_that_is_not_ours_alone_is_not_used(file: Path, tmp_path: Path, cache: str) -> None:
    """A cache that is no folder, is elsewhere, or that others may enter keeps nothing, gives nothing, and is no failure."""
    place, folder = kept(file), kept(file).parent
    if cache == "open to others":
        folder.chmod(0o755)
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.touch() if cache == "a file" else folder.symlink_to(tmp_path / "elsewhere")
    assert recall(str(file), "prod", None, ENVIRON) is None
    before = place.read_bytes() if place.is_file() else b""
    file.write_text(TEXT + "\n")
    remember(read(file, ENVIRON), ENVIRON)
    assert before == (place.read_bytes() if place.is_file() else b"")


def test_a_pipe_in_its_place_is_not_waited_for(file: Path) -> None:
    """What is no ordinary file is not read."""
    kept(file).unlink()
    os.mkfifo(kept(file), 0o600)
    assert recall(str(file), "prod", None, ENVIRON) is None


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("/var/cache/me", "/var/cache/me"), ("relative", "/home/me/.cache"), ("", "/home/me/.cache")],
)
def test_what_is_kept_is_among_the_caches_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, expected: str
) -> None:
    """XDG_CACHE_HOME if it is absolute, else ~/.cache; never the project's folder, whose files others may have written."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert expected == str(place_of(tmp_path / "hosts.yml").parent.parent)


def test_old_projects_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many projects as are meant to be remembered are, and the newest is one of them."""
    monkeypatch.setattr(inventory, "MOST", 3)
    files = []
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        files.append(deployed_before(tmp_path / str(number), WHOLE))
        os.utime(kept(files[-1]), ns=(number, number))
    assert kept(files[-1]).exists()
    assert inventory.MOST == len(list(kept(files[-1]).parent.iterdir()))


def test_nobody_else_may_enter_what_is_made_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is made for its user alone, whatever the umask."""
    before = os.umask(0)
    try:
        path = deployed_before(tmp_path, WHOLE)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (kept(path), *kept(path).parents[:2])]
    assert [0o600, 0o700, 0o700] == modes


#: Variables in secrets only.
WHOLE = """\
product: shop
image: registry.test/shop
registry: {username: deploy, password: "${PASSWORD}"}
known_hosts: keys/known_hosts
hosts:
  edge1: {address: 10.0.0.10, port: 2222, key: keys/id, passphrase: "${PASSPHRASE:-opensesame}"}
  app1: {address: 10.0.0.21, private_address: 192.168.0.21, jump: edge1}
defaults:
  container:
    env: {TOKEN: "x-${PASSWORD}", MODE: production}
    volumes: ["/srv/a:/a"]
    labels: {team: web}
environments:
  prod:
    system: [edge1]
    app: [app1]
    domain: shop.test
    tag: v1
    tls: {certificate: /etc/tls/c.pem, key: /etc/tls/k.pem}
    container: {env: {EXTRA: "${PASSWORD}"}, command: [serve, --all], log: {max_file: 5}}
    health: {expect_status: [200, 204]}
    build: {context: app, args: {TOKEN: "y-${PASSWORD}", MODE: production}, push: ssh}
    release_command: {command: [bin/migrate, --all], timeout: 5m}
    hooks: {before_deploy: [make, check], on_failure: [./page.sh]}
    notify: {webhook: "https://chat.test/${PASSWORD}", events: [failure]}
  other: {system: [edge1], app: [edge1], domain: other.test, registry: {username: me, password: literal-4712}, image: a.io/x}
  third:
    system: [edge1]
    app: [edge1]
    domain: third.test
    image: b.io/x
    registry: {username: me, password: ~, password_file: keys/registry}
  fourth: {system: [edge1], app: [edge1], domain: fourth.test, image: ghcr.io/x, registry: {server: ghcr.io, credentials: gh, password: ~}}
"""


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The same with settings that may be kept."""
    return deployed_before(tmp_path, WHOLE)


def test_the_settings_are_those_that_were_checked(whole: Path) -> None:
    """What is recalled is equal to what the file gives, secrets included, with nothing imported that checks it."""
    found = recall(str(whole), "prod", None, ENVIRON)
    assert found is not None
    assert load(whole, ENVIRON) == found.project
    assert inventory_of(load(whole, ENVIRON)) == found.inventory
    program = f"""
import sys
from axon_tasks.deploy.inventory import recall
found = recall({str(whole)!r}, "prod", None, {{"PASSWORD": "other"}})
assert found.project.registry.password.reveal() == "other"
assert found.project.environment("prod").container.env["TOKEN"].reveal() == "x-other"
assert found.project.environment("prod").build.args["TOKEN"].reveal() == "y-other"
assert not [name for name in sys.modules if name.startswith("pydantic")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_secrets_are_looked_up_again(whole: Path) -> None:
    """Another value of a variable is the one that is used; none of the texts is kept, whether a variable or the file has them."""
    found = recall(str(whole), "prod", None, {"PASSWORD": "new"})
    assert found is not None
    assert load(whole, {"PASSWORD": "new"}) == found.project
    assert not [
        one
        for one in ("secret-4711", "literal-4712", "opensesame", "production")
        if one in kept(whole).read_text()
    ]


def test_a_secret_that_is_not_fit_any_more_is_left_to_the_check(whole: Path) -> None:
    """A line break cannot stand in an env-file: the settings are checked, which says so."""
    assert recall(str(whole), "prod", None, {"PASSWORD": "two\nlines"}) is None
    with pytest.raises(ConfigurationError, match="line break"):
        load(whole, {"PASSWORD": "two\nlines"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tag: v1", 'tag: "${PASSWORD}"'),
        ("/srv/a:/a", "/srv/${PASSWORD}:/a"),
        ("team: web", 'team: "${PASSWORD}"'),
        ("[serve,", '["${PASSWORD}",'),
        ("domain: other.test", 'domain: "${PASSWORD}.test"'),
        ("image: a.io/x", 'image: "a.io/${PASSWORD}"'),
        (
            "defaults:\n",
            'defaults:\n  registry: {username: you, password: "${PASSWORD}", server: b.io}\n  domain: "${PASSWORD}.test"\n',
        ),
        ("domain: other.test", 'domain: "${PASSWORD:-$PASSWORD}"'),
        ("team: web", "team: &team '${PASSWORD}'"),
        (
            '"x-${PASSWORD}", MODE: production}\n    volumes: ["/srv/a:/a"]\n    labels: {team: web}\n',
            '&one "${PASSWORD}.x"}\n  domain: *one\n',
        ),
    ],
)
def test_settings_that_a_variable_decides_about_are_checked_each_time(
    tmp_path: Path, before: str, after: str
) -> None:
    """Another value of that variable might be none that is allowed."""
    environ = {"PASSWORD": "secret"}
    text = WHOLE.replace(before, after).replace('passphrase: "${PASSPHRASE:-opensesame}"', "user: me")
    path = deployed_before(tmp_path, text, environ)
    found = recall(str(path), "other", "v1", environ)
    assert found is not None
    assert (None, {"edge1", "app1"}) == (found.project, set(found.inventory.hosts))


def test_a_variable_that_holds_its_own_name_is_one(tmp_path: Path) -> None:
    """Whether a variable decides is not told by whether the text has changed."""
    environ = {"PASSWORD": "${PASSWORD}"}
    path = deployed_before(tmp_path, WHOLE.replace("team: web", 'team: "${PASSWORD}"'), environ)
    found = recall(str(path), "other", "v1", environ)
    assert found is None or found.project is None


@pytest.mark.parametrize(
    "way", [("tag",), ("health", "timeout"), ("container", "log"), ("name",), ("registry", "password")]
)
def test_settings_of_another_shape_are_not_used(whole: Path, way: tuple[str, ...]) -> None:
    """What another version has kept, or what is damaged, is checked again."""
    document = json.loads(kept(whole).read_text())
    inner = document["project"]["environments"]["prod"]
    for key in way[:-1]:
        inner = inner[key]
    del inner[way[-1]]
    kept(whole).write_text(json.dumps(document))
    assert recall(str(whole), "prod", None, ENVIRON) is None


def test_what_stands_there_by_now_is_not_what_was_checked(whole: Path) -> None:
    """A file that changes between its check and the keeping is not recalled: those settings are not what it says."""
    loaded = read(whole, ENVIRON)
    whole.write_text(WHOLE.replace("domain: other.test", "domain: another.test"))
    remember(loaded, ENVIRON)
    assert recall(str(whole), "prod", None, ENVIRON) is None


def test_another_check_has_to_find_it_right_again(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After an update of what checks the settings, what was kept is not used."""
    monkeypatch.setattr("axon_tasks.deploy.inventory._CHECKS", tmp_path)
    assert recall(str(whole), "prod", None, ENVIRON) is None


def test_a_file_that_others_can_read_is_not_one_of_ours(whole: Path) -> None:
    """What a checkout brings along has not the mode in which settings are kept."""
    kept(whole).chmod(0o644)
    assert recall(str(whole), "prod", None, ENVIRON) is None

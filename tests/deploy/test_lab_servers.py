"""Two servers with nothing but sshd are made ready with `servers.setup`, and are deployed to as a user that is not root."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from products import a_product
from reading import examples
from schemas import conforming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from products import Product

    from axon_tasks.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

#: How hosts.yml calls them, and which hosts of the lab they are.
EDGE, APP = "edge1", "app3"
BARE = {EDGE: "bare1", APP: "bare2"}
#: All that a setup may touch, with owners, modes and times; and the packages.
STATE = (
    "find /etc /home /srv /root /var/lib/axon -xdev -printf '%p %m %u %g %s %T@\\n' 2>/dev/null | sort;"
    " dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n'"
)


@pytest.fixture(scope="module")
def new(
    images: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Product]:
    """A product on two servers that nobody has set up, to be deployed by a user that is not there yet."""
    made = a_product(images, tmp_path_factory.mktemp("servers"), request.node.nodeid)
    hosts = made.settings["hosts"]
    login = {**hosts["edge1"], "user": "deploy"}
    made.settings["hosts"] = {
        name: {**login, "address": images.host(host).address, "private_address": images.host(host).address}
        for name, host in BARE.items()
    }
    made.settings["environments"]["prod"] |= {
        "system": [EDGE], "app": [APP], "env_file": f"/srv/{made.name}/prod.env",
    }  # fmt: skip
    for name in BARE.values():
        images.discard(name)
        images.start(name)
    yield made
    for name in BARE.values():
        images.discard(name)


def on(product: Product, name: str, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run something on a server of hosts.yml, past SSH."""
    return product.lab.exec(BARE[name], command, check=check)


def state(product: Product) -> list[str]:
    """What is on both servers."""
    return [on(product, name, STATE).stdout for name in BARE]


def has(product: Product, name: str, program: str) -> bool:
    """Whether a server has a program."""
    return on(product, name, f"command -v {program}", check=False).returncode == 0


def test_what_new_servers_lack(new: Product) -> None:
    """The check says what is to be done and changes nothing; without a way in it says which flag is missing."""
    before = state(new)
    said = new.fab("servers.check", "--env=prod")
    assert (4, True) == (said.returncode, "--user=root" in said.stderr), said.stderr
    said = new.fab("servers.check", "--env=prod", "--user=root", "--json")
    found = conforming("servers", said.stdout)
    assert 1 == said.returncode, said.stderr
    told = {one["server"]: [todo["what"] for todo in one["todo"]] for one in found["servers"]}
    assert {
        EDGE: [
            "install with apt-get: nginx sudo", "create the user deploy",
            "let deploy log in with 1 of root's keys",
            "let deploy become root with `sudo sh -s`: /etc/sudoers.d/axon-tasks-deploy",
            "start nginx", "make the directory /etc/nginx/axon.d/upstreams",
            "make the directory /etc/nginx/axon.d/sites", "have nginx read it: /etc/nginx/conf.d/axon.conf",
        ],
        APP: [
            "install with apt-get: docker.io", "start docker", "create the user deploy",
            "let deploy log in with 1 of root's keys", "add deploy to the group docker",
            "give deploy /var/lib/axon", f"give deploy /var/lib/axon/{new.name}",
            f"make the directory /srv/{new.name} for deploy",
        ],
    } == told  # fmt: skip
    said = new.fab("servers.setup", "--env=prod", "--user=root")
    assert (2, True) == (said.returncode, "Add --yes" in said.stderr), said.stderr
    assert before == state(new)


def test_what_is_not_set_up(new: Product, tmp_path: Path) -> None:
    """Another system, a wrong key file and a wrong user are refused, and then no server is changed."""
    before = state(new)
    own = on(new, APP, "cat /etc/os-release").stdout
    on(new, APP, "rm /etc/os-release; echo 'ID=fedora\nPRETTY_NAME=\"Fedora Linux 43\"' >/etc/os-release")
    said = new.fab("servers.setup", "--env=prod", "--user=root", "--yes")
    on(new, APP, "rm /etc/os-release; ln -s ../usr/lib/os-release /etc/os-release")
    assert (1, own) == (said.returncode, on(new, APP, "cat /etc/os-release").stdout), said.stderr
    assert f"{APP}: this is Fedora Linux 43, and only Debian and Ubuntu are set up by this" in said.stdout
    assert "Nothing was changed" in said.stderr
    private = new.settings["hosts"][EDGE]["key"]
    for words, message in (
        ([f"--authorized-keys={private}"], "this is a private key"),
        ([f"--authorized-keys={tmp_path}/none"], "No such file"),
        ([f"--key={tmp_path}/none"], "there is no such file"),
        (["--user=a b"], "no user name"),
        (["--only=edge9"], "edge9"),
    ):
        said = new.fab("servers.setup", "--env=prod", "--yes", *words)
        assert (2, True) == (said.returncode, message in said.stderr), said.stderr
    assert [re.sub(r"(?m)^/etc(/os-release)? .*\n", "", one) for one in before] == [
        re.sub(r"(?m)^/etc(/os-release)? .*\n", "", one) for one in state(new)
    ]


def test_new_servers_are_made_ready(new: Product) -> None:
    """A setup that is killed is completed by the next one; a second one changes nothing; then a deploy works."""
    words = ("servers.setup", "--env=prod", "--user=root", "--yes")
    killed = new.begin(*words)
    assert killed.stdout
    for line in killed.stdout:
        if "docker.io …" in line:
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    said = new.fab(*words, timeout=300)
    assert 0 == said.returncode, said.stdout + said.stderr
    assert f"Ready: {EDGE}, {APP}" in said.stdout
    # The env file is the operator's; everything else is there.
    assert [f"{APP}"] == re.findall(r"(?m)^(\w+)  failed", said.stdout), said.stdout
    assert [True, True, False] == [has(new, EDGE, "nginx"), has(new, APP, "docker"), has(new, APP, "nginx")]

    before = state(new)
    again = new.fab(*words)
    assert (0, 2) == (again.returncode, again.stdout.count("nothing to do")), again.stdout + again.stderr
    # And as the user who deploys, where that one may become root.
    own = new.fab("servers.check", "--env=prod", "--only=edge1")
    assert (0, 1) == (own.returncode, own.stdout.count("nothing to do")), own.stdout + own.stderr
    assert before == state(new)

    pushed = subprocess.run(
        new.command("env.push", "--env=prod", "--file=-", "--yes", f"--hosts-file={new.write()}"),
        input="GREETING=hello\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert 0 == pushed.returncode, pushed.stderr
    lock = "/var/lib/axon/ports.lock"
    on(new, APP, f"touch {lock}; chown root {lock}")
    examined = new.fab("doctor", "--env=prod")
    assert (1, True) == (examined.returncode, f"may not write in {lock}" in examined.stdout), examined.stdout
    on(new, APP, f"chown deploy {lock}")
    examined = new.fab("doctor", "--env=prod")
    assert (0, True) == (examined.returncode, ", 0 failed" in examined.stdout), examined.stdout
    for tag in ("v1", "v2"):
        done = new.deploy(tag)
        assert (0, (200, tag)) == (
            done.returncode, new.get(address=new.settings["hosts"][EDGE]["address"]),
        ), done.stdout + done.stderr  # fmt: skip
    owner = on(new, APP, f"stat -c %U /var/lib/axon/{new.name}/prod/started").stdout
    assert "deploy\n" == owner


#: Whoever has a server of a cloud logs in like this.
UBUNTU = """\
apt-get install -y -q sudo >/dev/null
useradd --create-home --password '*' ubuntu
install -d -o ubuntu -m 700 /home/ubuntu/.ssh
install -o ubuntu -m 600 /root/.ssh/authorized_keys /home/ubuntu/.ssh/authorized_keys
echo 'ubuntu ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ubuntu
"""


def test_the_examples_of_the_help(new: Product, tmp_path: Path) -> None:
    """Each does what it says it does, on servers that are ready; keys that were given are added once."""
    for name in BARE:
        on(new, name, UBUNTU)
    (tmp_path / "fabfile.py").write_text("from axon_tasks.tasks import namespace\nns = namespace()\n")
    (tmp_path / ".ssh").mkdir()
    shutil.copy(new.settings["hosts"][EDGE]["key"], tmp_path / ".ssh" / "aws.pem")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgMHrcjCi4xuzEBQZVvTqN2B1Fn2rVZ2Jxv6FQGx1yT"
    (tmp_path / "deploy.pub").write_text(f"{key} ci\n")
    # Its last line has no end, as some tools write it.
    theirs = "/home/deploy/.ssh/authorized_keys"
    on(new, APP, f"printf '# revoked: {key}\\n%s' \"$(cat {theirs})\" >/tmp/keys && cat /tmp/keys >{theirs}")
    tried = [line for name in ("servers.check", "servers.setup") for line in examples(name)]
    assert 6 == len(tried)
    for line in tried:
        words = shlex.split(line)
        said = subprocess.run(
            new.command(*words[1:], f"--hosts-file={new.write()}"), cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        assert 0 == said.returncode, (words, said.stdout, said.stderr)
    lines = on(new, APP, f"cat {theirs}").stdout.splitlines()
    assert (3, f"# revoked: {key}", f"{key} ci") == (len(lines), lines[0], lines[2])
    assert 0 == new.fab("doctor", "--env=prod", "--only=app3").returncode

"""Bad input and broken servers: a clear message, the right exit code, and nothing changed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from products import Product

    from axon_tasks.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def failed(product: Product, *flags: str, tag: str = "v1") -> tuple[int, str]:
    """Exit code and message of a deploy; whatever failed, there is no traceback and nothing is left running."""
    done = product.deploy(tag, *flags)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done.returncode, done.stderr


def test_a_tag_that_does_not_exist(product: Product) -> None:
    """The message names the tag and says to push it; nothing is started."""
    code, said = failed(product, tag="v404")
    assert (1, [], []) == (code, product.containers("app1"), product.containers("app2"))
    assert "v404: the registry has no such tag" in said
    assert "--tag" in said


def test_a_registry_that_refuses(product: Product, prod: dict[str, Any]) -> None:
    """A wrong password is told as one, and stands nowhere; with the right one the image is pulled."""
    prod.update(image="10.77.0.5:5001/shop", app=["app1"], registry={"username": "axon", "password": "wr0ng"})
    code, said = failed(product)
    assert (1, True) == (code, "the registry refuses the login" in said), said
    assert "wr0ng" not in said
    prod["registry"]["password"] = "secret"
    assert 0 == product.deploy("v1").returncode
    kept = product.lab.exec(
        "app1", "cat /root/.docker/config.json 2>/dev/null; ls -d /tmp/axon-login.* 2>/dev/null", check=False
    )
    assert "" == kept.stdout


def test_a_registry_that_asks_for_a_login(product: Product, prod: dict[str, Any]) -> None:
    """Without credentials the message says where they belong."""
    prod.update(image="10.77.0.5:5001/shop", app=["app1"])
    code, said = failed(product)
    assert (1, True) == (code, "registry: {username, password}" in said), said


def test_a_registry_that_is_not_there(product: Product, prod: dict[str, Any]) -> None:
    """A registry that cannot be reached from the app server is told as such."""
    prod.update(image="10.77.0.5:5999/shop", app=["app1"])
    code, said = failed(product)
    assert (1, True) == (code, "the registry cannot be reached" in said), said


def test_a_missing_env_file(product: Product, prod: dict[str, Any]) -> None:
    """Each server on which the env file is missing is named, with the command that creates it."""
    prod["env_file"] = "/srv/none/.env"
    code, said = failed(product)
    assert (1, []) == (code, product.containers("app1"))
    for server in ("app1", "app2"):
        assert f"{server}: the env file /srv/none/.env is missing" in said
    assert "umask 077" in said


def test_no_docker_daemon(product: Product, broken: Callable[[str, str], None]) -> None:
    """A server whose Docker daemon does not run is named; the other one is left as it was."""
    broken("app2", "dockerd")
    code, said = failed(product)
    assert (1, True, []) == (
        code,
        "app2: asking Docker: the Docker daemon does not run" in said,
        product.containers("app1"),
    ), said


def test_no_docker_at_all(product: Product, lab: Lab) -> None:
    """A server without Docker is told to have none."""
    with hidden(lab, "app1", "/usr/bin/docker"):
        code, said = failed(product)
    assert (1, True) == (code, "app1: asking Docker: Docker is not installed" in said), said


def test_no_nginx_at_all(product: Product, lab: Lab) -> None:
    """A system server without nginx is told to have none."""
    with hidden(lab, "edge1", "/usr/sbin/nginx"):
        code, said = failed(product)
    assert (1, True) == (code, "edge1: inspecting nginx: nginx is not installed" in said), said


def test_nginx_does_not_run(product: Product, broken: Callable[[str, str], None]) -> None:
    """A system server whose nginx is stopped is told, with the command that starts it."""
    broken("edge1", "nginx")
    code, said = failed(product)
    assert (1, True, []) == (code, "edge1: nginx is not running" in said, product.containers("app1")), said


def test_nginx_does_not_include_us(product: Product, lab: Lab) -> None:
    """A system server that was not set up is told, with the lines that are missing."""
    with hidden(lab, "edge1", "/etc/nginx/conf.d/axon.conf"):
        code, said = failed(product)
    assert (1, True) == (code, "does not include /etc/nginx/axon.d" in said), said


def test_a_broken_nginx_configuration_blocks_before_anything_changes(product: Product, lab: Lab) -> None:
    """If nginx would refuse the new files, the deploy fails before anything is started, with nginx's own words."""
    lab.exec("edge1", "echo 'server { oops; }' > /etc/nginx/axon.d/sites/zz-foreign.conf")
    try:
        code, said = failed(product)
        kept = lab.exec("edge1", "ls /etc/nginx/axon.d/sites").stdout
    finally:
        lab.exec("edge1", "rm /etc/nginx/axon.d/sites/zz-foreign.conf")
    assert (1, True, False) == (
        code,
        "/etc/nginx/axon.d/sites/zz-foreign.conf:1" in said,
        product.name in kept,
    ), said
    assert [] == product.containers("app1")


def test_no_permission(product: Product, lab: Lab) -> None:
    """A user without sudo and outside of the group docker is told both, per server, and nothing is changed."""
    lab.exec("app1", "gpasswd -d deploy docker >/dev/null 2>&1; true")
    try:
        for host in product.settings["hosts"].values():
            host["user"] = "deploy"
        code, said = failed(product)
    finally:
        lab.exec("app1", "usermod -aG docker deploy")
    assert 1 == code, said
    assert "app1: asking Docker: this user may not use Docker" in said
    assert "edge1" in said


def test_an_unreachable_server(product: Product) -> None:
    """A server that does not answer ends the run with exit code 4 and its name, within its time limit."""
    product.settings["hosts"]["app2"].update(
        address="10.77.0.99", private_address="10.77.0.99", connect_timeout="2s"
    )
    code, said = failed(product)
    assert (4, True, []) == (code, "app2" in said, product.containers("app1")), said


def test_a_server_that_refuses_the_connection(product: Product) -> None:
    """A closed port is told as refused, with exit code 4."""
    product.settings["hosts"]["app2"]["port"] = 2999
    code, said = failed(product)
    assert (4, True) == (code, "refused" in said.lower()), said


def _known_hosts(product: Product, change: Callable[[list[str]], list[str]]) -> None:
    lines = Path(product.settings["known_hosts"]).read_text().splitlines()
    path = product.folder / "known_hosts"
    path.write_text("\n".join(change(lines)) + "\n")
    product.settings["known_hosts"] = str(path)


def test_an_unknown_host_key(product: Product) -> None:
    """A server whose key is unknown is refused with exit code 4 and the command that shows and adds it."""
    _known_hosts(product, lambda lines: [line for line in lines if "10.77.0.21" not in line])
    code, said = failed(product)
    assert (4, True, True) == (code, "app1" in said, "ssh-keyscan" in said), said
    assert [] == product.containers("app2")


def test_a_changed_host_key_sends_nothing(product: Product, lab: Lab) -> None:
    """A server whose key is not the known one is refused with exit code 4, and no login is tried there."""
    made = product.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made)], check=True)
    key = " ".join(made.with_suffix(".pub").read_text().split()[:2])
    _known_hosts(
        product, lambda lines: [line for line in lines if "10.77.0.21" not in line] + [f"10.77.0.21 {key}"]
    )
    code, said = failed(product)
    assert (4, True) == (code, "app1" in said), said
    assert "ssh-keygen -R" in said
    assert "[]" == str(product.containers("app1"))


def test_a_full_port_range(product: Product, prod: dict[str, Any]) -> None:
    """A range without two free ports is told, with the key to widen."""
    prod.update(app=["app1"], ports={"first": 30900, "last": 30901})
    product.lab.exec(
        "app1", "mkdir -p /var/lib/axon/zz/full && echo '30900 30901' > /var/lib/axon/zz/full/ports"
    )
    try:
        code, said = failed(product)
    finally:
        product.lab.exec("app1", "rm -rf /var/lib/axon/zz")
    assert (1, True) == (code, "no two free ports left between 30900 and 30901" in said), said


def test_a_port_that_somebody_else_has_taken(product: Product, prod: dict[str, Any]) -> None:
    """A container that is not ours on our port is named, and stays as it is."""
    prod["app"] = ["app1"]
    product.serve("v1")
    ports = product.lab.exec("app1", ["cat", f"/var/lib/axon/{product.name}/prod/ports"]).stdout.split()
    product.lab.exec(
        "app1",
        ["docker", "run", "-d", "--name", "zz-foreign", "-p", f"{ports[1]}:3000", "10.77.0.5:5000/shop:v1"],
    )
    try:
        code, said = failed(product, tag="v2")
        state = product.lab.exec(
            "app1", ["docker", "inspect", "--format", "{{.State.Status}}", "zz-foreign"]
        ).stdout
    finally:
        product.lab.exec("app1", ["docker", "rm", "-f", "zz-foreign"])
    assert (1, True, "running\n") == (code, "taken by the container zz-foreign" in said, state), said
    assert (200, "v1") == product.get()


def test_a_port_that_docker_has_forgotten(product: Product, prod: dict[str, Any]) -> None:
    """A docker-proxy without a container, which Docker never ends by itself, is recognised; the message says how to end it."""
    prod["app"] = ["app1"]
    product.serve("v1")
    ports = product.lab.exec("app1", ["cat", f"/var/lib/axon/{product.name}/prod/ports"]).stdout.split()
    proxy = f"docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port {ports[1]} -container-ip 172.17.0.250 -container-port 3000"
    product.lab.exec("app1", f"setsid {proxy} 3>/dev/null >/dev/null 2>&1 & sleep 0.3")
    try:
        code, said = failed(product, tag="v2")
    finally:
        product.lab.exec("app1", ["pkill", "-f", f"docker-proxy.*{ports[1]} "])
    assert (1, True, True) == (
        code,
        "a docker-proxy that Docker has left" in said,
        "restart docker" in said,
    ), said
    assert (200, "v1") == product.get()


def test_a_container_name_that_somebody_else_has_taken(
    product: Product, prod: dict[str, Any], lab: Lab
) -> None:
    """A foreign container with the name that is needed is told, and is neither removed nor stopped."""
    import time

    prod["app"] = ["app1"]
    product.serve("v1")
    # Not the second in which the release that serves may have been made.
    now = int(time.time()) + 1
    names = [f"{product.name}-prod-{second}" for second in range(now, now + 40)]
    create = "; ".join(
        f"docker create --name {name} --label axon.product=other 10.77.0.5:5000/shop:v1" for name in names
    )
    lab.exec("app1", create)
    try:
        code, said = failed(product, tag="v2")
        left = [name for name in product.containers("app1") if name in names]
    finally:
        lab.exec("app1", ["docker", "rm", "-f", *names], check=False)
    assert (1, True, names) == (code, "the container's name is taken" in said, left), said
    assert (200, "v1") == product.get()


def test_a_full_disk(product: Product, prod: dict[str, Any], lab: Lab) -> None:
    """An image that does not fit is told as a full disk, and the old release keeps serving."""
    prod["app"] = ["app1"]
    product.serve("v1")
    lab.exec(
        "app1",
        "docker rmi -f $(docker images -q --filter reference='10.77.0.5:5000/shop:sick') 2>/dev/null",
        check=False,
    )
    lab.exec("app1", "mount -t tmpfs -o size=4k tmpfs /var/lib/docker/tmp")
    try:
        code, said = failed(product, tag="sick")
    finally:
        lab.exec("app1", "umount -l /var/lib/docker/tmp")
    assert (1, True) == (code, "the disk is full" in said), said
    assert (200, "v1") == product.get()


def test_a_container_that_exits_at_once(product: Product) -> None:
    """A crash is told with its exit code and its last words, long before the health timeout."""
    code, said = failed(product, tag="crash")
    assert (1, []) == (code, product.containers("app1"))
    assert "exited, exit code 3" in said
    assert "cannot start: DATABASE_URL is not set" in said


def test_a_first_release_that_fails_leaves_nothing(product: Product, lab: Lab) -> None:
    """Where nothing served before, a failed first deploy leaves no container and no nginx file."""
    code, said = failed(product, tag="sick")
    files = lab.exec("edge1", "ls /etc/nginx/axon.d/sites /etc/nginx/axon.d/upstreams").stdout
    assert (1, [], False) == (code, product.containers("app1"), product.name in files)
    assert "no release of this tool served before" in said


class hidden:  # noqa: N801  (reads as a verb in a with statement)
    """A program or file of a lab host that is out of the way for a while."""

    def __init__(self, lab: Lab, host: str, path: str) -> None:
        self.lab, self.host, self.path = lab, host, path

    def __enter__(self) -> None:
        self.lab.exec(self.host, ["mv", self.path, f"{self.path}.hidden"])

    def __exit__(self, *_: object) -> None:
        self.lab.exec(self.host, ["mv", f"{self.path}.hidden", self.path])

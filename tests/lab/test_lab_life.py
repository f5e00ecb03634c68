"""The lab comes up, is repaired, changes, and goes without a trace. Each test has a machine of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from isolated import isolated

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import Lab
from axon_tasks.lab import lab as lab_module
from axon_tasks.lab.hosts import cgroup_name
from axon_tasks.lab.images import IMAGE, build_sample

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]


def living() -> list[str]:
    """The names of all processes but those that have ended and wait to be noticed."""
    names = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, fields = (entry / "stat").read_text(encoding="utf-8").partition("(")[2].rpartition(") ")
            if not fields.startswith("Z"):
                names.append(name)
    return names


def traces(project: Path) -> dict[str, list[str]]:
    """What a lab could leave on a machine."""
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    return {
        "interfaces": sorted(os.listdir("/sys/class/net")),  # noqa: PTH208
        "run": sorted(os.listdir("/run")),  # noqa: PTH208
        "store": sorted(os.listdir("/var/lib")),  # noqa: PTH208
        "project": sorted(os.listdir(project)),  # noqa: PTH208
        "mounts": sorted(mounts),
        "processes": sorted(living()),
        "filter": subprocess.run(
            ["iptables", "-S"], capture_output=True, text=True, check=True
        ).stdout.splitlines(),
    }


def assert_unchanged(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    for kind, expected in before.items():
        assert expected == after[kind], f"{kind}: {sorted(set(expected) ^ set(after[kind]))}"


def running(lab: Lab) -> dict[str, bool]:
    return {host.name: host.ok for host in lab.status()}


def ssh(lab: Lab, address: str, *command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
    options = ["-F", "none", "-i", str(lab.key_file), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    known = ["-o", f"UserKnownHostsFile={lab.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
    return subprocess.run(
        ["ssh", *options, *known, f"{user}@{address}", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def start_sample(
    lab: Lab, tag: str = "v1", *, name: str = "sample", port: int = 30100, variant: str = "ok"
) -> None:
    build_sample(lab, tag, variant)
    address = lab.host("app1").address
    run = f"docker run -d --restart unless-stopped --name {name} -p {address}:{port}:3000 {IMAGE}:{tag}"
    lab.exec("app1", run)


def get(address: str, port: int, path: str = "/") -> str:
    """The whole answer to one request, or nothing when the server cannot be reached."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: shop.lab\r\nConnection: close\r\n\r\n".encode())
        return connection.makefile("rb").read().decode()
    return ""


def get_soon(address: str, port: int, path: str = "/") -> str:
    deadline = time.monotonic() + 60
    while not (answer := get(address, port, path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


@isolated
def test_down_leaves_nothing(project: Path) -> None:
    """After lab.down the machine is as it was before lab.up: processes, network, mounts, files and packet filter."""
    before = traces(project)
    lab = Lab(root=project)
    lab.up()
    start_sample(lab)
    assert running(lab) == dict.fromkeys(["registry", "edge1", "app1", "app2", "app3"], True)
    assert traces(project) != before
    group = cgroup_name((lab_module.STORE / "keys/id").read_text(encoding="utf-8"))
    assert list(Path("/sys/fs/cgroup").rglob(group)) != []
    lab.down()

    assert_unchanged(before, traces(project))
    assert list(Path("/sys/fs/cgroup").rglob(group)) == []


@isolated
def test_down_works_on_half_a_lab(project: Path) -> None:
    """lab.down leaves nothing when hosts have died and the lab's own notes are lost."""
    before = traces(project)
    lab = Lab(apps=1, root=project)
    lab.up()
    os.kill(lab.pid("app1") or 0, signal.SIGKILL)
    shutil.rmtree("/run/axon-lab")
    shutil.rmtree(lab_module.STORE / "edge1" / "upper")
    subprocess.run(["ip", "link", "del", "axonlab0"], check=True)
    Lab(root=project).down()

    assert_unchanged(before, traces(project))


@isolated
def test_down_without_a_lab(project: Path) -> None:
    """lab.down where there is no lab does nothing, and says that there is none left."""
    before = traces(project)
    said: list[str] = []
    Lab(root=project).down(said.append)

    assert_unchanged(before, traces(project))
    assert said == ["The lab is gone"]


@isolated
def test_up_repairs(project: Path) -> None:
    """lab.up on a broken lab starts what has died and leaves what runs alone."""
    lab = Lab(apps=1, root=project)
    lab.up()
    kept = lab.pid("edge1")
    os.kill(lab.pid("app1") or 0, signal.SIGKILL)
    lab.exec("registry", "touch /run/lab/registry.down; kill $(cat /run/lab/registry.pid)")
    shutil.rmtree("/run/axon-lab")
    lab = Lab(apps=1, root=project)
    lab.up()

    assert running(lab) == {"registry": True, "edge1": True, "app1": True}
    assert lab.pid("edge1") == kept


@isolated
def test_second_up_changes_nothing(project: Path) -> None:
    """lab.up on a lab that is as asked starts no process and keeps its keys."""
    lab = Lab(apps=1, root=project)
    lab.up()
    before = (
        {host.name: lab.pid(host.name) for host in lab.hosts},
        lab.known_hosts.read_text(),
        lab.key_file.read_text(),
    )
    said: list[str] = []
    Lab(root=project).up(said.append)

    after = (
        {host.name: lab.pid(host.name) for host in lab.hosts},
        lab.known_hosts.read_text(),
        lab.key_file.read_text(),
    )
    assert after == before
    assert said == []


@isolated
def test_apps_and_rtt_change_on_a_running_lab(project: Path) -> None:
    """lab.up with other numbers changes the running lab; numbers that are left out stay as they are."""
    lab = Lab(apps=1, root=project)
    lab.up()
    Lab(apps=2, rtt=40, root=project).up()
    lab = Lab(root=project)
    assert (lab.apps, lab.rtt) == (2, 40.0)
    assert running(lab) == {"registry": True, "edge1": True, "app1": True, "app2": True}

    begun = time.monotonic()
    assert ssh(lab, "10.77.0.22", "hostname").stdout == "app2\n"
    assert time.monotonic() - begun > 5 * 0.04
    assert lab.connections("app2") >= 1

    Lab(apps=1, rtt=0, root=project).up()
    lab = Lab(root=project)
    assert (lab.apps, lab.rtt) == (1, 0.0)
    assert ssh(lab, "10.77.0.21", "hostname").stdout == "app1\n"
    assert lab.connections("app1") == 0
    assert not lab_module._answers_on("10.77.0.22", 22)
    assert "app2" not in lab.known_hosts.read_text()


@isolated
def test_dead_proxy_is_repaired(project: Path) -> None:
    """A delay proxy that died is started again by lab.up, and by starting the host."""
    lab = Lab(apps=1, rtt=10, root=project)
    lab.up()
    proxy = lab._proxy(lab.host("app1"))
    assert proxy is not None
    lab.exec("app1", ["kill", "-9", str(proxy["pid"])])
    lab.up()
    assert ssh(lab, "10.77.0.21", "hostname").stdout == "app1\n"

    lab.stop("app1")
    lab.start("app1")
    assert ssh(lab, "10.77.0.21", "hostname").stdout == "app1\n"


@isolated
def test_lab_of_another_checkout(project: Path) -> None:
    """A lab of another project directory is named and left alone, unless that directory is gone."""
    one, two = project / "one", project / "two"
    one.mkdir()
    two.mkdir()
    Lab(apps=1, root=one).up()
    for change in (Lab(root=two).up, Lab(root=two).down):
        with pytest.raises(AxonError, match=f"belongs to {one}") as refused:
            change()
        assert refused.value.code == 1
    assert running(Lab(root=one)) == {"registry": True, "edge1": True, "app1": True}

    shutil.rmtree(one)
    Lab(apps=1, root=two).up()
    assert ssh(Lab(root=two), "10.77.0.10", "hostname").stdout == "edge1\n"
    assert Lab(root=two).key_file.stat().st_mode & 0o777 == 0o600


@isolated
def test_foreign_lab_can_be_removed_by_force(project: Path) -> None:
    """lab.down --force removes the lab of another project directory."""
    other = project / "other"
    other.mkdir()
    Lab(apps=1, root=other).up()
    Lab(root=project).down(force=True)

    assert "axonlab0" not in traces(project)["interfaces"]


@isolated
def test_network_in_use(project: Path) -> None:
    """A machine that uses the lab's addresses for something else is left as it is, and the message says where."""
    subprocess.run(["ip", "link", "add", "other0", "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", "10.77.0.77/24", "dev", "other0"], check=True)
    subprocess.run(["ip", "link", "set", "other0", "up"], check=True)
    with pytest.raises(AxonError, match=r"in use on this machine: .*other0"):
        Lab(root=project).up()

    assert "axonlab0" not in traces(project)["interfaces"]


@isolated
def test_lab_where_the_disk_is_an_overlay(project: Path) -> None:
    """Where / is an overlay, as in a container, the lab keeps its files in memory, works, and leaves nothing."""
    for name in ("upper", "work", "lower"):
        (Path("/run/disk") / name).mkdir(parents=True)
    options = "lowerdir=/run/disk/lower,upperdir=/run/disk/upper,workdir=/run/disk/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", "/var/lib"], check=True)
    before = traces(project)
    lab = Lab(apps=1, root=project)
    lab.up()
    start_sample(lab)
    assert "shop v1 at " in get_soon("10.77.0.21", 30100)
    lab.down()

    assert_unchanged(before, traces(project))


@isolated
def test_power_cut_and_restart(project: Path) -> None:
    """A host that is powered off is unreachable; powered on, it has its files, and containers on the same ports."""
    lab = Lab(apps=1, root=project)
    lab.up()
    start_sample(lab)
    assert "shop v1 at " in get_soon("10.77.0.21", 30100)
    lab.exec("app1", "echo kept >/srv/kept; echo kept >/etc/kept; echo lost >/run/lost")
    lab.stop("app1")
    assert get("10.77.0.21", 30100) == ""
    assert running(lab)["app1"] is False
    with pytest.raises(AxonError, match="app1 is not running"):
        lab.exec("app1", "true")

    lab.start("app1")
    assert lab.exec("app1", "cat /srv/kept /etc/kept; ls /run/lost", check=False).stdout == "kept\nkept\n"
    assert "shop v1 at " in get_soon("10.77.0.21", 30100)
    assert ssh(lab, "10.77.0.21", "hostname").stdout == "app1\n"


@isolated
def test_services_stop_and_start(project: Path) -> None:
    """One program of a host can be stopped and started; one that crashes comes back by itself; containers stay."""
    lab = Lab(apps=1, root=project)
    lab.up()
    start_sample(lab)
    lab.stop_service("app1", "dockerd")
    assert lab.exec("app1", "docker ps", check=False).returncode == 1
    assert "shop v1 at " in get_soon("10.77.0.21", 30100)
    lab.start_service("app1", "dockerd")
    assert lab.status()[2].containers == [f"sample ({IMAGE}:v1)"]

    killed = lab.exec("edge1", "cat /run/nginx.pid").stdout
    lab.exec("edge1", f"kill -9 {killed}")
    deadline = time.monotonic() + 30
    while (
        lab.exec("edge1", "cat /run/nginx.pid", check=False).stdout in {killed, ""}
        or not running(lab)["edge1"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(UsageError, match="does not run"):
        lab.stop_service("edge1", "dockerd")


@isolated
def test_sample_stops_gracefully(project: Path) -> None:
    """On SIGTERM the sample finishes the request that it has, takes no other, and exits 0."""
    lab = Lab(apps=1, root=project)
    lab.up()
    start_sample(lab)
    get_soon("10.77.0.21", 30100)
    with socket.create_connection(("10.77.0.21", 30100), timeout=30) as connection:
        connection.sendall(b"GET /slow?seconds=3 HTTP/1.1\r\nHost: shop.lab\r\n\r\n")
        time.sleep(0.5)
        stopping = subprocess.Popen([*lab.enter("app1"), "docker", "stop", "--time", "20", "sample"])
        answer = connection.makefile("rb").read().decode()
    stopping.wait()

    assert answer.startswith("HTTP/1.1 200 OK")
    assert "shop v1 took 3 seconds" in answer
    assert get("10.77.0.21", 30100) == ""
    assert lab.exec("app1", "docker inspect --format '{{.State.ExitCode}}' sample").stdout == "0\n"


@isolated
def test_variants(project: Path) -> None:
    """Each variant of the sample behaves as its name says."""
    lab = Lab(apps=1, root=project)
    lab.up()
    address = "10.77.0.21"
    for port, variant in enumerate(
        ("crash", "sick", "slowstart", "healthcheck", "unhealthy", "noshell"), 30200
    ):
        start_sample(lab, variant, name=variant, port=port, variant=variant)

    def state(name: str, field: str) -> str:
        return lab.exec(
            "app1", ["docker", "inspect", "--format", f"{{{{.State.{field}}}}}", name]
        ).stdout.strip()

    def becomes(name: str, field: str, wanted: str) -> bool:
        deadline = time.monotonic() + 60
        while state(name, field) != wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        return state(name, field) == wanted

    assert becomes("crash", "ExitCode", "3")
    assert "DATABASE_URL is not set" in lab.exec("app1", "docker logs crash 2>&1").stdout
    assert get_soon(address, 30201, "/api/health").startswith("HTTP/1.1 500 ")
    assert "shop sick at " in get(address, 30201)
    assert becomes("healthcheck", "Health.Status", "healthy")
    assert becomes("unhealthy", "Health.Status", "unhealthy")
    assert get_soon(address, 30205).startswith("HTTP/1.1 200 ")
    assert lab.exec("app1", "docker exec noshell sh -c true", check=False).returncode != 0
    assert lab.exec("app1", "docker exec healthcheck sh -c true", check=False).returncode == 0

    lab.exec("app1", "docker restart slowstart")
    assert get_soon(address, 30202, "/api/health").startswith("HTTP/1.1 503 ")
    deadline = time.monotonic() + 30
    while not get(address, 30202, "/api/health").startswith("HTTP/1.1 200 ") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert get(address, 30202, "/api/health").startswith("HTTP/1.1 200 ")


@isolated
def test_registry_with_login(project: Path) -> None:
    """Port 5001 of the registry serves the same images as port 5000, to the user that it knows only."""
    lab = Lab(apps=1, root=project)
    lab.up()
    build_sample(lab, "v1")
    pull = "docker pull -q 10.77.0.5:5001/shop:v1"
    assert "no basic auth" in lab.exec("app1", pull, check=False).stderr
    wrong = lab.exec(
        "app1", "docker login -u axon --password-stdin 10.77.0.5:5001", stdin="wrong", check=False
    )
    assert wrong.returncode != 0
    lab.exec("app1", "docker login -u axon --password-stdin 10.77.0.5:5001", stdin="secret")
    assert lab.exec("app1", pull).stdout == "10.77.0.5:5001/shop:v1\n"


@isolated
def test_images_are_built_once(project: Path) -> None:
    """The same version is built once; other sources or another variant replace it; the builder keeps no copy."""
    lab = Lab(apps=1, root=project)
    lab.up()

    def digest() -> str:
        url = "http://10.77.0.5:5000/v2/shop/manifests/v1"
        kind = "Accept: application/vnd.docker.distribution.manifest.v2+json"
        return lab.exec(
            "app1", f"docker manifest inspect --insecure {IMAGE}:v1 || curl -s -H '{kind}' {url}"
        ).stdout

    assert build_sample(lab, "v1") == f"{IMAGE}:v1"
    first = digest()
    assert lab.exec("app1", "docker images -q").stdout == ""
    build_sample(lab, "v1")
    assert digest() == first
    build_sample(lab, "v1", "sick")
    assert digest() != first
    with pytest.raises(UsageError, match="no variant 'nice'"):
        build_sample(lab, "v1", "nice")


@isolated
def test_stdin_and_failures_of_exec(project: Path) -> None:
    """What runs in a host gets its input and shows its output, and a failure says what it said."""
    lab = Lab(apps=1, root=project)
    lab.up()
    assert lab.exec("edge1", ["cat"], stdin="in\n").stdout == "in\n"
    assert lab.exec("edge1", "exit 3", check=False).returncode == 3
    with pytest.raises(AxonError, match="exit code 4: why"):
        lab.exec("edge1", "echo why >&2; exit 4")
    with pytest.raises(UsageError, match="no host 'app9'"):
        lab.exec("app9", "true")


@isolated
def test_hosts_are_separate(project: Path) -> None:
    """Hosts see their own name, processes, address and files, and no way out of the lab."""
    lab = Lab(apps=2, root=project)
    lab.up()
    for host in lab.hosts:
        assert lab.exec(host.name, "hostname").stdout == f"{host.name}\n"
        assert host.address in lab.exec(host.name, "ip -br addr show eth0").stdout
        assert lab.exec(host.name, "ip route show default").stdout == ""
        assert (
            lab.exec(host.name, "readlink /proc/1/ns/pid").stdout
            != f"{Path('/proc/self/ns/pid').readlink()}\n"
        )
        assert lab.exec(host.name, "ls /usr/local /root").stdout == "/root:\n\n/usr/local:\n"
    lab.exec("app1", "echo one >/etc/mark; echo one >/tmp/mark; echo one >/var/mark")
    assert lab.exec("app2", "cat /etc/mark /tmp/mark /var/mark", check=False).stdout == ""
    assert not any(Path(name).exists() for name in ("/etc/mark", "/tmp/mark", "/var/mark"))
    deploy = ssh(lab, "10.77.0.21", "id -un; docker ps -q; cat /srv/shop/.env.prod", user="deploy")
    assert deploy.stdout.startswith("deploy\nAPP_NAME=shop\n"), deploy.stderr
    assert ssh(lab, "10.77.0.10", "docker ps", user="deploy").returncode != 0
    assert ssh(lab, "10.77.0.10", "cat /etc/shadow", user="deploy").returncode != 0


@isolated
def test_host_that_cannot_start(project: Path) -> None:
    """A host whose program does not come up is named, with the end of the program's log."""
    lab = Lab(apps=1, root=project)
    lab.up()
    lab_module._READY_TIMEOUT = 3.0
    lab.exec("edge1", "echo 'nonsense;' >/etc/nginx/conf.d/broken.conf; kill $(cat /run/nginx.pid)")
    time.sleep(1)  # until nginx is gone
    with pytest.raises(AxonError, match=r"(?s)nginx on edge1 does not answer.*nonsense"):
        lab.up()


@isolated
def test_tasks(project: Path) -> None:
    """The tasks start, show and remove the lab, and exit with 1 when something in it is down."""
    from axon_tasks.tasks import lab as tasks

    def said(task: object, **flags: object) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            task.body(None, **flags)  # type: ignore[attr-defined]
        return out.getvalue()

    up = said(tasks.up, apps="1", rtt="5ms")
    assert "The lab is up: registry 10.77.0.5, edge1 10.77.0.10, app1 10.77.0.21, SSH with 5 ms" in up
    table = said(tasks.status).splitlines()
    assert [line.split()[0] for line in table] == ["HOST", "registry", "edge1", "app1"]
    assert "DOWN" not in said(tasks.status)
    shown = json.loads(said(tasks.status, json=True))
    assert [host["ok"] for host in shown] == [True, True, True]

    Lab(root=project).stop_service("edge1", "nginx")
    with pytest.raises(SystemExit) as ended:
        said(tasks.status)
    assert ended.value.code == 1
    Lab(root=project).stop("edge1")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        tasks.status.body(None)
    assert "OFF" in out.getvalue()
    assert said(tasks.down) == "The lab is gone\n"

"""The parts of the lab that need no lab."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import Lab, demo, images, machine
from axon_tasks.lab.hosts import Accounts, Secrets, all_hosts, host_files, host_spec
from axon_tasks.lab.load import Kind, Result, Seen
from axon_tasks.tasks import lab as lab_tasks

MACHINE = Accounts(
    passwd="root:x:0:0:root:/root:/bin/bash\ndeploy:x:1000:1000::/home/me:/bin/sh\nann:x:2000:2000::/home/ann:/bin/sh\n",
    group="root:x:0:\ndocker:x:106:ann\ndeploy:x:1000:\n",
    shadow="root:*:1:0:99999:7:::\ndeploy:!:1:0:99999:7:::\n",
)
SECRETS = Secrets(
    "id", "ssh-ed25519 AAAA\n", {host.name: f"key of {host.name}" for host in all_hosts(9)}, "axon:x\n"
)


def test_addresses() -> None:
    """Hosts have the addresses and hardware addresses that others rely on, each its own."""
    assert [(host.name, host.address) for host in all_hosts(2)] == [
        ("registry", "10.77.0.5"),
        ("edge1", "10.77.0.10"),
        ("app1", "10.77.0.21"),
        ("app2", "10.77.0.22"),
    ]
    assert len({host.mac for host in all_hosts(9)}) == 11
    assert all_hosts(1)[2].mac == "02:77:0a:4d:00:15"


def test_deploy_user_replaces_the_machines_own() -> None:
    """The lab's unprivileged user takes the place of whoever has its name or number on this machine."""
    users = MACHINE.with_deploy_user(docker=True)

    assert users.passwd.splitlines() == [
        "root:x:0:0:root:/root:/bin/bash",
        "deploy:x:2000:2000::/home/deploy:/bin/bash",
    ]
    assert users.group.splitlines() == ["root:x:0:", "docker:x:106:ann,deploy", "deploy:x:2000:"]
    assert users.shadow.splitlines() == ["root:*:1:0:99999:7:::", "deploy:*:19000:0:99999:7:::"]
    assert "docker:x:106:ann\n" in MACHINE.with_deploy_user(docker=False).group


def test_docker_group_is_made_where_there_is_none() -> None:
    """On a machine without a docker group, app servers still have one."""
    users = Accounts(MACHINE.passwd, "root:x:0:\n", MACHINE.shadow).with_deploy_user(docker=True)

    assert users.group.splitlines() == ["root:x:0:", "docker:x:1999:deploy", "deploy:x:2000:"]


def test_secret_files_are_private() -> None:
    """Host keys, authorized keys, passwords and environment files are readable for their owner only."""
    for host in all_hosts(1):
        for file in host_files(host, all_hosts(1), MACHINE, SECRETS):
            if any(part in file.path for part in ("_key", "authorized", "htpasswd", ".env")):
                assert file.mode & 0o077 == 0, file.path


def test_each_host_has_its_own_host_key_only() -> None:
    """No host is given the key of another one."""
    for host in all_hosts(2):
        texts = [file.text or "" for file in host_files(host, all_hosts(2), MACHINE, SECRETS)]
        expected = [f"key of {host.name}"] if host.has_ssh else []
        assert [text for text in texts if text.startswith("key of ")] == expected


def test_sshd_leaves_port_22_to_the_proxy() -> None:
    """With a round-trip time sshd listens behind the proxy, without one on port 22; the registry has none."""
    registry, edge = all_hosts(1)[:2]

    def port(rtt: float) -> object:
        return host_spec(edge, Path("/x"), [], rtt, installed=True)["settings"]

    assert [file["text"] for file in port(0)] == ["Port 22\n"]  # type: ignore[attr-defined]
    assert [file["text"] for file in port(50)] == ["Port 2222\n"]  # type: ignore[attr-defined]
    assert host_spec(registry, Path("/x"), [], 50, installed=True)["settings"] == []


@pytest.mark.parametrize(("apps", "rtt"), [(0, 0.0), (10, 0.0), (2, -1.0), (2, 2001.0), (2, float("nan"))])
def test_numbers_out_of_bounds_are_refused(apps: int, rtt: float, tmp_path: Path) -> None:
    """A lab without app servers, with too many, or with an impossible round-trip time is wrong usage."""
    with pytest.raises(UsageError):
        Lab(apps=apps, rtt=rtt, root=tmp_path)


@pytest.mark.parametrize(
    "flags", [{"apps": "two"}, {"apps": "-1"}, {"rtt": "fast"}, {"rtt": "5s"}, {"apps": "2\n"}]
)
def test_task_flags_that_are_no_numbers(flags: dict[str, str]) -> None:
    """A flag that is no number is refused with exit code 2 before anything happens."""
    with pytest.raises(UsageError) as refused:
        lab_tasks.up.body(None, **flags)

    assert refused.value.code == 2


def test_refused_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, or not on Linux, every task of the lab says so with exit code 2 and what to type."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for refused_task in (lab_tasks.up, lab_tasks.down, lab_tasks.status):
        with pytest.raises(UsageError, match="needs root") as refused:
            refused_task.body(None)
        assert "sudo" in str(refused.value.hint)
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="needs Linux"):
        lab_tasks.shell.body(None, "app1")


class Apt:
    """Stands for apt-get: the package can be installed once the lists were fetched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, helps: bool = True) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.updated = False
        self.installed = False
        self.helps = helps
        monkeypatch.setattr(machine, "_apt", self)
        monkeypatch.setattr(
            machine, "missing_packages", lambda: [] if self.installed else ["nginx", "docker.io"]
        )
        monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}")

    def __call__(self, *argv: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv)
        self.updated |= argv[1] == "update"
        if argv[1] == "install" and self.updated and self.helps:
            self.installed = True
        code = 0 if argv[1] == "update" or self.installed else 100
        return subprocess.CompletedProcess(
            argv, code, "", "E: Unable to locate package nginx" if code else ""
        )


@pytest.fixture
def no_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(machine, "_POLICY", policy)
    return policy


def test_missing_packages_are_installed_after_saying_so(
    monkeypatch: pytest.MonkeyPatch, no_policy: Path
) -> None:
    """What is missing is named, then installed; apt's lists are fetched once, and only if they are needed."""
    apt = Apt(monkeypatch)
    said: list[str] = []
    machine.install_packages(said.append)

    assert [call[1] for call in apt.calls] == ["install", "update", "install"]
    assert said[0] == "Installing with apt-get: nginx docker.io (their services are not started)"
    assert not no_policy.exists()
    machine.install_packages(said.append)
    assert len(apt.calls) == 3


def test_packages_that_cannot_be_installed(monkeypatch: pytest.MonkeyPatch, no_policy: Path) -> None:
    """When apt cannot help, its own words and the command are shown, and the service policy is removed again."""
    Apt(monkeypatch, helps=False)
    with pytest.raises(AxonError, match="Unable to locate package nginx") as failed:
        machine.install_packages(lambda _line: None)

    assert "apt-get install" in str(failed.value.hint)
    assert not no_policy.exists()


def test_machine_without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without apt-get the packages are named and nothing is tried."""
    monkeypatch.setattr(machine, "missing_packages", lambda: ["nginx"])
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    with pytest.raises(AxonError, match=r"needs nginx .*no apt-get"):
        machine.install_packages(lambda _line: None)


def test_build_context_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sources give the same bytes, so that an image is built once; another variant gives others."""
    monkeypatch.setattr(images, "_busybox", lambda: b"busybox")
    assert images.build_context("ok") == images.build_context("ok")
    assert images.build_context("ok") != images.build_context("noshell")
    with tarfile.open(fileobj=io.BytesIO(images.build_context("noshell"))) as archive:
        assert archive.getnames() == [
            "Dockerfile",
            "root/app/busybox",
            "root/app/server.sh",
            "root/app/handler.sh",
        ]


def result(**changes: object) -> Result:
    values: dict[str, object] = {
        "kinds": {"keep-alive": Kind(3000, 3000, 0, 12), "one-shot": Kind(3000, 3000, 0, 3000)},
        "versions": {"v1": Seen(4000, 0.1, 8.0), "v2": Seen(2000, 7.9, 12.0)},
        "order": ["v1", "v2"],
        "latency_ms": {"p50": 5.0},
        "seconds": 12.0,
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def test_demo_success() -> None:
    """A demo without a failed request, from the old to the new version, is a success, and says what to try next."""
    verdict = demo.Verdict(result(), 4.0, 8.0)
    text = demo.report(verdict, "shop.lab")

    assert verdict.faults == []
    assert "6000 in 12.0 s, 6000 answered in full" in text
    assert "50 % of the requests, over 12 connections" in text
    assert "v1 → v2" in text
    assert "try next" in text


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"kinds": {"keep-alive": Kind(3000, 2999, 1, 12), "one-shot": Kind(3000, 3000, 0, 3000)}},
            "1 of 6000 requests failed",
        ),
        (
            {"kinds": {"keep-alive": Kind(10, 10, 0, 1), "one-shot": Kind(10, 10, 0, 10)}},
            "only 20 requests were sent",
        ),
        ({"kinds": {"keep-alive": Kind(), "one-shot": Kind(6000, 6000, 0, 6000)}}, "one kind of client"),
        ({"order": ["v1"]}, "the versions seen were v1, not v1 → v2"),
        ({"order": ["v1", "v2", "v1"]}, "v1 → v2 → v1"),
        ({"order": []}, "none"),
    ],
)
def test_demo_failures(changes: dict[str, object], fault: str) -> None:
    """One failed request, too few, a kind of client that was left out, or another order of versions is a failure."""
    verdict = demo.Verdict(result(**changes), 4.0, 8.0)

    assert fault in "; ".join(verdict.faults)
    assert "Not a success" in demo.report(verdict, "shop.lab")
    assert "try next" not in demo.report(verdict, "shop.lab")


def test_demo_never_deploys_to_other_servers(tmp_path: Path) -> None:
    """When hosts.yml names a server beyond the lab, the demo refuses before it does anything."""
    shipped = (Path(__file__).parents[2] / "hosts.yml").read_text(encoding="utf-8")
    (tmp_path / "hosts.yml").write_text(shipped, encoding="utf-8")
    assert demo.lab_domain(tmp_path) == "shop.lab"

    (tmp_path / "hosts.yml").write_text(shipped.replace("10.77.0.22", "203.0.113.22"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"app2 .* is 203\.0\.113\.22, which is not a lab host"):
        demo.run(Lab(root=tmp_path), lambda _line: None)

"""What the lab consists of: its hosts, the programs they run and the files they are given.

Nothing here touches the machine: the functions turn a few settings into plain data for `init.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

#: The lab's network. Private, without a way out: no host has a default route and nothing is translated.
NETWORK = "10.77.0.0/24"
GATEWAY = "10.77.0.1"
BRIDGE = "axonlab0"

REGISTRY_PORT = 5000
REGISTRY_PORT_WITH_LOGIN = 5001
REGISTRY_USER = "axon"
REGISTRY_PASSWORD = "secret"  # of a registry that only this machine can reach

#: Where sshd listens when a delay proxy stands before it.
SSHD_BEHIND_PROXY = 2222

#: Where a bare host has the packages that were taken from it.
MIRROR = "/var/lib/lab-mirror"

#: The unprivileged login of every host but the registry.
DEPLOY_USER = "deploy"
DEPLOY_UID = 2000

MAX_APPS = 9
#: What the `hosts.yml` of the project describes.
DEFAULT_APPS = 3
#: The number of the app server that is a system server as well.
SECOND_SYSTEM = 3


@dataclass(frozen=True)
class LabHost:
    """One machine of the lab.

    Args:
        name: Its host name.
        address: Its IPv4 address on the lab's bridge.
        role: `registry`, `system` (nginx), `app` (Docker), `both` (nginx and Docker) or `bare` (nothing but sshd).
    """

    name: str
    address: str
    role: str

    @property
    def mac(self) -> str:
        """Its hardware address: always the same, so that the others still find it after it was restarted."""
        return "02:77:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))

    @property
    def has_ssh(self) -> bool:
        """Whether one can log in; the registry is only a service."""
        return self.role != "registry"

    @property
    def has_docker(self) -> bool:
        """Whether it can be an app server."""
        return self.role in {"app", "both"}

    @property
    def has_nginx(self) -> bool:
        """Whether it can be a system server."""
        return self.role in {"system", "both"}

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the programs that run on it."""
        return tuple(_SERVICES[self.role])


@dataclass(frozen=True)
class HostFile:
    """A file, or with `text=None` a directory, that a host is given at its first start."""

    path: str
    text: str | None
    mode: int = 0o644
    owner: int = 0


REGISTRY = LabHost("registry", "10.77.0.5", "registry")
EDGE = LabHost("edge1", "10.77.0.10", "system")
#: Servers that nobody has set up; they are there when they are started by name, until the lab is made anew.
BARE = (LabHost("bare1", "10.77.0.31", "bare"), LabHost("bare2", "10.77.0.32", "bare"))


def all_hosts(apps: int) -> list[LabHost]:
    """The hosts of a lab with `apps` app servers, in the order in which people list them."""
    return [REGISTRY, EDGE, *(_app_server(number) for number in range(1, apps + 1))]


def _app_server(number: int) -> LabHost:
    """The third one has nginx, too: a machine in both roles, and a second system server for those who need two."""
    return LabHost(f"app{number}", f"10.77.0.{20 + number}", "both" if number == SECOND_SYSTEM else "app")


_SSHD = {"sshd": ["/usr/sbin/sshd", "-D", "-E", "/var/log/lab/sshd.log"]}
_SERVICES: dict[str, dict[str, list[str]]] = {
    "registry": {
        "registry": ["docker-registry", "serve", "/etc/docker/registry/open.yml"],
        "registry-login": ["docker-registry", "serve", "/etc/docker/registry/login.yml"],
    },
    "system": {**_SSHD, "nginx": ["nginx", "-g", "daemon off;"]},
    "app": {**_SSHD, "dockerd": ["dockerd"]},
    "both": {**_SSHD, "dockerd": ["dockerd"], "nginx": ["nginx", "-g", "daemon off;"]},
    "bare": _SSHD,
}

#: Directories that start empty, on the machine's own file system: homes (nothing of the person who runs the lab is
#: to be seen on its hosts) and Docker's data, which cannot live on an overlay.
_OWN: dict[str, list[str]] = {
    "registry": ["/root", "/usr/local", "/var/lib/docker-registry"],
    "system": ["/root", "/usr/local", "/home", "/srv"],
    "app": ["/root", "/usr/local", "/home", "/srv", "/var/lib/docker"],
    "both": ["/root", "/usr/local", "/home", "/srv", "/var/lib/docker"],
    "bare": ["/root", "/usr/local", "/home", "/srv", "/var/lib/docker", "/var/lib/containerd", MIRROR],
}

#: What this machine has for itself and must not be found on a lab host.
_FOREIGN = [
    "/etc/nginx/sites-enabled",
    "/etc/nginx/conf.d",
    "/etc/docker/daemon.json",
    *(
        f"/etc/ssh/ssh_host_{kind}_key{end}"
        for kind in ("dsa", "ecdsa", "ed25519", "rsa")
        for end in ("", ".pub")
    ),
]

_SSHD_CONFIG = """\
# Written by the lab.
Include /etc/ssh/lab.d/*.conf
AddressFamily inet
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
X11Forwarding no
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""

_REGISTRY_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: /var/lib/docker-registry}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http:
  addr: "{address}:{port}"
  secret: lab
{auth}"""

_REGISTRY_AUTH = """\
auth:
  htpasswd: {realm: lab, path: /etc/docker/registry/htpasswd}
"""

_NGINX_INCLUDES = """\
# Written by the lab: where axon-tasks keeps its files.
include /etc/nginx/axon.d/upstreams/*.conf;
include /etc/nginx/axon.d/sites/*.conf;
"""


def sshd_port(rtt: float) -> HostFile:
    """The part of sshd's configuration that depends on whether a delay proxy stands before it."""
    return HostFile("/etc/ssh/lab.d/port.conf", f"Port {SSHD_BEHIND_PROXY if rtt else 22}\n")


@dataclass(frozen=True)
class Accounts:
    """The machine's user database, and what the lab adds to it."""

    passwd: str
    group: str
    shadow: str

    @classmethod
    def of_machine(cls) -> Accounts:
        """As it is on this machine now."""
        return cls(
            *(Path("/etc", name).read_text(encoding="utf-8") for name in ("passwd", "group", "shadow"))
        )

    def with_deploy_user(self, *, docker: bool) -> Accounts:
        """Add the unprivileged login; a `*` as password lets keys in, where `!` would lock the account (sshd(8))."""
        passwd = _without(self.passwd, DEPLOY_USER, DEPLOY_UID)
        shadow = _without(self.shadow, DEPLOY_USER)
        group = _without(self.group, DEPLOY_USER, DEPLOY_UID)
        if docker:
            if not any(line.startswith("docker:") for line in group):
                group.append("docker:x:1999:")
            group = [_with_member(line) if line.startswith("docker:") else line for line in group]
        return Accounts(
            passwd=_lines(
                [*passwd, f"{DEPLOY_USER}:x:{DEPLOY_UID}:{DEPLOY_UID}::/home/{DEPLOY_USER}:/bin/bash"]
            ),
            group=_lines([*group, f"{DEPLOY_USER}:x:{DEPLOY_UID}:"]),
            shadow=_lines([*shadow, f"{DEPLOY_USER}:*:19000:0:99999:7:::"]),
        )


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _without(text: str, name: str, number: int | None = None) -> list[str]:
    """The lines of a user database but those of one name or number."""
    return [
        line
        for line in text.splitlines()
        if line.split(":")[0] != name and (number is None or line.split(":")[2:3] != [str(number)])
    ]


def _with_member(line: str) -> str:
    return f"{line},{DEPLOY_USER}" if line.rpartition(":")[2] else f"{line}{DEPLOY_USER}"


@dataclass(frozen=True)
class Secrets:
    """The keys of a lab, made anew for each one.

    Args:
        lab: Tells this lab's control groups from those of another one, for instance inside a container.
        client_public: The public key that may log in, as a line for `authorized_keys`.
        host_keys: Per host, its private ed25519 host key.
        htpasswd: The line that lets the registry's user in.
    """

    lab: str
    client_public: str
    host_keys: dict[str, str]
    htpasswd: str


def host_files(host: LabHost, hosts: list[LabHost], accounts: Accounts, secrets: Secrets) -> list[HostFile]:
    """The files of one host."""
    names = "".join(f"{other.address} {other.name}\n" for other in hosts)
    files = [
        HostFile("/etc/hostname", f"{host.name}\n"),
        HostFile("/etc/hosts", f"127.0.0.1 localhost\n{names}"),
        HostFile("/etc/resolv.conf", "# The lab has no way out, hence no name server.\n"),
        HostFile("/root", None, 0o700),
    ]
    if host.has_ssh:
        files += _login_files(host, accounts, secrets)
    if host.role == "registry":
        files += _registry_files(host, secrets)
    if host.has_nginx:
        files += [
            HostFile("/etc/nginx/sites-enabled", None, 0o755),
            HostFile("/etc/nginx/conf.d/axon.conf", _NGINX_INCLUDES),
            HostFile("/etc/nginx/axon.d/upstreams", None, 0o755),
            HostFile("/etc/nginx/axon.d/sites", None, 0o755),
        ]
    if host.has_docker:
        files += _app_files(host, secrets.lab)
    return files


def _login_files(host: LabHost, accounts: Accounts, secrets: Secrets) -> list[HostFile]:
    files = [
        HostFile("/etc/ssh/sshd_config", _SSHD_CONFIG),
        HostFile("/etc/ssh/ssh_host_ed25519_key", secrets.host_keys[host.name], 0o600),
        HostFile("/root/.ssh", None, 0o700),
        HostFile("/root/.ssh/authorized_keys", secrets.client_public, 0o600),
    ]
    return files if host.role == "bare" else [*files, *_deploy_user_files(host, accounts, secrets)]


def _deploy_user_files(host: LabHost, accounts: Accounts, secrets: Secrets) -> list[HostFile]:
    users = accounts.with_deploy_user(docker=host.has_docker)
    home = f"/home/{DEPLOY_USER}"
    return [
        HostFile("/etc/passwd", users.passwd),
        HostFile("/etc/group", users.group),
        HostFile("/etc/shadow", users.shadow, 0o640),
        HostFile(home, None, 0o755, DEPLOY_UID),
        HostFile(f"{home}/.ssh", None, 0o700, DEPLOY_UID),
        HostFile(f"{home}/.ssh/authorized_keys", secrets.client_public, 0o600, DEPLOY_UID),
    ]


def _registry_files(host: LabHost, secrets: Secrets) -> list[HostFile]:
    directory = "/etc/docker/registry"
    return [
        HostFile(f"{directory}/htpasswd", secrets.htpasswd, 0o600),
        HostFile(
            f"{directory}/open.yml",
            _REGISTRY_CONFIG.format(address=host.address, port=REGISTRY_PORT, auth=""),
        ),
        HostFile(
            f"{directory}/login.yml",
            _REGISTRY_CONFIG.format(address=host.address, port=REGISTRY_PORT_WITH_LOGIN, auth=_REGISTRY_AUTH),
        ),
    ]


def cgroup_name(lab: str) -> str:
    """The control group below which the containers of one lab are."""
    return f"axon-lab-{lab}"


def docker_settings(host: LabHost, lab: str) -> HostFile:
    """What makes Docker work in the lab; on a server that has none yet, its operator has put it there before."""
    daemon = {
        "insecure-registries": [NETWORK],
        # Containers outlive a restart of the daemon, as on servers where it is updated while they run.
        "live-restore": True,
        "cgroup-parent": f"/{cgroup_name(lab)}/{host.name}",
        "max-concurrent-downloads": 3,
    }
    return HostFile("/etc/docker/daemon.json", json.dumps(daemon, indent=2) + "\n")


#: What Debian's script that starts Docker reads first. In a container not even root may raise limits, as it tries to. And
#: it must not mount control groups that this machine does not use: all processes would be in them from then on, and the
#: Dockers of the other hosts would look for them in vain ("cannot find cgroup mount destination").
DOCKER_STARTS = (
    HostFile("/etc/default/docker", "# Written by the lab.\nulimit() { :; }\n"),
    HostFile("/etc/fstab", "# Written by the lab.\ncgroup /sys/fs/cgroup cgroup defaults 0 0\n"),
)


def _app_files(host: LabHost, lab: str) -> list[HostFile]:
    environment = "APP_NAME=shop\nAPP_ENV={name}\nGREETING=hello from the lab\n"
    return [
        docker_settings(host, lab),
        *(
            HostFile(f"/srv/shop/.env.{name}", environment.format(name=name), 0o600, DEPLOY_UID)
            for name in ("prod", "staging")
        ),
    ]


def host_spec(
    host: LabHost, base: Path, files: list[HostFile], rtt: float, *, installed: bool
) -> dict[str, object]:
    """What `init.py` needs to know to become this host.

    Args:
        host: The host.
        base: Its directory on the machine.
        files: What it is given when it is new.
        rtt: Round-trip time that its SSH has, in milliseconds.
        installed: Whether it has its files from an earlier start.
    """
    prefix = NETWORK.rpartition("/")[2]
    return {
        "name": host.name,
        "address": f"{host.address}/{prefix}",
        "base": str(base),
        "own": _OWN[host.role],
        "remove": _FOREIGN,
        "files": [asdict(file) for file in files],
        "settings": [asdict(sshd_port(rtt))] if host.has_ssh else [],
        "services": _SERVICES[host.role],
        "installed": installed,
    }

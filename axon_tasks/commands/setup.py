"""Shell text that makes a server ready for deploys: what it lacks is asked first, and mended then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import naming
from axon_tasks.commands.doctor import TOOLS
from axon_tasks.commands.shell import script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.config import Environment

#: What Debian and Ubuntu call the packages of the programs that the scripts call.
_PACKAGES = {"flock": "util-linux", "setsid": "util-linux", "awk": "mawk"}
_REST = "coreutils"
#: Words as `missing_packages` of `sh/setup.sh` reads them.
_NGINX = "nginx=nginx"
_DOCKER = (
    "docker=docker.io", "/etc/ssl/certs/ca-certificates.crt=ca-certificates",
    # Docker before 23 starts no container without it where the kernel has AppArmor (moby#44942).
    "/sys/kernel/security/apparmor?apparmor_parser=apparmor",
)  # fmt: skip
_SUDO = ("sudo=sudo", "visudo=sudo")


class Part(NamedTuple):
    """One thing that a server needs.

    Attributes:
        name: What it is.
        question: What tells what is to be done for it; changes nothing.
        answer: What does that, and nothing where nothing has to be done.
    """

    name: str
    question: str
    answer: str


class Who(NamedTuple):
    """Whom a server is made ready for.

    Attributes:
        user: Who deploys.
        login: As whom the server is made ready: keys are taken over from there.
        keys: Public keys that are given to the user instead, one a line; empty for none.
    """

    user: str
    login: str
    keys: str = ""

    @property
    def is_root(self) -> bool:
        """Whether the user needs nothing because root may do everything."""
        return self.user == "root"


def system() -> str:
    """Which system the server has."""
    return script("setup_system", ("setup",))


def parts(environments: Sequence[Environment], server: str, who: Who) -> list[Part]:
    """What a server needs for what it does in some environments, in the order in which it is made.

    Args:
        environments: Which ones.
        server: Its name.
        who: For whom.
    """
    found = [
        *_programs(environments, server, who),
        *_nginx([one for one in environments if server in one.system]),
        *_app([one for one in environments if server in one.app], who),
    ]
    # Environments share what is the same for them.
    return list({(one.question, one.answer): one for one in found}.values())


def _programs(environments: Sequence[Environment], server: str, who: Who) -> Iterator[Part]:
    has_nginx = any(server in one.system for one in environments)
    has_docker = any(server in one.app for one in environments)
    wanted = [f"{tool}={_PACKAGES.get(tool, _REST)}" for tool in TOOLS]
    wanted += [_NGINX] if has_nginx else []
    wanted += _SUDO if has_nginx and not who.is_root else ()
    wanted += _DOCKER if has_docker else ()
    yield _part("packages", "setup_packages", "make_packages", ("setup",), wanted=" ".join(wanted))
    if has_docker:
        yield _part("docker", "setup_service", "make_service", ("setup",), service="docker", nginx_config="")
    if not who.is_root:
        yield _part(
            "user", "setup_user", "make_user", ("setup",), user=who.user, login=who.login, keys=who.keys,
            groups="docker" if has_docker else "",
        )  # fmt: skip
    if has_nginx and not who.is_root:
        yield _part(
            "sudo", "setup_sudo", "make_sudo", ("setup",), user=who.user,
            sudoers=f"/etc/sudoers.d/axon-tasks-{who.user}",
        )  # fmt: skip


def _nginx(environments: Sequence[Environment]) -> Iterator[Part]:
    for one in environments:
        place = one.nginx
        yield _part(
            "nginx", "setup_service", "make_service", ("nginx", "setup"), service="nginx", nginx_config=place.config
        )  # fmt: skip
        yield _part(
            "includes", "setup_nginx", "make_nginx", ("nginx", "inspect", "setup"),
            nginx_config=place.config, nginx_directory=place.directory, include=include_file(one),
        )  # fmt: skip


def _app(environments: Sequence[Environment], who: Who) -> Iterator[Part]:
    for one in environments:
        if not who.is_root:
            state = naming.state_directory(one.product, one.name)
            yield _part(
                "state", "setup_state", "make_state_of_user", ("setup",), user=who.user,
                tree=naming.STATE_ROOT, directory=_parent(state),
            )  # fmt: skip
        if one.env_file and _parent(one.env_file):
            yield _part(
                "env file", "setup_place", "make_place", ("setup",), user=who.user, directory=_parent(one.env_file)
            )  # fmt: skip


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def include_file(environment: Environment) -> str:
    """The file with which nginx is made to read what deploys write; one for each directory that they write to."""
    place = environment.nginx
    usual = f"{_parent(place.config)}/axon.d"
    more = "" if place.directory == usual else re.sub(r"[^A-Za-z0-9]+", "-", place.directory).rstrip("-")
    return f"{_parent(place.config)}/conf.d/axon{more}.conf"


def _part(name: str, question: str, answer: str, libraries: tuple[str, ...], **values: str) -> Part:
    return Part(name, *(script(call, libraries, **values) for call in (question, answer)))

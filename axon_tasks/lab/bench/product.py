"""A product of the benchmark's own in the lab: its project directory, its commands, and what is really there."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.listing import write_fabfile
from axon_tasks.lab.hosts import EDGE
from axon_tasks.lab.images import IMAGE, build_sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.lab.lab import Lab

#: Two versions that nobody else deploys: a round removes the image of the one that does not serve.
TAGS = ("bench-1", "bench-2")
ENVIRONMENT = "prod"

#: Seconds in which an old release must have been retired; it takes ten or so where nothing else happens.
_SETTLE_TIMEOUT = 180.0
#: Seconds in which a start that is under way has ended.
_LAST_START = 3.0


@dataclass(frozen=True)
class Product:
    """One product with one environment.

    Args:
        lab: The lab that it lives in; its round-trip time does not matter here.
        name: Its name.
        folder: The project directory, with `hosts.yml` and `fabfile/`.
        apps: Its app servers.
    """

    lab: Lab
    name: str
    folder: Path
    apps: tuple[str, ...]

    @property
    def domain(self) -> str:
        """The domain that it is served under."""
        return f"{self.name}.lab"

    @property
    def servers(self) -> tuple[str, ...]:
        """All of its servers."""
        return (EDGE.name, *self.apps)

    @property
    def hosts_file(self) -> Path:
        """Its settings."""
        return self.folder / "hosts.yml"

    def fab(self, *words: str) -> str:
        """Run `fab` from Enter to the prompt.

        Raises:
            AxonError: It failed; the message has what it said.
        """
        return local.run([*local.fab(), *words], cwd=self.folder)

    def deploy(self, tag: str, *flags: str) -> str:
        """Deploy a version."""
        return self.fab("deploy", f"--env={ENVIRONMENT}", f"--tag={tag}", *flags)

    def version(self) -> str:
        """The version that a client of nginx gets."""
        connection = http.client.HTTPConnection(EDGE.address, 80, timeout=20)
        try:
            connection.request("GET", "/", headers={"Host": self.domain})
            answer = connection.getresponse()
            answer.read()
            return answer.getheader("X-Version") or "" if answer.status == http.HTTPStatus.OK else ""
        except OSError:
            return ""
        finally:
            connection.close()

    def other(self) -> str:
        """The version that does not serve."""
        return TAGS[1] if self.version() == TAGS[0] else TAGS[0]

    def containers(self, server: str) -> list[str]:
        """The ids of its containers on a server, running or not."""
        listing = ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label=axon.product={self.name}"]
        return self.lab.exec(server, listing).stdout.split()

    def serves(self, tag: str) -> None:
        """Be sure that clients get a version, from a container that runs it on each server.

        Raises:
            AxonError: They do not: however fast it was, it was no deployment.
        """
        found = self.version()
        if found != tag:
            raise AxonError(f"After the deployment of {tag}, clients get {found or 'no answer'}.")
        for server in self.apps:
            newest = self.containers(server)[:1]  # docker ps lists the youngest first
            if not newest or self._version_of(server, newest[0]) != f"{IMAGE}:{tag} running":
                raise AxonError(f"After the deployment of {tag}, it does not run on {server}.")

    def _version_of(self, server: str, container: str) -> str:
        told = '{{index .Config.Labels "axon.image"}} {{.State.Status}}'
        return self.lab.exec(server, ["docker", "inspect", "--format", told, container]).stdout.strip()

    def retired(self) -> bool:
        """Whether no old release is left."""
        return all(len(self.containers(server)) == 1 for server in self.apps)

    def settle(self) -> None:
        """Wait until the old release has been retired, so that no round runs in the wake of another one.

        Raises:
            AxonError: It is not.
        """
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while not self.retired():
            if time.monotonic() > deadline:
                raise AxonError(
                    f"The old release of {self.name} is not retired after {_SETTLE_TIMEOUT:.0f} s: {self._left()}"
                )
            time.sleep(0.1)

    def _left(self) -> str:
        """What its app servers still have, for a message."""
        shown = "docker ps -a --format '{{.Names}} {{.Status}}' --filter label=axon.product=" + self.name
        logs = f"tail -n 3 /var/lib/axon/{self.name}/{ENVIRONMENT}/jobs/*/log"
        said = {one: self.lab.exec(one, f"{shown}; {logs}", check=False).stdout for one in self.apps}
        return "; ".join(f"{one}: {' '.join(text.split())}" for one, text in said.items())

    def forget_image(self, tag: str) -> None:
        """Let the app servers pull a version again.

        Raises:
            AxonError: It is still there.
        """
        for server in self.apps:
            self.lab.exec(
                server,
                # By its id: what was pulled by digest has a name of its own.
                f'ids=$(docker images -q --no-trunc {IMAGE}:{tag}) && {{ [ -z "$ids" ] || docker rmi -f $ids; }}',
            )
            if self.lab.exec(server, ["docker", "images", "-q", f"{IMAGE}:{tag}"]).stdout:
                raise AxonError(f"The image {tag} is still on {server}.")

    def remove(self) -> None:
        """Leave nothing of it on the servers, as before its first deployment."""
        for server in self.apps:
            ids = shlex.join(self.containers(server))
            self.lab.exec(
                server, f"[ -z '{ids}' ] || docker rm -f {ids}; rm -rf /var/lib/axon/{self.name}", check=False
            )
        self.lab.exec(
            EDGE.name,
            f"rm -rf /var/lib/axon/{self.name} /etc/nginx/axon.d/*/{self.name}-*; nginx -s reload",
            check=False,
        )


@contextlib.contextmanager
def product(lab: Lab, apps: tuple[str, ...], *, prefix: str = "bench") -> Iterator[Product]:
    """A new product, gone at the end; nothing of it has been deployed yet.

    Args:
        lab: A lab that is up.
        apps: Its app servers.
        prefix: How its name begins.
    """
    for tag in TAGS:
        build_sample(lab, tag)
    name = f"{prefix}{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix=f"axon-{prefix}-") as directory:
        made = Product(lab, name, Path(directory), apps)
        write_fabfile(made.folder)
        made.hosts_file.write_text(_hosts_yml(made), encoding="utf-8")
        try:
            yield made
        finally:
            made.remove()
            if sys.exc_info()[0] is not None:
                # A deployer that was killed may have left a script that starts a container just now.
                time.sleep(_LAST_START)
                made.remove()


def _hosts_yml(made: Product) -> str:
    """Its settings; JSON is YAML."""
    lab = made.lab
    hosts: dict[str, dict[str, str]] = {}
    for name in made.servers:
        address = lab.host(name).address
        hosts[name] = {"address": address, "user": "root", "key": str(lab.key_file)}
        if name != EDGE.name:
            hosts[name]["private_address"] = address
    environment = {"system": [EDGE.name], "app": list(made.apps), "domain": made.domain}
    content = {
        "product": made.name,
        "image": IMAGE,
        "known_hosts": str(lab.known_hosts),
        "hosts": hosts,
        "defaults": {
            "container": {"port": 3000, "stop_timeout": "5s"},
            "health": {"path": "/api/health", "timeout": "20s"},
            "drain": {"timeout": "10s"},
        },
        "environments": {ENVIRONMENT: environment},
    }
    return json.dumps(content, indent=2)

"""A product of the proof's own in the lab: deploying it, looking at it, and leaving nothing of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.product import ENVIRONMENT, TAGS, Product, product
from axon_tasks.lab.hosts import EDGE
from axon_tasks.lab.prove import commands, state
from axon_tasks.lab.prove.state import Answer, Expected, HostState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.commands import Ended

    Say = Callable[[str], None]

#: Two app servers: with one there could be no mixed state.
APPS = ("app1", "app2")

#: Seconds in which everything that goes on in the background must be over: drain (10 s), grace (5 s), and a margin
#: for what a killed deployer has left running on the servers: nothing there may take longer than the health check (20 s).
SETTLE_TIMEOUT = 60.0
#: Seconds for nothing of a removed product to be there any more, and to stay away.
_GONE_TIMEOUT = 60.0
#: Requests per look: over one connection, so that one worker of nginx goes through all app servers.
_LOOKS = 3


@dataclass
class Site:
    """One environment under proof.

    Args:
        product: Its product.
        before: What the hosts had before its first deployment.
        changes: How often its nginx configuration was changed.
    """

    product: Product
    before: Mapping[str, HostState] = field(default_factory=dict)
    changes: int = 0

    @property
    def lab(self) -> Lab:
        """The lab that it lives in."""
        return self.product.lab

    # --- deploying ---------------------------------------------------------------------------------------------

    def words(self, tag: str) -> list[str]:
        """The command that deploys a version."""
        return [*local.fab(), "deploy", f"--env={ENVIRONMENT}", f"--tag={tag}"]

    def deploy(self, tag: str) -> Ended:
        """Run `fab deploy` to its end, whatever its exit code."""
        return commands.run(self.words(tag), self.product.folder)

    def must_deploy(self, tag: str) -> Ended:
        """Run `fab deploy`.

        Raises:
            AxonError: It failed.
        """
        done = self.deploy(tag)
        if done.code:
            raise AxonError(f"`fab deploy --tag={tag}` of {self.product.name}: {done}")
        return done

    def instrumented(self, tag: str, *flags: str) -> list[str]:
        """The command that deploys a version with a program of ours that can kill itself (deployer.py)."""
        module = f"{__package__}.deployer"
        hosts_file = str(self.product.hosts_file)
        return [
            sys.executable,
            "-m",
            module,
            f"--hosts-file={hosts_file}",
            f"--env={ENVIRONMENT}",
            f"--tag={tag}",
            *flags,
        ]

    def change(self) -> None:
        """Change the nginx configuration, so that the next deployment has to install it and reload."""
        self.changes += 1
        path = self.product.hosts_file
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["defaults"]["nginx"] = {"client_max_body_size": f"{20 + self.changes % 2}m"}
        path.write_text(json.dumps(settings, indent=2), encoding="utf-8")

    # --- looking -----------------------------------------------------------------------------------------------

    def look(self) -> dict[str, HostState]:
        """What all hosts have of it."""
        roles = {EDGE.name: "system", **dict.fromkeys(self.product.apps, "app")}

        def one(host: str) -> HostState:
            return state.look(self.lab, host, roles[host], self.product.name, ENVIRONMENT)

        with ThreadPoolExecutor(max_workers=len(roles)) as pool:
            return dict(zip(roles, pool.map(one, roles), strict=True))

    def ask(self, count: int) -> list[Answer]:
        """What clients get: so many requests over one connection."""
        connection = http.client.HTTPConnection(EDGE.address, 80, timeout=20)
        try:
            return [self._ask(connection) for _ in range(count)]
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> Answer:
        try:
            connection.request("GET", "/", headers={"Host": self.product.domain})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return Answer(0, "", "")
        told = {name: answer.getheader(name) or "" for name in ("X-Version", "X-Served-By")}
        return Answer(answer.status, told["X-Version"], told["X-Served-By"])

    def expected(self, tag: str) -> Expected:
        """What should be there when a version serves and nothing goes on."""
        addresses = {name: self.lab.host(name).address for name in self.product.apps}
        return Expected(tag, addresses, (EDGE.name,), self.before)

    def problems(self, tag: str) -> list[str]:
        """What is not as it should be at this moment."""
        answers = self.ask(_LOOKS * len(self.product.apps))
        return state.problems(self.look(), answers, self.expected(tag))

    def settle(self, tag: str, timeout: float = SETTLE_TIMEOUT) -> list[str]:
        """Wait until all is as it should be.

        Args:
            tag: The version that serves.
            timeout: Seconds.

        Returns:
            What is still not so after that time.
        """
        deadline = time.monotonic() + timeout
        while found := self.problems(tag):
            if time.monotonic() > deadline:
                return found
            time.sleep(0.2)
        return []

    def release(self) -> tuple[str, frozenset[str]]:
        """The current release and the short ids of its containers, as the servers have them at this moment."""
        hosts = self.look()
        current = hosts[EDGE.name].current
        containers = [one for host in self.product.apps for one in hosts[host].containers]
        return current, frozenset(one.short_id for one in containers if one.release == current)

    # --- leaving -----------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Leave nothing of it, also where a script that a killed deployer has started still goes on.

        Raises:
            AxonError: Something is still there.
        """
        deadline = time.monotonic() + _GONE_TIMEOUT
        while True:
            self.product.remove()
            left = self._left()
            if not left:
                return
            if time.monotonic() > deadline:
                raise AxonError(f"{self.product.name} cannot be removed: {'; '.join(left)}")
            time.sleep(0.5)

    def _left(self) -> list[str]:
        found: list[str] = []
        for host, one in self.look().items():
            shells = one.shells - self.before.get(host, HostState()).shells
            found += [f"{host}: {what}" for what in (*map(str, one.containers), *one.files, *shells)]
        return found


def other(tag: str) -> str:
    """The version that is not this one."""
    return TAGS[1] if tag == TAGS[0] else TAGS[0]


@contextlib.contextmanager
def site(lab: Lab, apps: Sequence[str] = APPS) -> Iterator[Site]:
    """A site of its own, with nothing deployed yet; gone at the end, whatever happens."""
    with product(lab, tuple(apps), prefix="prove") as made:
        one = Site(made)
        one.before = one.look()
        try:
            yield one
        finally:
            one.remove()


def scratch(one: Site) -> Path:
    """A directory for files of the proof, which goes with the site."""
    path = Path(one.product.folder, "prove")
    path.mkdir(exist_ok=True)
    return path

"""The demonstration: a new version goes live under load, and every request is counted."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab.hosts import EDGE, MAX_APPS, all_hosts
from axon_tasks.lab.images import build_sample
from axon_tasks.lab.load import REQUEST_TIMEOUT, Result

if TYPE_CHECKING:
    from axon_tasks.lab.lab import Lab

ENVIRONMENT = "prod"
OLD, NEW = "v1", "v2"

#: The least that makes the count worth showing.
MIN_REQUESTS = 5000
#: Requests that must have been answered before the deployment starts, and seconds that the load rolls on after it.
WARM_UP_REQUESTS = 1000
ROLL_ON_SECONDS = 5.0
#: Seconds after which the load ends whatever happens, and in which it must have got going.
MAX_LOAD_SECONDS = 300.0
LOAD_START_TIMEOUT = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """What the demonstration showed.

    Args:
        result: What the load generator counted.
        deploy_from: When the deployment began, seconds after the load.
        deploy_to: When the prompt came back.
    """

    result: Result
    deploy_from: float
    deploy_to: float

    @property
    def faults(self) -> list[str]:
        """Why it was no success; empty if it was one."""
        found = []
        if self.result.failed:
            found.append(f"{self.result.failed} of {self.result.sent} requests failed")
        if self.result.sent < MIN_REQUESTS:
            found.append(f"only {self.result.sent} requests were sent, {MIN_REQUESTS} were wanted")
        if self.result.order != [OLD, NEW]:
            found.append(
                f"the versions seen were {' → '.join(self.result.order) or 'none'}, not {OLD} → {NEW}"
            )
        if not all(kind.ok for kind in self.result.kinds.values()):
            found.append("one kind of client was never answered")
        return found


def run(lab: Lab, say: Say) -> Verdict:
    """Start the lab, deploy the old version, then the new one under load.

    Args:
        lab: The lab of the project directory that holds `hosts.yml` and `fabfile/`.
        say: Called with what is being done, and with the numbers at the end.

    Raises:
        UsageError: `hosts.yml` describes other servers than the lab's.
        AxonError: A part failed before there was anything to count.
    """
    domain = lab_domain(lab.root)
    say(_headline(1, "The lab: an nginx server, app servers with Docker, a registry, all on this machine"))
    lab.up(say)
    say(_headline(2, f"The sample application, as {OLD} and {NEW}"))
    for tag in (OLD, NEW):
        say(f"{build_sample(lab, tag)} is in the registry")
    say(_headline(3, f"Start from {OLD}"))
    deploy(lab.root, OLD, say)
    say(_headline(4, f"Deploy {NEW} while clients keep asking"))
    verdict = deploy_under_load(lab.root, domain, say)
    say(_headline(5, "What the clients saw"))
    say(report(verdict, domain))
    return verdict


def lab_domain(root: Path) -> str:
    """The domain that the environment is served under, once it is sure that it consists of nothing but the lab.

    People edit `hosts.yml`, and a demonstration must never deploy to their servers.

    Raises:
        UsageError: It names another address.
    """
    from axon_tasks.config import load

    project = load(root / "hosts.yml")
    environment = project.environment(ENVIRONMENT)
    known = {host.address for host in all_hosts(MAX_APPS)}
    for name in environment.servers:
        address = project.hosts[name].address
        if address not in known:
            raise UsageError(
                f"hosts.yml: {name} of the environment {ENVIRONMENT} is {address}, which is not a lab host.",
                hint="The demo deploys to the lab only; run it in a clone whose hosts.yml is as it was shipped.",
            )
    return environment.domain


def deploy(root: Path, tag: str, say: Say) -> None:
    """Run `fab deploy`, as a user would, with its output shown as it comes.

    Raises:
        AxonError: It failed.
    """
    words = ["deploy", f"--env={ENVIRONMENT}", f"--tag={tag}"]
    say(f"$ fab {' '.join(words)}")
    code = subprocess.run(
        [sys.executable, "-m", "fabric", *words], cwd=root, stdin=subprocess.DEVNULL, check=False
    ).returncode
    if code:
        raise AxonError(
            f"`fab {' '.join(words)}` ended with exit code {code}.", hint="Look around: invoke lab.status"
        )


def deploy_under_load(root: Path, domain: str, say: Say) -> Verdict:
    """Send load through nginx, deploy the new version meanwhile, let the load roll on, and count."""
    with (
        tempfile.TemporaryDirectory(prefix="axon-demo-") as directory,
        _load(Path(directory), domain, say) as output,
    ):
        _wait_for(output, WARM_UP_REQUESTS, LOAD_START_TIMEOUT)
        started = _read(output).started
        deploy_from = time.time() - started
        deploy(root, NEW, say)
        deploy_to = time.time() - started
        say(f"The load rolls on for {ROLL_ON_SECONDS:.0f} s, and until {MIN_REQUESTS} requests were sent")
        time.sleep(ROLL_ON_SECONDS)
        _wait_for(output, MIN_REQUESTS, MAX_LOAD_SECONDS - deploy_to)
        _finish(output)
        return Verdict(_read(output), deploy_from, deploy_to)


@dataclass(frozen=True)
class _Output:
    """A load generator at work, and the file that it reports to."""

    process: subprocess.Popen[bytes]
    path: Path


@contextlib.contextmanager
def _load(directory: Path, domain: str, say: Say) -> Iterator[_Output]:
    """A load generator in a process of its own, which is gone at the end."""
    path = directory / "load.json"
    where = [
        "--address",
        EDGE.address,
        "--host",
        domain,
        "--seconds",
        str(MAX_LOAD_SECONDS),
        "--output",
        str(path),
    ]
    say(f"Load: 12 keep-alive clients and 12 with a connection per request, through nginx at {EDGE.address}")
    with (directory / "load.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "axon_tasks.lab.load", *where],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield _Output(process, path)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait_for(output: _Output, requests: int, timeout: float) -> None:
    """Wait until so many requests were answered; give up without an error when it takes too long."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and output.process.poll() is None:
        if _read(output).sent >= requests:
            return
        time.sleep(0.1)


def _finish(output: _Output) -> None:
    """Let the generator wait for its last answers and end."""
    output.process.terminate()
    output.process.wait(timeout=REQUEST_TIMEOUT + 10)


def _read(output: _Output) -> Result:
    """The result so far."""
    try:
        return Result.from_json(json.loads(output.path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        if output.process.poll() not in {None, 0, 1}:
            raise AxonError(f"The load generator ended with exit code {output.process.returncode}.") from None
        return Result()


def report(verdict: Verdict, domain: str) -> str:
    """The numbers, and the verdict."""
    result = verdict.result
    keep = result.kinds["keep-alive"]
    share = 100 * keep.sent / result.sent if result.sent else 0
    rows = [
        ("requests", f"{result.sent} in {result.seconds:.1f} s, {result.ok} answered in full"),
        ("failed", f"{result.failed}"),
        ("keep-alive", f"{share:.0f} % of the requests, over {keep.connections} connections"),
        ("versions", " → ".join(result.order)),
        *(
            (f"  {name}", f"{seen.requests} answers, {seen.first:.2f} s to {seen.last:.2f} s")
            for name, seen in result.versions.items()
        ),
        (
            "deploy",
            f"{verdict.deploy_from:.2f} s to {verdict.deploy_to:.2f} s ({verdict.deploy_to - verdict.deploy_from:.2f} s)",
        ),
        ("latency", ", ".join(f"{name} {value:g} ms" for name, value in result.latency_ms.items())),
    ]
    lines = [f"  {name:<12}{text}" for name, text in rows]
    lines += [f"  {kind}: {count}" for kind, count in result.failures.items()]
    lines += [f"    {example}" for example in result.examples]
    return "\n".join([*lines, "", *_conclusion(verdict, domain)])


def _conclusion(verdict: Verdict, domain: str) -> list[str]:
    if verdict.faults:
        return [f"Not a success: {'; '.join(verdict.faults)}."]
    return [
        f"{NEW} went live without a failed request. The lab stays up; try next:",
        f"  fab deploy --env={ENVIRONMENT} --tag={OLD}      and back again",
        f"  curl -i -H 'Host: {domain}' http://{EDGE.address}/",
        "  invoke lab.status                    what runs in the lab",
        "  invoke lab.shell app1                a root shell on an app server",
        "  invoke lab.up --rtt=50               the same servers, farther away",
        "  invoke lab.down                      remove the lab",
    ]


def _headline(number: int, text: str) -> str:
    return f"\n== {number}/5  {text}"

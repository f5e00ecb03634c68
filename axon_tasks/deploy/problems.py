"""What went wrong, in words: server errors turned into messages that say what to do next."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.deploy import facts
from axon_tasks.errors import AfterSwitchError, AxonError, LockedError, StepFailedError, UnreachableError
from axon_tasks.remote.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from axon_tasks.remote import Section
    from axon_tasks.remote.fleet import Outcome


class Pattern(NamedTuple):
    """A known failure: how it shows in a server's own words, what it means, what to do."""

    words: str
    meaning: str
    hint: str


#: Tried in order against what the server said; the first that matches explains it.
PATTERNS = (
    Pattern(r"executable file not found|OCI runtime", "the image's command cannot be started",
            "Check the image's ENTRYPOINT, its execute permission, and `container: {command}`."),
    Pattern(r"does not answer on .* from this server", "nginx's server cannot reach the new release",
            "Is a firewall between them, or `private_address` wrong in hosts.yml?"),
    Pattern(r"sudo: (command )?not found", "this user is not root, and there is no sudo",
            "Log in as root, or install sudo and add the lines of the README, section 'Your own servers'."),
    Pattern(r"sudo:.*(password|not allowed|may not run|terminal)", "sudo refuses",
            "Allow this user the sudo lines of the README, section 'Your own servers'."),
    Pattern(r"docker: (command )?not found|docker: No such file", "Docker is not installed",
            "Install it, e.g. apt-get install docker.io"),
    Pattern(r"permission denied.*docker|docker.*permission denied", "this user may not use Docker",
            "Add it to the group: usermod -aG docker USER (then log in again)."),
    Pattern(r"Cannot connect to the Docker daemon|Is the docker daemon running", "the Docker daemon does not run",
            "Start it: systemctl start docker"),
    Pattern(r"nginx is not installed", "nginx is not installed", "Install it, e.g. apt-get install nginx"),
    Pattern(r"no space left on device|disk quota exceeded", "the disk is full",
            "Free space there: docker system df; docker image prune"),
    Pattern(r"manifest (for .*)?(unknown|not found)|manifest unknown|failed to resolve reference.*not found", "the registry has no such tag",
            "Push it first, or name another one with --tag."),
    Pattern(r"unauthorized|authentication required|no basic auth|denied: |access (to the resource is )?denied",
            "the registry refuses the login",
            "Check `registry: {username, password}` in hosts.yml."),
    Pattern(r"server gave HTTP response to HTTPS client", "the registry speaks plain HTTP",
            "Add it to insecure-registries in /etc/docker/daemon.json on that server."),
    Pattern(r"(dial tcp|lookup|registry).*(connection refused|no such host|i/o timeout|no route to host|server misbehaving)",
            "the registry cannot be reached from there", "Check the registry's address in `image:` and the server's network."),
    Pattern(r"toomanyrequests", "the registry limits how much is pulled", "Log in to it, or wait."),
    Pattern(r"container name .* is already in use", "the container's name is taken by something else",
            "Look at it: docker ps -a; rename or remove it, then deploy again."),
    Pattern(r"docker-proxy that Docker has left behind", "Docker has lost track of a container that had the port",
            "Restart Docker there, which ends it (moby#25981): systemctl restart docker; then deploy again."),
    Pattern(r"port is already allocated|address already in use|is taken by", "the port is taken by something else",
            "Stop what holds it, or free the environment's ports file to have two others chosen."),
    Pattern(r"cannot assign requested address", "the server has no such address",
            "Check private_address in hosts.yml: containers are published on it."),
    Pattern(r"no two free ports left", "the port range is full", "Widen `ports:` in hosts.yml."),
    Pattern(r"env.?file.*no such file|no such file.*\.env", "the env file is missing", "Create it on the server, mode 0600."),
    Pattern(r"exec format error", "the image is built for another processor", "Build it for the server's platform."),
    Pattern(r"network .* not found", "there is no such Docker network", "Create it: docker network create NAME"),
    Pattern(r"nginx is not running", "nginx is not running", "Start it: systemctl start nginx"),
    Pattern(r"this user may not write|cannot (create|write)|Permission denied|Read-only file system", "no permission to write there",
            "See the README, section 'Your own servers', for the rights that are needed."),
)  # fmt: skip


def explain(server: str, doing: str, said: str, *, code: int | None = None) -> StepFailedError:
    """An error for a command that failed on a server.

    Args:
        server: Its name in `hosts.yml`.
        doing: What was being done, as in "pulling IMAGE".
        said: What the server said; its last lines are shown.
        code: The command's exit status.
    """
    lines = [sanitize(line.rstrip()) for line in said.splitlines() if line.strip()]
    told = "\n    ".join(lines[-6:]) if lines else f"exit status {code} and no message"
    for pattern in PATTERNS:
        if re.search(pattern.words, said, re.IGNORECASE | re.DOTALL):
            return StepFailedError(f"{server}: {doing}: {pattern.meaning}\n    {told}", hint=pattern.hint)
    return StepFailedError(f"{server}: {doing} failed\n    {told}")


class Diagnosis(NamedTuple):
    """Why a release did not become healthy on one server.

    Attributes:
        server: The app server.
        container: The container's name.
        url: What was probed.
        host: The Host header that was sent.
        answer: What came back: a status, or the connection's error.
        body: The beginning of the body.
        attempts: How many probes.
        seconds: For how long.
        state: Docker's state of the container.
        exit_code: Its exit code, if it has ended.
        restarts: How often the daemon restarted it.
        out_of_memory: Whether the kernel killed it for memory.
        docker_health: Docker's own health check, with its last output; empty if the image has none.
        logs: The last lines it wrote.
        hint: What it probably is; empty for an unknown pattern.
    """

    server: str
    container: str
    url: str
    host: str
    answer: str
    body: str
    attempts: str
    seconds: float
    state: str
    exit_code: int | None
    restarts: int
    out_of_memory: bool
    docker_health: str
    logs: str
    hint: str


def diagnose(server: str, container: str, told: dict[str, str], state_text: str, logs: str) -> Diagnosis:
    """Put together what the probe, Docker and the container itself said; what is not as expected counts as not said."""
    inspected = facts.json_object(state_text)
    state = _object(inspected.get("state"))
    ended = state.get("Status") in ("exited", "dead")
    diagnosis = Diagnosis(
        server=server,
        container=container,
        url=told.get("url", ""),
        host=told.get("host", ""),
        answer=told.get("answer", ""),
        body=told.get("body", "").strip(),
        attempts=told.get("attempts", "0"),
        seconds=(facts.number(told.get("elapsed_ms", "")) or 0) / 1000,
        state=str(state.get("Status", "gone")),
        exit_code=_whole(state.get("ExitCode")) if ended else None,
        restarts=_whole(inspected.get("restarts")),
        out_of_memory=state.get("OOMKilled") is True,
        docker_health=_docker_health(_object(state.get("Health"))),
        logs=logs,
        hint="",
    )
    return diagnosis._replace(hint=_hint(diagnosis))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _docker_health(health: dict[str, Any]) -> str:
    """Docker's own health check in one line, with what it printed last; empty if the image has none."""
    if not health:
        return ""
    log = health.get("Log")
    last = _object(log[-1]) if isinstance(log, list) and log else {}
    return f"{health.get('Status')}: {str(last.get('Output', '')).strip()[:300]}"


#: What an exit code means by the convention of shells and Docker (docker-run(1), "Exit Status"; 128 + signal).
EXIT_HINTS = {
    0: "The command ended by itself: a container lives as long as its command does.",
    126: "The image's command cannot be executed: is it marked as executable?",
    127: "The image's command was not found: check ENTRYPOINT, CMD and `container: {command}`.",
    137: "It was killed by SIGKILL: check its memory limit.",
    139: "It crashed (SIGSEGV): is the image built for this processor?",
}

#: What a status on the health path usually means.
STATUS_HINTS = {
    "301": "The health path redirects: exempt it from HTTPS redirects, or set `health: {path}` to its target.",
    "302": "The health path redirects, perhaps to a login: exempt it.",
    "308": "The health path redirects: exempt it from HTTPS redirects.",
    "400": "The application refuses the request: set `health: {host}` to a name that it accepts.",
    "401": "The health path asks for a login: exempt it.",
    "403": "The application refuses the Host header or the path: set `health: {host}`, or allow it there.",
    "404": "The application has no such path: check `health: {path}`.",
    "421": "The application does not know the Host header: set `health: {host}`.",
}


def _hint(seen: Diagnosis) -> str:  # noqa: PLR0911  (one known pattern a line, the first that fits)
    if seen.out_of_memory:
        return "It ran out of memory: raise `container: {memory}` or look for a leak."
    if "exec format error" in seen.logs:
        return "The image is built for another processor: build it for the server's platform."
    if seen.exit_code is not None:
        return EXIT_HINTS.get(
            seen.exit_code, "The command ended with an error of its own: see the log lines."
        )
    status = seen.answer.removeprefix("HTTP ")
    if status in STATUS_HINTS:
        return STATUS_HINTS[status]
    if re.search(r"refused|couldn.t connect|reset by peer|empty (answer|reply)", seen.answer, re.IGNORECASE):
        return (
            "Nothing answers on the container's port: check `container: {port}`, and that the application listens"
            " on 0.0.0.0 and not on 127.0.0.1."
        )
    if re.search(r"timed out|no answer within", seen.answer, re.IGNORECASE):
        return (
            "The application accepts connections and does not answer: it may still be starting, or be stuck."
        )
    if seen.docker_health.startswith(("unhealthy", "starting")):
        return "HTTP is answered, but Docker's own HEALTHCHECK is not: set `health: {docker: false}` to ignore it."
    if status.startswith("5"):
        return "The application answers with an error of its own: see the log lines and the env file."
    return ""


class UnhealthyError(StepFailedError):
    """A release did not become healthy on a server."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        why = (
            diagnosis.answer
            if diagnosis.exit_code is None
            else f"it ended with exit code {diagnosis.exit_code}"
        )
        super().__init__(f"{diagnosis.server}: {diagnosis.container} did not become healthy: {why}")


class DeployFailedError(AxonError):
    """One or more parts of a run failed; all of them are told, not only the first."""

    def __init__(self, errors: Sequence[AxonError], outcome: str, hint: str | None = None) -> None:
        self.errors = tuple(errors)
        self.outcome = outcome
        super().__init__(
            "\n".join([*(str(error) for error in errors), outcome]), hint=hint, code=exit_code(self.errors)
        )


def exit_code(errors: Sequence[AxonError]) -> int:
    """The exit status for a set of failures: what matters most to a script that calls this comes first."""
    for kind in (AfterSwitchError, LockedError, UnreachableError):
        for error in errors:
            if isinstance(error, kind):
                return error.exit_code
    return errors[0].exit_code if errors else 1


def raise_all(errors: Iterable[AxonError]) -> None:
    """Raise several failures as one, with the exit status that matters most.

    Raises:
        AxonError: There are some. Each message is told once.
    """
    told = {str(error): error for error in errors}
    if told:
        raise AxonError("\n".join(told), code=exit_code(list(told.values())))


def raise_defects(outcomes: Iterable[Outcome[Any]]) -> None:
    """Raise what is no failure of a server but a defect of this program, which must not be swallowed."""
    for one in outcomes:
        if one.error is not None and not isinstance(one.error, AxonError):
            raise one.error


def check_app(found: facts.AppFacts, env_file: str | None, ssh_target: str) -> list[AxonError]:
    """What an app server lacks before a deploy may start there."""
    if found.env_file == "ok" or env_file is None:
        return []
    return [env_file_problem(found.server, env_file, found.env_file, ssh_target)]


def env_file_problem(server: str, env_file: str, stands: str, ssh_target: str) -> AxonError:
    """An env file that cannot be read.

    Args:
        server: Where.
        env_file: Which one.
        stands: `missing` or `unreadable`.
        ssh_target: How `ssh` gets there.
    """
    if stands == "missing":
        hint = f"Create it, mode 0600: ssh {ssh_target} 'umask 077; cat > {env_file}' < FILE"
    else:
        hint = f"Give it to the user that deploys: ssh {ssh_target} ls -l {env_file}"
    return StepFailedError(f"{server}: the env file {env_file} is {stands}", hint=hint)


def must(server: str, doing: str, section: Section) -> None:
    """Raise an explanation if a section failed."""
    if not section.ok:
        raise explain(server, doing, f"{section.stderr}\n{section.stdout}".strip(), code=section.exit_code)

"""What servers need before they can be deployed to, checked one by one, each with what mends it.

Each server is asked once about everything. What it cannot answer is a finding in itself: the same words that explain a
failed deploy explain it.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from axon_tasks.commands import docker, doctor
from axon_tasks.deploy import facts, inspecting, looking, problems
from axon_tasks.errors import AxonError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from axon_tasks.config import Environment
    from axon_tasks.config.project import Tls
    from axon_tasks.remote import BatchResult, Connection, Fleet, Section

#: Seconds for an answer.
LIMIT = 60.0
#: Seconds by which clocks may differ: release ids are times, and so are the lines of logs.
_CLOCK = 5
#: Free bytes where Docker keeps its data: too few for an image, and few.
_FULL, _SCARCE = 1024**3, 5 * 1024**3
#: Days before the end of a certificate; renewal usually begins at thirty.
_RENEW = 14
#: The oldest versions that this was tried with or read about: `docker ps` with JSON labels, `map` of `$http_upgrade`.
_DOCKER, _NGINX = (20, 10), (1, 14)

#: The check that fails where a server cannot be reached.
CONNECTION = "connection"

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"
Verdict = Literal["ok", "warning", "failed"]


class Check(NamedTuple):
    """What was found about one thing.

    Attributes:
        server: Where.
        environment: Whose; empty if it concerns the server as a whole.
        name: What was checked, in one or two words.
        verdict: `ok`, `warning` or `failed`.
        told: What was found.
        fix: What mends it; empty if nothing has to be.
    """

    server: str
    environment: str
    name: str
    verdict: Verdict
    told: str
    fix: str = ""


class Answer(NamedTuple):
    """What one server said.

    Attributes:
        server: Its name.
        sections: The sections, by label.
        asked: When it was asked, seconds since 1970 by the clock here.
        seconds: How long it took, with connecting.
    """

    server: str
    sections: BatchResult
    asked: float
    seconds: float


def look(fleet: Fleet, environments: Sequence[Environment], only: str = "") -> list[Check]:
    """Check the servers of environments, all at the same time.

    Args:
        fleet: The connections.
        environments: Whose servers.
        only: Only these servers, separated by commas.

    Returns:
        The checks, in the order of `hosts.yml`. One that cannot be reached is a check that failed.

    Raises:
        UsageError: `only` names a server that belongs to none of them.
    """
    began = time.monotonic()

    def work(connection: Connection) -> Answer:
        asked = time.time()
        told = doctor_batch(environments, connection.name).run(connection, timeout=LIMIT, last=True)
        return Answer(connection.name, told, asked, time.monotonic() - began)

    checks: list[Check] = []
    names = looking.only_of(environments, only)
    for server, outcome in fleet.gather(dict.fromkeys(names, work)).items():
        if isinstance(outcome.error, AxonError):
            checks.append(_failed(server, "", CONNECTION, outcome.error))
        else:
            checks += judge(outcome.value, environments)
    return checks


def doctor_batch(environments: Sequence[Environment], server: str) -> Batch:
    """Everything that one server is asked."""
    batch = Batch("doctor").add(doctor.host(), label="host")
    if any(server in one.system for one in environments):
        batch.add("id -u", label="root", sudo=True)
    if any(server in one.app for one in environments):
        batch.add(docker.info(), label="docker")
    for one in environments:
        place = f"{one.name}: "
        if server in one.system:
            inspecting.ask_system(one, batch, place=place)
            ports = (one.nginx.http_port, *((one.nginx.https_port,) if one.tls else ()))
            batch.add(doctor.listens(ports), label=f"{place}listens", sudo=True)
            if one.tls:
                batch.add(doctor.certificate(one.tls), label=f"{place}certificate", sudo=True)
        if server in one.app:
            batch.add(doctor.state(one), label=f"{place}writable")
            batch.add(doctor.ports(one), label=f"{place}ports")
            if one.env_file:
                batch.add(docker.env_file(one.env_file), label=f"{place}env_file")
    return batch


def judge(answer: Answer, environments: Sequence[Environment]) -> Iterator[Check]:
    """What a server's answer means."""
    server, told = answer.server, answer.sections
    yield from _attempt(server, "", "host", lambda: _host(answer))
    if "root" in told:
        yield from _attempt(server, "", "privileges", lambda: _root(answer))
    if "docker" in told:
        yield from _attempt(server, "", "docker", lambda: _docker(answer))
    for one in environments:
        if server in one.system:
            yield from _attempt(server, one.name, "nginx", functools.partial(_nginx, answer, one))
            if one.tls:
                read = functools.partial(_certificate, answer, one, one.tls)
                yield from _attempt(server, one.name, "certificate", read)
        if server in one.app:
            yield from _attempt(server, one.name, "state", functools.partial(_state, answer, one))
            yield from _attempt(server, one.name, "ports", functools.partial(_ports, answer, one))


def _attempt(
    server: str, environment: str, name: str, checks: Callable[[], Iterator[Check]]
) -> Iterator[Check]:
    """Some checks; a question that could not be answered is one that failed."""
    try:
        yield from list(checks())
    except AxonError as error:
        yield _failed(server, environment, name, error)


def _failed(server: str, environment: str, name: str, error: AxonError) -> Check:
    return Check(server, environment, name, FAILED, error.summary, error.hint or "")


def _host(answer: Answer) -> Iterator[Check]:
    server, section = answer.server, answer.sections["host"]
    problems.must(server, "looking at the server", section)
    told = facts.pairs(section.stdout)
    user = sanitize(told.get("user", "?"))
    yield Check(server, "", CONNECTION, OK, f"reached as {user} in {answer.seconds:.1f} s")
    missing = [line.partition("=")[2] for line in section.stdout.splitlines() if line.startswith("missing=")]
    if missing:
        yield Check(
            server, "", "programs", FAILED, f"missing: {sanitize(', '.join(missing))}",
            "On Debian and Ubuntu: apt-get install util-linux coreutils gawk",
        )  # fmt: skip
    elif told.get("client") == "none":
        yield Check(
            server, "", "programs", FAILED, "there is no HTTP client", "Install one: apt-get install curl"
        )
    else:
        yield Check(
            server, "", "programs", OK, f"all there; health checks use {sanitize(told.get('client', '?'))}"
        )
    yield _clock(answer, facts.number(told.get("epoch", "")))


def _clock(answer: Answer, epoch: int | None) -> Check:
    """The clock there was read some time after it was asked for, and before the answer was here."""
    if epoch is None:
        return Check(answer.server, "", "clock", WARNING, "`date` does not say what time it is")
    early, late = epoch + 1 - answer.asked, epoch - (answer.asked + answer.seconds)
    apart = 0.0 if late <= 0 <= early else min(abs(early), abs(late))
    if apart > _CLOCK:
        return Check(
            answer.server, "", "clock", WARNING, f"differs from the one here by {apart:.0f} s",
            "Have it set from the network there and here: timedatectl set-ntp true",
        )  # fmt: skip
    return Check(answer.server, "", "clock", OK, "as the one here")


def _root(answer: Answer) -> Iterator[Check]:
    section = answer.sections["root"]
    problems.must(answer.server, "becoming root", section)
    if section.stdout.strip() == "0":
        yield Check(answer.server, "", "privileges", OK, "may become root")
    else:
        yield Check(
            answer.server, "", "privileges", FAILED, "sudo gives another user than root",
            "Allow this user the sudo line of the README, section 'Your own servers'.",
        )  # fmt: skip


def _docker(answer: Answer) -> Iterator[Check]:
    server, section = answer.server, answer.sections["docker"]
    problems.must(server, "asking Docker", section)
    told = facts.pairs(section.stdout)
    version = sanitize(told.get("version", ""))
    if _older(version, _DOCKER):
        yield Check(
            server, "", "docker", WARNING, f"{version or 'an unknown version'} is older than what this was tried with",
            f"Install {'.'.join(map(str, _DOCKER))} or later.",
        )  # fmt: skip
    else:
        yield Check(server, "", "docker", OK, version)
    yield _disk(server, (facts.number(told.get("free", "")) or 0) * 1024)


def _older(version: str, least: tuple[int, int]) -> bool:
    numbers = [facts.number(one) for one in version.split(".")[:2]]
    known = [one for one in numbers if one is not None]
    return len(known) < len(least) or tuple(known) < least


def _disk(server: str, free: int) -> Check:
    told = f"{free / 1024**3:.1f} GiB free where Docker keeps its data"
    fix = "Free some: invoke cleanup; docker system df"
    if free < _FULL:
        return Check(server, "", "disk", FAILED, told, fix)
    return (
        Check(server, "", "disk", WARNING, told, fix)
        if free < _SCARCE
        else Check(server, "", "disk", OK, told)
    )


def _state(answer: Answer, environment: Environment) -> Iterator[Check]:
    section = answer.sections[f"{environment.name}: writable"]
    problems.must(answer.server, "looking for a place for state", section)
    place = facts.pairs(section.stdout).get("writable", "")
    if place == "yes":
        yield Check(answer.server, environment.name, "state", OK, "may be kept")
    else:
        yield Check(
            answer.server, environment.name, "state", FAILED, f"this user may not write in {sanitize(place)}",
            "As root there: install -d /var/lib/axon && chown -R USER /var/lib/axon",
        )  # fmt: skip


def _nginx(answer: Answer, environment: Environment) -> Iterator[Check]:
    server, name, place = answer.server, environment.name, environment.nginx
    told = inspecting.read_system(server, answer.sections, place=f"{name}: ")
    version = ".".join(map(str, told.version))
    if told.version[:2] < _NGINX:
        fix = f"Install {'.'.join(map(str, _NGINX))} or later."
        yield Check(server, name, "nginx", WARNING, f"{version} is older than what this was tried with", fix)
    elif told.running:
        yield Check(server, name, "nginx", OK, f"{version} runs")
    if not told.running:
        yield Check(
            server, name, "nginx", FAILED, f"{version} does not run", "Start it: systemctl start nginx"
        )
    if not told.included:
        fix = inspecting.include_hint(place)
        yield Check(
            server, name, "includes", FAILED, f"{place.config} does not include {place.directory}", fix
        )
    else:
        yield Check(server, name, "includes", OK, f"{place.config} includes {place.directory}")
    if told.broken:
        fix = "Mend it: until then no configuration can be loaded, and a restart of nginx would fail."
        yield Check(server, name, "configuration", FAILED, sanitize(told.broken), fix)
    else:
        yield Check(server, name, "configuration", OK, "passes nginx -t")
    yield from _listeners(answer, environment)


def _listeners(answer: Answer, environment: Environment) -> Iterator[Check]:
    section = answer.sections[f"{environment.name}: listens"]
    problems.must(answer.server, "looking at ports", section)
    for line in section.stdout.splitlines():
        port, _, program = line.removeprefix("listens=").partition(" ")
        if program != "nginx":
            yield Check(
                answer.server, environment.name, "port", FAILED, f"{sanitize(port)} is taken by {sanitize(program)}",
                "nginx needs it: stop that program, or set `nginx: {http_port, https_port}`.",
            )  # fmt: skip


def _certificate(answer: Answer, environment: Environment, tls: Tls) -> Iterator[Check]:
    section = answer.sections[f"{environment.name}: certificate"]
    problems.must(answer.server, f"reading {tls.certificate}", section)
    missing = {line.partition("=")[2] for line in section.stdout.split("\n") if line.startswith("missing=")}
    for path in (tls.certificate, tls.key):
        if path in missing:
            yield Check(
                answer.server, environment.name, "certificate", FAILED, f"there is no {path}",
                "Put it there; the key with mode 0600.",
            )  # fmt: skip
    if tls.certificate not in missing:
        yield certificate(answer.server, environment, tls, section.stdout_bytes)


def certificate(server: str, environment: Environment, tls: Tls, data: bytes) -> Check:
    """Until when a certificate is valid, and for whom.

    Args:
        server: Where it is.
        environment: Whose it is.
        tls: Its place.
        data: The file.
    """
    from cryptography import x509  # comes with paramiko

    name = environment.name
    try:
        found = x509.load_pem_x509_certificate(data[data.index(b"-----BEGIN CERTIFICATE") :])
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        valid_for = set(names.get_values_for_type(x509.DNSName))
        ends = found.not_valid_after_utc
    except x509.ExtensionNotFound:
        valid_for, ends = set(), found.not_valid_after_utc
    except (
        ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion,
    ):  # fmt: skip
        return Check(
            server,
            name,
            "certificate",
            FAILED,
            f"{tls.certificate} is no certificate in PEM",
            "Put one there.",
        )
    renew = f"Renew it: {tls.certificate}"
    left = (ends - dt.datetime.now(dt.timezone.utc)).days
    if left < 0:
        return Check(server, name, "certificate", FAILED, f"it ended on {ends:%Y-%m-%d}", renew)
    lacking = [one for one in environment.domains if not _covers(valid_for, one)]
    if lacking:
        told = f"it is not for {', '.join(lacking)}, but for {sanitize(', '.join(sorted(valid_for))) or 'nobody'}"
        return Check(server, name, "certificate", FAILED, told, "Have one made for all domains of the site.")
    verdict: Verdict = WARNING if left < _RENEW else OK
    told = f"valid until {ends:%Y-%m-%d}, {left} days"
    return Check(server, name, "certificate", verdict, told, renew if verdict == WARNING else "")


def _covers(names: set[str], domain: str) -> bool:
    """Whether a certificate is for a domain (RFC 6125, 6.4.3: an asterisk stands for one label)."""
    return domain in names or f"*.{domain.partition('.')[2]}" in names


def _ports(answer: Answer, environment: Environment) -> Iterator[Check]:
    server, name = answer.server, environment.name
    section = answer.sections[f"{name}: ports"]
    problems.must(server, "looking at ports", section)
    taken = [line.partition("=")[2] for line in section.stdout.splitlines() if line.startswith("taken=")]
    if taken:
        yield Check(
            server, name, "ports", FAILED, f"somebody else listens on {sanitize(', '.join(taken))}",
            "Stop what holds it, or remove the environment's file `ports` to have two others chosen.",
        )  # fmt: skip
    else:
        yield Check(server, name, "ports", OK, "nobody else has them")
    if environment.env_file:
        yield _env_file(server, environment, answer.sections)


def _env_file(server: str, environment: Environment, told: Mapping[str, Section]) -> Check:
    stands = facts.parse_env_file(server, told[f"{environment.name}: env_file"].stdout)
    if stands == "ok":
        return Check(server, environment.name, "env file", OK, f"{environment.env_file} is there")
    found = problems.env_file_problem(server, environment.env_file or "", stands, server)
    return _failed(server, environment.name, "env file", found)

"""Environments as they are, for people and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import nginx
from axon_tasks.deploy import drift
from axon_tasks.deploy.owner import in_one_unit, text_of
from axon_tasks.errors import UnreachableError
from axon_tasks.remote.text import sanitize
from axon_tasks.report import columns, console

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from axon_tasks.deploy.looking import AppLook, Look, Reply, Running, SystemLook

_HEADS = ("ENVIRONMENT", "SERVER", "RELEASE", "IMAGE", "AGE", "STATE", "HEALTH", "PORT", "SLOT", "TRAFFIC")


def table(looks: Sequence[Look]) -> str:
    """One table of everything that runs, and below it what is not as it should be."""
    rows = [row for seen in looks for row in _rows(seen)]
    lines = columns.lines(_HEADS, rows)
    for seen in looks:
        lines += [f"\n{one}" for one in (*_locked(seen), *_maintained(seen))]
        found = drift.findings(seen)
        if found:
            lines.append(f"\n{seen.environment.name}: not as it should be")
            for one in found:
                lines += [
                    f"  {one.server}: {console.one_line(one.what)}",
                    f"    {console.one_line(one.hint)}",
                ]
    return "\n".join(lines)


def _rows(seen: Look) -> Iterator[tuple[str, ...]]:
    for server in seen.environment.servers:
        if server in seen.system:
            yield _system_row(seen, server, seen.system[server])
        if server in seen.app:
            yield from _app_rows(seen, server, seen.app[server])
        if server in seen.errors:
            unreachable = isinstance(seen.errors[server], UnreachableError)
            word = "no answer" if unreachable else "failed"
            yield (seen.environment.name, server, *["-"] * 3, word, *["-"] * 4)


def _system_row(seen: Look, server: str, told: SystemLook) -> tuple[str, ...]:
    environment, record = seen.environment, told.facts.record
    return (
        environment.name,
        server,
        told.facts.current or "-",
        short_image(text_of(record, "image")),
        "-",
        f"nginx {'.'.join(map(str, told.facts.version))}" if told.facts.running else "nginx stopped",
        _worst(told.replies) if nginx.is_ours(told.facts.site, environment) else "-",
        str(environment.nginx.https_port if environment.tls else environment.nginx.http_port),
        told.facts.flag_slot if environment.switch == "slots" else "-",
        f"to {', '.join(told.targets)}" if told.targets else "to nobody",
    )


def _worst(replies: Sequence[Reply]) -> str:
    """The answer that tells most: one that is not good, or else the slowest."""
    if not replies:
        return "-"
    return answer(min(replies, key=lambda one: (one.good, -one.milliseconds)))


def answer(reply: Reply) -> str:
    """An answer in a few words."""
    if reply.status is None:
        return reply.told[:40] or "no answer"
    took = f"{reply.milliseconds} ms" if reply.milliseconds else "< 10 ms"
    return f"{reply.status} in {took}" if reply.good else f"{reply.status}, not healthy"


def _app_rows(seen: Look, server: str, told: AppLook) -> Iterator[tuple[str, ...]]:
    if not told.running:
        yield (seen.environment.name, server, *["-"] * 3, "nothing runs", *["-"] * 4)
    for one in sorted(
        told.running, key=lambda one: (not seen.gets_traffic(server, one.container), one.container.name)
    ):
        container = one.container
        yield (
            seen.environment.name,
            server,
            container.release or "-",
            short_image(container.reference),
            "-" if one.seconds is None else in_one_unit(one.seconds),
            state(one),
            "-" if one.reply is None else answer(one.reply),
            str(container.port or "-"),
            container.slot or "-",
            {True: "yes", False: "no", None: "?"}[seen.gets_traffic(server, container)],
        )


def state(one: Running) -> str:
    """A container's state in a few words."""
    words = [one.status or "-"]
    if one.status == "exited":
        words = [f"exited with {one.exit_code}" + (", out of memory" if one.oom_killed else "")]
    if one.health and one.health not in {"healthy", "none"}:
        words.append(one.health)
    if one.restarts:
        words.append(f"{one.restarts} restart{'s' if one.restarts > 1 else ''}")
    return ", ".join(words)


def short_image(reference: str) -> str:
    """The image without its registry."""
    return reference.rsplit("/", 1)[-1] or "-"


def _locked(seen: Look) -> Iterator[str]:
    if seen.lock and seen.lock.hold:
        yield f"{seen.environment.name}: held by {seen.lock.hold.sentence}"
    if seen.lock and seen.lock.owner:
        word = "locked by" if seen.lock.state == "locked" else "not finished by"
        yield f"{seen.environment.name}: {word} {seen.lock.owner.sentence()}"


def _maintained(seen: Look) -> Iterator[str]:
    told = {server: one.maintenance for server, one in seen.system.items() if one.maintenance}
    if told:
        note = next(iter(told.values()))
        yield (
            f"{seen.environment.name}: maintenance is on, on {', '.join(told)}; clients get 503. By {note.sentence}"
        )


def as_json(looks: Sequence[Look]) -> str:
    """The same as data; its shape is `schemas/status.json`."""
    return json.dumps({"environments": [_environment(seen) for seen in looks]}, indent=2)


def _environment(seen: Look) -> dict[str, Any]:
    return {
        "environment": seen.environment.name,
        "product": seen.environment.product,
        "domain": seen.environment.domain,
        "lock": None
        if seen.lock is None
        else {
            "state": seen.lock.state,
            "owner": seen.lock.owner and seen.lock.owner.as_dict(),
            "hold": seen.lock.hold and seen.lock.hold.as_dict(),
        },
        "system": [_system(server, told) for server, told in seen.system.items()],
        "app": [
            {
                "server": server,
                "docker": sanitize(told.facts.docker),
                "free_bytes": told.facts.free_bytes,
                "containers": [_container(seen, server, one) for one in told.running],
            }
            for server, told in seen.app.items()
        ],
        "drift": [one._asdict() for one in drift.findings(seen)],
        "errors": [{"server": name, "message": sanitize(str(one))} for name, one in seen.errors.items()],
    }


def _system(server: str, told: SystemLook) -> dict[str, Any]:
    return {
        "server": server,
        "nginx": ".".join(map(str, told.facts.version)),
        "running": told.facts.running,
        "included": told.facts.included,
        "slot": told.facts.flag_slot,
        "release": told.facts.current,
        "image": text_of(told.facts.record, "image"),
        "targets": [sanitize(one) for one in told.targets],
        "answers": [reply(one) for one in told.replies],
        "maintenance": None if told.maintenance is None else told.maintenance.as_dict(),
    }


def _container(seen: Look, server: str, one: Running) -> dict[str, Any]:
    return {
        "name": sanitize(one.container.name),
        "release": sanitize(one.container.release),
        "image": sanitize(one.container.reference),
        "digest": sanitize(one.container.digest),
        "state": one.status,
        "seconds": one.seconds,
        "restarts": one.restarts,
        "exit_code": one.exit_code,
        "oom_killed": one.oom_killed,
        "docker_health": one.health,
        "port": one.container.port,
        "slot": one.container.slot,
        "traffic": seen.gets_traffic(server, one.container),
        "answer": None if one.reply is None else reply(one.reply),
    }


def reply(one: Reply) -> dict[str, Any]:
    """An answer as data."""
    return one._asdict()

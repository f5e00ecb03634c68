"""Where an environment is not as it is recorded, or not as it must be to serve.

Each rule looks at one thing and says it in one sentence, with what to do about it. A rule that would need a server that
did not answer says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import naming, nginx
from axon_tasks.deploy import inspecting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.deploy.looking import Look, Running, SystemLook


class Finding(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        server: Where.
        what: What it is, in one sentence.
        hint: What to do.
    """

    server: str
    what: str
    hint: str


def findings(seen: Look) -> list[Finding]:
    """All that is not as it should be, servers in the order of `hosts.yml`."""
    found = [
        one
        for rule in (_nginx, _files, _traffic, _maintenance, _records, _answers, _releases)
        for one in rule(seen)
    ]
    order = {name: number for number, name in enumerate(seen.environment.servers)}
    return sorted(dict.fromkeys(found), key=lambda one: order.get(one.server, len(order)))


def _deploy(seen: Look) -> str:
    return f"fab deploy --env={seen.environment.name}"


def _sync(seen: Look) -> str:
    return f"fab sync --env={seen.environment.name}"


def _mend(seen: Look) -> str:
    """What brings traffic in line: a sync where one release runs on all app servers, else a deploy."""
    running = [
        {
            one.container.release
            for one in seen.app[name].running
            if one.container.running and one.container.slot
        }
        for name in seen.environment.app
        if name in seen.app
    ]
    everywhere = set.intersection(*running) if running else set()
    return _sync(seen) if everywhere else _deploy(seen)


def _nginx(seen: Look) -> Iterator[Finding]:
    """It runs, and reads what this tool writes; no run has ended half-way."""
    place = seen.environment.nginx
    for server, told in seen.system.items():
        if not told.facts.running:
            yield Finding(server, "nginx is not running", "Start it: systemctl start nginx")
        if not told.facts.included:
            yield Finding(
                server, f"{place.config} does not include {place.directory}", inspecting.include_hint(place)
            )
        if told.facts.unfinished or told.facts.journal:
            yield Finding(
                server,
                f"a run{f' ({told.facts.journal})' if told.facts.journal else ''} did not come back while it switched",
                f"The next one completes it or takes it back: {_sync(seen)}",
            )


def _files(seen: Look) -> Iterator[Finding]:
    """The files are as this tool wrote them."""
    name = naming.config_name(seen.environment.product, seen.environment.name)
    for server, told in seen.system.items():
        for kind, text in (("upstreams", told.facts.upstream), ("sites", told.facts.site)):
            if nginx.is_changed_by_hand(text, seen.environment):
                path = f"{seen.environment.nginx.directory}/{kind}/{name}.conf"
                yield Finding(
                    server, f"{path} was changed by hand", f"To have it written anew: {_sync(seen)}"
                )
            # With `switch: reload`, the site may be anywhere.
            is_wanted = kind == "upstreams" or seen.environment.switch == "slots"
            if told.facts.current and not text and is_wanted:
                path = f"{seen.environment.nginx.directory}/{kind}/{name}.conf"
                yield Finding(server, f"{path} is not there", f"To have it written anew: {_sync(seen)}")


def _traffic(seen: Look) -> Iterator[Finding]:
    """Each place that nginx sends requests to is a running container, and all system servers send them to the same."""
    for server, told in seen.system.items():
        first = next(iter(seen.system))
        if told.targets != seen.system[first].targets:
            yield Finding(
                server,
                f"sends requests to {_listed(told.targets)}, and {first} to {_listed(seen.system[first].targets)}",
                f"To make them agree: {_mend(seen)}",
            )
        for target in told.targets:
            yield from _dead_target(seen, server, target)
        for name in seen.environment.app:
            if (
                told.targets
                and name in seen.app
                and not any(seen.server_of(one) == name for one in told.targets)
            ):
                yield Finding(server, f"sends no requests to {name}", f"To have it added: {_mend(seen)}")


def _maintenance(seen: Look) -> Iterator[Finding]:
    """Maintenance is on at all system servers, or at none."""
    on = [server for server, told in seen.system.items() if told.facts.maintenance]
    if on and len(on) < len(seen.system):
        for server in seen.system:
            if server not in on:
                name = seen.environment.name
                yield Finding(
                    server,
                    f"maintenance is off, and on at {', '.join(on)}",
                    f"To have it so everywhere: fab maintenance --env={name} --on, or --off",
                )


def _dead_target(seen: Look, server: str, target: str) -> Iterator[Finding]:
    name = seen.server_of(target)
    if not name:
        yield Finding(
            server,
            f"sends requests to {target}, which is no app server of hosts.yml",
            f"To have it left out: {_mend(seen)}",
        )
    elif name in seen.app:
        there = [one for one in seen.app[name].running if seen.target(name, one.container.port) == target]
        if not any(one.status == "running" for one in there):
            state = there[0].status if there else ""
            what = (
                f"its container {there[0].container.name} is {state}"
                if there
                else "no container of it is there"
            )
            yield Finding(name, f"{server} sends requests to {target}, but {what}", _revive(seen, there))


def _revive(seen: Look, there: list[Running]) -> str:
    if there:
        return f"See why: docker logs {there[0].container.name}; go back: fab rollback --env={seen.environment.name}"
    return f"To send them to what runs: {_mend(seen)}"


def _listed(targets: tuple[str, ...]) -> str:
    return ", ".join(targets) or "nobody"


def _records(seen: Look) -> Iterator[Finding]:
    """What is recorded as the current release is what gets traffic."""
    releases = {one.container.release for _, one in seen.serving() if one.container.slot}
    for server, told in seen.system.items():
        current = told.facts.current
        if current and releases and current not in releases:
            yield Finding(
                server,
                f"release {current} is recorded as the one that serves, and traffic goes to {', '.join(sorted(releases))}",
                f"To record what serves: {_sync(seen)}",
            )
        if current and not told.targets:
            yield Finding(
                server, f"release {current} is recorded as the one that serves, and nginx sends requests to nobody",
                f"To send them to what runs: {_mend(seen)}",
            )  # fmt: skip


def _answers(seen: Look) -> Iterator[Finding]:
    """What gets traffic answers its health check, directly and through nginx."""
    name = seen.environment.name
    for server, one in seen.serving():
        if one.reply and not one.reply.good:
            yield Finding(
                server,
                f"release {one.container.release} gets requests and is not healthy: {one.reply.told}",
                f"See why: fab health --env={name}; fab logs --env={name} --only={server}",
            )
    for server, told in seen.system.items():
        yield from _through(seen, server, told)


def _through(seen: Look, server: str, told: SystemLook) -> Iterator[Finding]:
    if not (told.targets and told.facts.running and nginx.is_ours(told.facts.site, seen.environment)):
        return
    for reply in told.replies:
        last = reply.upstream.rpartition(", ")[2]
        if last and last not in told.targets:
            yield Finding(
                server, f"nginx sent a health check to {last}, and its files say {_listed(told.targets)}",
                "A switch is under way, or nginx has not loaded these files: look again; then nginx -t && nginx -s reload",
            )  # fmt: skip
        elif not reply.good:
            yield Finding(
                server,
                f"a health check through nginx got {reply.told}",
                f"See why: fab health --env={seen.environment.name}",
            )


def _releases(seen: Look) -> Iterator[Finding]:
    """All app servers that get traffic run the same release."""
    by_release: dict[str, list[str]] = {}
    for server, one in seen.serving():
        by_release.setdefault(one.container.release, []).append(server)
    if len(by_release) > 1:
        told = "; ".join(f"{release} on {', '.join(names)}" for release, names in sorted(by_release.items()))
        yield Finding(
            next(iter(seen.environment.system)),
            f"different releases get requests: {told}",
            f"A deploy makes them the same: {_deploy(seen)}",
        )

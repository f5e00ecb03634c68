"""The inspection: every server is asked at the same time, and nothing is asked twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import docker, naming, nginx
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.servers import ServersFailedError
from axon_tasks.errors import AxonError, StepFailedError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from axon_tasks.config import Environment
    from axon_tasks.config.project import Nginx
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult, Section


def _nothing_more(_server: str, _batch: Batch) -> None:
    """What an inspection asks besides, if that is nothing."""


def inspect_step(
    run: Deployment,
    needs: tuple[str, ...] = (),
    *,
    reserve: bool = True,
    heals: bool = False,
    before: Callable[[str, Batch], None] = _nothing_more,
) -> Step:
    """Ask all servers at the same time: what serves, what runs, what is missing.

    Args:
        run: The run, which learns what was found.
        needs: The steps before it.
        reserve: Whether app servers may choose their two ports; without it nothing is changed.
        heals: Whether the plan goes on to make system servers agree; otherwise it is a failure if they do not.
        before: Adds what a server is asked first, in the same script.
    """
    environment = run.environment

    def batch(server: str) -> Batch:
        asked = Batch("inspect")
        before(server, asked)
        if server in environment.system:
            ask_system(environment, asked)
        if server in environment.app:
            ask_app(environment, asked, reserve=reserve)
        return asked

    def learn(results: Mapping[str, BatchResult]) -> Report:
        _learn(run, results, heals=heals)
        return Report(_inspection_note(run), durations(results))

    return Step(
        "inspect",
        "ask every server what serves, what runs and what is missing",
        needs,
        servers=environment.servers,
        reads=frozenset(
            run.nginx_resources | {f"{server}:containers of {environment.name}" for server in environment.app}
        ),
        changes=frozenset(f"{server}:ports" for server in environment.app) if reserve else frozenset(),
        # It is short, and what it finds tells what serves if something else fails.
        otherwise="finish",
        batch=batch,
        timeout=lambda: SHORT,
        learn=learn,
    )


def _learn(run: Deployment, results: Mapping[str, BatchResult], *, heals: bool) -> None:
    """Take over what was found.

    Raises:
        ServersFailedError: A server lacks something; every fault is told.
    """
    errors: list[AxonError] = []
    for server, result in results.items():
        found = _read(run, server, result)
        if found:
            run.servers.failed.setdefault(server, found[0])
        errors += found
    if not errors:
        run.split = _split(run)
        errors += [] if heals else disagreement(run)
    if errors:
        raise ServersFailedError(errors)
    run.previous = _serving_slot(run)


def _read(run: Deployment, server: str, result: BatchResult) -> list[AxonError]:
    """Take over what one server told; gives what it lacks."""
    try:
        if server in run.environment.system:
            run.system[server] = _read_system(run, server, result)
        if server in run.environment.app:
            run.app[server] = read_app(server, result, run.environment)
            return problems.check_app(run.app[server], run.environment.env_file, server)
    except AxonError as error:
        return [error]
    return []


def _split(run: Deployment) -> dict[str, str]:
    """The slots of system servers that send traffic to different ones: no slot is free then."""
    slots = {server: told.flag_slot for server, told in run.system.items()}
    return slots if run.environment.switch == "slots" and len(set(slots.values())) > 1 else {}


def disagreement(run: Deployment) -> list[AxonError]:
    """The failure that a split is to whoever cannot mend it."""
    if not run.split:
        return []
    flag = naming.flag_file(run.environment.product, run.environment.name)
    told = ", ".join(f"{server} to slot {slot}" for server, slot in run.split.items())
    return [
        StepFailedError(
            f"{run.environment.name}: the system servers send traffic to different slots: {told}",
            hint=f"fab sync --env={run.environment.name}, or a deploy, makes them agree where one of the two releases runs"
            f" everywhere. By hand: the file {flag} means slot b; rm it for slot a, touch it for slot b.",
        )
    ]


def ask_system(environment: Environment, batch: Batch, *, place: str = "", test: bool = True) -> None:
    """Ask a system server about nginx and about what is recorded there; `read_system` reads it.

    Args:
        environment: About which environment.
        batch: Where it is added.
        place: Stands before each label, where one batch asks about several environments.
        test: Whether nginx's configuration is to be tested, which takes long where there are many sites.
    """
    batch.add(nginx.inspect(), label=f"{place}nginx")
    batch.add(nginx.inspect_running(environment), label=f"{place}running", sudo=True)
    batch.add(nginx.inspect_included(environment), label=f"{place}included", sudo=True)
    if test:
        batch.add(nginx.inspect_valid(environment), label=f"{place}valid", sudo=True)
    batch.add(nginx.inspect_state(environment), label=f"{place}state", sudo=True)
    batch.add(nginx.inspect_file(environment, "upstreams"), label=f"{place}upstream", sudo=True)
    batch.add(nginx.inspect_file(environment, "sites"), label=f"{place}site", sudo=True)


def ask_app(environment: Environment, batch: Batch, *, reserve: bool = False, place: str = "") -> None:
    """Ask an app server about Docker and the environment's containers; `read_app` reads it.

    Args:
        environment: About which environment.
        batch: Where it is added.
        reserve: Whether it may choose the environment's two ports; without it nothing is changed.
        place: Stands before each label, where one batch asks about several environments.
    """
    ports = docker.reserve_ports if reserve else docker.reserved_ports
    batch.add(docker.info(), label=f"{place}docker")
    batch.add(docker.containers(), label=f"{place}containers")
    batch.add(ports(environment), label=f"{place}ports")
    if environment.env_file:
        batch.add(docker.env_file(environment.env_file), label=f"{place}env_file")


def read_system(server: str, told: Mapping[str, Section], *, place: str = "") -> parse.SystemFacts:
    """What a system server said, without a judgement.

    Args:
        server: Its name.
        told: What `ask_system` asked for.
        place: As it was given there.

    Raises:
        AxonError: It could not say, or what it said makes no sense.
    """
    for label, doing in (("nginx", "inspecting nginx"), ("running", "looking for nginx's master"),
                         ("included", "reading nginx's configuration"), ("state", "reading the state"),
                         ("upstream", "reading the upstream"), ("site", "reading the site")):  # fmt: skip
        must(server, doing, told[place + label])
    parts = [one for one in ("nginx", "running", "included", "valid") if place + one in told]
    nginx_told = "\n".join(told[place + label].stdout for label in parts)
    return parse.parse_system(
        server, nginx_told, *(told[place + label].stdout for label in ("state", "upstream", "site"))
    )


def _read_system(run: Deployment, server: str, result: BatchResult) -> parse.SystemFacts:
    told = read_system(server, result)
    place = run.environment.nginx
    if not told.running:
        raise StepFailedError(f"{server}: nginx is not running", hint="Start it: systemctl start nginx")
    if not told.included:
        raise StepFailedError(
            f"{server}: {place.config} does not include {place.directory}", hint=include_hint(place)
        )
    for text in (told.upstream, told.site):
        if text.startswith("# axon-tasks:") and not nginx.is_ours(text, run.environment):
            raise StepFailedError(
                f"{server}: {naming.config_name(run.environment.product, run.environment.name)}.conf belongs"
                f" to another product: {text.splitlines()[0]}",
                hint="Rename the product or the environment: both names together must be unique on a server.",
            )
    return told


def include_hint(place: Nginx) -> str:
    """How nginx is made to read what this tool writes."""
    return (
        f"Set nginx up once: printf 'include {place.directory}/upstreams/*.conf;\\ninclude"
        f" {place.directory}/sites/*.conf;\\n' > /etc/nginx/conf.d/axon.conf (README, 'Your own servers')"
    )


def read_app(
    server: str, told: Mapping[str, Section], environment: Environment, *, place: str = ""
) -> parse.AppFacts:
    """What an app server said, without a judgement; its parameters are those of `read_system`.

    Raises:
        AxonError: It could not say, or what it said makes no sense.
    """
    for label, doing in (("docker", "asking Docker"), ("containers", "listing containers"),
                         ("ports", "choosing ports")):  # fmt: skip
        must(server, doing, told[place + label])
    daemon = parse.pairs(told[f"{place}docker"].stdout)
    return parse.AppFacts(
        server=server,
        docker=daemon.get("version", ""),
        free_bytes=(parse.number(daemon.get("free", "")) or 0) * 1024,
        env_file=parse.parse_env_file(server, told[f"{place}env_file"].stdout)
        if environment.env_file
        else "ok",
        ports=parse.parse_ports(server, told[f"{place}ports"].stdout),
        containers=parse.parse_containers(server, told[f"{place}containers"].stdout, environment),
    )


def _serving_slot(run: Deployment) -> str:
    """The slot that serves now: the flag decides, or with one upstream the ports that stand in it."""
    system = run.system[run.environment.system[0]]
    slot = ""
    if naming.upstream_name(run.environment.product, run.environment.name, "a") in system.upstream:
        slot = system.flag_slot
    else:
        targets = set(nginx.upstream_targets(system.upstream))
        for one in naming.SLOTS:
            if any(app.ports and run.backend(name).target(one) in targets for name, app in run.app.items()):
                slot = one
    # In whatever state they are: a release that is paused or restarts just now must not have its slot cleared.
    return slot if slot and any(app.in_slot(slot) for app in run.app.values()) else ""


def _inspection_note(run: Deployment) -> str:
    serving = run.serving()
    if serving:
        tags = sorted({one.reference.rsplit("/", 1)[-1] for one in serving})
        return f"{', '.join(tags)} serves (release {serving[0].release}, slot {run.previous})"
    if any(app.containers for app in run.app.values()):
        return "no release of this tool serves yet; containers of AXON are taken over"
    return "nothing serves yet"

"""One deployment of one environment: its steps, what they learn from the servers, and how it ends."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axon_tasks.commands import docker, naming, nginx, records
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import problems
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.release import Release, git_commit, utc_now, who
from axon_tasks.deploy.servers import AbortedError, Servers, ServersFailedError
from axon_tasks.errors import AfterSwitchError, AxonError, LockedError, StepFailedError, UsageError
from axon_tasks.remote import Batch, jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.engine import Listener
    from axon_tasks.remote import BatchResult, PendingBatch, Section

#: Exit status of the lock script when somebody else holds it.
LOCK_TAKEN = 75
#: Exit statuses of the switch script after which the new state is not the old one (see commands/sh/switch.sh).
SWITCH_BROKEN = frozenset({54, 64})
#: Seconds for what should take a moment: an inspection, a record.
SHORT = 60.0
#: Seconds for a pull: a large image over a slow line.
PULL = 3600.0


@dataclass(frozen=True)
class Options:
    """What the command line says about a run.

    Attributes:
        tag: The tag to deploy; None for the environment's own.
        now: Whether to cut what still drains in the slot that is needed.
        command: The command line, for the lock's owner.
    """

    tag: str | None = None
    now: bool = False
    command: str = ""


@dataclass
class Deployment:
    """The state of one run. Each step fills in what it learns, and nothing is asked twice.

    Attributes:
        project: The settings of everything.
        environment: The environment that is deployed.
        servers: The connections.
        listener: Is told about the progress.
        options: What the command line says.
    """

    project: Project
    environment: Environment
    servers: Servers
    listener: Listener
    options: Options = field(default_factory=Options)

    system: dict[str, parse.SystemFacts] = field(default_factory=dict)
    app: dict[str, parse.AppFacts] = field(default_factory=dict)
    digest: str = ""
    release: Release | None = None
    previous: str = ""
    switched: bool = False
    switched_on: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    retiring: dict[str, str] = field(default_factory=dict)
    lock: PendingBatch | None = None
    files: dict[str, nginx.Files] = field(default_factory=dict)

    # -- what the steps share ------------------------------------------------------------------------------

    @property
    def reference(self) -> str:
        """The image to deploy, with its tag.

        Raises:
            UsageError: There is no tag, neither on the command line nor in `hosts.yml`.
        """
        from axon_tasks.config import ImageReference

        image = ImageReference.parse(self.environment.image)
        tag = self.options.tag or self.environment.tag
        if tag:
            try:
                return str(image.with_tag(tag))
            except ValueError as error:
                raise UsageError(f"--tag={tag}: {error}", hint="A tag is like v1.2 or 2f3a91c.") from None
        if image.tag or image.digest:
            return str(image)
        raise UsageError(
            f"Which version of {self.environment.image}? There is no tag.",
            hint=f"Pass --tag=TAG, or set `tag:` for {self.environment.name} in hosts.yml.",
        )

    def address(self, server: str) -> str:
        """The address at which nginx reaches an app server."""
        return self.project.hosts[server].upstream_address

    def backend(self, server: str) -> nginx.Backend:
        """An app server with its two ports."""
        ports = self.app[server].ports
        if ports is None:
            raise StepFailedError(f"{server}: no ports have been chosen yet", hint="A first deploy chooses them.")
        return nginx.Backend(self.address(server), ports)

    def wanted(self) -> Release:
        """The release of this run.

        Raises:
            StepFailedError: There is none, because nothing has been started.
        """
        if self.release is None:
            raise StepFailedError(
                f"{self.environment.name}: no release is waiting to be switched to",
                hint=f"Start one: fab steps.start --env={self.environment.name} --tag=TAG",
            )
        return self.release

    def candidate(self, server: str) -> docker.Candidate:
        """What one app server runs of this run's release."""
        release, host = self.wanted(), self.project.hosts[server]
        repository, tagged = release.reference, release.digest
        return docker.Candidate(
            environment=self.environment,
            release=release.id,
            slot=release.slot,
            port=release.ports[server],
            address=host.upstream_address,
            image=by_digest(repository, tagged),
            reference=release.reference,
            bind=host.private_address or "0.0.0.0",  # noqa: S104  (without a private address nginx comes from outside)
            digest=release.digest,
        )

    def serving(self) -> tuple[parse.Container, ...]:
        """The containers of the slot that serves, on all app servers."""
        return tuple(one for app in self.app.values() for one in app.containers if one.slot == self.previous)

    def _each(self, names: Iterable[str], work: Callable[[str], BatchResult]) -> dict[str, BatchResult]:
        return self.servers.each(names, work)

    # -- lock ----------------------------------------------------------------------------------------------

    def hold_lock(self) -> Report:
        """Take the environment's lock on the first system server; it is held as long as the connection lives.

        Raises:
            LockedError: Somebody else holds it; says who, since when, and for what.
        """
        server = self.environment.system[0]
        owner = {"who": who(), "since": utc_now(), "command": self.options.command or "deploy"}
        began = time.monotonic()
        batch = Batch("lock", sudo=True).add(records.hold_lock(self.environment, owner), label="lock")
        answered, said = threading.Event(), bytearray()

        def listen(_label: str, stream: str, chunk: bytes) -> None:
            if stream == "stdout":
                said.extend(chunk)
                if b"locked=yes" in said:
                    answered.set()

        lock = batch.start(self.servers.fleet[server], on_output=listen)
        while not answered.wait(0.02):
            if lock.done():
                break
        if not answered.is_set():
            section = lock.result()["lock"]
            if section.exit_code == LOCK_TAKEN:
                raise self._locked(server, section.stdout)
            raise problems.explain(server, "taking the lock", section.stderr or section.stdout, code=section.exit_code)
        self.lock = lock
        return Report(servers={server: time.monotonic() - began})

    def _locked(self, server: str, told: str) -> LockedError:
        import json

        try:
            owner = json.loads(told)
            by = f"{owner['who']} since {owner['since']} ({owner['command']})"
        except (ValueError, KeyError, TypeError):
            by = "somebody else"
        return LockedError(
            f"{self.environment.name} is locked by {by}, on {server}",
            hint="Wait until that run has ended; the lock goes with its connection.",
        )

    def release_lock(self) -> None:
        """Give the lock back; a connection that is gone has done so already."""
        if self.lock is not None:
            self.lock.cancel()
            self.lock = None

    # -- inspect -------------------------------------------------------------------------------------------

    def inspect(self, *, reserve: bool = True) -> Report:
        """Ask all servers at the same time: what serves, what runs, what is missing.

        Args:
            reserve: Whether app servers may choose their two ports; without it nothing is changed.

        Raises:
            ServersFailedError: A server lacks something, or did not answer; every fault is told.
        """

        def ask(server: str) -> BatchResult:
            batch = Batch("inspect")
            if server in self.environment.system:
                self._ask_system(batch)
            if server in self.environment.app:
                self._ask_app(batch, reserve=reserve)
            return self.servers.run(server, batch, timeout=SHORT)

        results = self._each((*self.environment.system, *self.environment.app), ask)
        errors: list[AxonError] = []
        for server, result in results.items():
            try:
                if server in self.environment.system:
                    self.system[server] = self._read_system(server, result)
                if server in self.environment.app:
                    self.app[server] = self._read_app(server, result)
                    errors += problems.check_app(self.app[server], self.environment.env_file, server)
            except AxonError as error:
                errors.append(error)
        if errors:
            raise ServersFailedError(errors)
        self.previous = self._serving_slot()
        return Report(self._inspection_note(), _durations(results))

    def _ask_system(self, batch: Batch) -> None:
        batch.add(nginx.inspect(self.environment), label="nginx", sudo=True)
        batch.add(nginx.inspect_state(self.environment), label="state", sudo=True)
        batch.add(nginx.inspect_file(self.environment, "upstreams"), label="upstream", sudo=True)
        batch.add(nginx.inspect_file(self.environment, "sites"), label="site", sudo=True)

    def _ask_app(self, batch: Batch, *, reserve: bool) -> None:
        ports = docker.reserve_ports if reserve else docker.reserved_ports
        batch.add(docker.info(), label="docker")
        batch.add(docker.containers(), label="containers")
        batch.add(docker.free_space(), label="free")
        batch.add(ports(self.environment), label="ports")
        if self.environment.env_file:
            batch.add(docker.env_file(self.environment.env_file), label="env_file")

    def _read_system(self, server: str, result: BatchResult) -> parse.SystemFacts:
        for label, doing in (("nginx", "inspecting nginx"), ("state", "reading the state"),
                             ("upstream", "reading the upstream"), ("site", "reading the site")):  # fmt: skip
            must(server, doing, result[label])
        told = parse.parse_system(server, *(result[label].stdout for label in ("nginx", "state", "upstream", "site")))
        place = self.environment.nginx
        if not told.running:
            raise StepFailedError(f"{server}: nginx is not running", hint="Start it: systemctl start nginx")
        if not told.included:
            raise StepFailedError(
                f"{server}: {place.config} does not include {place.directory}",
                hint=f"Set nginx up once: printf 'include {place.directory}/upstreams/*.conf;\\ninclude"
                f" {place.directory}/sites/*.conf;\\n' > /etc/nginx/conf.d/axon.conf (README, 'Your own servers')",
            )
        for text in (told.upstream, told.site):
            if text.startswith("# axon-tasks:") and not nginx.is_ours(text, self.environment):
                raise StepFailedError(
                    f"{server}: {naming.config_name(self.environment.product, self.environment.name)}.conf belongs"
                    f" to another product: {text.splitlines()[0]}",
                    hint="Rename the product or the environment: both names together must be unique on a server.",
                )
        return told

    def _read_app(self, server: str, result: BatchResult) -> parse.AppFacts:
        for label, doing in (("docker", "asking Docker"), ("containers", "listing containers"),
                             ("ports", "choosing ports")):  # fmt: skip
            must(server, doing, result[label])
        free = result["free"].stdout.strip()
        return parse.AppFacts(
            server=server,
            docker=result["docker"].stdout.split(" ")[0],
            free_bytes=int(free) * 1024 if free.isdecimal() else 0,
            env_file=result["env_file"].stdout.strip() if self.environment.env_file else "ok",
            ports=parse.parse_ports(server, result["ports"].stdout),
            containers=parse.parse_containers(server, result["containers"].stdout, self.environment),
        )

    def _serving_slot(self) -> str:
        """The slot that serves now: the flag decides, or with one upstream the ports that stand in it."""
        system = self.system[self.environment.system[0]]
        slot = ""
        if naming.upstream_name(self.environment.product, self.environment.name, "a") in system.upstream:
            slot = system.flag_slot
        else:
            targets = set(nginx.upstream_targets(system.upstream))
            for one in naming.SLOTS:
                if any(app.ports and self.backend(name).target(one) in targets for name, app in self.app.items()):
                    slot = one
        alive = any(one.running for app in self.app.values() for one in app.in_slot(slot)) if slot else False
        return slot if alive else ""

    def _inspection_note(self) -> str:
        serving = self.serving()
        if serving:
            tags = sorted({one.reference.rsplit("/", 1)[-1] for one in serving})
            return f"{', '.join(tags)} serves (release {serving[0].release}, slot {self.previous})"
        if any(app.containers for app in self.app.values()):
            return "no release of this tool serves yet; containers of AXON are taken over"
        return "nothing serves yet"

    # -- pull ----------------------------------------------------------------------------------------------

    def pull(self) -> Report:
        """Pull the image on every app server, and make sure that all have the same one.

        Raises:
            ServersFailedError: A pull failed; the message says whether the tag, the login, the registry or the disk is it.
        """
        reference = self.reference
        results = self._each(self.environment.app, lambda server: self._pull_one(server, reference))
        repository = repository_of(reference)
        digests = {name: parse.parse_digest(name, one["pull"].stdout, repository) for name, one in results.items()}
        self.digest = digests[self.environment.app[0]]
        # A tag can move between two pulls; what was pulled first is what all run.
        late = [name for name, digest in digests.items() if digest != self.digest]
        self._each(late, lambda server: self._pull_one(server, by_digest(reference, self.digest)))
        return Report(f"{reference} is {self.digest[:19]}…", _durations(results))

    def _pull_one(self, server: str, reference: str) -> BatchResult:
        registry = self.environment.registry
        batch = Batch("pull").add(
            docker.pull(reference, registry), label="pull", stdin=registry.password if registry else None
        )
        result = self.servers.run(server, batch, timeout=PULL)
        must(server, f"pulling {reference}", result["pull"])
        return result

    # -- stage ---------------------------------------------------------------------------------------------

    def plan_release(self) -> None:
        """Decide the release's id, slot, ports and containers from what the inspection found."""
        known = [int(one.release) for app in self.app.values() for one in app.containers if one.release.isdecimal()]
        known += [int(one.current) for one in self.system.values() if one.current]
        identity = str(max([int(time.time()), *(one + 1 for one in known)]))
        slot = naming.other_slot(self.previous) if self.previous else "a"
        name = naming.container_name(self.environment.product, self.environment.name, identity)
        self.release = Release(
            id=identity,
            reference=self.reference,
            digest="",
            slot=slot,
            containers=dict.fromkeys(self.environment.app, name),
            ports={one: self.backend(one).ports[naming.SLOTS.index(slot)] for one in self.environment.app},
        )

    def stage(self) -> Report:
        """Write the candidate nginx configuration and test it on a shadow copy; the live tree is not touched.

        Raises:
            ServersFailedError: nginx refuses the candidate; its own message is shown.
        """
        if self.release is None:
            self.plan_release()
        release = self.wanted()
        backends = tuple(self.backend(server) for server in self.environment.app)
        for server in self.environment.system:
            self.files[server] = nginx.render(
                self.environment, backends, version=self.system[server].version, slot=release.slot
            )
        changed = [server for server in self.environment.system if self.must_install(server)]
        results = self._each(changed, self._stage_one)
        note = f"nginx configuration changes on {', '.join(changed)}: tested" if changed else "no reload needed"
        return Report(note, _durations(results))

    def _stage_one(self, server: str) -> BatchResult:
        batch = Batch("stage", sudo=True).add(
            nginx.stage(self.environment, self._managed(server)), label="nginx_test"
        )
        result = self.servers.run(server, batch, timeout=SHORT)
        section = result["nginx_test"]
        if not section.ok:
            told = "\n    ".join(section.stderr.strip().splitlines()[-8:])
            raise StepFailedError(
                f"{server}: nginx refuses the configuration with the new files in place\n    {told}",
                hint="Nothing was changed. The file and line above say what to mend.",
            )
        return result

    def site_is_ours(self, server: str) -> bool:
        """Whether this tool writes the site; with `switch: reload`, one that somebody else wrote stays."""
        site = self.system[server].site
        return self.environment.switch == "slots" or not site or nginx.is_ours(site, self.environment)

    def _managed(self, server: str) -> nginx.Files:
        files = self.files[server]
        return files if self.site_is_ours(server) else nginx.Files(files.upstream, "")

    def must_install(self, server: str) -> bool:
        """Whether a server's files differ from the wanted ones, so that nginx has to reload."""
        told, wanted = self.system[server], self._managed(server)
        return told.upstream != wanted.upstream or (wanted.site != "" and told.site != wanted.site)

    # -- start and health ----------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Report:
        """Run the release on every app server and wait there until it is healthy, in one script per server.

        Args:
            wait: Whether to wait for its health; without it, `steps.health` does that later.

        Raises:
            ServersFailedError: It could not be started, or did not become healthy; each server's diagnosis is in it.
        """
        if self.release is None:
            self.plan_release()
        if not self.release or not self.release.digest:
            self.release = Release(**{**self.wanted().__dict__, "digest": self.digest})

        def work(server: str) -> BatchResult:
            candidate = self.candidate(server)
            batch = Batch("start")
            text = docker.env_text(self.environment)
            batch.add(
                docker.start(candidate, now=self.options.now), label="start", stdin=_secret(text) if text else None
            )
            if wait:
                batch.add(docker.health(candidate), label="health")
            self.started.add(server)
            result = self.servers.run(
                server, batch, fail_fast=True, timeout=self._start_limit(), on_output=self._tell_waiting(server)
            )
            must(server, f"starting {candidate.container}", result["start"])
            if wait and not result["health"].ok:
                raise problems.UnhealthyError(self.diagnose(server, result["health"]))
            return result

        results = self._each(self.environment.app, work)
        return _start_report(results) if wait else Report(f"release {self.wanted().id}, not serving yet", _durations(results))

    def _start_limit(self) -> float:
        environment = self.environment
        return environment.drain.timeout + environment.container.stop_timeout + environment.health.timeout + 120

    def _tell_waiting(self, server: str) -> Callable[[str, str, bytes], None]:
        def listen(_label: str, stream: str, chunk: bytes) -> None:
            if stream == "stdout" and chunk.startswith(b"waiting="):
                name = chunk.decode(errors="replace").splitlines()[0].removeprefix("waiting=")
                self.listener.message(
                    server,
                    f"waiting for {name} to drain in the slot that is needed"
                    f" (at most {self.environment.drain.timeout:g} s; --now cuts it short)",
                )

        return listen

    def health(self) -> Report:
        """Wait until this run's release is healthy on every app server, without starting anything.

        Raises:
            ServersFailedError: It did not become healthy; each server's diagnosis is in it.
        """

        def work(server: str) -> BatchResult:
            batch = Batch("health").add(docker.health(self.candidate(server)), label="health")
            result = self.servers.run(server, batch, timeout=self.environment.health.timeout + SHORT)
            if not result["health"].ok:
                raise problems.UnhealthyError(self.diagnose(server, result["health"]))
            return result

        results = self._each(self.wanted().containers, work)
        return Report("healthy", _durations(results))

    def diagnose(self, server: str, section: Section) -> problems.Diagnosis:
        """Ask the server what the container was doing, before it is removed."""
        container = self.wanted().containers[server]
        batch = Batch("diagnose")
        batch.add(docker.container_state(container), label="state")
        batch.add(docker.last_logs(container, self.environment.health.log_lines), label="logs", timeout=10)
        told = self.servers.run(server, batch, timeout=SHORT)
        return problems.diagnose(
            server, container, parse.pairs(section.stdout), told["state"].stdout, told["logs"].stdout
        )

    # -- switch --------------------------------------------------------------------------------------------

    def switch(self) -> Report:
        """Send traffic to the release on every system server, or leave all of them on the old one.

        Raises:
            ServersFailedError: It failed; those already switched were switched back.
        """
        try:
            results = self._each(self.environment.system, self._switch_one)
        except ServersFailedError as failed:
            raise ServersFailedError([*failed.errors, *self._switch_back()]) from None
        self.switched = True
        return Report(
            f"slot {self.wanted().slot} serves" + ("" if self.environment.switch == "slots" else ", nginx reloaded"),
            _durations(results),
        )

    def _wanted_switch(self, server: str) -> nginx.Switch:
        release = self.wanted()
        return nginx.Switch(
            environment=self.environment,
            release=release.id,
            slot=release.slot,
            previous=self.previous,
            targets=tuple(self.backend(one).target(release.slot) for one in self.environment.app),
            files=self._managed(server),
            install=self.must_install(server),
            site_ours=self.site_is_ours(server),
        )

    def _switch_one(self, server: str) -> BatchResult:
        batch = Batch("switch", sudo=True, uninterruptible=True)
        batch.add(nginx.switch(self._wanted_switch(server)), label="switch")
        result = self.servers.run(server, batch, timeout=SHORT + 5 * self.environment.health.probe_timeout)
        section = result["switch"]
        if section.ok:
            self.switched_on.add(server)
        elif section.exit_code in SWITCH_BROKEN:
            raise AfterSwitchError(
                f"{server}: {section.stderr.strip()}",
                hint="Look at nginx on that server now: nginx -t; its error log; then deploy again.",
            )
        else:
            raise problems.explain(server, "switching", section.stderr, code=section.exit_code)
        return result

    def _switch_back(self) -> list[AxonError]:
        """One system server failed: the others go back, so that all of them send traffic to one release."""
        serving = self.serving()
        if not serving:
            return []

        def work(server: str) -> BatchResult:
            told = self.system[server]
            back = nginx.Switch(
                environment=self.environment,
                release=serving[0].release,
                slot=self.previous,
                previous=self.wanted().slot,
                targets=tuple(self.backend(one).target(self.previous) for one in self.environment.app),
                files=nginx.Files(told.upstream, told.site if self.site_is_ours(server) else ""),
                install=self.must_install(server),
                site_ours=self.site_is_ours(server),
            )
            batch = Batch("switch back", sudo=True, uninterruptible=True).add(nginx.switch(back), label="switch")
            result = self.servers.run(server, batch, timeout=SHORT)
            if not result.ok:
                raise AfterSwitchError(
                    f"{server}: still sends traffic to the new release, and could not be switched back:"
                    f" {result['switch'].stderr.strip()}",
                    hint="Mend nginx there, then deploy again.",
                )
            return result

        try:
            self._each(sorted(self.switched_on), work)
        except ServersFailedError as error:
            return list(error.errors)
        self.switched_on.clear()
        return []

    # -- record and retire ---------------------------------------------------------------------------------

    def record(self) -> Report:
        """Write the release's record and a line of the audit log on every system server.

        Raises:
            AfterSwitchError: It could not be written; the new release serves all the same.
        """
        release = self.wanted()
        content = release.record(
            action="deploy",
            commit=git_commit(self.project.root),
            arguments={server: docker.run_arguments(self.candidate(server)) for server in release.containers},
        )

        def work(server: str) -> BatchResult:
            batch = Batch("record", sudo=True).add(
                records.write_release(self.environment, release.id, content), label="record"
            )
            result = self.servers.run(server, batch, timeout=SHORT)
            if not result.ok:
                raise AfterSwitchError(
                    f"{server}: the release serves, but its record could not be written: {result['record'].stderr.strip()}",
                    hint=f"Mend that, then: fab steps.record --env={self.environment.name}",
                )
            return result

        results = self._each(self.environment.system, work)
        return Report(f"release {release.id}", _durations(results))

    def retire(self) -> Report:
        """Start the jobs that drain, stop and remove what serves no longer; they go on after this run has ended."""
        old = {server: self._old_containers(server) for server in self.environment.app}
        wanted = {server: ids for server, ids in old.items() if ids}
        directory = f"{naming.state_directory(self.environment.product, self.environment.name)}/jobs"

        def work(server: str) -> BatchResult:
            job = f"retire-{self.wanted().id}"
            body = docker.retire(self.environment, wanted[server])
            batch = Batch("retire").add(jobs.start_script(directory, job, body), label="retire")
            result = self.servers.run(server, batch, timeout=SHORT)
            if result.ok:
                self.retiring[server] = job
            else:
                self.listener.message(
                    server,
                    f"the old release could not be retired: {result['retire'].stderr.strip() or 'no message'};"
                    f" later: fab steps.retire --env={self.environment.name}",
                )
            return result

        results = self._each(wanted, work)
        note = f"in the background: job {next(iter(self.retiring.values()))}" if self.retiring else "nothing to retire"
        return Report(note, _durations(results))

    def _old_containers(self, server: str) -> tuple[str, ...]:
        current = self.wanted()
        return tuple(one.id for one in self.app[server].containers if one.release != current.id)

    # -- a step alone ----------------------------------------------------------------------------------------

    def adopt(self, slot: str) -> bool:
        """Take the release that stands in a slot for the one of this run, if all app servers have the same there.

        Args:
            slot: `a` or `b`.

        Returns:
            Whether there is one.
        """
        found = {server: app.in_slot(slot) for server, app in self.app.items()}
        releases = {one.release for containers in found.values() for one in containers if one.running}
        if len(releases) != 1 or not all(found.values()):
            return False
        one = next(iter(found.values()))[0]
        self.release = Release(
            id=one.release,
            reference=one.reference,
            digest=one.digest,
            slot=slot,
            containers={server: containers[0].name for server, containers in found.items()},
            ports={server: containers[0].port for server, containers in found.items()},
        )
        return True

    def adopt_candidate(self) -> bool:
        """Take the release that was started and does not serve yet."""
        slots = [naming.other_slot(self.previous)] if self.previous else list(naming.SLOTS)
        return any(self.adopt(slot) for slot in slots)

    # -- undo ----------------------------------------------------------------------------------------------

    def undo(self) -> list[AxonError]:
        """Remove what this run has started, if it has not been switched to.

        Returns:
            What could not be removed, and on which server.
        """
        if self.switched or not self.started or self.release is None:
            return []
        self.servers.resume()
        release = self.release.id

        def work(server: str) -> BatchResult:
            batch = Batch("undo").add(docker.remove_release(self.environment, release), label="remove")
            result = self.servers.run(server, batch, timeout=SHORT)
            must(server, f"removing the containers of release {release}", result["remove"])
            return result

        try:
            self._each(sorted(self.started), work)
        except ServersFailedError as error:
            return list(error.errors)
        return []


def steps(run: Deployment) -> tuple[Step, ...]:
    """The plan of a deploy: what needs what. Everything else runs at the same time."""
    return (
        Step("lock", (), run.hold_lock),
        Step("inspect", (), run.inspect),
        Step("pull", (), run.pull),
        Step("stage", ("inspect",), run.stage),
        Step("start", ("lock", "stage", "pull"), run.start),
        Step("switch", ("start",), run.switch),
        Step("record", ("switch",), run.record),
        Step("retire", ("switch",), run.retire),
    )


def must(server: str, doing: str, section: Section) -> None:
    """Raise an explanation if a section failed."""
    if not section.ok:
        raise problems.explain(server, doing, f"{section.stderr}\n{section.stdout}".strip(), code=section.exit_code)


def repository_of(reference: str) -> str:
    """The name of an image without tag and digest, as `docker image inspect` lists it."""
    from axon_tasks.config import ImageReference

    parsed = ImageReference.parse(reference)
    return f"{parsed.registry}/{parsed.repository}" if parsed.registry else parsed.repository


def by_digest(reference: str, digest: str) -> str:
    """The image by its digest: the same bytes on every server, whatever happens to the tag."""
    return f"{repository_of(reference)}@{digest}"


def _durations(results: dict[str, BatchResult]) -> dict[str, float]:
    return {name: one.duration for name, one in results.items()}


def _secret(text: str) -> object:
    from axon_tasks.config import Secret

    return Secret(text)


def _start_report(results: dict[str, BatchResult]) -> Report:
    """Start and health were one script; people know them as two."""
    health = parse.pairs(next(iter(results.values()))["health"].stdout)
    return Report(
        servers={name: one["start"].duration for name, one in results.items()},
        parts={
            "health": Report(
                f"{health.get('answer', '')} on {health.get('url', '').split('/', 3)[-1].join(('/', ''))}",
                {name: one["health"].duration for name, one in results.items()},
            )
        },
    )


__all__ = ["AbortedError", "Deployment", "Options", "steps"]

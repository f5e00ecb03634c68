"""Maintenance: nginx answers every request with a page and status 503, or stops doing so.

It is a flag that nginx looks for at each request, as for the slot, so that turning it on or off reloads nothing and cuts
nobody off. App servers are not asked: that they do not answer can be the reason for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.commands import naming, nginx
from axon_tasks.deploy import facts, notes, noting, problems
from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.inspecting import inspect_step
from axon_tasks.deploy.locking import lock_step, must_hold
from axon_tasks.deploy.run import SHORT, durations
from axon_tasks.deploy.servers import ServersFailedError
from axon_tasks.errors import AfterSwitchError, AxonError, StepFailedError
from axon_tasks.remote import Batch, sanitize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from axon_tasks.config import Environment
    from axon_tasks.deploy.notes import Note
    from axon_tasks.deploy.run import Deployment
    from axon_tasks.remote import BatchResult, Connection, Fleet

#: What clients are told if nobody says anything else.
MESSAGE = "This site is being worked on and will be back soon."


def goes_on(environment: Environment) -> str:
    """What is told at the end of a deploy while maintenance is on."""
    name = environment.name
    return f"{name}: maintenance is on, and stays on: clients get 503. To end it: fab maintenance --env={name} --off"


def steps(run: Deployment, note: Note | None) -> tuple[Step, ...]:
    """The plan that turns it on or off on all system servers, or leaves all of them as they are.

    Args:
        run: The run.
        note: What is left of who turns it on, with the message for clients; None to turn it off.
    """
    run.action = "maintenance"
    run.environment = run.environment._replace(app=())
    run.aftermath = lambda: _how_it_is(run)
    looked = inspect_step(run, ("lock",), heals=True)._replace(
        about="ask the system servers what nginx serves, and whether maintenance is on",
        learn=lambda results: _learn(run, results),
    )
    return (
        lock_step(run),
        looked,
        _plan_step(run),
        _stage_step(run),
        _install_step(run),
        _maintain_step(run, note),
        noting.audit_step(
            run,
            ("maintenance",),
            lambda: {
                "action": f"maintenance-{'on' if note else 'off'}",
                "message": note.message if note else "",
            },
        ),
        _forget_step(run),
    )


def _learn(run: Deployment, results: Mapping[str, BatchResult]) -> Report:
    seen = inspect_step(run, heals=True).learn(results)
    return Report(f"maintenance is {_told_of(run)}", seen.servers)


def _told_of(run: Deployment) -> str:
    on = [server for server, told in run.system.items() if told.maintenance]
    if on and len(on) < len(run.system):
        return f"on at {', '.join(on)} only"
    return "on" if on else "off"


def _how_it_is(run: Deployment) -> str:
    name = run.environment.name
    if not run.system:
        return f"{name}: nothing was changed."
    if run.switched:
        return f"{name}: it was done on all system servers; see: fab maintenance --env={name}"
    return f"{name}: maintenance was {_told_of(run)}, and nothing of that has changed; see: fab maintenance --env={name}"


def _plan_step(run: Deployment) -> Step:
    """Which files must be written first: those of an earlier version of this tool do not look for the flag."""

    def prepare() -> None:
        must_hold(run)
        errors: list[AxonError] = []
        for server in run.environment.system:
            try:
                _decide_files(run, server)
            except AxonError as error:
                errors.append(error)
        if errors:
            raise ServersFailedError(errors)

    def learn(_results: Mapping[str, BatchResult]) -> Report:
        names = ", ".join(run.files)
        return Report(
            f"the site does not know maintenance yet on {names}" if names else "one flag, no reload"
        )

    return Step(
        "plan", "see whether nginx looks for the flag already", ("inspect",), prepare=prepare, learn=learn
    )


def _decide_files(run: Deployment, server: str) -> None:
    """Write down what the files must be, where nginx would not see the flag.

    They are made of what stands there, with the app servers that it names: none of them is asked.

    Raises:
        StepFailedError: The site is not of this tool, or there is none.
    """
    environment, told = run.environment, run.system[server]
    if not told.site or not told.upstream:
        raise StepFailedError(
            f"{server}: there is no site of {environment.name} yet",
            hint=f"Deploy first: fab deploy --env={environment.name}; files that were lost: fab sync --env={environment.name}",
        )
    if not nginx.is_ours(told.site, environment):
        raise _foreign(run, server)
    if nginx.has_maintenance(told.site, environment) and not told.unfinished:
        return
    try:
        backends = nginx.present_backends(environment, told.upstream)
    except ValueError as error:
        raise StepFailedError(
            f"{server}: the upstream file of {environment.name} cannot be read: {sanitize(str(error))}",
            hint=f"Bring it in line first: fab sync --env={environment.name}",
        ) from None
    # With one upstream, its servers come first, whichever slot they are of.
    run.files[server] = nginx.render(nginx.Wanted(environment, backends, told.version, "a"))


def _foreign(run: Deployment, server: str) -> StepFailedError:
    name = naming.config_name(run.environment.product, run.environment.name)
    what = (
        f"{server}: the site {run.environment.nginx.directory}/sites/{name}.conf was not written by this tool"
    )
    if run.environment.switch == "reload":
        return StepFailedError(
            f"{what}, so that it knows no maintenance",
            hint="Answer with 503 in that file yourself, or remove it and deploy, to have it written.",
        )
    return StepFailedError(
        f"{what}", hint=f"Deploy first, which replaces it: fab deploy --env={run.environment.name}"
    )


def _stage_step(run: Deployment) -> Step:
    from axon_tasks.deploy.staging import check_stage

    def batch(server: str) -> Batch | None:
        if server not in run.files:
            return None
        return Batch("stage", sudo=True).add(
            nginx.stage(run.environment, run.files[server]), label="nginx_test"
        )

    return Step(
        "stage",
        "test the new nginx files on a copy of the server's whole configuration",
        ("plan",),
        servers=run.environment.system,
        batch=batch,
        condition="where nginx does not look for the flag yet",
        timeout=lambda: SHORT,
        check=check_stage,
        learn=lambda results: Report("tested" if results else "no reload needed", durations(results)),
    )


def _install_step(run: Deployment) -> Step:
    """Have nginx look for the flag. It stays that way if something fails later: without the flag it means nothing."""

    def batch(server: str) -> Batch | None:
        if server not in run.files:
            return None
        made = Batch("install", sudo=True, uninterruptible=True)
        return made.add(nginx.install(run.environment, run.files[server]), label="install")

    def check(server: str, result: BatchResult) -> None:
        section = result["install"]
        if not section.ok:
            raise problems.explain(
                server, "having nginx load the files", section.stderr, code=section.exit_code
            )

    return Step(
        "install",
        "have nginx load files that look for the flag, confirm it, or put the previous ones back",
        ("stage",),
        servers=run.environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        prepare=lambda: must_hold(run),
        batch=batch,
        condition="where nginx does not look for the flag yet",
        timeout=lambda: SHORT,
        check=check,
        learn=lambda results: Report("nginx reloaded" if results else "nothing to load", durations(results)),
    )


def _maintain_step(run: Deployment, note: Note | None) -> Step:
    environment, run_id = run.environment, run.options.run_id
    word = "on" if note else "off"

    def batch(_server: str) -> Batch:
        made = Batch("maintenance", sudo=True, uninterruptible=True)
        text = nginx.maintain(
            environment, run_id, notes.text(note) if note else "", note.message if note else ""
        )
        return made.add(text, label="maintenance")

    def check(server: str, result: BatchResult) -> None:
        section = result["maintenance"]
        if not section.ok:
            raise problems.explain(
                server, f"turning maintenance {word}", section.stderr, code=section.exit_code
            )

    def learn(results: Mapping[str, BatchResult]) -> Report:
        run.switched = True
        return Report(f"maintenance is {word}", durations(results))

    return Step(
        "maintenance",
        f"turn maintenance {word}, prove it, or put it back",
        ("install",),
        servers=environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        commits=True,
        prepare=lambda: must_hold(run),
        batch=batch,
        timeout=lambda: SHORT + 10 * environment.health.probe_timeout,
        check=check,
        learn=learn,
        undo=lambda _server: Batch("undo", sudo=True).add(
            nginx.maintain_back(environment, run_id), label="back"
        ),
    )


def _forget_step(run: Deployment) -> Step:
    def batch(_server: str) -> Batch:
        text = nginx.maintained(run.environment, run.options.run_id)
        return Batch("tidy", sudo=True).add(text, label="tidy")

    return Step(
        "tidy",
        "remove what was kept to take it back",
        ("maintenance",),
        servers=run.environment.system,
        otherwise="finish",
        batch=batch,
        timeout=lambda: SHORT,
        learn=lambda results: Report(servers=durations(results)),
    )


# --- at the end of a deploy ------------------------------------------------------------------------------------------


def end_step(run: Deployment, needs: tuple[str, ...]) -> Step:
    """End maintenance where it is on, because the new release is known to serve."""
    environment = run.environment

    def batch(server: str) -> Batch | None:
        if not (run.preview or run.system[server].maintenance):
            return None
        text = nginx.maintain(environment, run.options.run_id, "")
        made = Batch("open", sudo=True, uninterruptible=True).add(text, label="open")
        made.add(nginx.maintained(environment, run.options.run_id), label="tidy")
        return made.add(noting.line(environment, "maintenance-off"), label="audit")

    def check(server: str, result: BatchResult) -> None:
        for section in result.failed:
            raise _still_on(run, server, sanitize(section.stderr.strip()))

    return Step(
        "open",
        "end maintenance: the new release serves",
        needs,
        servers=environment.system,
        changes=run.nginx_resources,
        otherwise="finish",
        batch=batch,
        fail_fast=True,
        condition="where maintenance is on",
        timeout=lambda: SHORT + 10 * environment.health.probe_timeout,
        check=check,
        lost=lambda server, error: _still_on(run, server, error.summary),
        learn=lambda results: Report(
            "maintenance has ended" if results else "maintenance was not on", durations(results)
        ),
    )


def _still_on(run: Deployment, server: str, why: str) -> AfterSwitchError:
    return AfterSwitchError(
        f"{server}: the new release serves, but maintenance may still be on there: {why}",
        hint=f"End it: fab maintenance --env={run.environment.name} --off",
    )


# --- a look ----------------------------------------------------------------------------------------------------------


def look(fleet: Fleet, environment: Environment) -> tuple[dict[str, Note | None], dict[str, AxonError]]:
    """Whether it is on, as each system server says.

    Returns:
        Who turned it on, or None, by server; and what went wrong, by server.
    """

    def work(connection: Connection) -> BatchResult:
        batch = Batch("maintenance", sudo=True).add(nginx.inspect_state(environment), label="state")
        return batch.run(connection, timeout=SHORT)

    found: dict[str, Note | None] = {}
    errors: dict[str, AxonError] = {}
    for server, outcome in fleet.gather(dict.fromkeys(environment.system, work)).items():
        try:
            if isinstance(outcome.error, AxonError):
                raise outcome.error
            section = outcome.value["state"]
            problems.must(server, "reading the state", section)
            found[server] = notes.parse(facts.pairs(section.stdout).get("maintenance", ""))
        except AxonError as error:
            errors[server] = error
    return found, errors


def is_same(found: Sequence[Note | None]) -> bool:
    """Whether it is on everywhere, or nowhere."""
    return len({note is None for note in found}) <= 1

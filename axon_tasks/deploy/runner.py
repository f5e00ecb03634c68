"""Runs deploys from the first connection to the last, whatever happens in between."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from axon_tasks.deploy import hooks, plan, preview
from axon_tasks.deploy.engine import Engine, Interruptible, Report, Step, nothing
from axon_tasks.deploy.problems import DeployFailedError, must
from axon_tasks.deploy.run import SHORT, Deployment
from axon_tasks.deploy.servers import Servers, ServersFailedError, flatten
from axon_tasks.deploy.starting import undo_limit
from axon_tasks.deploy.switching import failure_batch
from axon_tasks.errors import AfterSwitchError, AxonError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.deploy.engine import Listener, Result
    from axon_tasks.deploy.run import Options
    from axon_tasks.remote import BatchResult

#: Seconds in which the lock of an attempt that failed is given back.
_GIVEN_BACK = 10.0


class InterruptedRunError(AxonError):
    """Ctrl-C; the message says what serves and what was removed."""

    exit_code = 130


@dataclass
class Outcome:
    """How the deploy of one environment ended.

    Attributes:
        environment: Its name.
        run: What was learnt.
        error: Why it failed; None if it did not.
        seconds: How long it took; 0 if it was never begun.
        left_out: The app servers that it went on without, and why.
    """

    environment: str
    run: Deployment
    error: AxonError | None = None
    seconds: float = 0.0
    left_out: dict[str, AxonError] = field(default_factory=dict)


class Session:
    """Several runs over one set of connections.

    Args:
        project: The settings of everything.
        connections: One per server.
        told: Called when somebody asks to stop, to say so.
    """

    def __init__(self, project: Project, connections: Connections, told: Callable[[], None]) -> None:
        self._project = project
        self._connections = connections
        self._told = told
        self._engines: list[Engine] = []
        self._stopped = False
        self._guard = threading.Lock()

    def prepare(self, environment: Environment, options: Options, listener: Listener) -> Deployment:
        """A run of one environment, with nothing contacted yet."""
        span = self._connections.recorder.begin(
            "environment", environment.name, parent=self._connections.span, environment=environment.name
        )
        servers = Servers(
            self._connections,
            listener,
            environment=environment.name,
            span=span,
            sequential=options.sequential,
        )
        return Deployment(self._project, environment, servers, listener, options)

    def run(self, run: Deployment, steps: Sequence[Step]) -> AxonError | None:
        """Run a plan to its end, and take back what it has started if it failed before its commit.

        Returns:
            Why it failed, or None.
        """
        engine = Engine(steps, run.servers, run.listener, sequential=run.options.sequential)
        try:
            result = self.drive(engine)
        except Exception:
            # A defect of ours must not leave more behind than a failure does.
            undo(run, engine.result.begun)
            raise
        finally:
            run.servers.ended("ok" if not engine.result.errors else "failed")
        error = verdict(run, result)
        if error is not None and is_whole(steps):
            note_failure(run, error)
        return error

    def hooked(self, run: Deployment, steps: Sequence[Step]) -> AxonError | None:
        """Run the hook that may stop it, and the plan if it does not; the parameters are those of `run`."""
        error = hooks.before(run)
        if error is None:
            return self.run(run, steps)
        # Ctrl-C reaches the hook, too.
        return not_begun(run) if self._stopped else error

    def drive(self, engine: Engine) -> Result:
        """Run an engine that `interrupt` reaches, also if it was called before."""
        with self._guard:
            self._engines.append(engine)
            if self._stopped:
                engine.interrupt()
        return engine.run()

    def interrupt(self) -> None:
        """Ask every run to stop: before its switch it is undone, after it it is finished."""
        with self._guard:
            self._stopped = True
            engines = tuple(self._engines)
        self._told()
        for engine in engines:
            engine.interrupt()

    def guarded(self, work: Callable[[], object]) -> None:
        """Do something with the main thread free for Ctrl-C.

        Raises:
            InterruptedRunError: Ctrl-C was pressed a second time, and the connections were cut.
        """
        try:
            Interruptible(self.interrupt, self._connections.close).run(work)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                "Interrupted twice: the connections were cut, and what was started may still be there.",
                hint="Look: fab steps.inspect --env=NAME; the next deploy, or invoke cleanup, removes what is left.",
            ) from None


def is_whole(steps: Sequence[Step]) -> bool:
    """Whether a plan leads to another release, and is no single step of such a plan."""
    return {"switch", "record"} <= {step.name for step in steps}


def alone(
    project: Project,
    connections: Connections,
    environment: Environment,
    options: Options,
    listener: Listener,
    plan_of: Callable[[Deployment], Sequence[Step]],
    told: Callable[[], None] = nothing,
) -> Deployment:
    """Run another plan than that of a deploy, for one environment.

    Args:
        project: The settings of everything.
        connections: To the servers.
        environment: Where.
        options: What the command line says.
        listener: Is told about the progress.
        plan_of: Makes the plan.
        told: Called when somebody asks to stop, to say so.

    Raises:
        AxonError: It failed; what it had started is removed again.
    """
    opened = Session(project, connections, told)
    run = opened.prepare(environment, options, listener)
    steps = plan_of(run)
    failed: list[AxonError | None] = []

    def work() -> None:
        if not is_whole(steps):
            failed.append(opened.run(run, steps))
            return
        failed.append(opened.hooked(run, steps))
        hooks.after(run, failed[0])

    try:
        opened.guarded(work)
    finally:
        run.servers.close()
    for error in failed:
        if error is not None:
            raise error
    return run


def deploy(
    project: Project,
    connections: Connections,
    environments: Sequence[Environment],
    options: Options,
    listener: Callable[[str], Listener],
    told: Callable[[], None] = nothing,
) -> list[Outcome]:
    """Deploy environments, side by side where they share no app server, in the order given where they do.

    Args:
        project: The settings of everything.
        connections: To the servers.
        environments: What to deploy; a version must be known for each.
        options: What the command line says.
        listener: Gives the one who is told about the progress, by the environment's name.
        told: Called when somebody asks to stop, to say so.

    Returns:
        How each of them ended, in the order given; one that fails stops no other.

    Raises:
        InterruptedRunError: Ctrl-C was pressed twice.
    """
    opened = Session(project, connections, told)
    runs = [opened.prepare(one, options, listener(one.name)) for one in environments]
    outcomes = {run.environment.name: Outcome(run.environment.name, run, not_begun(run)) for run in runs}
    steps = [_whole(run) for run in runs]
    engine = Engine(steps, _Together(opened, outcomes, steps), preview.Silent())
    try:
        opened.guarded(lambda: opened.drive(engine))
    finally:
        for outcome in outcomes.values():
            outcome.run.servers.close()
    return list(outcomes.values())


def _whole(run: Deployment) -> Step:
    """The deploy of an environment as one step: it has its app servers for itself, and its slots."""
    return Step(
        run.environment.name,
        f"deploy {run.environment.name}",
        servers=run.environment.servers,
        changes=frozenset(f"{server}:app server" for server in run.environment.app),
    )


class _Together:
    """Performs the deploys of several environments; none of them fails for the others."""

    def __init__(self, opened: Session, outcomes: dict[str, Outcome], steps: Sequence[Step]) -> None:
        self._opened = opened
        self._outcomes = outcomes
        self._steps = {step.name: step for step in steps}
        self._ended: list[str] = []

    def perform(self, step: Step) -> Report:
        """Deploy one environment to its end."""
        outcome = self._outcomes[step.name]
        ahead = [name for name in self._ended if self._steps[name].conflicts(step)]
        if ahead:
            outcome.run.servers.waited(", ".join(ahead))
        began = time.monotonic()
        try:
            outcome.error = self._opened.hooked(outcome.run, plan.steps(outcome.run))
            while (rest := _without_failed(outcome)) is not None and outcome.run.options.keep_going:
                self._again(outcome, rest)
            outcome.error = _with_a_way_out(outcome)
            hooks.after(outcome.run, outcome.error)
        finally:
            outcome.seconds = time.monotonic() - began
            self._ended.append(step.name)
        return Report()

    def _again(self, outcome: Outcome, rest: Environment) -> None:
        """Begin anew with the app servers that are left."""
        failed = outcome.run
        lost = {
            server: failed.servers.failed[server]
            for server in failed.environment.app
            if server not in rest.app
        }
        for server, error in lost.items():
            failed.listener.message(server, f"is left out: {error.summary}")
        outcome.left_out |= lost
        failed.servers.close()
        patient = replace(failed.options, wait_lock=max(failed.options.wait_lock, _GIVEN_BACK))
        outcome.run = self._opened.prepare(rest, patient, failed.listener)
        outcome.error = _complete(outcome, self._opened.run(outcome.run, plan.steps(outcome.run)))

    def abort(self) -> None:
        """Nothing: an interruption reaches each run by itself."""


def _without_failed(outcome: Outcome) -> Environment | None:
    """The environment without the app servers on which a run has failed; None where that is no way to go on."""
    run, error = outcome.run, outcome.error
    if not isinstance(error, DeployFailedError) or run.switched or run.uncertain:
        return None
    environment, failed = run.environment, run.servers.failed
    rest = tuple(server for server in environment.app if server not in failed)
    if not failed or not rest or not failed.keys().isdisjoint(environment.system):
        return None
    return environment._replace(app=rest)


def _with_a_way_out(outcome: Outcome) -> AxonError | None:
    """The same failure, and what to type where nothing is wrong but that some app servers cannot be reached."""
    error, run, rest = outcome.error, outcome.run, _without_failed(outcome)
    down = all(type(one) is UnreachableError for one in run.servers.failed.values())
    if rest is None or run.options.keep_going or not down or not isinstance(error, DeployFailedError):
        return error
    lost = ", ".join(server for server in run.environment.app if server not in rest.app)
    return DeployFailedError(
        error.errors, error.outcome, hint=f"To deploy without {lost} and take it out of nginx: --keep-going"
    )


def _complete(outcome: Outcome, error: AxonError | None) -> AxonError | None:
    """What is told at the end of a run that went on without some servers: it has done less than it was asked to."""
    if isinstance(error, InterruptedRunError) or not outcome.left_out:
        return error
    if error is not None:
        told = error.errors if isinstance(error, DeployFailedError) else [error]
        return DeployFailedError([*outcome.left_out.values(), *told], _what_serves(outcome.run))
    names = ", ".join(outcome.left_out)
    return AfterSwitchError(
        f"{_what_serves(outcome.run)}\n{outcome.environment}: left out: {names}\n"
        + "\n".join(f"  {one.summary}" for one in outcome.left_out.values()),
        hint=f"Nothing is sent to {names} now. When it is back, deploy again without --keep-going.",
    )


def not_begun(run: Deployment) -> AxonError:
    """What is told of an environment whose turn did not come."""
    return InterruptedRunError(f"{run.environment.name}: not begun; nothing was changed.")


def verdict(run: Deployment, result: Result) -> AxonError | None:
    """Turn the end of a plan into what people are told; what was started is taken back unless it serves."""
    errors = flatten(result.errors)
    if not errors and not result.interrupted:
        return None
    left = [] if result.committed else undo(run, result.begun)
    told = _how_it_is(run)
    if result.interrupted and (run.restarted or run.aftermath):
        is_over = run.restarted or result.committed
        words = f"Interrupted: what had been begun was {'finished' if is_over else 'taken back'}."
        return InterruptedRunError("\n".join([words, *map(str, [*errors, *left]), told]))
    if result.interrupted:
        if result.committed:
            words = (
                "Interrupted after the switch: the new release serves, and what belongs to it was finished."
            )
        else:
            words = "Interrupted before the switch: what was started has been taken back."
        return InterruptedRunError("\n".join([words, *map(str, [*errors, *left]), told]))
    if run.switched or run.restarted:
        errors = [_after_switch(error) for error in errors]
    return DeployFailedError(flatten([*errors, *left]), told)


def note_failure(run: Deployment, error: AxonError) -> None:
    """Have the history tell of a release that never served; the failure itself is told in any case."""
    new = run.again is None or not run.again.instant
    if run.switched or run.uncertain or run.release is None or not new:
        return
    batch = failure_batch(run, error)
    with contextlib.suppress(AxonError):
        run.servers.each(
            (server for server in run.environment.system if server not in run.servers.failed),
            lambda server: run.servers.run(server, batch, timeout=SHORT, abortable=False),
        )


def undo(run: Deployment, begun: Sequence[Step]) -> list[AxonError]:
    """Take back what the steps of a run have started, the last one first, unless it may serve.

    Returns:
        What could not be taken back, and on which server.
    """
    if run.switched or run.uncertain:
        return []
    run.servers.resume()
    errors: list[AxonError] = []
    for step in reversed(begun):
        servers = sorted(run.servers.begun.get(step.name, ())) if step.undo is not None else []
        try:
            run.servers.each(servers, lambda server, step=step: _undo_one(run, step, server))  # type: ignore[misc]
        except ServersFailedError as error:
            errors += error.errors
    return errors


def _undo_one(run: Deployment, step: Step, server: str) -> BatchResult:
    assert step.undo is not None  # noqa: S101  (asked by the caller)
    batch = step.undo(server)
    result = run.servers.run(server, batch, timeout=undo_limit(run), abortable=False)
    for section in result.values():
        must(server, f"taking back the step {step.name}", section)
    return result


def _after_switch(error: AxonError) -> AxonError:
    """The same failure with the exit status that says: the new release serves already."""
    return error if isinstance(error, AfterSwitchError) else AfterSwitchError(error.summary, hint=error.hint)


def _how_it_is(run: Deployment) -> str:
    """How things are after a run that did not end well."""
    if run.aftermath:
        return run.aftermath()
    return _what_was_restarted(run) if run.restarted else _what_serves(run)


def _what_was_restarted(run: Deployment) -> str:
    """Of a restart in place, where it was begun."""
    name = run.environment.name
    return f"{name}: restarted in place, or begun to: {', '.join(run.restarted)}. See what serves: fab status --env={name}"


def _what_serves(run: Deployment) -> str:
    """What serves now, in one sentence."""
    name = run.environment.name
    if run.switched and run.release:
        rest = "" if run.retiring else f" If the old one still runs: fab steps.retire --env={name}"
        return f"{name}: the new release {run.release.id} ({run.release.reference}) serves.{rest}"
    if run.uncertain:
        return f"{name}: it is not certain which release serves; both were left running. See: fab steps.inspect --env={name}"
    serving = run.serving()
    if serving and not any(one.running for one in serving):
        return f"{name}: nothing was switched; release {serving[0].release} is the current one, and it does not run."
    if serving:
        return f"{name}: {serving[0].reference} (release {serving[0].release}) keeps serving; nothing was switched."
    if run.app:
        return f"{name}: nothing was switched; no release of this tool served before."
    return f"{name}: nothing was changed."

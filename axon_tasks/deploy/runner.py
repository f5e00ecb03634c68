"""Runs a deploy from the first connection to the last, whatever happens in between."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from axon_tasks.deploy.engine import execute
from axon_tasks.deploy.locking import release_lock
from axon_tasks.deploy.plan import steps
from axon_tasks.deploy.problems import DeployFailedError
from axon_tasks.deploy.run import Deployment, Options
from axon_tasks.deploy.servers import Servers, flatten
from axon_tasks.deploy.starting import undo
from axon_tasks.errors import AfterSwitchError, AxonError
from axon_tasks.remote import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.engine import Listener


class InterruptedRunError(AxonError):
    """Ctrl-C; the message says what serves and what was removed."""

    exit_code = 130


def session(
    project: Project, environment: Environment, options: Options, listener: Listener
) -> AbstractContextManager[Deployment]:
    """Open what a run needs and close all of it at the end: connections, lock, threads."""
    return _session(project, environment, options, listener)


@contextmanager
def _session(
    project: Project, environment: Environment, options: Options, listener: Listener
) -> Iterator[Deployment]:
    with Fleet(project) as fleet:
        run = Deployment(project, environment, Servers(fleet), listener, options)
        try:
            yield run
        finally:
            release_lock(run)


def deploy(project: Project, environment: Environment, options: Options, listener: Listener) -> Deployment:
    """Deploy one environment.

    Args:
        project: The settings of everything.
        environment: What to deploy.
        options: What the command line says.
        listener: Is told about the progress.

    Returns:
        The run, with everything it has learnt.

    Raises:
        DeployFailedError: Something failed; before the switch what was started has been removed again.
        InterruptedRunError: Ctrl-C.
    """
    with session(project, environment, options, listener) as run:
        _ = run.reference  # a missing or impossible tag is told before any server is contacted
        try:
            errors = flatten(execute(steps(run), listener, run.servers.abort))
        except KeyboardInterrupt:
            left = undo(run)
            raise InterruptedRunError("\n".join(["Interrupted.", *map(str, left), outcome(run)])) from None
        except Exception:
            undo(run)
            raise
        if errors:
            left = undo(run)
            if run.switched:
                errors = [_after_switch(error) for error in errors]
            raise DeployFailedError([*errors, *left], outcome(run))
    return run


def _after_switch(error: AxonError) -> AxonError:
    """The same failure with the exit status that says: the new release serves already."""
    return error if isinstance(error, AfterSwitchError) else AfterSwitchError(error.summary, hint=error.hint)


def outcome(run: Deployment) -> str:
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

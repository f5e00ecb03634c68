"""`fab lock.*`: who works on an environment, and what to do about one who never ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke.collection import Collection

from axon_tasks.errors import UsageError
from axon_tasks.tasks.base import Context, one_environment, plain_text, task

if TYPE_CHECKING:
    from axon_tasks.config import Environment, Project

_HELP = {
    "env": "Environment of hosts.yml to work on; required.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}


@task(help=_HELP | {"json": "Print JSON instead of text."})
def status(_c: Context, env: str = "", json: bool = False, hosts_file: str = "") -> None:
    """Show who has the lock of an environment.

    Looks only. Also tells of a run that was killed or cut off and has not given its lock back.

    And of who holds the environment with lock.acquire.

    --json: {"environment", "server", "state": free|locked|unfinished, "owner": null or {"who", "host", "pid", "command",
    "since", "run", "token", "fence", "seconds"}, "hold": null or {"who", "host", "since", "message", "seconds"}}; seconds
    are by the clock of the server.

    Examples:
        fab lock.status --env=prod
        fab lock.status --env=prod --json
    """
    from axon_tasks.deploy import unlocking
    from axon_tasks.remote import Fleet
    from axon_tasks.report import lock as report

    project, environment = one_environment(env, hosts_file)
    with Fleet(project) as fleet:
        found = unlocking.look(fleet, environment)
    _say(report.as_json(found) if json else report.text(found, hosts_file))


@task(
    help=_HELP
    | {
        "token": "Of the owner that is meant, as lock.status and a refused deploy tell it.",
        "dry_run": "Print the script that would be sent, and contact nothing.",
    }
)
def break_(_c: Context, env: str = "", token: str = "", dry_run: bool = False, hosts_file: str = "") -> None:
    """Take the lock from a run that never ends.

    The token makes sure that it is taken from the run that you have looked at, and from no other one. The process that
    holds the lock on the server is ended, and the audit log says who did that. A deployer that is still alive
    notices, takes back what it has started, and changes nothing more.

    Examples:
        fab lock.break --env=prod                    (who has it, and the whole command)
        fab lock.break --env=prod --token=3f9a1c2e

    Exit codes: 0 done, or nobody has the lock; 1 it could not be taken away; 2 no token was given; 3 somebody else has
    the lock by now; 4 the server cannot be reached.
    """
    project, environment = one_environment(env, hosts_file)
    if token and not re.fullmatch(r"[0-9a-f]{8}", token, re.ASCII):
        raise UsageError(
            f"--token={token}: a token is eight hexadecimal digits.",
            hint=f"See it: fab lock.status --env={environment.name}",
        )
    if dry_run:
        _show_script(environment, token)
    elif token:
        _break(project, environment, token, hosts_file)
    else:
        _ask_for_token(project, environment, hosts_file)


@task(
    help=_HELP
    | {
        "message": "Why, for whoever is refused; required.",
        "dry_run": "Print the script that would be sent, and contact nothing.",
    }
)
def acquire(
    _c: Context, env: str = "", message: str = "", dry_run: bool = False, hosts_file: str = ""
) -> None:
    """Hold an environment: no run changes it from now on.

    For a freeze, or while something is looked into. It outlives this command: every run that takes the environment's
    lock (deploy, rollback, restart, sync, maintenance, delete, steps that change something) ends with exit code 3 and is
    told by whom it is held, since when and why, and what ends it. invoke cleanup skips the environment. What only looks goes
    on, and what serves goes on serving. A retire job that runs already ends what it has begun.

    Examples:
        fab lock.acquire --env=prod --message='Black Friday, until Monday'

    Exit codes: 0 done; 1 it cannot be written; 2 wrong usage; 3 a run is at work there, or somebody holds it already;
    4 the server cannot be reached.
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import holding, notes
    from axon_tasks.remote import Fleet
    from axon_tasks.report import jobs as shown
    from axon_tasks.report import lock as report

    note = notes.now(plain_text(message, "message", notes.LONGEST, example="Black Friday, until Monday"))
    if dry_run:
        _say(shown.scripts(environment, environment.system[:1], holding.acquire_batch(environment, note)))
        return
    with Fleet(project) as fleet:
        left = holding.acquire(fleet, environment, note, hosts_file)
    _say(report.held(environment.name, environment.system[0], note, hosts_file))
    if left is not None:
        _say(f"The last run has not finished: {left.sentence()}")


@task(help=_HELP | {"dry_run": "Print the script that would be sent, and contact nothing."})
def release(_c: Context, env: str = "", dry_run: bool = False, hosts_file: str = "") -> None:
    """Hold an environment no longer, and say who did.

    Whoever may deploy may release it; the audit log says who has. One that nobody holds is none to be released, which is
    said and no failure.

    Examples:
        fab lock.release --env=prod

    Exit codes: 0 done, or nobody holds it; 1 it cannot be removed; 2 wrong usage; 3 somebody else is at it just now;
    4 the server cannot be reached.
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import holding
    from axon_tasks.remote import Fleet
    from axon_tasks.report import jobs as shown

    if dry_run:
        _say(shown.scripts(environment, environment.system[:1], holding.release_batch(environment)))
        return
    with Fleet(project) as fleet:
        note = holding.release(fleet, environment)
    name = environment.name
    if note is None:
        _say(f"{name}: nobody holds it; nothing was done")
    else:
        _say(f"{name}: released; it was held by {note.sentence}")


def _show_script(environment: Environment, token: str) -> None:
    from axon_tasks.deploy import unlocking
    from axon_tasks.report import jobs as report

    if not token:
        raise UsageError(
            "--dry-run needs the token of the owner.",
            hint=f"See it: fab lock.status --env={environment.name}",
        )
    batch = unlocking.break_batch(environment, token)
    _say(report.scripts(environment, environment.system[:1], batch))


def _break(project: Project, environment: Environment, token: str, hosts_file: str) -> None:
    from axon_tasks.deploy import unlocking
    from axon_tasks.remote import Fleet
    from axon_tasks.report import lock as report

    with Fleet(project) as fleet:
        done = unlocking.take_away(fleet, environment, token, hosts_file)
    _say(
        f"{environment.name}: nobody has the lock; nothing was done" if done is None else report.broken(done)
    )


def _ask_for_token(project: Project, environment: Environment, hosts_file: str) -> None:
    from axon_tasks.deploy import unlocking
    from axon_tasks.remote import Fleet
    from axon_tasks.report import lock as report

    with Fleet(project) as fleet:
        found = unlocking.look(fleet, environment)
    _say(report.text(found, hosts_file))
    if found.state == "locked":
        raise UsageError(
            "Whose lock? --token is missing.", hint="The whole command stands above; nothing was done."
        )


def _say(text: str) -> None:
    print(text)  # noqa: T201  (the result of a task belongs on standard output)


namespace = Collection("lock", status, acquire, release)
namespace.add_task(break_, name="break")

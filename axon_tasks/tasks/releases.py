"""`fab history` and `fab rollback`: which releases there were, and back to one of them."""

from __future__ import annotations

import sys

from axon_tasks.errors import UsageError
from axon_tasks.tasks.alone import FLAGS, Change, Flags, perform
from axon_tasks.tasks.base import Context, one_environment, release_id, task, whole


@task(
    help={
        "env": FLAGS["env"],
        "limit": "How many releases, and with --audit how many lines. Default: 20.",
        "audit": "Show the audit log instead: who did what, when.",
        "json": "Print JSON instead of text.",
        "hosts_file": FLAGS["hosts_file"],
    }
)
def history(
    _c: Context,
    env: str = "",
    limit: str = "20",
    audit: bool = False,
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """List the releases of an environment.

    As they are recorded on its system servers: the newest first, with image, digest, git commit, who, when, how long it
    took until traffic was switched, and how it ended. Which one serves is marked, and which one a rollback goes back to.

    --json: {"environment", "server", "current", "releases": [{"id", "image", "digest", "action", "of", "outcome":
    ok|failed|rolled back, "error", "commit", "who", "when", "seconds", "current", "previous"}], "audit": [LINE]}.

    Examples:
        fab history --env=prod
        fab history --env=prod --limit=5 --json
        fab history --env=prod --audit
    """
    project, environment = one_environment(env, hosts_file)
    count = whole(limit, "limit")
    if not count:
        raise UsageError(f"--limit={limit}: a whole number from 1 is needed.")
    from axon_tasks.deploy import history as past
    from axon_tasks.remote import Fleet
    from axon_tasks.report import console
    from axon_tasks.report import history as report

    with Fleet(project) as fleet:
        told = past.look(fleet, environment, count)
    found = past.entries(told.state, count)
    if json:
        shown = report.as_json(told, found)
    else:
        shown = report.events(told) if audit else report.table(told, found)
    console.write_line(sys.stdout, shown)


@task(
    help=FLAGS
    | {"to": "Release to go back to, or forward again, as fab history lists it. Default: the one before."}
)
def rollback(
    _c: Context,
    env: str = "",
    to: str = "",
    now: bool = False,
    wait: bool = False,
    wait_lock: str = "",
    sequential: bool = False,
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Go back to an earlier release, exactly as it ran.

    Without --to, to the newest release before this one that served and was not taken back. While it still runs, that is
    one flip, at once. Otherwise it is started as it was then: the same digest, whatever became of the tag; the same
    arguments and variables, as each app server has kept them; and it must be healthy before anything is switched. The
    release that is left is retired as in a deploy, and can be gone forward to again with --to.

    Examples:
        fab rollback --env=prod
        fab rollback --env=prod --to=1764000000  (one that fab history lists)
        fab rollback --env=prod --dry-run

    Exit codes: as those of fab deploy.
    """
    project, environment = one_environment(env, hosts_file)
    flags = Flags.given(
        now=now, wait=wait, wait_lock=wait_lock, sequential=sequential, dry_run=dry_run, hosts_file=hosts_file
    )
    release_id(to, "to", hint=f"See which there are: fab history --env={environment.name}")
    from axon_tasks.deploy import rollback as rolling
    from axon_tasks.report import console

    title = f"roll {environment.name} back to {f'release {to}' if to else 'the release before'}"
    change = Change(title, lambda run: rolling.steps(run, to), rolling.unknown)
    done = perform(project, environment, flags, change)
    if done:
        console.write_line(sys.stdout, console.summary(*done))

"""`fab sync` and `fab delete`: nginx and records in line with what runs, and an environment that is to be no more."""

from __future__ import annotations

import sys

from axon_tasks.errors import AxonError
from axon_tasks.tasks.alone import FEWER_FLAGS, Change, Flags, perform
from axon_tasks.tasks.base import Context, one_environment, release_id, task, typed


@task(
    help=FEWER_FLAGS
    | {"release": "The release that is to serve, if it is not certain. Default: the one that does."}
)
def sync(
    _c: Context,
    env: str = "",
    release: str = "",
    wait_lock: str = "",
    sequential: bool = False,
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Bring nginx and the records in line with what runs.

    After somebody changed something by hand, or a file was lost. Of the releases that run and are healthy on all app
    servers, it takes the one that gets traffic; if none does, the one that is recorded as the current one; else the only
    one. nginx's two files, the flag and the records are made to fit it on all system servers, and only what differs is
    changed: tested on a copy, proven from the outside, or put back. Nothing is started and nothing is stopped. If it is not
    certain which release is meant, they are listed, and --release picks one.

    Examples:
        fab sync --env=prod
        fab sync --env=prod --dry-run
        fab sync --env=prod --release=1764000000  (one that runs on all app servers)

    Exit codes: 0 done, or nothing to do; 1 it is not certain which release is meant, or it failed; 2 wrong usage or
    configuration; 3 locked by somebody else; 4 a server cannot be reached; 5 it is not known what nginx serves.
    """
    project, environment = one_environment(env, hosts_file)
    flags = Flags.given(wait_lock=wait_lock, sequential=sequential, dry_run=dry_run, hosts_file=hosts_file)
    release_id(release, "release", hint=f"See which run: fab status --env={environment.name}")
    from axon_tasks.deploy import syncing
    from axon_tasks.report import console
    from axon_tasks.report import syncing as report

    wanted = syncing.Sync(release)
    change = Change(
        f"bring {environment.name} in line", lambda run: syncing.steps(run, wanted), syncing.unknown
    )
    done = perform(project, environment, flags, change)
    if done:
        run, took = done
        console.write_line(sys.stdout, report.text(run, wanted, took))


@task(help=FEWER_FLAGS | {"yes": "Do not ask."})
def delete(
    _c: Context,
    env: str = "",
    yes: bool = False,
    wait_lock: str = "",
    sequential: bool = False,
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Remove an environment from its servers.

    nginx's two files, with a test and a reload, and back if nginx refuses; then its containers, which are stopped in their
    stop timeout and not drained; its networks and the images of its repository that nobody else uses there; at last its
    state, with records, jobs and lock. In that order, so that one that was cut off can be done again. Nothing of another
    product or environment is touched. Env files, volumes and nginx's logs stay and are named. It asks for the full name,
    PRODUCT-ENVIRONMENT, to be typed.

    Examples:
        fab delete --env=staging --dry-run
        fab delete --env=staging
        fab delete --env=staging --yes     (in a script)

    Exit codes: 0 done; 1 failed, and it serves as before, or it was not confirmed; 2 wrong usage or configuration; 3 locked
    by somebody else; 4 a server cannot be reached; 5 it is removed in part: do it again.
    """
    project, environment = one_environment(env, hosts_file)
    flags = Flags.given(wait_lock=wait_lock, sequential=sequential, dry_run=dry_run, hosts_file=hosts_file)
    from axon_tasks.deploy import deleting
    from axon_tasks.report import console
    from axon_tasks.report import deleting as report

    name = deleting.full_name(environment)
    question = f"{name} is going to be removed from {', '.join(environment.servers)}: {environment.domain} serves no more."
    if not dry_run and not yes and not typed(question, name):
        raise AxonError("Nothing was removed: the name was not typed.")
    what = deleting.Deletion()
    change = Change(f"delete {name}", lambda run: deleting.steps(run, what))
    done = perform(project, environment, flags, change)
    if done:
        console.write_line(
            sys.stdout, f"Done in {done[1]:.2f} s: {name} is no more\n{report.text(environment, what)}"
        )

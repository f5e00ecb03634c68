"""`fab maintenance`: a page that says 503 instead of the site."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from axon_tasks.errors import UsageError
from axon_tasks.tasks.alone import FEWER_FLAGS, Change, Flags, perform
from axon_tasks.tasks.base import Context, one_environment, plain_text, task

if TYPE_CHECKING:
    from axon_tasks.config import Environment, Project


@task(
    help=FEWER_FLAGS
    | {
        "on": "Answer every request with the page.",
        "off": "Serve the site again.",
        "message": "With --on: what the page says, as plain text. Default: that the site will be back soon.",
        "json": "Without --on and --off: print JSON instead of text.",
    }
)
def maintenance(
    _c: Context,
    env: str = "",
    on: bool = False,
    off: bool = False,
    message: str = "",
    wait_lock: str = "",
    sequential: bool = False,
    dry_run: bool = False,
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Answer with a maintenance page, or say whether it is on.

    While it is on, nginx answers every request with status 503, Retry-After (`maintenance: {retry_after}` of hosts.yml),
    Cache-Control: no-store and a page with the message; but the health check's path, unless that is /, and what
    certificates are renewed by are answered as always. It is a flag that nginx looks for at each request: nothing is
    reloaded, requests that are under way are finished, and on all system servers it is so, or on none. App servers are
    not contacted. It stays on through deploys; fab deploy --end-maintenance ends it when the new release serves.

    A site that an earlier version of this tool has written is written anew first, with one reload. --json has the shape of
    axon_tasks/report/schemas/maintenance.json.

    Examples:
        fab maintenance --env=prod                                    (is it on?)
        fab maintenance --env=prod --on
        fab maintenance --env=prod --on --message='Back at 6 pm UTC.'
        fab maintenance --env=prod --off

    Exit codes: 0 done; 1 failed, and it is as it was; 2 wrong usage or configuration, nothing was contacted; 3 locked by
    somebody else; 4 a server cannot be reached; 5 it is done, but could not be noted.
    """
    _must_fit(on=on, off=off, message=bool(message), dry_run=dry_run, json=json)
    project, environment = one_environment(env, hosts_file)
    if not on and not off:
        _look(project, environment, json=json)
        return
    flags = Flags.given(wait_lock=wait_lock, sequential=sequential, dry_run=dry_run, hosts_file=hosts_file)
    from axon_tasks.deploy import maintaining, notes
    from axon_tasks.report import console

    said = maintaining.MESSAGE
    if message:
        said = plain_text(message, "message", notes.LONGEST, example="Back at 6 pm UTC.")
    note = notes.now(said) if on else None
    word = "on" if on else "off"
    change = Change(
        f"turn maintenance {word} for {environment.name}", lambda run: maintaining.steps(run, note)
    )
    done = perform(project, environment, flags, change)
    if done:
        console.write_line(
            sys.stdout, f"Done in {done[1]:.2f} s: maintenance of {environment.name} is {word}"
        )


def _must_fit(*, on: bool, off: bool, message: bool, dry_run: bool, json: bool) -> None:
    """Refuse flags that do not go together.

    Raises:
        UsageError: They do not.
    """
    if on and off:
        raise UsageError("--on and --off do not go together.")
    if message and not on:
        raise UsageError("--message goes with --on.")
    if dry_run and not (on or off):
        raise UsageError("--dry-run goes with --on or --off.", hint="Without them, nothing is changed.")
    if json and (on or off):
        raise UsageError("--json goes without --on and --off.", hint="What a run did: fab timeline --json")


def _look(project: Project, environment: Environment, *, json: bool) -> None:
    from axon_tasks.deploy import maintaining
    from axon_tasks.deploy.problems import raise_all
    from axon_tasks.remote import Fleet
    from axon_tasks.report import console
    from axon_tasks.report import maintenance as report

    with Fleet(project) as fleet:
        found, errors = maintaining.look(fleet, environment)
    if json:
        console.write_line(sys.stdout, report.as_json(environment, found, errors))
    elif found:
        console.write_line(sys.stdout, report.text(environment, found))
    raise_all(errors.values())

"""`fab timeline`: when each part of a run took place. Reads local files only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from axon_tasks.errors import UsageError
from axon_tasks.tasks.base import Context, task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from axon_tasks.deploy.timeline import Timeline


@task(
    help={
        "run": "Id of a run or its beginning; -2 for the one before the last. Default: the last.",
        "env": "Draw only this environment, or several: staging,prod.",
        "json": "Print JSON instead of a chart.",
        "html": "Write one self-contained page to this file.",
        "chrome": "Write a trace to this file, for ui.perfetto.dev or chrome://tracing.",
        "list": "List the runs that were recorded, the newest first.",
        "hosts_file": "The hosts.yml beside which the runs are kept; default: the one found here or above.",
    },
    name="timeline",
)
def timeline(
    _c: Context,
    run: str = "",
    env: str = "",
    json: bool = False,
    html: str = "",
    chrome: str = "",
    list: bool = False,  # noqa: A002  (the name of the flag)
    hosts_file: str = "",
) -> None:
    """Show what a run did when, and what overlapped.

    Every deploy records when each step, batch and command ran on which server, in .axon/runs/ beside hosts.yml.
    The chart marks the critical path: what the run had to wait for. Nothing is contacted. --json, also of --list, has the
    shape of axon_tasks/report/schemas/timeline.json.

    Examples:
        fab timeline                              (the last run)
        fab timeline --run=-2 --env=prod          (the one before it)
        fab timeline --run=20261125-1015 --html=deploy.html
        fab timeline --chrome=trace.json          (open it in ui.perfetto.dev)
        fab timeline --list

    Exit codes: 0 done; 1 the file of the run is damaged; 2 wrong usage, or there is no such run.
    """
    folder = project_folder(hosts_file)
    if list:
        _print_list(folder, as_json=json)
        return
    from axon_tasks.deploy.timeline import load, pick

    shown = load(pick(folder, run))
    names = _chosen(shown, env)
    for path, made in ((html, _page), (chrome, _trace)):
        if path:
            _write(path, made(shown, names))
    if json:
        _print_json(shown, names)
    elif not html and not chrome:
        from axon_tasks.report.timeline import Look, chart

        _say(lambda stream: chart(shown, Look.of(stream), names))


def project_folder(hosts_file: str) -> Path:
    """The folder in which runs are kept: the one of `hosts.yml`, whether that file is valid or not."""
    from pathlib import Path

    from axon_tasks.hosts_file import find_hosts_file

    found = Path(hosts_file) if hosts_file else find_hosts_file()
    try:
        is_there = found.is_file()
    except OSError:  # a name that is too long
        is_there = False
    if not is_there:
        raise UsageError(
            f"There is no file {hosts_file or found}.", hint="Name a hosts.yml: --hosts-file=FILE"
        )
    return found.absolute().parent


def _chosen(shown: Timeline, env: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in env.split(",") if name.strip())
    unknown = [name for name in names if name not in shown.info.environments]
    if unknown:
        known = ", ".join(shown.info.environments) or "none"
        raise UsageError(
            f"{shown.info.run} did not work on {', '.join(unknown)}; its environments: {known}.",
            hint="Which run worked on what: fab timeline --list",
        )
    return names


def _page(shown: Timeline, names: tuple[str, ...]) -> str:
    from axon_tasks.report.timeline_html import page

    return page(shown, names)


def _trace(shown: Timeline, _names: tuple[str, ...]) -> str:
    from json import dumps

    from axon_tasks.report.timeline_json import chrome

    return dumps(chrome(shown))


def _write(path: str, text: str) -> None:
    from pathlib import Path

    from axon_tasks.remote.text import sanitize

    try:
        Path(path).write_text(text, encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot write {path!a}: {getattr(error, 'strerror', None) or error}.",
            hint="Name a file in a folder that exists.",
        ) from None
    # On the other stream, so that `--json` beside it stays JSON.
    sys.stderr.write(f"{sanitize(path)}: written\n")


def _print_json(shown: Timeline, names: tuple[str, ...]) -> None:
    from json import dumps

    from axon_tasks.report.timeline_json import document

    _say(lambda _stream: dumps(document(shown, names), indent=2))


def _print_list(folder: Path, *, as_json: bool) -> None:
    from json import dumps

    from axon_tasks.deploy.timeline import runs
    from axon_tasks.report import timeline as report
    from axon_tasks.report.timeline_json import listing

    found = runs(folder)
    if as_json:
        _say(lambda _stream: dumps(listing(found), indent=2))
    elif found:
        _say(lambda stream: report.listing(found, report.Look.of(stream)))
    else:
        _say(
            lambda _stream: (
                f"No run has been recorded in {folder}. A deploy records one: fab deploy --env=NAME"
            )
        )


def _say(made: Callable[[TextIO], str]) -> None:
    """The result of a task belongs on standard output; a reader that has gone is no failure."""
    from axon_tasks.report.console import write_line

    write_line(sys.stdout, made(sys.stdout))

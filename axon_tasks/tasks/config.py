"""Tasks that look at `hosts.yml` and contact no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from axon_tasks.errors import UsageError
from axon_tasks.tasks.base import Context, task

if TYPE_CHECKING:
    from axon_tasks.config.show import Row

_HOSTS_FILE = "The configuration file; default: AXON_HOSTS, else hosts.yml here or in a folder above."


@task(help={"hosts_file": _HOSTS_FILE})
def validate(_c: Context, hosts_file: str = "") -> None:
    """Check hosts.yml and report every fault with its line.

    Nothing is contacted. Exit code 2 if something is wrong.

    Examples:
      invoke config.validate
      invoke config.validate --hosts-file=deploy/hosts.yml
    """
    from axon_tasks.config import load

    project = load(hosts_file or None)
    _say(
        f"{project.source.name}: valid: product {project.product}, "
        f"environments {', '.join(project.environments)}, hosts {', '.join(project.hosts)}"
    )


@task(
    help={
        "env": "The environment, or several: staging,prod.",
        "hosts_file": _HOSTS_FILE,
        "json": "Print JSON instead of a table.",
    }
)
def show(_c: Context, env: str = "", hosts_file: str = "", json: bool = False) -> None:
    """Show the settings in force and where each comes from.

    Passwords, passphrases and container variables are masked. Durations are seconds.

    Examples:
      invoke config.show --env=prod
      invoke config.show --env=staging,prod --json
    """
    from axon_tasks.config import read
    from axon_tasks.config.show import effective

    loaded = read(hosts_file or None)
    shown = {
        environment.name: effective(loaded, environment)
        for environment in loaded.project.environments_named(env)
    }
    _say(_as_json(shown) if json else "\n\n".join(_as_table(name, rows) for name, rows in shown.items()))


@task(help={"out": "Write to this file instead of standard output."})
def schema(_c: Context, out: str = "") -> None:
    """Print the JSON schema of hosts.yml, for editors.

    An editor with a YAML language server finds it by the first line of the file:
      # yaml-language-server: $schema=PATH

    Examples:
      invoke config.schema
      invoke config.schema --out=hosts.schema.json
    """
    from pathlib import Path

    from axon_tasks.config.schema import schema_text
    from axon_tasks.remote.text import sanitize

    if not out:
        _say(schema_text().rstrip())
        return
    try:
        Path(out).write_text(schema_text(), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot write {out!a}: {error!s}.", hint="Name a file in a folder that exists."
        ) from None
    _say(f"{sanitize(out)}: written")


def _as_json(shown: dict[str, list[Row]]) -> str:
    from dataclasses import asdict
    from json import dumps

    return dumps({name: [asdict(row) for row in rows] for name, rows in shown.items()}, indent=2)


def _as_table(name: str, rows: list[Row]) -> str:
    values = [_cell(row.value) for row in rows]
    widest = max(len(row.path) for row in rows), min(max(len(value) for value in values), 48)
    lines = [
        f"  {row.path:<{widest[0]}}  {value:<{widest[1]}}  {row.origin}"
        for row, value in zip(rows, values, strict=True)
    ]
    return "\n".join((f"environment {name}", *lines))


def _cell(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _say(text: str) -> None:
    print(text)  # noqa: T201  (the result of a task belongs on standard output)


namespace = Collection("config", validate, show, schema)

"""Tasks that look at `hosts.yml` and contact no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.collection import Collection

from axon_tasks.errors import UsageError
from axon_tasks.tasks.base import Context, task

if TYPE_CHECKING:
    from axon_tasks.config.beginning import Question
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

    Passwords, passphrases and container variables are masked. Durations are seconds. --json has the shape of
    axon_tasks/report/schemas/config.show.json.

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


@task(
    help={
        "product": "Name of the product: a-z, 0-9 and dashes.",
        "image": "Image, without a tag.",
        "environment": "Name of the first environment. Default: prod.",
        "domain": "Domain of the site.",
        "system": "System servers, where nginx runs: NAME=ADDRESS, separated by commas.",
        "app": "App servers, where Docker runs, likewise.",
        "user": "User that logs in. Default: as in your ssh_config.",
        "port": "Port on which the application listens in its container. Default: 3000.",
        "health": "Path of its health check. Default: /health.",
        "out": "File to write. Default: hosts.yml here.",
    }
)
def init(
    _c: Context,
    product: str = "",
    image: str = "",
    environment: str = "",
    domain: str = "",
    system: str = "",
    app: str = "",
    user: str = "",
    port: str = "",
    health: str = "",
    out: str = "hosts.yml",
) -> None:
    """Write a first hosts.yml from a few answers.

    What the flags leave open is asked on the terminal; without one, what has no default must be given. The file is
    checked before it is written, and one that is there is never overwritten.

    Examples:
      invoke config.init
      invoke config.init --product=shop --image=ghcr.io/me/shop --domain=shop.example.com
        --system=edge1=203.0.113.10 --app=app1=203.0.113.21,app2=203.0.113.22
    """
    import sys
    from pathlib import Path

    from axon_tasks.config import beginning
    from axon_tasks.remote.text import sanitize

    if Path(out).exists():
        raise UsageError(f"{out} is there already.", hint="Edit it, or write another one: --out=FILE.")
    given = {
        "product": product, "image": image, "environment": environment, "domain": domain, "system": system,
        "app": app, "user": user, "port": port, "health": health,
    }  # fmt: skip
    answers = {
        one.name: given[one.name] or _answer(one, asks=sys.stdin.isatty()) for one in beginning.QUESTIONS
    }
    content = beginning.text(answers)
    beginning.check(content)
    try:
        with Path(out).open("x", encoding="utf-8") as file:
            file.write(content)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot write {out!a}: {error!s}.", hint="Name a file in a folder that exists."
        ) from None
    name = answers["environment"]
    _say(f"{sanitize(out)}: written. Next: fab doctor --env={name}; then: fab deploy --env={name} --tag=TAG")


def _answer(question: Question, *, asks: bool) -> str:
    """What somebody types, or what is usual.

    Raises:
        UsageError: Nothing is usual, and nobody can be asked, or says nothing.
    """
    usual = question.usual.strip()
    if asks:
        try:
            said = input(f"{question.text}{f' [{usual}]' if usual else ''}: ").strip()
        except EOFError:
            said = ""
        if said:
            return said
    if question.usual:
        return question.usual
    raise UsageError(f"--{question.name} is missing: {question.text}.", hint="See: invoke --help config.init")


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


namespace = Collection("config", validate, show, schema, init)

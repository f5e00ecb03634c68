"""`fab env.*`: the application's variables, without showing a value."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection

from axon_tasks.errors import AxonError, UsageError
from axon_tasks.tasks.base import Context, confirmed, ended_like_ctrl_c, one_environment, say, task

if TYPE_CHECKING:
    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.variables import Difference, EnvFile, Files
    from axon_tasks.remote import Fleet

_HELP = {
    "env": "Environment of hosts.yml to work on; required.",
    "only": "Only these app servers, separated by commas.",
    "yes": "Do not ask.",
    "restart": "Restart afterwards without a gap, so that it comes into force.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}


def _help(*names: str, **more: str) -> dict[str, str]:
    return {name: _HELP[name] for name in ("env", *names, "only", "hosts_file")} | more


@task(help=_help(json="Print JSON instead of text."))
def show(_c: Context, env: str = "", only: str = "", json: bool = False, hosts_file: str = "") -> None:
    """List the variables of an application, values masked.

    Those of its env file on each app server, and those of `container: {env}` in hosts.yml, which count before them; and
    whether they are the same on all servers. --json has the shape of axon_tasks/report/schemas/env.json.

    Examples:
        fab env.show --env=prod
        fab env.show --env=prod --json
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import executing, variables
    from axon_tasks.deploy.problems import raise_all
    from axon_tasks.remote import Fleet
    from axon_tasks.report import variables as report

    executing.app_servers(environment, only)
    found = variables.Files(environment)
    if environment.env_file:
        with Fleet(project) as fleet:
            found = variables.read(fleet, environment, only)
    say(report.as_json(found) if json else report.table(found))
    raise_all(found.errors.values())


@task(
    help=_help(
        "yes",
        "restart",
        key="Name of the variable; required.",
        unset="Remove it.",
        dry_run="Say what would change, and write nothing.",
    )
)
def set_(
    c: Context,
    env: str = "",
    key: str = "",
    unset: bool = False,
    yes: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    only: str = "",
    hosts_file: str = "",
) -> None:
    """Set one variable in the env file of each app server.

    The value is asked for and not shown, or read from standard input if that is no terminal: it never stands on a command
    line. Other lines of the file stay as they are. The file is replaced in one piece, mode 0600, and only if nobody
    else has changed it meanwhile.

    Examples:
        fab env.set --env=prod --key=TOKEN
        pass show shop/token | fab env.set --env=prod --key=TOKEN --restart
        fab env.set --env=prod --key=OLD --unset --yes
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import variables
    from axon_tasks.remote import Fleet

    variables.path_of(environment)
    if not key:
        raise UsageError(
            "Which variable? --key is missing.", hint="For example: fab env.set --env=prod --key=TOKEN"
        )
    # Whoever pipes a value in has no keyboard here to be asked on, and has said what is wanted.
    is_piped = not unset and not sys.stdin.isatty()
    variables.EnvFile("", "-").changed(key, None, "-")  # a wrong name is told before anybody is asked
    value = None if unset else _value(key)
    variables.EnvFile("", "-").changed(key, value, "-")
    with Fleet(project) as fleet:
        found = _read(fleet, environment, only)
        wanted = {
            server: (one or variables.EnvFile("", server)).changed(key, value, server)
            for server, one in found.files.items()
        }
        written = _write(fleet, found, wanted, yes=yes or is_piped, dry_run=dry_run)
    _restart(c, project, environment, hosts_file, written=written, wanted=restart and not dry_run)


def _value(key: str) -> str:
    """The value, from the keyboard without showing it, or from standard input.

    Raises:
        UsageError: There is none: whoever was to give it has failed, by the looks of it.
    """
    if sys.stdin.isatty():
        import getpass

        try:
            return getpass.getpass(f"{key}: ")
        except EOFError:
            raise UsageError(f"No value was given for {key}.", hint="Nothing was written.") from None
    try:
        value = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError(f"What came for {key} on standard input is not UTF-8.") from None
    if not value:
        raise UsageError(
            f"Nothing came for {key} on standard input.",
            hint="Did what writes it fail? An empty value can be written with fab env.edit.",
        )
    return value


@task(
    help=_help(
        "yes",
        "restart",
        file="Local env file; - for standard input; required.",
        dry_run="Say what would change, and write nothing.",
    )
)
def push(
    c: Context,
    env: str = "",
    file: str = "",
    yes: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    only: str = "",
    hosts_file: str = "",
) -> None:
    """Make a local file the env file of each app server.

    It is checked first; which variables come, change and go is shown, without their values; then it is replaced in one
    piece, mode 0600, on all servers at the same time.

    Examples:
        fab env.push --env=prod --file=.env.prod
        gpg -d .env.prod.gpg | fab env.push --env=prod --file=- --yes --restart
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import variables
    from axon_tasks.remote import Fleet

    variables.path_of(environment)
    if file == "-" and not (yes or dry_run):
        raise UsageError("With --file=- there is no keyboard to ask on.", hint="Add --yes, or --dry-run.")
    new = _local(file)
    with Fleet(project) as fleet:
        found = _read(fleet, environment, only)
        written = _write(fleet, found, dict.fromkeys(found.files, new), yes=yes, dry_run=dry_run)
    _restart(c, project, environment, hosts_file, written=written, wanted=restart and not dry_run)


def _local(file: str) -> EnvFile:
    """A file of this machine.

    Raises:
        UsageError: It cannot be read, or is no env file.
    """
    from axon_tasks.deploy.variables import EnvFile

    if not file:
        raise UsageError(
            "Which file? --file is missing.", hint="For example: fab env.push --env=prod --file=.env.prod"
        )
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        found = EnvFile(data.decode("utf-8"), file)
    except OSError as error:
        raise UsageError(f"--file={file}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"--file={file}: it is not UTF-8.") from None
    if not found.values:
        raise UsageError(f"--file={file}: there is no variable in it.", hint="Did what writes it fail?")
    return found


@task(help=_help("yes", "restart"))
def edit(
    c: Context,
    env: str = "",
    yes: bool = False,
    restart: bool = False,
    only: str = "",
    hosts_file: str = "",
) -> None:
    """Edit the env file of the app servers.

    With your editor: a copy that only you can read is opened in $VISUAL, $EDITOR or vi, and removed afterwards. It is
    checked; which variables come, change and go is shown; then it is replaced in one piece, mode 0600, and a restart
    without a gap is offered. The files of the app servers must be the same; --only takes one of them.

    Examples:
        fab env.edit --env=prod
        EDITOR=nano fab env.edit --env=prod --only=app2
    """
    project, environment = one_environment(env, hosts_file)
    from axon_tasks.deploy import variables
    from axon_tasks.remote import Fleet

    variables.path_of(environment)
    if not sys.stdin.isatty():
        raise UsageError(
            "An editor needs a terminal.",
            hint=f"From a file: fab env.push --env={environment.name} --file=FILE",
        )
    with ended_like_ctrl_c(), Fleet(project) as fleet:
        found = _read(fleet, environment, only)
        before = found.same()
        new = _edited(before)
        written = _write(fleet, found, dict.fromkeys(found.files, new), yes=yes, dry_run=False)
    _restart(c, project, environment, hosts_file, written=written, wanted=restart, ask=not yes)


def _edited(before: EnvFile | None) -> EnvFile:
    """What the editor has made of a file; it is opened again as long as it is wrong and somebody wants to mend it.

    Raises:
        AxonError: The editor failed, or what it left is no env file.
    """
    from axon_tasks.deploy.variables import EnvFile

    with tempfile.TemporaryDirectory(prefix="axon-env-") as folder:  # mode 0700 (mkdtemp(3))
        path = Path(folder) / "variables.env"
        path.touch(mode=0o600)
        path.write_text(before.text.reveal() if before else "# NAME=VALUE\n", encoding="utf-8")
        while True:
            _run_editor(path)
            try:
                return EnvFile(path.read_text(encoding="utf-8"), "Your file")
            except UnicodeDecodeError:
                say("Your file is not UTF-8.")
            except OSError as error:
                raise AxonError(
                    f"What you edited cannot be read: {error.strerror}. Nothing was written."
                ) from None
            except UsageError as error:
                say(str(error))
            if not confirmed("Edit it again?"):
                raise AxonError("Nothing was written.")


def _run_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    # Ctrl-C in an editor is the editor's, though both get it. Not ignored: the editor would inherit that.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        code = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise AxonError(
            f"The editor {editor!a} cannot be started: {error}. Nothing was written.", hint="Set EDITOR."
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        raise AxonError(f"The editor ended with exit code {code}: nothing was written.")


def _read(fleet: Fleet, environment: Environment, only: str) -> Files:
    """The env files; all of them must be readable.

    Raises:
        AxonError: One is not.
    """
    from axon_tasks.deploy import variables
    from axon_tasks.deploy.problems import raise_all

    found = variables.read(fleet, environment, only)
    raise_all(found.errors.values())
    return found


def _write(fleet: Fleet, found: Files, wanted: dict[str, EnvFile], *, yes: bool, dry_run: bool) -> bool:
    """Show what changes, ask, and write; whether something was written."""
    from axon_tasks.deploy import variables
    from axon_tasks.report import variables as report

    changes: dict[Difference, list[str]] = {}
    files: dict[str, EnvFile] = {}
    for server, new in wanted.items():
        before = found.files[server]
        if before is None or before.checksum != new.checksum:
            files[server] = new
            changes.setdefault(variables.difference(found.values(server), new.values), []).append(server)
    if not files:
        say("Nothing has changed.")
        return False
    for difference, servers in changes.items():
        say(f"{found.environment.env_file} on {', '.join(servers)}:")
        say(report.change(difference) if difference else "  nothing but comments and order")
    if dry_run:
        say("Nothing was written.")
        return False
    if not yes and not confirmed("Write it?"):
        raise AxonError("Nothing was written.")
    variables.write(fleet, found, files)
    say(f"Written on {', '.join(files)}.")
    return True


def _restart(
    c: Context,
    project: Project,
    environment: Environment,
    hosts_file: str,
    *,
    written: bool,
    wanted: bool,
    ask: bool = False,
) -> None:
    """Bring what was written into force, or say how."""
    from axon_tasks.tasks.acting import restart

    # What was written before and never came into force does so now: an earlier restart may have failed.
    is_due = written or (wanted and _is_pending(project, environment))
    if is_due and (wanted or (ask and confirmed("Restart now, without a gap?"))):
        restart(c, env=environment.name, hosts_file=hosts_file)
    elif written:
        say(f"It comes into force with the next deploy, or now: fab restart --env={environment.name}")


def _is_pending(project: Project, environment: Environment) -> bool:
    """Whether what serves was started with other variables than it would be now."""
    from axon_tasks.deploy import comparing
    from axon_tasks.remote import Fleet

    with Fleet(project) as fleet:
        found = comparing.compare(fleet, project, environment)
    comparing.check(found)
    return any(one.what == comparing.VARIABLES for one in found.changes)


namespace = Collection("env")
namespace.add_task(set_, name="set")
for _task in (show, push, edit):
    namespace.add_task(_task)

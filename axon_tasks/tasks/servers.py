"""`fab servers.*`: make servers ready for deploys, and see whether they are."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection

from axon_tasks.errors import AxonError, UnreachableError, UsageError
from axon_tasks.tasks.base import Context, confirmed, ended_like_ctrl_c, environments, say, task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from axon_tasks.commands.setup import Who
    from axon_tasks.config import Environment, Project
    from axon_tasks.deploy.doctor import Check
    from axon_tasks.deploy.setup import Done, Found

_HELP = {
    "env": "Environment of hosts.yml, or several, separated by commas; required.",
    "only": "Only these servers, separated by commas.",
    "user": "Log in as this user, who is root or may become it without a password. Default: the one who deploys.",
    "key": "Private key of that user.",
    "hosts_file": "Configuration to use instead of the hosts.yml found here or above.",
}
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@+-]{0,63}", re.ASCII)
_KEYS = "File with public keys for the user who deploys. Default: those of the user who logs in now."


@task(help=_HELP | {"json": "Print JSON instead of text."})
def check(
    _c: Context,
    env: str = "",
    only: str = "",
    user: str = "",
    key: str = "",
    json: bool = False,
    hosts_file: str = "",
) -> None:
    """Show what servers.setup would do; nothing is changed.

    It has to become root to see it. Whether a deploy would go well is another question: fab doctor answers that.

    Exit code 0 if nothing is to be done, 1 if something is, 4 if a server cannot be reached. --json has the shape of
    axon_tasks/report/schemas/servers.json.

    Examples:
        fab servers.check --env=prod --user=root
        fab servers.check --env=prod --user=root --json
    """
    from axon_tasks.deploy import setup
    from axon_tasks.remote import Fleet
    from axon_tasks.report import setup as report

    project, chosen, whose = _servers(env, hosts_file, only, user, "")
    with ended_like_ctrl_c(), Fleet(_as_user(project, whose, user, key)) as fleet:
        found = setup.look(fleet, chosen, whose)
    say(report.as_json(found) if json else report.text(sys.stdout, found))
    _judge(found, user)
    lacking = [one.server for one in found if one.lacks]
    if lacking:
        given = {"env": env, "only": only, "user": user, "key": key, "hosts-file": hosts_file}
        flags = " ".join(f"--{name}={shlex.quote(value)}" for name, value in given.items() if value)
        raise AxonError(
            f"Something is to be done on {', '.join(lacking)}.", hint=f"Do it: fab servers.setup {flags}"
        )


@task(
    help=_HELP
    | {
        "authorized_keys": _KEYS,
        "yes": "Do not ask.",
        "dry_run": "Print the scripts, and contact nothing.",
    }
)
def setup(
    _c: Context,
    env: str = "",
    only: str = "",
    user: str = "",
    key: str = "",
    authorized_keys: str = "",
    yes: bool = False,
    dry_run: bool = False,
    hosts_file: str = "",
) -> None:
    """Make servers ready for deploys.

    On Debian and Ubuntu. App servers get Docker, system servers get nginx and the files with which it reads what deploys
    write. If deploys log in as another user than root, that user is created, may log in with the keys of whoever runs
    this, gets the group docker, directories of its own, and on system servers the one sudo line that it needs. Packages
    come from the server's own apt sources.

    What will be done is shown first, and asked. What is there already stays as it is: a second run finds nothing to do,
    and one that was interrupted is completed by the next one. At the end fab doctor's checks are done as the user who
    deploys, and what they find is shown.

    Examples:
        fab servers.setup --env=prod --user=root
        fab servers.setup --env=prod --user=ubuntu --key=~/.ssh/aws.pem --yes
        fab servers.setup --env=prod --only=app3 --user=root --authorized-keys=deploy.pub --yes
        fab servers.setup --env=prod --dry-run

    Exit codes: 0 ready; 1 something could not be done; 2 wrong usage; 4 a server cannot be reached.
    """
    keys = _keys_of(authorized_keys)
    project, chosen, whose = _servers(env, hosts_file, only, user, keys)
    if dry_run:
        _show_scripts(chosen, whose)
        return
    from axon_tasks.deploy import setup as making
    from axon_tasks.remote import Fleet
    from axon_tasks.report import setup as report

    with ended_like_ctrl_c(), Fleet(_as_user(project, whose, user, key)) as fleet:
        found = making.look(fleet, chosen, whose)
        say(report.text(sys.stdout, found))
        _judge(found, user)
        lacking = [one.server for one in found if one.lacks]
        if lacking:
            if not yes and not confirmed(f"Do this on {', '.join(lacking)}?"):
                raise AxonError("Nothing was done.")
            try:
                making.mend(fleet, found, _tell)
            except KeyboardInterrupt:
                raise AxonError(
                    "Interrupted. What has been begun is completed on the servers.",
                    hint="Do the rest: the same command once more.",
                    code=130,
                ) from None
            making.must_be_ready(making.look(fleet, chosen, {name: whose[name] for name in lacking}))
            say(f"Ready: {', '.join(lacking)}")
    _examine(project, chosen, tuple(whose))


def _tell(done: Done) -> None:
    """One line, from a thread; a reader who has gone ends nothing."""
    from axon_tasks.report import console
    from axon_tasks.report import setup as report

    console.write_line(sys.stdout, report.progress(done))


def _servers(
    env: str, hosts_file: str, only: str, user: str, keys: str
) -> tuple[Project, list[Environment], Mapping[str, Who]]:
    """The settings, the environments, and for whom each of their servers is to be ready."""
    if user and not _USER.fullmatch(user):
        raise UsageError(f"--user={user!a}: this is no user name.", hint="For example: --user=root")
    project, chosen = environments(env, hosts_file)
    from axon_tasks.deploy import looking, setup

    return project, chosen, setup.whom(project, looking.only_of(chosen, only), user, keys)


def _as_user(project: Project, names: Iterable[str], user: str, key: str) -> Project:
    """The same servers, logged in to as somebody else; jump hosts are passed through as always.

    Raises:
        UsageError: There is no such key.
    """
    if not user and not key:
        return project
    changes: dict[str, object] = {"user": user} if user else {}
    if key:
        path = _local(key, "key")
        if not path.is_file():
            raise UsageError(f"--key={key}: there is no such file.")
        changes |= {"key": path, "passphrase": None}
    changed = {name: project.hosts[name]._replace(**changes) for name in names}  # type: ignore[arg-type]  # by name
    return project._replace(hosts=project.hosts | changed)


def _local(path: str, flag: str) -> Path:
    """A path of this machine, ~ expanded.

    Raises:
        UsageError: It cannot be one.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a ~ of somebody who is not there
        raise UsageError(f"--{flag}={path}: there is no such user here.") from None


def _keys_of(file: str) -> str:
    """The public keys of a local file; empty if none was named.

    Raises:
        UsageError: It cannot be read, or is no such file.
    """
    if not file:
        return ""
    from axon_tasks.deploy import setup

    try:
        text = _local(file, "authorized-keys").read_text("utf-8")
        return setup.public_keys(text, f"--authorized-keys={file}")
    except OSError as error:
        raise UsageError(f"--authorized-keys={file}: {error.strerror}.") from None
    except ValueError:  # no UTF-8, or a NUL in its name
        raise UsageError(f"--authorized-keys={file}: this is no text file.") from None


def _judge(found: Sequence[Found], user: str) -> None:
    """Go on only if every server has said what it lacks.

    Raises:
        AxonError: One has not; nothing was changed anywhere.
    """
    failed = [one for one in found if one.error]
    if not failed:
        return
    unreachable = any(isinstance(one.error, UnreachableError) for one in failed)
    raise AxonError(
        f"Nothing was changed: {', '.join(one.server for one in failed)} cannot be looked at; see above.",
        hint=None
        if user or all(one.user == "root" for one in failed)
        else "If the user who deploys is not there yet or may not become root: --user=root",
        code=UnreachableError.exit_code if unreachable else None,
    )


def _show_scripts(chosen: Sequence[Environment], whose: Mapping[str, Who]) -> None:
    """Each script once, with the servers that it is for."""
    from axon_tasks.commands import setup as commands
    from axon_tasks.deploy import setup
    from axon_tasks.report import console

    for server, who in whose.items():
        parts = commands.parts(chosen, server, who)
        console.write_line(sys.stdout, f"# {server}: what asks it what it lacks; nothing was contacted")
        console.write_line(sys.stdout, setup.question_batch(parts).script(masked=True))
        for one in parts:
            console.write_line(sys.stdout, f"\n# {server}: {one.name}, if it is lacking")
            console.write_line(sys.stdout, setup.answer_batch(setup.Lack(one, ())).script(masked=True))


def _examine(project: Project, chosen: Sequence[Environment], names: Sequence[str]) -> None:
    """Look at the servers as deploys will, and show what is still missing."""
    from axon_tasks.deploy import doctor
    from axon_tasks.remote import Fleet
    from axon_tasks.report import doctor as report

    with Fleet(project) as fleet:
        checks = doctor.look(fleet, chosen, ",".join(names))
    missing = [one for one in checks if one.verdict != doctor.OK]
    if missing:
        say("What fab doctor still finds:")
        say(report.text(sys.stdout, missing))
        _must_be_usable(missing)
    else:
        say(f"fab doctor finds nothing to mend. Next: fab deploy --env={chosen[0].name} --tag=TAG")


def _must_be_usable(missing: Sequence[Check]) -> None:
    """What is the operator's to bring, such as an env file, is no failure; a user that cannot work there is one.

    Raises:
        AxonError: It is so.
    """
    from axon_tasks.deploy import doctor

    needed = {doctor.CONNECTION, "privileges", "docker", "state"}
    failed = [one for one in missing if one.verdict == doctor.FAILED and one.name in needed]
    if failed:
        names = ", ".join(dict.fromkeys(one.server for one in failed))
        raise AxonError(f"The servers are set up, but deploys cannot work on {names}; see above.")


namespace = Collection("servers", check, setup)

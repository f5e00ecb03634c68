"""Deployments with secrets of every kind, in success and in failure, watched for a secret where it must not be.

Every secret is new, so that whatever is found was written by this run. A password with characters that shells, YAML, JSON
and URLs treat as special; the same for the application's variables, and for the passphrase of the key.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.errors import AxonError
from axon_tasks.lab import sampler
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.product import ENVIRONMENT, TAGS, product
from axon_tasks.lab.hostile.outcome import Outcome
from axon_tasks.lab.hosts import EDGE, REGISTRY, REGISTRY_PORT_WITH_LOGIN
from axon_tasks.lab.images import build_sample
from axon_tasks.lab.lab import STORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from axon_tasks.lab.bench.product import Product
    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.sampler import Leak, Sampler, Watched

#: What is counted: the commands that are watched, the variables that the application must have, and the places in which
#: a planted secret must be found.
COMMANDS, ARRIVED, PLANTED = "commands", "arrived", "planted"

#: Where the operator has the registry's password; `hosts.yml` names the variable.
VARIABLE = "AXON_LAB_REGISTRY_PASSWORD"

#: The README's line for a user that is not root, on system servers.
SUDOERS = "deploy ALL=(root) NOPASSWD: /usr/bin/sh -s, /bin/sh -s\n"

#: What a deploy does with secrets; where it was not seen, the moments that matter were not looked at.
_MOMENTS = frozenset({"docker login", "docker pull", "docker run"})

#: How often a deploy is done again in which a moment was not seen.
_LOOKS_AGAIN = 2

#: Files in each of the places that a command could write to.
_PLANTS = ("/var/lib/planted", "/tmp/planted", "/run/planted", "/srv/planted", "/root/.bash_history.planted")

_APP = "app1"
_HTPASSWD = "/etc/docker/registry/htpasswd"
_PATIENCE = 120.0


@dataclass(frozen=True)
class Watch:
    """What one command did while it was watched.

    Attributes:
        code: Its exit code; negative if it was ended by a signal.
        out: What it printed on both streams.
        leaks: Secrets where they must not be.
        seen: The programs that were seen meanwhile, on all hosts.
        rounds: How often all processes were looked at.
        processes: How many were looked at.
    """

    code: int
    out: str
    leaks: tuple[Leak, ...]
    seen: frozenset[str]
    rounds: int
    processes: int


@dataclass
class Findings(Outcome):
    """What all commands together came to.

    Attributes:
        rounds: How often all processes were looked at.
        processes: How many were looked at.
        least: How many commands there must have been.
    """

    rounds: int = 0
    processes: int = 0
    least: int = 0


class Secretive:
    """A product in the lab with a secret of every kind.

    Args:
        made: The product.
        user: The registry's user.
    """

    def __init__(self, made: Product, user: str) -> None:
        self.made = made
        self.user = user
        ends = secrets.token_hex(4)
        self.password = sampler.Watched("the registry's password", f"pw-{ends}'\"$(id)+/=%ü")
        self.passphrase = sampler.Watched("the key's passphrase", f"phrase-{ends} with spaces")
        self.variable = sampler.Watched(
            "a variable of container.env", f"env-{ends}'\"`id` $HOME #=", of_application=True
        )
        self.filed = sampler.Watched("a variable of the env file", f"file-{ends}-+/%$x", of_application=True)
        self.set = sampler.Watched("a variable that is set", f"set-{ends}-'$(id)' # x", of_application=True)
        self.wrong = sampler.Watched("a wrong password", f"wrong-{ends}-$(id)")

    @property
    def watched(self) -> tuple[Watched, ...]:
        """All secrets."""
        return self.password, self.passphrase, self.variable, self.filed, self.set, self.wrong

    @property
    def env_file(self) -> str:
        """The env file on the app server."""
        return f"/srv/{self.made.name}.env"

    def write(self, *, password: str | None = None, user: str = "root") -> None:
        """Write `hosts.yml`.

        Args:
            password: The registry's password, in the file itself; by default the variable's name stands there.
            user: Who logs in to the servers.
        """
        settings: dict[str, Any] = json.loads(self.made.hosts_file.read_text(encoding="utf-8"))
        for host in settings["hosts"].values():
            host.update(user=user, key="id", passphrase=self.passphrase.text)
        settings["image"] = f"{REGISTRY.address}:{REGISTRY_PORT_WITH_LOGIN}/shop"
        written = f"${{{VARIABLE}}}" if password is None else password
        settings["registry"] = {"username": self.user, "password": written}
        settings["defaults"]["health"]["timeout"] = "3s"
        settings["defaults"]["container"]["env"] = {"TOKEN": self.variable.text.replace("${", "$${")}
        settings["environments"][ENVIRONMENT]["env_file"] = self.env_file
        self.made.hosts_file.write_text(json.dumps(settings), encoding="utf-8")

    def watch(self, *words: str, kill: Callable[[Sampler], bool] | None = None, stdin: str = "") -> Watch:
        """Run `fab` and look at every process meanwhile, and at everything that was written afterwards.

        Args:
            words: The command line.
            stdin: What it is given to read.
            kill: Asked again and again; the program is ended with SIGKILL when it says so.

        Raises:
            AxonError: It did not come to what should have ended it.
        """
        began = time.time() - 1
        needles = sampler.Needles(self.watched)
        environment = {
            **local.user_environment(), VARIABLE: self.password.text, sampler.OPERATORS_SHELL: "1",
        }  # fmt: skip
        with (
            sampler.Sampler(needles) as looking,
            subprocess.Popen(
                [*local.fab(), *words], cwd=self.made.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
                # Ctrl-C must not reach it by itself: it is ended in its turn.
                start_new_session=True,
            ) as running,
            _ended(running),
        ):  # fmt: skip
            if kill is not None:
                _wait(lambda: kill(looking) or running.poll() is not None, "what should end it")
                running.send_signal(signal.SIGKILL)
            out, _ = running.communicate(stdin, timeout=_PATIENCE)
            if kill is not None:
                _wait(lambda: not self.logins_in_use(), "the end of the pull")
        leaks = [
            *looking.leaks,
            *sampler.found_in_text(needles, {"the output": out}),
            *self._search(needles, began),
        ]
        seen = frozenset(looking.seen)
        return Watch(running.returncode, out, tuple(leaks), seen, looking.rounds, looking.processes)

    def _search(self, needles: sampler.Needles, since: float) -> list[Leak]:
        """Look at all that was written; not where the operator has put the secrets."""
        declared: list[Path] = [
            self.made.hosts_file,
            STORE / _APP / "own" / "srv" / f"{self.made.name}.env",
        ]
        roots = [*sampler.places(self.made.lab), self.made.folder]
        return sampler.search(needles, roots, since=since, exempt=declared)

    def missing(self) -> list[str]:
        """The variables that the application was given and does not have."""
        serving = self.made.containers(_APP)[:1]
        words = ["docker", "exec", *serving, "/app/busybox", "env"]
        inside = self.made.lab.exec(_APP, words, check=False).stdout.splitlines()
        given = {"TOKEN": self.variable, "FILED": self.filed, "SET": self.set}
        return [one.name for name, one in given.items() if f"{name}={one.text}" not in inside]

    def logins(self) -> list[str]:
        """The directories of logins on the app server."""
        said = self.made.lab.exec(_APP, "ls -d /tmp/axon-login.* /root/.docker/config.json", check=False)
        return said.stdout.split()

    def logins_in_use(self) -> list[str]:
        """Those in which somebody pulls."""
        looks = 'for f in /tmp/axon-login.*/pull.lock; do flock -n "$f" true || echo "$f"; done 2>/dev/null'
        return [one for one in self.made.lab.exec(_APP, looks, check=False).stdout.split() if "*" not in one]


@contextlib.contextmanager
def _ended(running: subprocess.Popen[str]) -> Iterator[None]:
    """Be sure that a command is over at the end: what it works on is removed then."""
    try:
        yield
    finally:
        if running.poll() is None:
            running.terminate()  # `fab` takes it for Ctrl-C, and takes back what it has started
            try:
                running.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                running.kill()


def _wait(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise AxonError(f"{what} did not come within {_PATIENCE:.0f} s")
        time.sleep(0.005)


@contextlib.contextmanager
def secretive(lab: Lab) -> Iterator[Secretive]:
    """A product with secrets, an account at the lab's registry, and a key with a passphrase; gone at the end.

    Args:
        lab: A lab that is up.
    """
    build_sample(lab, "sick", "sick")
    with product(lab, (_APP,)) as made, _account(lab) as (user, open_account):
        found = Secretive(made, user)
        open_account(found.password.text)
        shutil.copy(lab.key_file, made.folder / "id")
        # Before anything is watched: this program takes a passphrase as an argument and in no other way.
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-P", "", "-N", found.passphrase.text, "-f", str(made.folder / "id")],
            check=True, capture_output=True,
        )  # fmt: skip
        lab.exec(
            _APP,
            f"umask 077; cat >{found.env_file}; chown deploy {found.env_file}",
            stdin=f"FILED={found.filed.text}\n",
        )
        found.write()
        try:
            yield found
        finally:
            lab.exec(_APP, ["rm", "-f", found.env_file], check=False)


@contextlib.contextmanager
def _account(lab: Lab) -> Iterator[tuple[str, Callable[[str], None]]]:
    """An account of its own at the registry that asks for a login; it reads the file again when it has changed."""
    import bcrypt  # comes with paramiko; the registry takes no other kind of hash

    user = f"leak{secrets.token_hex(3)}"
    path = lab.path(REGISTRY.name, _HTPASSWD)
    before = path.read_text(encoding="utf-8")

    def make(password: str) -> None:
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        path.write_text(f"{before}{user}:{hashed}\n", encoding="utf-8")

    try:
        yield user, make
    finally:
        path.write_text(before, encoding="utf-8")


@contextlib.contextmanager
def unprivileged(lab: Lab) -> Iterator[None]:
    """The rights that the README lists for a user that is not root, on the lab's hosts, and nothing else."""
    lab.exec(EDGE.name, "umask 337; cat >/etc/sudoers.d/axon-leaks", stdin=SUDOERS)
    lab.exec(_APP, "usermod -aG docker deploy; install -d /var/lib/axon; chown -R deploy /var/lib/axon")
    try:
        yield
    finally:
        lab.exec(EDGE.name, ["rm", "-f", "/etc/sudoers.d/axon-leaks"], check=False)


def is_pulling(looking: Sampler) -> bool:
    """Whether a pull was seen."""
    return "docker pull" in looking.seen


class Story(NamedTuple):
    """A command.

    Attributes:
        name: What it is about.
        words: The command line, without the program's name.
        code: The exit code that it ends with.
        stdin: What it is given to read.
        core: Whether it belongs to the few that are tried where there is little time: those that have secrets in hand.
    """

    name: str
    words: tuple[str, ...]
    code: int = 0
    stdin: str = ""
    core: bool = False


def stories(made: Secretive) -> Sequence[Story]:
    """What is done with a secretive product, in this order: success, looks, changes, failure."""
    env = f"--env={ENVIRONMENT}"
    return (
        Story("a first deploy", ("deploy", env, f"--tag={TAGS[0]}"), core=True),
        Story("the next one", ("deploy", env, f"--tag={TAGS[1]}", "--wait"), core=True),
        Story("one step after the other", ("deploy", env, f"--tag={TAGS[0]}", "--sequential")),
        Story("a dry run", ("deploy", env, "--tag=v1", "--dry-run")),
        Story("a dry run as JSON", ("deploy", env, "--tag=v1", "--dry-run", "--json")),
        Story("the settings", ("config.show", env, "--json")),
        Story("an inspection", ("steps.inspect", env)),
        Story("the timeline", ("timeline", "--json")),
        Story("a clean-up", ("cleanup", env, "--dry-run", "--json")),
        Story("the status", ("status", env, "--json")),
        Story("what a deploy would change", ("diff", env, "--tag=v2")),
        Story("the doctor", ("doctor", env)),
        Story("the releases", ("history", env, "--json")),
        Story("the variables", ("env.show", env, "--json")),
        Story("a variable that is set", ("env.set", env, "--key=SET"), stdin=made.set.text, core=True),
        Story("a restart", ("restart", env, "--wait"), core=True),
        Story("the way back", ("rollback", env, "--wait")),
        Story("forward again", ("restart", env, "--wait")),
        Story("a release that never gets healthy", ("deploy", env, "--tag=sick"), 1, core=True),
        Story("a tag that is not there", ("deploy", env, "--tag=v404"), 1),
    )


#: The commands of `failures`.
_FAILURES = 4


def count(made: Secretive, *, whole: bool) -> int:
    """How many commands are watched at the least."""
    return len([one for one in stories(made) if whole or one.core]) + _FAILURES


def run(lab: Lab, say: Callable[[str], None], *, whole: bool = True) -> Findings:
    """Do all of it, and count what was looked at; and that a secret would be found.

    Args:
        lab: A lab that is up.
        say: Called with the progress.
        whole: Every command, and not only those that have secrets in hand.

    Returns:
        What was watched, and every secret that was somewhere else than it must be, or not where it must be.
    """
    found = Findings()
    say("Secrets: a planted one, which must be found")
    plant(lab, found)
    with secretive(lab) as made:
        found.least = count(made, whole=whole)
        for one in stories(made):
            if not (whole or one.core):
                continue
            seen = made.watch(*one.words, stdin=one.stdin)
            judge(found, one.name, seen, one.code, say)
            if one.words[0] == "deploy" and one.code == 0 and "--dry-run" not in one.words:
                look_again(made, found, one.name, one.words, seen, say)
        for name, seen, code in failures(made):
            judge(found, name, seen, code, say)
        for left in made.logins():
            found.violate(COMMANDS, "at the end", f"a login was left behind: {left}")
        found.counts[ARRIVED] = len([one for one in made.watched if one.of_application])
        for missing in made.missing():
            found.violate(ARRIVED, missing, "the application does not have it")
    return found


def look_again(
    made: Secretive,
    found: Findings,
    name: str,
    words: Sequence[str],
    seen: Watch,
    say: Callable[[str], None],
) -> None:
    """Do a deploy again in which a moment was not seen, because a busy machine looks rarely; note what was never seen.

    Args:
        made: The product.
        found: Where it is noted.
        name: The deploy's story.
        words: The deploy.
        seen: What it did the first time.
        say: Called with what it does.
    """
    missing = _MOMENTS - seen.seen
    for _ in range(_LOOKS_AGAIN):
        if missing:
            again = made.watch(*words)
            judge(found, f"{name}, again", again, 0, say)
            missing -= again.seen
    for moment in sorted(missing):
        found.violate(COMMANDS, name, f"`{moment}` was not seen: it was not looked at closely enough")


def judge(found: Findings, name: str, seen: Watch, code: int, say: Callable[[str], None]) -> None:
    """Note what one command came to.

    Args:
        found: Where.
        name: The command's story.
        seen: What it did.
        code: The exit code that it must have.
        say: Called with what it did.
    """
    found.count(COMMANDS)
    found.rounds += seen.rounds
    found.processes += seen.processes
    say(
        f"  {name}: {seen.processes} processes, looked at {seen.rounds} times in all; {len(seen.leaks)} leaks"
    )
    if seen.code != code:
        found.violate(COMMANDS, name, f"exit code {seen.code} and not {code}: {seen.out[-300:]}")
    for leak in seen.leaks:
        found.violate(COMMANDS, name, str(leak))


def plant(lab: Lab, found: Outcome) -> None:
    """Negative control: put a secret into a process and into files of a host, and note where it is not found.

    Args:
        lab: A lab that is up.
        found: Where it is noted.
    """
    secret = sampler.Watched("planted", f"planted-{secrets.token_hex(4)}-$(id)")
    needles, began = sampler.Needles([secret]), time.time() - 1
    expected = {"the arguments of 'sh'", *_PLANTS}
    places = _planted_process(lab, needles, secret.text)
    try:
        for path in _PLANTS:
            lab.exec(_APP, f"cat >{path}", stdin=f"x{secret.text}")
        places |= {leak.where for leak in sampler.search(needles, sampler.places(lab), since=began)}
    finally:
        lab.exec(_APP, ["rm", "-f", *_PLANTS])
    for place in sorted(expected):
        found.count(PLANTED)
        # A host's file has another name from outside, with the same end.
        if not any(where.endswith(place) for where in places):
            found.violate(PLANTED, place, "it was not found there")
    if len(places) > len(expected):
        found.violate(PLANTED, "elsewhere", f"it was found in more places: {', '.join(sorted(places))}")


def _planted_process(lab: Lab, needles: sampler.Needles, text: str) -> set[str]:
    """Where a sampler finds a secret that a program of a host has as an argument."""
    argv = [*lab.enter(_APP), "sh", "-c", "echo; read x", "sh", text]
    with (
        sampler.Sampler(needles) as looking,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running,
    ):
        assert running.stdout  # a pipe was asked for
        running.stdout.readline()
        # The round that is under way may have passed it by.
        enough = looking.rounds + 2
        _wait(lambda: looking.rounds >= enough, "a look at all processes")
        running.communicate()
    return {leak.where for leak in looking.leaks if "'sh'" in leak.where}


def failures(made: Secretive) -> Iterator[tuple[str, Watch, int]]:
    """A registry that refuses, a deployer that is killed during the pull, and a user that is not root."""
    deploy = ("deploy", f"--env={ENVIRONMENT}")
    made.write(password=made.wrong.text)
    yield "a registry that refuses", made.watch(*deploy, "--tag=v1"), 1
    made.write()
    tag = made.made.other()
    made.made.forget_image(tag)
    yield "SIGKILL during the pull", made.watch(*deploy, f"--tag={tag}", kill=is_pulling), -signal.SIGKILL
    yield "the deploy after it", made.watch(*deploy, f"--tag={tag}", "--wait"), 0
    made.write(user="deploy")
    with unprivileged(made.made.lab):
        yield "a user that is not root", made.watch(*deploy, f"--tag={made.made.other()}", "--wait"), 0
    made.write()

"""The floor: what a redeploy costs with plain ssh, when everything that has to be learnt is known from the start.

The remote work is the same to the letter: the scripts are those that `fab deploy --dry-run --json` prints. What a run
learns from the servers is looked up past SSH before the clock starts and set in front of them, as a person would do who
pastes them. `floor.sh` opens fresh connections at the same time, one per server, keeps the order and the overlaps of
the plan, and does nothing else: no checks, no parsing, no messages.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench import local
from axon_tasks.lab.bench.deploys import AGAIN, DEFAULT, REGULAR, RTTS, Redeploy
from axon_tasks.lab.bench.figures import Budget, Ratio, pairs, take_turns
from axon_tasks.lab.bench.product import ENVIRONMENT, TAGS, Product, product
from axon_tasks.lab.bench.target import ssh_path
from axon_tasks.lab.hosts import EDGE
from axon_tasks.lab.images import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab

BUDGET = Budget(1.25, at_least=False)
FLOOR = "plain ssh"

_DRIVER = Path(__file__).with_name("floor.sh")
_STATE = "/var/lib/axon"
#: The dry run's stand-in for the number of a run, in the names of its jobs.
_RUN = "RUN"


class Floors:
    """`fab deploy` and the floor take turns on the same product, so that both find the same.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        # More than elsewhere: what is compared differs by tenths of a second, on a machine that others use, too.
        self.repeat = options.rounds(11)
        self.rtts = options.round_trips(RTTS)

    def measure(self, lab: Lab, say: Say) -> list[Figure]:
        """Measure at the round-trip time that the lab has.

        Raises:
            AxonError: One of them failed, or clients do not get what was deployed.
        """
        figures: list[Figure] = []
        with product(lab, ("app1",)) as made:
            made.deploy(TAGS[0])
            digests = {tag: _digest(made, tag) for tag in TAGS}
            for what, again in ((AGAIN, True), (REGULAR, False)):
                say(f"The floor of a {what}, at {lab.rtt:g} ms round-trip time")
                contenders = {
                    "fab deploy": Redeploy(made, DEFAULT, again=again).contender(),
                    FLOOR: Floor(made, digests, again=again).contender(),
                }
                seconds = take_turns(contenders, self.repeat, warm_up=1)
                rounds = pairs(seconds, "fab deploy", FLOOR)
                figures.append(Ratio("floor", what, lab.rtt, BUDGET, "fab deploy", FLOOR, rounds))
        return figures


class Floor(Redeploy):
    """A redeploy with plain ssh.

    Args:
        made: The product.
        digests: The digest of each version.
        again: Whether the version that serves is deployed once more.
    """

    def __init__(self, made: Product, digests: Mapping[str, str], *, again: bool) -> None:
        super().__init__(made, DEFAULT, again=again)
        self.digests = digests
        self.folder = made.folder / "floor"

    def prepare(self) -> None:
        """Write down what will be sent."""
        super().prepare()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        plan = json.loads(self.made.deploy(self.tag, "--dry-run", "--json"))["plans"][0]
        learnt = Learnt.of(self.made, self.tag, self.digests[self.tag])
        for name, text in scripts(plan, learnt).items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def run(self) -> str:
        """Run the driver, with sockets in a directory of its own: their paths have at most 108 bytes (unix(7))."""
        with tempfile.TemporaryDirectory(prefix="axon-") as sockets:
            (self.folder / "config").write_text(ssh_config(self.made, sockets), encoding="utf-8")
            local.run(["bash", str(_DRIVER), str(self.folder), EDGE.name, *self.made.apps])
        return self.tag


@dataclass(frozen=True)
class Learnt:
    """What a run learns from the servers, by the names that the scripts have for it.

    Args:
        common: On every server.
        app: On each app server, besides.
    """

    common: dict[str, str]
    app: dict[str, dict[str, str]]

    @classmethod
    def of(cls, made: Product, tag: str, digest: str) -> Learnt:
        """Look everything up on the servers, past SSH."""
        state = f"{_STATE}/{made.name}/{ENVIRONMENT}"
        current = made.lab.exec(EDGE.name, ["cat", f"{state}/current"]).stdout.strip()
        flag = made.lab.exec(EDGE.name, ["test", "-e", f"{state}/slot_b"], check=False)
        previous = "a" if flag.returncode else "b"
        slot = "b" if previous == "a" else "a"
        release = str(max(int(time.time()), int(current) + 1))
        ports = {
            server: made.lab.exec(server, ["cat", f"{state}/ports"]).stdout.split()["ab".index(slot)]
            for server in made.apps
        }
        told = json.loads(made.lab.exec(EDGE.name, ["cat", f"{state}/releases/{current}.json"]).stdout)
        told |= {"id": release, "slot": slot, "image": f"{IMAGE}:{tag}", "digest": digest}
        common = {
            "state": state,
            "release": release,
            "slot": slot,
            "previous": previous,
            "digest": digest,
            "expected_current": current,
            "targets": " ".join(f"{made.lab.host(server).address}:{port}" for server, port in ports.items()),
            # nginx's files stay as they are on such a deployment, so that nothing reads these two.
            "install": "0",
            "upstream_text": "unused",
            "site_text": "unused",
            "site_ours": "1",
            "record": json.dumps(told, sort_keys=True),
            "line": " ".join(
                str(told[key]) for key in ("deployed_at", "deployed_by", "action", "id", "image")
            ),
        }
        app = {
            server: {"port": port, "containers": " ".join(made.containers(server))}
            for server, port in ports.items()
        }
        return cls(common, app)

    def assignments(self, server: str) -> str:
        """Lines that set them, also for what a script starts in the background."""
        values = {**self.common, **self.app.get(server, {})}
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def scripts(plan: Mapping[str, Any], learnt: Learnt) -> dict[str, str]:
    """The driver's scripts, by file name, from a plan of one deployment.

    Args:
        plan: As `fab deploy --dry-run --json` prints it.
        learnt: What stands in front of the scripts.

    Raises:
        AxonError: A script asks for something that is not known here.
    """
    steps = {step["name"]: step["batches"] for step in plan["steps"]}
    texts: dict[str, str] = {}
    for server, inspection in steps["inspect"].items():
        pull, lock = steps["pull"].get(server), steps["lock"].get(server)
        lines = []
        if lock:
            lines += [f"( {_body(inspection)}\necho inspected=yes ) &", _body(lock)]
        elif pull:
            # The script's exit status is that of the pull: it is the one that fails for reasons.
            lines += [
                f"( {_body(inspection)} ) >/dev/null &",
                _body(pull),
                "pulled=$?",
                "wait",
                "exit $pulled",
            ]
        texts[f"open@{server}"] = "\n".join(lines)
    for name in ("start", "switch", "record", "retire"):
        texts |= {f"{name}@{server}": _body(batch) for server, batch in steps[name].items()}
    for server in steps["lock"]:
        # The lock goes with its connection, and the note beside it with the word that a deploy sends and ssh cannot.
        texts[f"record@{server}"] += ' &&\nrm -f "$state/lock.owner"'
    job = f"-floor-{learnt.common['release']}"
    whole = {
        name: learnt.assignments(name.partition("@")[2]) + text.replace(f"-{_RUN}", job) + "\n"
        for name, text in texts.items()
    }
    _refuse_unknown(whole, learnt)
    return whole


def _body(batch: Mapping[str, Any]) -> str:
    """The commands of a batch, each in a subshell of its own as there, the next one only after success."""
    return " &&\n".join(f"( {section['command']}\n)" for section in batch["sections"])


def _refuse_unknown(texts: Mapping[str, str], learnt: Learnt) -> None:
    for name, text in texts.items():
        known = {**learnt.common, **learnt.app.get(name.partition("@")[2], {})}
        unknown = set(re.findall(r"\$\{(\w+):\?", text)) - set(known)
        if unknown:
            raise AxonError(f"The floor does not know {', '.join(sorted(unknown))}, which {name} needs.")


def ssh_config(made: Product, sockets: str) -> str:
    """A file for `ssh -F`: fresh connections, which what follows on the same server shares."""
    hosts = [f"Host {name}\n    HostName {made.lab.host(name).address}\n" for name in made.servers]
    common = f"""\
Host *
    User root
    IdentityFile {ssh_path(made.lab.key_file)}
    IdentitiesOnly yes
    UserKnownHostsFile {ssh_path(made.lab.known_hosts)}
    BatchMode yes
    ControlMaster auto
    ControlPath {sockets}/%n
    ControlPersist 60
"""
    return "".join([*hosts, common])


def _digest(made: Product, tag: str) -> str:
    """The digest of a version, which every server gives the same."""
    server = made.apps[0]
    made.lab.exec(server, ["docker", "pull", "--quiet", f"{IMAGE}:{tag}"])
    told = made.lab.exec(
        server, ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", f"{IMAGE}:{tag}"]
    )
    return str(json.loads(told.stdout)[0]).partition("@")[2]

"""A network that swallows what is sent to one server, at each boundary of the steps.

Nobody is told: no packet says that the connection is gone, on either side. The deploy must notice by itself and end, the
site must be up throughout, and when packets get through again, the next `fab deploy` must succeed and leave what an
ordinary one leaves. Only the deployer is cut off: nginx still reaches the app servers, and clients nginx.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.hosts import GATEWAY
from axon_tasks.lab.prove import commands, stage
from axon_tasks.lab.prove.claims import middle_and_most
from axon_tasks.lab.prove.kills import ORDINARY, chosen, dry_pass
from axon_tasks.lab.prove.site import other
from axon_tasks.lab.prove.stage import Case, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.machine import Dropped
    from axon_tasks.lab.prove.claims import Claim
    from axon_tasks.lab.prove.commands import Ended
    from axon_tasks.lab.prove.options import Options
    from axon_tasks.lab.prove.site import Say

PART = "cuts"

#: Seconds after which the deployer takes a silent server for gone, instead of 30: a cut is tried five times in the time of one.
_PEER_TIMEOUT = 6
#: How long the next deploy waits for the lock of one that the server has not heard the end of: longer than that lock lives.
_PATIENCE = "--wait-lock=60s"
#: How a deploy may end that loses a server: well, if it needed no more of it than to have the old release retired there,
#: which is a warning; failed before or after its switch; or without a server that it could not reach in the first place.
_CODES = frozenset({0, 1, 4, 5})
#: Steps that send something to a server, and do not go on without an answer.
_NEEDED = frozenset({"lock", "inspect", "pull", "start", "switch", "record"})
#: To a server, and from it.
_DIRECTIONS = 2


@dataclass(frozen=True)
class Cut:
    """Where one deployer is cut off, and from whom."""

    boundary: str
    server: str

    @property
    def needed(self) -> bool:
        """Whether the server is cut off before it was sent something whose answer a deploy cannot do without."""
        step, _, rest = self.boundary.partition("@")
        return step in _NEEDED and rest == f"{self.server}:begin"

    @property
    def name(self) -> str:
        """Of the case."""
        return f"{self.server} cut off at {self.boundary} (--at={self.boundary})"


class Cuts:
    """The part of the proof that is about servers which cannot be heard any more.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ends: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.packets: list[float] = []
        self.ended_well: list[str] = []

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Cut servers off, deploy again, and look at what is left.

        Raises:
            AxonError: A deploy that nobody disturbs does not work, or a boundary that was named does not exist.
        """
        dry = dry_pass(lab, ORDINARY)
        names = chosen(dry.boundaries, self.options, self.options.cuts)
        if not names:
            # Kills have times, and boundaries of other deploys, too; what nobody knows must not pass for proven.
            if self.options.only == (PART,) or (self.options.at and "kills" not in self.options.only):
                raise AxonError(
                    "No server was cut off: an ordinary deploy has no boundary that was asked for."
                )
            say("  no boundary of an ordinary deploy was asked for")
            return []
        say(f"  K = {len(dry.boundaries)} boundaries, of which {len(names)} are tried: {', '.join(names)}")
        cuts = {cut.name: cut for cut in planned(dry.boundaries, names)}
        cases = [Case(name, PART) for name in cuts]
        opening = functools.partial(stage.opened, lab, self.options.seed)
        loads = stage.tried(opening, cases, lambda where, case: self.one(where, case, cuts[case.name]), say)
        text = "A server is cut off at a step boundary: the deploy ends by itself, the next one succeeds, and nothing is left"
        facts = {
            "K": len(dry.boundaries), "exit_codes": dict(sorted(self.ends.items())),
            "seconds_until_the_end": middle_and_most(self.seconds), "seconds_until_a_server_is_gone": _PEER_TIMEOUT,
            "packets_dropped": int(sum(self.packets)), "least_packets_dropped": int(min(self.packets, default=0)),
            "ended_well": self.ended_well,
        }  # fmt: skip
        return [
            stage.claim(PART, text, "boundaries", cases, len(names), **facts),
            stage.judge(PART, loads),
        ]

    def one(self, where: Stage, case: Case, cut: Cut) -> None:
        """Cut one deployer off, deploy again, and note what is not as it should be."""
        tag = other(where.tag)
        try:
            done = cut_off(where, tag, cut)
        finally:
            dropped = where.site.lab.mend()
        case.failures += self.lost(cut, done, dropped)
        again = commands.run([*where.site.words(tag), _PATIENCE], where.site.product.folder)
        if again.code:
            case.failures.append(f"the next deploy, of {tag}: {again}")
        notice(where.site.lab, cut.server)
        case.failures += where.site.settle(tag)
        case.dirty = bool(case.failures)
        where.tag = tag

    def lost(self, cut: Cut, done: Ended, dropped: Dropped) -> list[str]:
        """What is wrong with how the deploy ended that was cut off, or with the cut: who was not cut off proves nothing."""
        self.ends[str(done.code)] += 1
        self.seconds.append(done.seconds)
        self.packets.append(dropped.packets)
        found = []
        if done.code == 0:
            self.ended_well.append(f"{cut.server} at {cut.boundary}")
            if cut.needed:
                found.append("it ended well without an answer that it needed")
        if dropped.directions != _DIRECTIONS or not dropped.packets:
            found.append(f"nobody was cut off: {dropped.packets} packets in {dropped.directions} directions")
        if done.code not in _CODES or "Traceback" in done.errors:
            found.append(f"the deploy that was cut off: {done}")
        return found


def planned(boundaries: Sequence[str], names: Sequence[str]) -> list[Cut]:
    """From whom the deployer is cut off at each boundary: the server that it names, else one of all in turn."""
    servers = sorted({_server(name) for name in boundaries} - {""})
    return [Cut(name, _server(name) or servers[number % len(servers)]) for number, name in enumerate(names)]


def _server(boundary: str) -> str:
    """The server of `start@app1:end`; none in `start:end`."""
    return boundary.partition(":")[0].partition("@")[2]


def cut_off(where: Stage, tag: str, cut: Cut) -> Ended:
    """Deploy, and swallow what goes to one server from a boundary on; it stays cut off."""
    site = where.site
    flags = (
        f"--cut-at={cut.boundary}",
        f"--cut={site.lab.host(cut.server).address}",
        f"--peer-timeout={_PEER_TIMEOUT}",
    )
    return commands.run(site.instrumented(tag, *flags), site.product.folder)


def notice(lab: Lab, server: str) -> None:
    """Have a server find out that its peer has gone, as sshd does in time (sshd_config(5): ClientAliveInterval, TCPKeepAlive)."""
    lab.exec(server, ["ss", "-K", "dst", GATEWAY, "sport", "=", ":22"])

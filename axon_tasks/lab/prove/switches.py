"""Deploys under load, one after the other, and what every client got meanwhile.

When is a switch confirmed? At the moment at which the `switch` line of `fab deploy` was read here: whoever watches a
deploy knows from then on that the new release serves. A request that was begun after that, by the one clock of this
machine, and was answered by the old release is a violation. The line comes after the server's own proof, so that this
moment is a little late: a few milliseconds in which an answer of the old release would not be found out. How long
before the line the last request of the old release was begun is told as well (`quiet_ms`): if that is more than those
few milliseconds, there was nothing to be found out in them. In the lab it is some 200 ms, the time of the proof.

The next deploy begins as soon as the prompt is back and its share of the requests was sent, while the release before
the last one still drains.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from axon_tasks.errors import AxonError
from axon_tasks.lab import load
from axon_tasks.lab.bench.figures import Spread
from axon_tasks.lab.bench.product import TAGS
from axon_tasks.lab.prove.claims import Claim, told
from axon_tasks.lab.prove.site import other, scratch, site
from axon_tasks.lab.prove.traffic import towards, traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.commands import Ended
    from axon_tasks.lab.prove.options import Options
    from axon_tasks.lab.prove.site import Say, Site
    from axon_tasks.lab.prove.traffic import Fault, Generator, Tally

PART = "switches"

#: Half of what the load usually has: an upload costs the sample application three times what a page does.
_SHARE_OF_POSTS = 0.15
#: Requests before the first switch, and seconds of load after the last one.
_WARM_UP = 200
_ROLL_ON = 3.0
#: Seconds after which no further switch is begun: what the load's own bound leaves for the last one.
_MAX_SECONDS = load.MAX_SECONDS - 300
#: Failed deploys after which there is nothing more to learn.
_MAX_FAILED = 3


@dataclass(frozen=True)
class Switch:
    """One release that went live.

    Args:
        number: Counts from 1; 0 is the release that was there when the load began.
        tag: Its version.
        containers: The short ids of its containers.
        confirmed: When its switch was confirmed, in seconds of the monotonic clock; 0 for the first.
        seconds: How long its deploy took.
    """

    number: int
    tag: str
    containers: frozenset[str]
    confirmed: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"switch {self.number} to {self.tag}"


class Switches:
    """The part of the proof that is about requests.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Switch under load, and judge every answer.

        Raises:
            AxonError: There is no release to begin with, or the load could not be sent.
        """
        options = self.options
        with site(lab) as made:
            made.must_deploy(TAGS[0])
            settings = towards(
                made.product.domain, seed=options.seed, seconds=load.MAX_SECONDS, post=_SHARE_OF_POSTS
            )
            with traffic(settings, scratch(made)) as generator:
                generator.wait_for(_WARM_UP, time.monotonic() + load.REQUEST_TIMEOUT)
                switched, failures = self._switch(made, generator, say)
                time.sleep(_ROLL_ON)
                tally = generator.finish()
        return judge(tally, switched, failures, options)

    def _switch(self, made: Site, generator: Generator, say: Say) -> tuple[list[Switch], list[str]]:
        """All switches; those that took place, and what failed of the others."""
        total = self.options.switches
        switched, failures = [Switch(0, TAGS[0], made.release()[1])], list[str]()
        began = time.monotonic()
        deadline = began + _MAX_SECONDS
        for number in range(1, total + 1):
            outcome = one_switch(made, number, switched[-1])
            if isinstance(outcome, Switch):
                switched.append(outcome)
            else:
                failures.append(outcome)
            tally = generator.wait_for(self.options.requests * number // total, deadline)
            say(_progress(number, total, outcome, tally))
            if len(failures) >= _MAX_FAILED or time.monotonic() > deadline:
                break
        return switched, failures


def _progress(number: int, total: int, outcome: Switch | str, tally: Tally) -> str:
    what = f"{outcome.seconds:.1f} s" if isinstance(outcome, Switch) else outcome
    rate = tally.sent / tally.seconds if tally.seconds else 0
    return f"  {number}/{total}  {what} · {tally.sent} requests, {rate:.0f} a second, {tally.failed} failed"


def one_switch(made: Site, number: int, before: Switch) -> Switch | str:
    """Deploy the version that does not serve; the switch, or what went wrong."""
    tag = other(before.tag)
    done = made.deploy(tag)
    if done.code:
        return f"deploy {number} (of {tag}): {done}"
    containers = made.release()[1]
    if containers & before.containers or len(containers) != len(made.product.apps):
        return f"deploy {number} (of {tag}): its containers are {sorted(containers)}"
    return Switch(number, tag, containers, confirmed_at(done), done.seconds)


def confirmed_at(done: Ended) -> float:
    """When the switch was told to have been made.

    Raises:
        AxonError: It was not.
    """
    try:
        return done.steps["switch"]
    except KeyError:
        raise AxonError(f"`fab deploy` tells no switch: {done}") from None


# --- the verdict -----------------------------------------------------------------------------------------------


def judge(tally: Tally, switched: Sequence[Switch], failures: Sequence[str], options: Options) -> list[Claim]:
    """What the clients got, held against what was deployed when.

    Args:
        tally: What they got.
        switched: The releases, in their order; the first one was there before.
        failures: The deploys that failed.
        options: How much was wanted.
    """
    tried = len(switched) - 1 + len(failures)
    late, strange = late_answers(tally, switched), strangers(tally, switched)
    facts = figures(tally, switched)
    return [
        Claim(
            PART, "Every request is answered in full, with status 200", "requests",
            tally.sent, tally.failed, options.requests, told(_faults(tally, switched)), facts,
        ),
        Claim(
            PART, "Every answer is the old or the new release's", "answers",
            tally.ok, sum(count for count, _ in strange), options.requests, told([text for _, text in strange]),
        ),
        Claim(
            PART, "No request that was begun after the switch was confirmed is answered by the old release",
            "switches", observed(tally, switched), len(late), options.switches, told(late),
        ),
        Claim(PART, "Every deploy succeeds", "deploys", tried, len(failures), options.switches, told([*failures])),
    ]  # fmt: skip


def last_begun(tally: Tally) -> dict[str, float]:
    """Per container, when the last request was begun that it answered, as whatever version."""
    found: dict[str, float] = {}
    for one in tally.served.values():
        found[one.container] = max(one.last_begun, found.get(one.container, 0.0))
    return found


def observed(tally: Tally, switched: Sequence[Switch]) -> int:
    """After how many switches each container of the new release was seen by clients."""
    seen = {one.container for one in tally.served.values()}
    return sum(one.containers <= seen for one in switched[1:])


def late_answers(tally: Tally, switched: Sequence[Switch]) -> list[str]:
    """Per switch after which the release before it still got requests: by how much."""
    last = last_begun(tally)
    found = []
    for old, new in itertools.pairwise(switched):
        begun = max((last.get(container, 0.0) for container in old.containers), default=0.0)
        if begun > new.confirmed:
            after = (begun - new.confirmed) * 1000
            found.append(
                f"{new}: {old.tag} still answered a request that was begun {after:.0f} ms after the confirmation"
            )
    return found


def strangers(tally: Tally, switched: Sequence[Switch]) -> list[tuple[int, str]]:
    """Answers that are of no release that was deployed: how many, and from whom.

    An answer of a release before the old one is not among them: it would be one that comes late.
    """
    versions = {container: one.tag for one in switched for container in one.containers}
    return [
        (
            one.answers,
            f"{one.answers} answers of container {one.container or 'unknown'}, which says that it is {one.version}",
        )
        for one in tally.served.values()
        if versions.get(one.container) != one.version
    ]


def _faults(tally: Tally, switched: Sequence[Switch]) -> list[str]:
    return [f"{fault}; {_when(fault, switched)}" for fault in tally.faults]


def _when(fault: Fault, switched: Sequence[Switch]) -> str:
    """Where a failed request stands among the switches."""
    nearest = min(switched[1:], key=lambda one: abs(one.confirmed - fault.begun), default=None)
    if nearest is None:
        return "before any switch"
    return f"begun {fault.begun - nearest.confirmed:+.3f} s from {nearest}"


def figures(tally: Tally, switched: Sequence[Switch]) -> dict[str, Any]:
    """What else is of interest."""
    last = last_begun(tally)
    quiet = [
        round((new.confirmed - max(begun)) * 1000, 1)
        for old, new in itertools.pairwise(switched)
        if (begun := [last[container] for container in old.containers if container in last])
    ]
    took = [one.seconds for one in switched[1:]]
    return {
        "seconds": tally.seconds,
        "requests_per_second": round(tally.sent / tally.seconds, 1) if tally.seconds else 0,
        "kinds": {name: vars(kind) for name, kind in tally.kinds.items()},
        "sorts": tally.sorts,
        "versions": {name: seen.requests for name, seen in tally.versions.items()},
        "containers": len(tally.served),
        "latency_ms": tally.latency_ms,
        "closed_before_use": tally.bounces,
        "failures": tally.failures,
        "quiet_ms": {"least": min(quiet), "median": Spread.of(quiet).median} if quiet else {},
        "deploy_seconds": {"median": round(Spread.of(took).median, 2), "most": round(max(took), 2)}
        if took
        else {},
    }

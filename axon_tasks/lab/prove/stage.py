"""A site under light load, for parts that break something again and again: each case is judged, and cleaned up after."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab import load
from axon_tasks.lab.bench.product import TAGS
from axon_tasks.lab.prove.claims import Claim, told
from axon_tasks.lab.prove.site import scratch, site
from axon_tasks.lab.prove.traffic import towards, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.site import Say, Site
    from axon_tasks.lab.prove.traffic import Fault, Generator, Tally

#: Clients of each kind, and the mean pause between two of their requests in seconds: enough to notice a gap of a tenth
#: of a second, and little enough to leave the machine to the deploys.
_CLIENTS = 3
_PAUSE = 0.06
#: A stage is left before its load reaches its bound.
_MAX_SECONDS = load.MAX_SECONDS - 600


@dataclass
class Case:
    """One time that something was broken on purpose.

    Args:
        name: What and when, with what is needed to do it again.
        kind: Which claim it belongs to.
        began: In seconds of the monotonic clock.
        ended: Same.
        failures: Why it did not end well.
        dirty: Whether the next case must not begin where this one has left off.
    """

    name: str
    kind: str
    began: float = 0.0
    ended: float = 0.0
    failures: list[str] = field(default_factory=list)
    dirty: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(self.failures)}"


@dataclass
class Stage:
    """A site, the version that serves there, and the load on it.

    Args:
        site: The site.
        tag: The version that served when all was last well.
        generator: The load.
        opened: When it was ready, in seconds of the monotonic clock.
    """

    site: Site
    tag: str
    generator: Generator
    opened: float

    @property
    def worn(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self.opened > _MAX_SECONDS


@dataclass
class Loads:
    """What all loads of a part came to."""

    sent: int = 0
    failed: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def merge(self, others: Loads) -> None:
        """Take those of another round."""
        self.sent += others.sent
        self.failed += others.failed
        self.seconds += others.seconds
        self.faults += others.faults

    def add(self, tally: Tally, cases: Sequence[Case]) -> None:
        """Take one more, and put its failures down to the cases in which they happened."""
        self.sent += tally.sent
        self.failed += tally.failed
        self.seconds += tally.seconds
        for fault in tally.faults:
            case = _case_of(fault, cases)
            self.faults.append(f"{fault}; {case.name if case else 'before the first case'}")
            if case and not any(text.startswith("requests failed") for text in case.failures):
                case.failures.append(
                    f"requests failed, the first one {fault.begun - case.began:.2f} s after its begin: {fault}"
                )


def _case_of(fault: Fault, cases: Sequence[Case]) -> Case | None:
    """The last case that had begun before the request had failed."""
    return next((case for case in reversed(cases) if case.began <= fault.ended), None)


@contextlib.contextmanager
def opened(lab: Lab, seed: int, *, keep_alive: bool = True) -> Iterator[Stage]:
    """A new site that serves and is under load.

    Args:
        lab: Where.
        seed: For what is sent.
        keep_alive: Whether some clients keep their connection. Where nginx is reloaded, it may drop one of their
            requests by itself (README, "Limits").

    Raises:
        AxonError: It could not be deployed, or did not settle.
    """
    with site(lab) as made:
        made.must_deploy(TAGS[0])
        found = made.settle(TAGS[0])
        if found:
            raise AxonError(f"After an ordinary deploy: {'; '.join(found)}")
        kinds = {"keep_alive": _CLIENTS if keep_alive else 0, "one_shot": _CLIENTS}
        settings = towards(made.product.domain, seed=seed, pause=_PAUSE, seconds=load.MAX_SECONDS, **kinds)
        with traffic(settings, scratch(made)) as generator:
            yield Stage(made, TAGS[0], generator, time.monotonic())


def tried(
    opening: Callable[[], contextlib.AbstractContextManager[Stage]],
    cases: Sequence[Case],
    one: Callable[[Stage, Case], None],
    say: Say,
) -> Loads:
    """Try every case, on as few stages as possible: after one that left something behind, the next has a new site.

    Args:
        opening: Gives a stage.
        cases: What to try, in this order; what becomes of each is noted in it.
        one: Tries one case, and notes failures in it.
        say: Called with the progress.
    """
    loads, rest = Loads(), list(cases)
    while rest:
        done: list[Case] = []
        with opening() as stage:
            while rest and not stage.worn and not (done and done[-1].dirty):
                case = rest.pop(0)
                done.append(case)
                _try(stage, case, one)
                number = len(cases) - len(rest)
                say(
                    f"  {number}/{len(cases)}  {case.ended - case.began:.1f} s  {case if case.failures else case.name}"
                )
            tally = stage.generator.finish()
        loads.add(tally, done)
    return loads


def _try(stage: Stage, case: Case, one: Callable[[Stage, Case], None]) -> None:
    case.began = time.monotonic()
    try:
        one(stage, case)
    except AxonError as error:
        case.failures.append(" ".join(str(error).split()))
        case.dirty = True
    case.ended = time.monotonic()


def judge(part: str, loads: Loads) -> Claim:
    """The claim that the site was up throughout."""
    return Claim(
        part,
        "Meanwhile every request is answered in full, with status 200",
        "requests",
        loads.sent,
        loads.failed,
        failures=told(loads.faults),
        facts={"seconds": round(loads.seconds, 1)},
    )


def claim(part: str, text: str, unit: str, cases: Sequence[Case], least: int, **facts: object) -> Claim:
    """A claim about cases."""
    failed = [str(case) for case in cases if case.failures]
    return Claim(part, text, unit, len(cases), len(failed), least, told(failed), facts)

"""`fab deploy` against `fab deploy --sequential`: the table that the project was started with, from Enter to the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from axon_tasks.errors import AxonError
from axon_tasks.lab.bench.figures import Budget, Contender, Ratio, pairs, take_turns
from axon_tasks.lab.bench.product import TAGS, Product, product

if TYPE_CHECKING:
    from axon_tasks.lab.bench.figures import Figure
    from axon_tasks.lab.bench.options import Options
    from axon_tasks.lab.bench.target import Say
    from axon_tasks.lab.lab import Lab

RTTS = (0.0, 50.0)
BUDGET = Budget(3, at_least=True)
JUDGED_AT = 50.0

SEQUENTIAL, DEFAULT, WAITING = "--sequential", "default", "--wait"

FIRST = "first deploy"
REGULAR = "regular deploy with clean-up"
AGAIN = "redeploy of the same image"
TWO = "regular deploy to two app servers"


@dataclass(frozen=True)
class Theirs:
    """A row of the requirement's table (S13): seconds on small cloud machines, before and after.

    Args:
        sequential: One step after the other.
        parallel: As much at once as possible.
    """

    sequential: float
    parallel: float


#: By what was deployed and the round-trip time.
REQUIREMENT: dict[tuple[str, float], Theirs] = {
    (FIRST, 0.0): Theirs(38, 27),
    (REGULAR, 0.0): Theirs(43, 32),
    (AGAIN, 0.0): Theirs(25, 18),
    (FIRST, 50.0): Theirs(45, 31),
    (REGULAR, 50.0): Theirs(50, 35),
}


class Deploys:
    """All of them with a product of its own, and with each version's image pulled anew where that belongs to it.

    Args:
        options: How much.
    """

    def __init__(self, options: Options) -> None:
        self.repeat = options.rounds(5)
        # What has a budget is not left to one slow moment of the machine.
        self.judged = options.rounds(9)
        self.rtts = options.round_trips(RTTS)

    def measure(self, lab: Lab, say: Say) -> list[Figure]:
        """Measure at the round-trip time that the lab has.

        Raises:
            AxonError: A deployment failed, or clients do not get what was deployed.
        """
        figures: list[Figure] = []
        with product(lab, ("app1",)) as one:
            say(f"A {FIRST}, at {lab.rtt:g} ms round-trip time")
            first = {name: _first(one, name) for name in (SEQUENTIAL, DEFAULT)}
            figures += self._turns(FIRST, lab.rtt, first)
            say(f"A {REGULAR}, at {lab.rtt:g} ms round-trip time")
            regular = {
                name: Redeploy(one, name, again=False).contender() for name in (SEQUENTIAL, DEFAULT, WAITING)
            }
            figures += self._turns(REGULAR, lab.rtt, regular)
            say(f"A {AGAIN}, at {lab.rtt:g} ms round-trip time")
            again = {name: Redeploy(one, name, again=True).contender() for name in (SEQUENTIAL, DEFAULT)}
            figures += self._turns(AGAIN, lab.rtt, again)
        with product(lab, ("app1", "app2")) as two:
            say(f"A {TWO}, at {lab.rtt:g} ms round-trip time")
            two.deploy(TAGS[0])
            both = {name: Redeploy(two, name, again=False).contender() for name in (SEQUENTIAL, DEFAULT)}
            figures += self._turns(TWO, lab.rtt, both)
        return figures

    def _turns(self, what: str, rtt: float, contenders: dict[str, Contender[str]]) -> list[Figure]:
        has_budget = what == REGULAR and rtt == JUDGED_AT
        seconds = take_turns(contenders, self.judged if has_budget else self.repeat, warm_up=0)
        figures: list[Figure] = []
        for name in contenders:
            if name != SEQUENTIAL:
                budget = BUDGET if has_budget and name == DEFAULT else None
                figures.append(
                    Ratio("deploy", what, rtt, budget, SEQUENTIAL, name, pairs(seconds, SEQUENTIAL, name))
                )
        return figures


def flags(name: str) -> tuple[str, ...]:
    """What a contender adds to the command line."""
    return () if name == DEFAULT else (name,)


def _first(made: Product, name: str) -> Contender[str]:
    """Nothing of the product is on the servers, and no image of it either."""

    def prepare() -> None:
        made.remove()
        for tag in TAGS:
            made.forget_image(tag)

    def run() -> str:
        made.deploy(TAGS[0], *flags(name))
        return TAGS[0]

    return Contender(run, made.serves, prepare)


class Redeploy:
    """A version takes over from one that serves.

    Args:
        made: The product.
        name: The contender: what is added to the command line, or `default`.
        again: Whether the version that serves is deployed once more; otherwise one whose image must be pulled.
    """

    def __init__(self, made: Product, name: str, *, again: bool) -> None:
        self.made = made
        self.name = name
        self.again = again
        self.tag = ""

    def prepare(self) -> None:
        """Wait until nothing goes on any more, and choose."""
        self.made.settle()
        self.tag = self.made.version() if self.again else self.made.other()
        if not self.again:
            self.made.forget_image(self.tag)

    def run(self) -> str:
        """From Enter to the prompt."""
        self.made.deploy(self.tag, *flags(self.name))
        return self.tag

    def check(self, tag: str) -> None:
        """Hold the contender to what it says it does.

        Raises:
            AxonError: Clients do not get the version, or the clean-up was to be waited for and was not.
        """
        retired = self.made.retired()  # looked at first: a clean-up in the background would have time to end
        self.made.serves(tag)
        if self.name != DEFAULT and not retired:
            raise AxonError(f"`fab deploy {self.name}` came back before the old release was retired.")

    def contender(self) -> Contender[str]:
        """The same for `take_turns`."""
        return Contender(self.run, self.check, self.prepare)

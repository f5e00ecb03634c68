"""Everything in one run: the parts, one after the other."""

from __future__ import annotations

import importlib
import json
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from axon_tasks.errors import AxonError
from axon_tasks.lab.prove.claims import Claim, claim_from
from axon_tasks.lab.prove.options import PARTS, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from axon_tasks.lab.lab import Lab
    from axon_tasks.lab.prove.site import Say

#: Per part its module beside this one, and the class in it; a new part is a line here and a name in `options.PARTS`.
REGISTRY = {
    "switches": ("switches", "Switches"),
    "kills": ("kills", "Kills"),
    "cuts": ("cuts", "Cuts"),
    "races": ("races", "Races"),
    "inputs": ("inputs", "Inputs"),
    "secrets": ("secrets", "Secrets"),
}


class Part(Protocol):
    """One part of the proof."""

    def prove(self, lab: Lab, say: Say) -> list[Claim]:
        """Try its claims in a lab that is up, and leave nothing there."""


@dataclass(frozen=True)
class Results:
    """What one run gave.

    Args:
        claims: All claims, by part in the order of the parts.
        facts: The machine, the versions and the commit.
        options: How much was tried.
        seconds: How long each part took.
    """

    claims: tuple[Claim, ...]
    facts: Mapping[str, Any]
    options: Mapping[str, Any]
    seconds: Mapping[str, float]

    @property
    def broken(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for claim in self.claims if not claim.holds]

    def as_json(self) -> str:
        """All of it, for programs."""
        figures = [{**one.as_dict(), "command": self.command(one.part)} for one in self.claims]
        content = {**self.facts, "options": self.options, "seconds": self.seconds, "claims": figures}
        return json.dumps(content, indent=2) + "\n"

    def command(self, part: str) -> str:
        """What to type to try a part's claims again, in the same way."""
        return command(part, self.options)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read back what `as_json` wrote."""
        content = json.loads(text)
        figures, options, seconds = (content.pop(name) for name in ("claims", "options", "seconds"))
        claims = [claim_from({k: v for k, v in one.items() if k != "command"}) for one in figures]
        return cls(tuple(claims), content, options, seconds)


def command(part: str, options: Mapping[str, Any]) -> str:
    """What to type to try a part's claims again: the flags that are not what they usually are."""
    usual = asdict(Options())
    words = [f"--only={part}", f"--seed={options['seed']}"]
    counts = {
        "switches": ("switches", "requests"), "kills": ("kills", "boundaries"), "races": ("races",),
        "inputs": ("inputs",), "cuts": ("cuts",),
    }  # fmt: skip
    changed = [name for name in counts.get(part, ()) if options[name] != usual[name]]
    words += [f"--{name}={options[name]}" for name in changed]
    if part in {"kills", "cuts"} and options["at"]:
        words.append(f"--at={','.join(options['at'])}")
    return shlex.join(["invoke", "prove", *words])


def part(name: str, options: Options) -> Part:
    """One part, ready to be tried."""
    module, made = REGISTRY[name]
    found: Part = getattr(importlib.import_module(f"{__package__}.{module}"), made)(options)
    return found


def run(
    lab: Lab,
    options: Options,
    say: Say,
    clock: Callable[[], float],
    make: Callable[[str, Options], Part] | None = None,
) -> Iterator[tuple[str, list[Claim], float]]:
    """Start the lab if needed and try everything, one part after the other.

    Args:
        lab: Where.
        options: How much.
        say: Called with what is being done.
        clock: Seconds.
        make: Gives a part by name; default: `part`.

    Yields:
        Each part when it has ended: its name, its claims, and how long it took.
    """
    lab.up(say)
    for name in PARTS:
        if name in options.only:
            say(f"\n== {name}")
            began = clock()
            tried = (make or part)(name, options)
            yield name, _tried(name, tried, lab, say), clock() - began


def _tried(name: str, tried: Part, lab: Lab, say: Say) -> list[Claim]:
    """A part's claims; a part that could not be carried out is a claim that does not hold, and hides no other."""
    try:
        return tried.prove(lab, say)
    except AxonError as error:
        failure = " ".join(str(error).split())
        return [Claim(name, "This part can be carried out", "parts", 1, 1, failures=(failure,))]


def results(
    claims: Sequence[Claim], options: Options, facts: Mapping[str, Any], seconds: Mapping[str, float]
) -> Results:
    """Put together what is kept."""
    return Results(tuple(claims), facts, asdict(options), dict(seconds))

"""The claims as text: for the terminal, and as Markdown for the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.lab.prove.claims import Claim
    from axon_tasks.lab.prove.suite import Results

_HEAD = ("PART", "CASES", "FAILED", "VERDICT", "CLAIM")


def table(claims: Sequence[Claim]) -> str:
    """One line per claim, and below each that does not hold, the cases in which it did not."""
    rows = [_HEAD, *(_row(claim) for claim in claims)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for line, claim in reversed(list(enumerate(claims, start=1))):
        lines[line + 1 : line + 1] = [f"    {failure}" for failure in _failures(claim)]
    return "\n".join(lines)


def _row(claim: Claim) -> tuple[str, ...]:
    return claim.part, f"{number(claim.cases)} {claim.unit}", number(claim.failed), claim.verdict, claim.claim


def _failures(claim: Claim) -> list[str]:
    found = [f"- {failure}" for failure in claim.failures]
    if claim.failed > len(claim.failures) > 0:
        found.append(f"- and {claim.failed - len(claim.failures)} more")
    if claim.cases < claim.least:
        found.append(f"- {number(claim.least)} {claim.unit} were wanted")
    return found


def number(amount: int) -> str:
    """A number for people: thousands apart, as SI writes them, with a space that does not break."""
    return f"{amount:,}".replace(",", "\N{NO-BREAK SPACE}")


def markdown(results: Results) -> str:
    """The table for the README, with what to type for each of its lines."""
    lines = ["| claim | cases | failed | command |", "|---|---:|---:|---|"]
    lines += [
        f"| {claim.claim} | {number(claim.cases)} {claim.unit} | {_verdict(claim)} | `{results.command(claim.part)}` |"
        for claim in results.claims
    ]
    return "\n".join([*lines, "", *_notes(results)]) + "\n"


def _verdict(claim: Claim) -> str:
    if claim.holds:
        return f"**{claim.failed}**"
    return f"**{number(claim.failed)}**, does not hold" if claim.failed else "too few cases"


def _notes(results: Results) -> list[str]:
    facts = results.facts
    minutes = sum(results.seconds.values()) / 60
    commit = str(facts.get("commit") or "unknown")[:12]
    about = f"Commit {commit}, {facts.get('date', '')}, {facts.get('cores', '?')} cores, {minutes:.0f} min."
    return [about, *(f"{one.part}: {failure}" for one in results.broken for failure in one.failures)]

"""Round trips, counted from what went through the delay proxies: no knowledge of SSH, and none of our own code.

A round trip here is: bytes go to a server, and an answer comes back. Two of them depend on each other if the second
began after the answer of the first had arrived. What a run waits for is the longest such chain that ends with its last
answer, and it is found from the end: an answer came because of something that had reached that server before, and that
was sent because of the last answer, from whichever server, that the client had before. (The method is known as
critical path analysis of TCP transactions: P. Barford, M. Crovella, IEEE/ACM Transactions on Networking 9(3), 2001.)

One connection carries several conversations, so that the reason of an answer has to be guessed: what a server says
first, and at once, after it was spoken to answers that; what it says later is the result of work, and work arrives as a
script, which is large. So this witness can err by one or two. The other witness is physics: by how much longer the same
thing takes when the way is longer, divided by that; it needs a machine that does nothing else meanwhile.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds by which clocks and schedulers may be wrong: a chunk that arrives is read a moment later.
_TOLERANCE = 0.0005
#: Seconds within which what a server says still belongs to its first answer: that may come in several chunks.
_AT_ONCE = 0.015
#: Bytes of what carries work; to open a channel, to ask for a shell and to log in takes less than 300.
_SCRIPT = 400
#: What every connection begins with, on the side of the client: a greeting, and an offer of algorithms, which is large.
_GREETING = 2


@dataclass(frozen=True)
class Move:
    """One chunk on its way, seen on one server's proxy.

    Args:
        server: The server.
        connection: The number of the connection on that server.
        up: Whether it went to the server.
        sent: When it left its sender.
        arrived: When it reached the other end.
        size: Bytes.
    """

    server: str
    connection: int
    up: bool
    sent: float
    arrived: float
    size: int


@dataclass(frozen=True)
class Traffic:
    """What one run sent and received.

    Args:
        moves: All of it.
    """

    moves: tuple[Move, ...]

    @property
    def connections(self) -> dict[str, int]:
        """How many connections each server had."""
        found = {(move.server, move.connection) for move in self.moves}
        return {
            server: sum(one == server for one, _ in found) for server in sorted({one for one, _ in found})
        }

    @property
    def bytes(self) -> int:
        """Bytes in both directions."""
        return sum(move.size for move in self.moves)

    @property
    def turns(self) -> int:
        """How often a server was spoken to after it had spoken, over all connections: dependent or not."""
        spoke: dict[tuple[str, int], bool] = {}
        turns = 0
        for move in sorted(self.moves, key=attrgetter("arrived")):
            key = (move.server, move.connection)
            turns += move.up and not spoke.get(key, False)
            spoke[key] = move.up
        return turns

    def between(self, since: float, until: float) -> Traffic:
        """What was sent in a time."""
        return Traffic(tuple(move for move in self.moves if since <= move.sent <= until))

    def dependent(self, until: float = float("inf")) -> int:
        """How many round trips one after the other the last answer had to wait for.

        Args:
            until: Answers that arrived later do not count: nobody waited for them.
        """
        return len(self.chain(until))

    def chain(self, until: float = float("inf")) -> list[tuple[Move, Move]]:
        """The round trips that depend on each other, first to last: what was sent, and the answer."""
        answers = sorted((move for move in self.moves if not move.up), key=attrgetter("arrived"))
        talks = _talks(self.moves)
        chain: list[tuple[Move, Move]] = []
        moment = until
        while (answer := _last(answers, moment)) is not None:
            question = _reason(talks[answer.server, answer.connection], answer)
            if question is None:
                # The server spoke first, as sshd does when somebody connects.
                break
            chain.append((question, answer))
            moment = question.sent
        return chain[::-1]


def _talks(moves: Sequence[Move]) -> dict[tuple[str, int], list[Move]]:
    """Each connection as its server saw it: what reached it and what it said, in that order."""
    found: dict[tuple[str, int], list[Move]] = {}
    for move in sorted(moves, key=_at_server):
        found.setdefault((move.server, move.connection), []).append(move)
    return found


def _at_server(move: Move) -> float:
    return move.arrived if move.up else move.sent


def _last(answers: Sequence[Move], moment: float) -> Move | None:
    """The last of some answers, in order of arrival, that the client had at a moment."""
    at = bisect_right(answers, moment + _TOLERANCE, key=attrgetter("arrived"))
    return answers[at - 1] if at else None


def _reason(talk: Sequence[Move], answer: Move) -> Move | None:
    """Why a server gave an answer: see the top of this module."""
    before = talk[: bisect_right(talk, answer.sent, key=_at_server)]
    questions = [move for move in before if move.up]
    if not questions:
        return None
    said_since = sum(not move.up for move in before[before.index(questions[-1]) :])
    # The answer itself is one of those that were said.
    if said_since <= 1 or answer.sent - questions[-1].arrived <= _AT_ONCE:
        return questions[-1]
    scripts = [move for move in questions[_GREETING:] if move.size >= _SCRIPT]
    return scripts[-1] if scripts else questions[-1]

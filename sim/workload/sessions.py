"""Sessions: conversations whose turns follow from one another, as those of coding agents.

A session is a tree of turns. A turn arrives `wait_s` after the one that it follows was answered: the time that a person
thinks or a tool runs. Two turns may follow the same one: the main conversation and a sub-agent, side by side. Each
prompt repeats most of what was said before, so that contexts grow and prefixes are found again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from sim.workload.prompts import cached
from sim.workload.request import Request
from sim.workload.table import FileTable, at_least, fault, real, whole

KEYS: Final = frozenset({"session", "block_tokens", "turns"})

HASH_BITS: Final = 41
"""Hashes of different sessions differ above these bits; recorded ones have fewer (twice `LARGEST_COUNT`)."""


@dataclass(frozen=True)
class Turn:
    """One request of a session."""

    after: int
    """Place of the turn that it follows; -1 for the first."""
    wait_s: float
    input_tokens: int
    output_tokens: int
    runs: tuple[tuple[int, int], ...]
    """Chained hashes of the prompt's whole blocks, as runs (first, count) of consecutive numbers."""


Session = tuple[Turn, ...]


@dataclass(frozen=True)
class Sessions:
    """Recorded sessions. Hashes are numbers of their own session: nothing is shared between sessions."""

    name: str
    block_tokens: int
    sessions: tuple[Session, ...]
    starts_per_s: float | None = None
    """Rate at which they start where the scenario does not say."""

    @property
    def turns(self) -> int:
        """Of all sessions."""
        return sum(map(len, self.sessions))

    def within(self, context_tokens: int) -> "Sessions":
        """The same without turns that a model's context does not hold, and without what follows them."""
        kept = (_within(session, context_tokens) for session in self.sessions)
        return replace(self, sessions=tuple(session for session in kept if session))


def parse(name: str, table: FileTable) -> Sessions:
    """Sessions from rows {"session": any, "block_tokens": N, "turns": [[after, wait_s, input_tokens, output_tokens,
    [[first, count], ...]], ...]}.

    Raises ScenarioError with the place of what is wrong.
    """
    sizes, sessions = table.convert({"block_tokens": at_least(1), "turns": _turns})
    if len(set(sizes)) > 1:
        raise fault(table.file, (), None, None, "block_tokens differ between sessions")
    size = sizes[0]
    table.refuse(
        (row, "turns", f"turns: turn {place}: more than {turn.input_tokens} tokens in blocks of {size}")
        for row, session in enumerate(sessions)
        for place, turn in enumerate(session)
        if sum(count for _, count in turn.runs) > -(-turn.input_tokens // size)
    )
    table.refuse(
        (row, "turns", f"turns: expected chained hashes; {says}")
        for row, session in enumerate(sessions)
        if (says := _unchained(session))
    )
    return Sessions(name, size, tuple(sessions))


def _turns(cell: object) -> Session:
    turns: list[Turn] = []
    for row in _list(cell):
        after, wait_s, prompt, answer, runs = _list(row, 5)
        turn = Turn(
            whole(after, -1), real(wait_s), whole(prompt, 1), whole(answer, 1),
            tuple((whole(first, 0), whole(count, 1)) for first, count in (_list(run, 2) for run in _list(runs))),
        )  # fmt: skip
        if (turn.after < 0) != (not turns) or turn.after >= len(turns):
            raise ValueError(
                f"turn {len(turns)} follows {turn.after}: expected -1 for the first, else one before it"
            )
        if turn.wait_s < 0:
            raise ValueError(f"turn {len(turns)} waits {turn.wait_s:g} s: expected at least 0")
        turns.append(turn)
    if not turns:
        raise ValueError("expected at least one turn")
    return tuple(turns)


def _unchained(session: Session) -> str | None:
    """What contradicts that a hash stands for its block and all before it, and so follows the same one everywhere."""
    runs = {(first, before, count) for turn in session for first, before, count in _chain(turn)}
    reached, earlier = 0, (-1, -1)
    for first, before, count in sorted(runs):
        elsewhere = earlier[1] if first == earlier[0] else first - 1 if first < reached else before
        if before != elsewhere:
            says = ("nothing" if other < 0 else str(other) for other in (before, elsewhere))
            return f"{first} follows {' and '.join(says)}"
        reached, earlier = max(reached, first + count), (first, before)
    return None


def _chain(turn: Turn) -> Iterator[tuple[int, int, int]]:
    """A turn's runs: first hash, the hash before it (-1: none), count."""
    before = -1
    for first, count in turn.runs:
        yield first, before, count
        before = first + count - 1


def _list(cell: object, length: int | None = None) -> list[Any]:
    if not isinstance(cell, list) or (length is not None and len(cell) != length):
        wanted = "a list" if length is None else f"a list of {length}"
        raise ValueError(f"expected {wanted}, got {str(cell)[:40]!r}")
    return cell


def _within(session: Session, context_tokens: int) -> Session:
    place: dict[int, int] = {-1: -1}
    kept: list[Turn] = []
    for index, turn in enumerate(session):
        if turn.after in place and turn.input_tokens + turn.output_tokens <= context_tokens:
            place[index] = len(kept)
            after = place[turn.after]
            kept.append(turn if after == turn.after else replace(turn, after=after))
    return tuple(kept)


class Underway:
    """A session that has begun: what is asked in each of its turns, and how many requests of it are still to end."""

    def __init__(self, number: int, session: Session, every: int, block_tokens: int) -> None:
        """`every`: recorded blocks in one of the run's, which holds `block_tokens` tokens; 0 leaves hashes out."""
        self.turns, self.open = session, 1
        self.followers: list[list[int]] = [[] for _ in session]
        for index, turn in enumerate(session[1:], start=1):
            self.followers[turn.after].append(index)
        self._base = number << HASH_BITS
        self._every, self._block_tokens = every, block_tokens
        self._blocks: dict[int, tuple[int, ...]] = {}

    def blocks(self, index: int) -> tuple[int, ...]:
        """Hashes of a turn's prompt. Kept until `answer_blocks` was asked, since the turn before asks for them too."""
        if not self._every:
            return ()
        if index not in self._blocks:
            runs = (range(self._base + first, self._base + first + n) for first, n in self.turns[index].runs)
            self._blocks[index] = tuple(chain.from_iterable(runs))[self._every - 1 :: self._every]
        return self._blocks[index]

    def answer_blocks(self, index: int) -> tuple[int, ...]:
        """Hashes with which a later turn goes on that begins with this prompt, as far as the answer fills them."""
        turn, own = self.turns[index], self.blocks(index)
        filled = (turn.input_tokens + turn.output_tokens) // self._block_tokens
        self._blocks.pop(index, None)
        for later in map(self.blocks, self.followers[index]):
            if later[len(own) - 1 : len(own)] == own[-1:]:  # chained: the rest is alike, too
                return later[len(own) : filled]
        return ()


class Conversation:
    """`sim.workload.stream.Successors` of sessions: the turns that follow, and the sessions that come after others."""

    def __init__(
        self,
        started: Iterable[Underway],
        waiting: Iterator[Underway] | None,
        closes_s: float,
        fraction: float | None,
    ) -> None:
        """`started`: sessions whose first requests are numbered 0, 1, ...; `waiting`: those that begin where one
        has ended (closed loop), or None; nothing arrives from `closes_s` on."""
        self.full = True
        self._turn_of = {number: (session, 0) for number, session in enumerate(started)}
        self._sent = len(self._turn_of)
        self._waiting, self._closes_s, self._fraction = waiting, closes_s, fraction

    def after(self, left: int, now_s: float) -> tuple[Request, ...]:
        """See `Successors.after`."""
        session, index = self._turn_of.pop(left)
        later = [(turn, now_s + session.turns[turn].wait_s) for turn in session.followers[index]]
        # Whoever would go on after the end still has the place: nobody else takes it.
        session.open += len(later) - 1
        sent = [
            self._send(session, turn, arrival_s) for turn, arrival_s in later if arrival_s < self._closes_s
        ]
        if self._waiting is not None:
            closed = now_s >= self._closes_s
            following = None if closed or session.open else next(self._waiting, None)
            if following is not None:
                sent.append(self._send(following, 0, now_s))
            elif closed or not session.open:
                self.full = False
        return tuple(sent)

    def _send(self, session: Underway, index: int, arrival_s: float) -> Request:
        turn, number = session.turns[index], self._sent
        self._sent += 1
        self._turn_of[number] = session, index
        return Request(
            number, arrival_s, turn.input_tokens, turn.output_tokens,
            cached_tokens=0 if self._fraction is None else int(cached(turn.input_tokens, self._fraction)),
            blocks=session.blocks(index), answer_blocks=session.answer_blocks(index),
        )  # fmt: skip

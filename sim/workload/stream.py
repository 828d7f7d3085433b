"""The requests of a run: the ones known from the start, and the ones that others bring when they leave."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.workload.prompts import Ints, Prompts
from sim.workload.request import Request

Floats = NDArray[np.float64]

DRAWN_AHEAD = 1000
"""Requests that an endless closed loop draws at once: an array costs little more to draw than one number."""


class Successors(Protocol):
    """What clients send because a request of theirs left."""

    @property
    def full(self) -> bool:
        """Whether every place of a closed loop was taken again so far; always true in an open loop."""
        ...

    def after(self, left: int, now_s: float) -> tuple[Request, ...]:
        """What follows from request `left`, which was completed or rejected at `now_s`."""
        ...


class Nobody:
    """Nothing follows: the clients of an open loop send without regard to what became of the last request."""

    full = True

    def after(self, left: int, now_s: float) -> tuple[Request, ...]:
        """See `Successors.after`."""
        return ()


@dataclass(frozen=True)
class AllTurns:
    """What sessions ask for in all, for those who only count."""

    sessions: int
    prompts: Prompts
    """Token counts of every turn of every session, whether a run gets to it or not."""


@dataclass(frozen=True)
class RequestStream:
    """Requests in order, as columns and (by iterating) as objects numbered 0, 1, ..., and what follows from them.

    Open loop: the columns hold every request. Closed loop: `concurrency` requests arrive at time zero and each one
    that leaves brings the next in order, whose `arrival_s` is NaN here; the columns hold every request where
    their number is bounded, else the first `concurrency`, and `following` draws the others. Sessions: the columns
    hold the first request of each that starts at a known time.

    One stream serves one run, because `following` uses it up.
    """

    prompts: Prompts
    arrival_s: Floats
    """Ascending, seconds; NaN at the end for requests that arrive when others leave."""
    concurrency: int | None = None
    """Requests (or sessions) in flight in a closed loop; None in an open loop."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what was decided on the way, such as rows of a trace that were left out."""
    successors: Successors = field(default_factory=Nobody, repr=False, compare=False)
    turns: AllTurns | None = None
    """None where requests do not come in sessions."""
    draws_at_least: int | None = None
    """Tokens, prompt and answer, that no request falls below which is still to be drawn; None: all are drawn."""
    most: int | None = None
    """Requests that arrive at most, those that follow included; None: all of them."""

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __iter__(self) -> Iterator[Request]:
        return self.prompts.requests(0, self.arrival_s.tolist())

    @property
    def known_until_s(self) -> float:
        """The last time that is known of a request, NaN where it follows from others; 0 without requests."""
        return float(self.arrival_s[-1]) if len(self) else 0.0

    @property
    def last_arrival_s(self) -> float | None:
        """When the last request arrives; None where that depends on how fast others are served, or nobody comes."""
        if self.concurrency is not None or self.turns is not None or not len(self):
            return None
        return float(self.arrival_s[-1])

    @property
    def input_tokens(self) -> Ints:
        """Prompt tokens, at least 1."""
        return self.prompts.input_tokens

    @property
    def output_tokens(self) -> Ints:
        """Tokens of the answer, at least 1."""
        return self.prompts.output_tokens

    @property
    def cached_tokens(self) -> Ints:
        """Prompt tokens that hit the prefix cache where there are no `blocks` to look up; below `input_tokens`."""
        return self.prompts.cached_tokens

    @property
    def blocks(self) -> Sequence[tuple[int, ...]]:
        """Chained hashes of each prompt's blocks of `block_tokens` tokens; empty where none are known."""
        return self.prompts.blocks

    @property
    def block_tokens(self) -> int | None:
        """Prompt tokens of one of the `blocks`; the last one of a prompt may hold fewer."""
        return self.prompts.block_tokens

    @property
    def least_tokens(self) -> int | None:
        """Tokens, prompt and answer, that no request falls below; None where there are none."""
        every = self.turns.prompts if self.turns else self.prompts
        if not len(every):
            return None
        drawn = int((every.input_tokens + every.output_tokens).min())
        return drawn if self.draws_at_least is None else min(drawn, self.draws_at_least)

    @property
    def full(self) -> bool:
        """See `Successors.full`. A closed loop is measured until this ends."""
        return self.successors.full

    @property
    def ends(self) -> bool:
        """Whether nothing ever follows from requests that leave."""
        return isinstance(self.successors, Nobody)

    def following(self, left: int, now_s: float) -> tuple[Request, ...]:
        """The requests that arrive because request `left` was completed or rejected at `now_s`.

        They are numbered on from the last one, and arrive at their own `arrival_s`, at or after `now_s`.
        """
        return self.successors.after(left, now_s)


class ClosedLoopStream:
    """One request for each that leaves before `closes_s`, as long as there are more."""

    def __init__(self, rest: Iterator[Request], closes_s: float) -> None:
        self._rest, self._closes_s = rest, closes_s
        self.full = True

    def after(self, left: int, now_s: float) -> tuple[Request, ...]:
        """See `Successors.after`."""
        request = next(self._rest, None) if now_s < self._closes_s else None
        if request is None:
            self.full = False
            return ()
        return (replace(request, arrival_s=now_s),)


def closed_loop(
    draw: Callable[[int], Prompts],
    concurrency: int,
    count: int | None = None,
    closes_s: float = np.inf,
    notes: tuple[str, ...] = (),
) -> RequestStream:
    """`concurrency` requests at time zero, then one for each that leaves before `closes_s`, up to `count` in all.

    `draw(n)` gives the next n prompts, or fewer where they run out.
    """
    prompts = draw(concurrency if count is None else count)
    first = min(concurrency, len(prompts))
    arrival_s = np.full(len(prompts), np.nan)
    arrival_s[:first] = 0.0
    rest = prompts[first:].requests(first, arrival_s[first:].tolist())
    if count is None:
        rest = itertools.chain(rest, _endless(draw, len(prompts)))
    return RequestStream(prompts, arrival_s, concurrency, notes, ClosedLoopStream(rest, closes_s))


def _endless(draw: Callable[[int], Prompts], number: int) -> Iterator[Request]:
    while True:
        prompts = draw(DRAWN_AHEAD)
        yield from prompts.requests(number, [np.nan] * len(prompts))
        number += len(prompts)

"""The requests of a run: those whose arrival is known, and those that others bring when they leave."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sim.workload.prompts import Prompts
from sim.workload.request import Request

Floats = NDArray[np.float64]
Follow = Callable[[int, float], Request | None]


def _nothing(left: int, now_s: float) -> Request | None:
    return None


@dataclass(frozen=True)
class RequestStream:
    """Requests of known arrival, and what follows when one of them leaves.

    Iterating gives the requests of known arrival, numbered 0, 1, ... in order of arrival; `prompts` and `arrival_s`
    hold the same as columns. Open loop: every arrival is known. Closed loop: `concurrency` requests arrive at time
    zero, and each one that leaves brings the next. One stream serves one run: `next` uses it up.
    """

    prompts: Prompts
    arrival_s: Floats
    """Ascending, seconds."""
    concurrency: int | None = None
    """Requests in flight in a closed loop; None in an open loop."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what was decided on the way, such as rows of a trace that were left out."""
    follow: Follow = field(default=_nothing, repr=False, compare=False)

    def __len__(self) -> int:
        """Requests of known arrival."""
        return len(self.arrival_s)

    def __iter__(self) -> Iterator[Request]:
        return self.prompts.requests(0, self.arrival_s.tolist())

    def next(self, left: int, now_s: float) -> Request | None:
        """The request that arrives because request `left` was completed or rejected at `now_s`, if any.

        It is numbered on from the last, and arrives at its own `arrival_s`, at or after `now_s`.
        """
        return self.follow(left, now_s)


def open_loop(prompts: Prompts, arrival_s: Floats, notes: tuple[str, ...] = ()) -> RequestStream:
    """Requests that arrive whatever becomes of the others."""
    return RequestStream(prompts, arrival_s, notes=notes)


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
    first = draw(concurrency if count is None else min(concurrency, count))
    rest = _drawn_ahead(draw, len(first), count)

    def follow(left: int, now_s: float) -> Request | None:
        request = next(rest, None) if now_s < closes_s else None
        return request and replace(request, arrival_s=now_s)

    return RequestStream(first, np.zeros(len(first)), concurrency, notes, follow)


def _drawn_ahead(draw: Callable[[int], Prompts], number: int, count: int | None) -> Iterator[Request]:
    """Requests from `number` on, drawn a thousand at a time because one array is as cheap to draw as one number."""
    while prompts := draw(1000 if count is None else min(1000, count - number)):
        yield from prompts.requests(number, [np.nan] * len(prompts))
        number += len(prompts)

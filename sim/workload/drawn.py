"""Requests of an open loop that are drawn as they arrive, so that nothing is kept of those that have: for a summary."""

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.workload.prompts import Prompts
from sim.workload.request import Request

Floats = NDArray[np.float64]
Draw = Callable[[], Iterator[tuple[Floats, Prompts]]]
Counting = Callable[[int, int], None] | None
"""Told (0, requests counted so far), at most every `REPORT_EVERY_S`: the first of them is not served before all are
counted, which for a billion takes a minute or two."""

REPORT_EVERY_S: Final = 1.0


class DrawnStream:
    """The requests that `sim.workload.requests` would give, some ten thousands at a time. See `RequestStream`."""

    concurrency = most = block_tokens = None
    full = ends = True

    def __init__(self, draw: Draw, counting: Counting = None) -> None:
        """`draw`: all of them from the start, each time it is called: once here, to know how many there are."""
        self.notes: tuple[str, ...] = ()
        self._draw, self._count = draw, 0
        self.known_until_s = 0.0
        self.least_tokens: int | None = None
        reported_s = time.monotonic()
        for times, prompts in draw():
            if len(times):
                self._count += len(times)
                self.known_until_s = float(times[-1])
                least = int((prompts.input_tokens + prompts.output_tokens).min())
                self.least_tokens = least if self.least_tokens is None else min(least, self.least_tokens)
            if counting and time.monotonic() - reported_s >= REPORT_EVERY_S:
                counting(0, self._count)
                reported_s = time.monotonic()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Request]:
        first = 0
        for times, prompts in self._draw():
            yield from prompts.requests(first, times.tolist())
            first += len(times)

    @property
    def last_arrival_s(self) -> float | None:
        """See `RequestStream`."""
        return self.known_until_s if self._count else None

    def following(self, left: int, now_s: float) -> tuple[Request, ...]:
        """Nothing: nobody waits for anybody."""
        return ()

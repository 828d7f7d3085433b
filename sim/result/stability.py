"""Whether an open-loop run kept up with its arrivals.

The backlog Q(t) is the number of requests that have arrived and have no first token yet. Every queue of the service
lies before the first token, so an overloaded service shows there, whichever pool is short; requests that are merely
being generated, and fill up an empty system for as long as one answer takes, do not.

Where prompts are computed before anything is decoded, an overload hides in answers that hardly advance, but only until
the batch is full: on such workers 20% too much was found in all runs of 1,500 requests, 50% in all of 500. Answers
themselves are not counted, because their number grows in the same way while a stable service fills that decodes more
slowly the more it holds. A run that ends before its first answers do is too short to tell.

A queue that is just critically loaded behaves as a random walk that cannot go below zero. The run is called
unstable where its backlog does what such a walk hardly does, in one of two ways:

- it grows: cut the second half of the window into K = 16 blocks; the increments d_k of Q over them would have mean
  zero, so t = mean(d) / (sd(d) / sqrt(K)) above the 99% point of Student's t with K - 1 degrees of freedom is
  growth (stable queues return to their level, which only makes t smaller);
- it stands: Q never falls below 2.5 sqrt(A) during the second half, A being the arrivals until its end. With Poisson
  arrivals and departures the walk has a standard deviation of sqrt(A) at half time. This finds a service that was
  overloaded early and never caught up, as with traces whose rate falls.

Both count only if they matter (1% and 2% of A), and only if requests of the second half waited twice as long for
their first token as the first ones in the empty system: otherwise the backlog is a pipeline that has filled.

Found on simulated paths (M/M/1; see tests/result/test_stability.py): false alarms in 1 to 2% of runs of 100 requests
at 95% load, none of 300 runs each of 1,000 or more; overload of 50% is found in 40% of runs of 100 requests, 90% of
300, all of 1,000; of 20% in 82% of 1,000; of 5% in 64% of 10,000 and 97% of 30,000. A burst that outlasts half the
window is an overload as far as anyone can tell.
"""

import math
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCKS = 16
T_99 = 2.602
"""The 99% point of Student's t with 15 degrees of freedom."""
STANDING = 2.5
"""Standard deviations of a critical queue's length at half time."""
LEAST_GROWTH = 0.01
LEAST_STANDING = 0.02
"""Shares of all arrivals below which a backlog does not matter."""
LONGER_WAIT = 2.0
"""Time to first token in the second half over that in the empty system."""
FIRST_SHARE = 1 / 16
"""Share of the requests that stands for the empty system."""


class Backlog(Protocol):
    """Who waits for a first token, over time."""

    def arrived(self, until_s: float) -> int:
        """Requests that have come by then, that moment included."""
        ...

    def waiting(self, times_s: Floats) -> NDArray[np.int64]:
        """Requests that wait at each of these moments."""
        ...

    def lowest(self, start_s: float, end_s: float) -> int:
        """The fewest that waited between these moments: just after someone left. All that came, if nobody left."""
        ...

    def wait_s(self, start_s: float, end_s: float) -> float:
        """The mean wait of those that came between these moments; infinite where one of them waits for ever."""
        ...

    def first_wait_s(self, share: float) -> float:
        """The mean wait of so many of all, the first ones."""
        ...


class Queue:
    """A backlog by its requests."""

    def __init__(self, arrival_s: Floats, left_s: Floats) -> None:
        """When each came, ascending, and when it got its first token, NaN if never."""
        left_s = np.where(np.isnan(left_s), np.inf, left_s)
        self._arrival_s, self._waits_s = arrival_s, left_s - arrival_s
        self._leaving_s = np.sort(left_s)

    def arrived(self, until_s: float) -> int:
        """See `Backlog`."""
        return int(np.searchsorted(self._arrival_s, until_s, side="right"))

    def waiting(self, times_s: Floats) -> NDArray[np.int64]:
        """See `Backlog`."""
        served = np.searchsorted(self._leaving_s, times_s, side="right")
        return np.searchsorted(self._arrival_s, times_s, side="right") - served

    def lowest(self, start_s: float, end_s: float) -> int:
        """See `Backlog`."""
        left_s = self._leaving_s
        leaving = self.waiting(left_s[(left_s >= start_s) & (left_s <= end_s)])
        return int(leaving.min(initial=self.arrived(end_s)))

    def wait_s(self, start_s: float, end_s: float) -> float:
        """See `Backlog`."""
        return float(self._waits_s[(self._arrival_s >= start_s) & (self._arrival_s <= end_s)].mean())

    def first_wait_s(self, share: float) -> float:
        """See `Backlog`."""
        return float(self._waits_s[: max(1, int(len(self._arrival_s) * share))].mean())


def backlog_grows(backlog: Backlog, window_s: tuple[float, float]) -> bool:
    """Whether more requests arrived than were served; see the module.

    Args:
        backlog: of every request that was not rejected, from the beginning of the run.
        window_s: the measurement window, which ends with the last arrival.
    """
    start_s, end_s = window_s
    half_s = (start_s + end_s) / 2
    arrived = backlog.arrived(end_s)
    if end_s <= start_s or arrived - backlog.arrived(np.nextafter(half_s, -np.inf)) < BLOCKS:
        return False
    if backlog.wait_s(half_s, end_s) < LONGER_WAIT * backlog.first_wait_s(FIRST_SHARE):
        return False
    edges = backlog.waiting(np.linspace(half_s, end_s, BLOCKS + 1))
    steps = np.diff(edges)
    grows = steps.mean() > T_99 * steps.std(ddof=1) / math.sqrt(BLOCKS)
    if grows and edges[-1] >= LEAST_GROWTH * arrived:
        return True
    # The backlog is lowest just after someone left.
    lowest = min(edges.min(), backlog.lowest(half_s, end_s))
    return bool(lowest >= max(STANDING * math.sqrt(arrived), LEAST_STANDING * arrived))


class QueueOverTime:
    """A backlog by how many came and left in each of many equal parts of the time, which a summary keeps.

    It is told to the end of a part: the parts double where arrivals outlast them, so that there are always more than
    2,000 in the second half of a window that ends with the last arrival. Those that leave later, which may be much
    later, are counted in parts that double with the time, since arrivals to come may outlast these as well.
    """

    PARTS: Final = 8192
    SHORTEST_S: Final = 2.0**-20

    def __init__(self) -> None:
        self._part_s = self.SHORTEST_S
        self._came = np.zeros(self.PARTS, dtype=np.int64)
        self._wait_s = np.zeros(self.PARTS)
        """Of those that came in each part."""
        self._left = np.zeros(self.PARTS, dtype=np.int64)
        """After the equal parts half as many that are twice as long, then as many four times as long, ..."""

    def add(self, arrival_s: Floats, left_s: Floats) -> None:
        """More requests; see `Queue`."""
        self.resolve(arrival_s.max(initial=0.0))
        at = self._part(arrival_s)
        self._came += np.bincount(at, minlength=self.PARTS)
        self._wait_s += np.bincount(
            at, np.where(np.isnan(left_s), np.inf, left_s) - arrival_s, minlength=self.PARTS
        )
        left = np.bincount(self._part(left_s[~np.isnan(left_s)]), minlength=len(self._left))
        left[: len(self._left)] += self._left
        self._left = left

    def resolve(self, until_s: float) -> None:
        """Let the equal parts reach beyond that time: what is asked must lie within them."""
        half = self.PARTS // 2
        while until_s >= self._part_s * self.PARTS:
            self._part_s *= 2
            for column in (self._came, self._wait_s):
                column[:half] = column[: self.PARTS : 2] + column[1 : self.PARTS : 2]
                column[half:] = 0
            pairs = self._left[: self.PARTS].reshape(half, 2).sum(axis=1)
            self._left = np.append(pairs, self._left[self.PARTS :])
            self._left = np.append(self._left, np.zeros(max(0, self.PARTS - len(self._left)), dtype=np.int64))

    def arrived(self, until_s: float) -> int:
        """See `Backlog`."""
        return int(self._came[: int(until_s / self._part_s) + 1].sum())

    def waiting(self, times_s: Floats) -> NDArray[np.int64]:
        """See `Backlog`."""
        return self._waiting()[self._part(times_s)]

    def lowest(self, start_s: float, end_s: float) -> int:
        """See `Backlog`."""
        first, last = self._part(np.array([start_s, end_s]))
        return int(self._waiting()[first : last + 1].min())

    def wait_s(self, start_s: float, end_s: float) -> float:
        """See `Backlog`."""
        first, last = self._part(np.array([start_s, end_s]))
        came = self._came[first : last + 1].sum()
        return float(self._wait_s[first : last + 1].sum() / came) if came else 0.0

    def first_wait_s(self, share: float) -> float:
        """See `Backlog`."""
        came = np.cumsum(self._came)
        last = int(came.searchsorted(max(1, int(came[-1] * share))))
        return float(self._wait_s[: last + 1].sum() / came[last])

    def _waiting(self) -> NDArray[np.int64]:
        """At the end of each of the equal parts."""
        return np.cumsum(self._came - self._left[: self.PARTS])

    def _part(self, times_s: Floats) -> NDArray[np.int64]:
        """Numbers of the parts, as in `_left`."""
        parts = times_s / self._part_s
        doublings = np.maximum(np.frexp(parts / self.PARTS)[1], 0)
        numbers: Floats = np.floor(np.ldexp(parts, -doublings)) + doublings * (self.PARTS // 2)
        return numbers.astype(np.int64)

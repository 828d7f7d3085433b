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


def backlog_grows(arrival_s: Floats, first_token_s: Floats, window_s: tuple[float, float]) -> bool:
    """Whether more requests arrived than were served; see the module.

    Args:
        arrival_s: of every request that was not rejected, ascending, from the beginning of the run.
        first_token_s: of the same; NaN where it never came.
        window_s: the measurement window, which ends with the last arrival.
    """
    start_s, end_s = window_s
    half_s = (start_s + end_s) / 2
    late = (arrival_s >= half_s) & (arrival_s <= end_s)
    if end_s <= start_s or late.sum() < BLOCKS:
        return False
    left_s = np.where(np.isnan(first_token_s), np.inf, first_token_s)
    wait_s = left_s - arrival_s
    first = max(1, int(len(arrival_s) * FIRST_SHARE))
    if wait_s[late].mean() < LONGER_WAIT * wait_s[:first].mean():
        return False
    left_s = np.sort(left_s)

    def backlog(times_s: Floats) -> NDArray[np.int64]:
        served = np.searchsorted(left_s, times_s, side="right")
        return np.searchsorted(arrival_s, times_s, side="right") - served

    arrived = int(np.searchsorted(arrival_s, end_s, side="right"))
    edges = backlog(np.linspace(half_s, end_s, BLOCKS + 1))
    steps = np.diff(edges)
    grows = steps.mean() > T_99 * steps.std(ddof=1) / math.sqrt(BLOCKS)
    if grows and edges[-1] >= LEAST_GROWTH * arrived:
        return True
    # The backlog is lowest just after someone left.
    leaving = backlog(left_s[(left_s >= half_s) & (left_s <= end_s)])
    lowest = min(edges.min(), leaving.min(initial=arrived))
    return bool(lowest >= max(STANDING * math.sqrt(arrived), LEAST_STANDING * arrived))

"""The measurement window, and its tokens: what is said of throughput, and what is priced."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RequestSummary, RequestTable, RunRecord, Tokens

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST_STAYS: Final = 3
"""Times that a request stays in service, in a window that tells how the service goes on."""
STEADY_ARRIVALS: Final = 16
"""Requests that arrive in its second half at least; fewer tell nothing of a backlog (`sim.result.stability`)."""


class Window:
    """The measurement window. In a closed loop its end is known only when it is reached."""

    def __init__(self, start_s: float, end_s: float = math.inf) -> None:
        self.start_s = start_s
        self.end_s = end_s
        self.steady = True
        """Known after the run; where it is not, the whole run after the warm-up is measured."""


Asked = RequestTable | RequestSummary


def is_steady(requests: Asked, window_s: tuple[float, float]) -> bool:
    """Whether a window between warm-up and last arrival shows a service that goes on, rather than work that ends.

    A run starts empty, so its window lacks what a service under way would have had to generate at its beginning: half
    of the answers of one stay, at a steady rate. It is steady where it lasts three mean stays or more, which makes
    this a sixth of its tokens at most, and where at least 16 requests arrive in its second half. A stay is prefill and
    decode, without the waits before and between them, which are the longer the more the service is overloaded.
    """
    start_s, end_s = window_s
    stay_s = requests.mean_stay_s()
    late = requests.late_arrivals(((start_s + end_s) / 2, end_s), STEADY_ARRIVALS)
    if stay_s is None or late < STEADY_ARRIVALS:
        return False
    return end_s - start_s >= LEAST_STAYS * stay_s


def can_tell_growth(requests: Asked, window_s: tuple[float, float]) -> bool:
    """Whether arrivals in a window last long enough for a backlog to mean an overload, and not just a burst.

    They do where a request that nobody hindered would have stayed in service three times in turn. Its stay is the
    shortest of the answers of at least mean length: an overload makes the others long.
    """
    stay_s = requests.unhindered_stay_s()
    return stay_s is not None and window_s[1] - window_s[0] >= LEAST_STAYS * stay_s


def whole_run(requests: Asked, warmup_s: float, end_s: float) -> tuple[float, float]:
    """From the end of the warm-up, or the first arrival if that is later, to the last completion; empty where all
    requests came in the warm-up."""
    arrivals_s = requests.arrivals_s()
    if arrivals_s is None or arrivals_s[1] < warmup_s:
        return warmup_s, warmup_s
    start_s = max(warmup_s, arrivals_s[0])
    return start_s, max(start_s, end_s)


def window_length_s(record: RunRecord) -> float:
    """Length of the measurement window; 0 where the run ended before its warm-up did."""
    start_s, end_s = record.window_s
    return end_s - start_s


def tokens_in_window(record: RunRecord) -> Tokens:
    """Tokens of the window; none where it is empty. See `tokens_within`."""
    if window_length_s(record) == 0:
        return Tokens(0.0, 0.0, 0.0)
    if record.summary is not None:
        return record.summary.tokens(record.window_s)
    return tokens_within(record.requests, record.window_s, record.end_s)


def tokens_within(table: RequestTable, window_s: tuple[float, float], end_s: float) -> Tokens:
    """Tokens of these requests that were served in the window; what is in flight is so until `end_s`.

    A prompt counts evenly from its prefill's start to its end, cached tokens in proportion; an answer with its first
    token when that came, and the others evenly from then to the finish. So a request that runs into the window or
    out of it counts with the part that lies inside.
    """
    last_s = np.where(np.isnan(table.finish_s), end_s, table.finish_s)
    first = within(table.first_token_s, window_s) * np.minimum(table.generated_tokens, 1)
    later = _share(table.first_token_s, last_s, window_s) * np.maximum(table.generated_tokens - 1, 0)
    prompts = _share(table.prefill_start_s, table.prefill_end_s, window_s)
    return Tokens(
        cached=float((prompts * table.cached_tokens).sum()),
        uncached=float((prompts * (table.input_tokens - table.cached_tokens)).sum()),
        output=float((first + later).sum()),
    )


def within(times_s: Floats, window_s: tuple[float, float]) -> Flags:
    """Which times lie in the window; NaN does not."""
    inside: Flags = (times_s >= window_s[0]) & (times_s <= window_s[1])
    return inside


def _share(start_s: Floats, end_s: Floats, window_s: tuple[float, float]) -> Floats:
    """The share of each interval that lies in the window: 0 to 1; an instant is in it or not; NaN is not."""
    length_s = end_s - start_s
    inside_s = np.minimum(end_s, window_s[1]) - np.maximum(start_s, window_s[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(length_s > 0, np.clip(inside_s / length_s, 0.0, 1.0), within(start_s, window_s))
    return np.nan_to_num(share)

"""The measurement window, and its tokens: what is said of throughput, and what is priced."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RequestTable, RunRecord

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


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that were served, by what they pay for."""

    cached: float
    """Prompt tokens from the prefix cache."""
    uncached: float
    """Prompt tokens that were computed."""
    output: float

    @property
    def all(self) -> float:
        """Of all kinds."""
        return self.cached + self.uncached + self.output


def is_steady(table: RequestTable, window_s: tuple[float, float]) -> bool:
    """Whether a window between warm-up and last arrival shows a service that goes on, rather than work that ends.

    A run starts empty, so its window lacks what a service under way would have had to generate at its beginning: half
    of the answers of one stay, at a steady rate. It is steady where it lasts three mean stays or more, which makes
    this a sixth of its tokens at most, and where at least 16 requests arrive in its second half. A stay is prefill and
    decode, without the waits before and between them, which are the longer the more the service is overloaded.
    """
    start_s, end_s = window_s
    stays_s = _stays_s(table)[~np.isnan(table.finish_s)]
    late = within(table.arrival_s, ((start_s + end_s) / 2, end_s))
    if not len(stays_s) or late.sum() < STEADY_ARRIVALS:
        return False
    return bool(end_s - start_s >= LEAST_STAYS * stays_s.mean())


def can_tell_growth(table: RequestTable, window_s: tuple[float, float]) -> bool:
    """Whether arrivals in a window last long enough for a backlog to mean an overload, and not just a burst.

    They do where a request that nobody hindered would have stayed in service three times in turn. Its stay is the
    shortest of the answers of at least mean length: an overload makes the others long.
    """
    long = (table.output_tokens >= table.output_tokens.mean()) & ~np.isnan(table.finish_s)
    if not long.any():
        return False
    return bool(window_s[1] - window_s[0] >= LEAST_STAYS * _stays_s(table)[long].min())


def _stays_s(table: RequestTable) -> Floats:
    """Seconds in prefill and decode."""
    return table.prefill_end_s - table.prefill_start_s + table.finish_s - table.first_token_s


def whole_run(table: RequestTable, warmup_s: float, end_s: float) -> tuple[float, float]:
    """From the end of the warm-up, or the first arrival if that is later, to the last completion; empty where all
    requests came in the warm-up."""
    if not (table.arrival_s >= warmup_s).any():
        return warmup_s, warmup_s
    start_s = max(warmup_s, float(table.arrival_s.min(initial=end_s)))
    return start_s, max(start_s, end_s)


def window_length_s(record: RunRecord) -> float:
    """Length of the measurement window; 0 where the run ended before its warm-up did."""
    start_s, end_s = record.window_s
    return end_s - start_s


def tokens_in_window(record: RunRecord) -> Tokens:
    """Tokens of the window; none where it is empty.

    A prompt counts evenly from its prefill's start to its end, cached tokens in proportion; an answer with its first
    token when that came, and the others evenly from then to the finish. So a request that runs into the window or
    out of it counts with the part that lies inside.
    """
    table, window_s = record.requests, record.window_s
    if window_length_s(record) == 0:
        return Tokens(0.0, 0.0, 0.0)
    last_s = np.where(np.isnan(table.finish_s), record.end_s, table.finish_s)
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

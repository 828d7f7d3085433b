"""A fleet of which a sample was simulated: what is told of all, and within which interval."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RunRecord
from sim.cluster.window import tokens_in_window, window_length_s
from sim.result.percentiles import BATCHES, interval

Json = Mapping[str, Any]


def fleet(record: RunRecord, good: Callable[[tuple[float, float]], int], told: Json) -> dict[str, Any] | None:
    """The size of the fleet and of the sample, and 95% intervals of rates and prices under the names of the run's JSON.

    Batch means over time (see `sim.result.percentiles`): the measurement window in 10 equal parts. A rate has the
    interval of its parts, scaled to its value; a price, which divides by a rate, the inverse of that. Latencies have
    theirs beside them. None of a run that does not go on, nor where a summary was kept of a window whose end only the
    run could tell. `good`: how many requests finish in a window and keep every objective.
    """
    asked = record.scenario.fleet
    if asked is None:
        return None
    size = {"replicas": asked.replicas, "simulated": asked.sample}
    if not record.steady or not window_length_s(record):
        return {**size, "ci": None}
    edges = np.linspace(*record.window_s, BATCHES + 1).tolist()
    windows = [*itertools.pairwise(edges)]
    try:
        parts = [tokens_in_window(replace(record, window_s=window_s)) for window_s in windows]
        kept = [good(window_s) for window_s in windows]
    except LookupError:
        return {**size, "ci": None}
    output = np.array([part.output for part in parts])
    prompts = np.array([part.cached + part.uncached for part in parts])
    rates, prices = told["throughput"], told["cost"]["usd_per_million"]
    sold = {
        "input_cache_hit": np.array([part.cached for part in parts]),
        "input_cache_miss": np.array([part.uncached for part in parts]),
        "output": output,
        "blended": output + prompts,
    }
    return {
        **size,
        "ci": {
            "throughput": {
                "output_tokens_per_s": _rate(rates["output_tokens_per_s"], output),
                "output_tokens_per_s_per_gpu": _rate(rates["output_tokens_per_s_per_gpu"], output),
                "output_tokens_per_s_per_decode_gpu": _rate(
                    rates["output_tokens_per_s_per_decode_gpu"], output
                ),
                "input_tokens_per_s_per_prefill_gpu": _rate(
                    rates["input_tokens_per_s_per_prefill_gpu"], prompts
                ),
                "total_tokens_per_s_per_gpu": _rate(rates["total_tokens_per_s_per_gpu"], output + prompts),
            },
            "goodput_requests_per_s": _rate(told["goodput_requests_per_s"], np.array(kept, dtype=float)),
            "usd_per_million": {kind: _price(prices[kind], amounts) for kind, amounts in sold.items()},
        },
    }


def _rate(value: float | None, parts: NDArray[np.float64]) -> list[float] | None:
    """The interval of `value`, which is in proportion to the mean of `parts`."""
    mean = parts.mean()
    if value is None or not mean:
        return None
    return [end * value / float(mean) for end in interval(parts)]


def _price(value: float | None, parts: NDArray[np.float64]) -> list[float] | None:
    """The same of what is in inverse proportion; None where the rate may be nothing."""
    rate = _rate(value, parts)
    if value is None or rate is None or not rate[0]:
        return None
    low, high = rate
    return [value * value / high, value * value / low]

"""What the size of a sample may matter to a fleet's figures: half of it was simulated as well.

A router that chooses the least loaded of few replicas finds worse ones than among many. Halving the sample moved a
figure by d; from the sample to the fleet every doubling may move it on by d again (seen: about as much each time), or
not at all, and an interval holds both ends. d is only known to about a standard error, half of the interval's half
width h: each end moves out by h / 2 for every doubling as well.

Percentiles move on by shares of the requests, and are then read in seconds. Where latencies jump, as TPOT does between
the answers that a prompt interrupted and the others, a percentile stays until the share beyond the jump is below its
own, and then falls all the way: what it did in seconds says nothing of what it will.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sim.result.percentiles import Batch, Values, at_share, half_width, shares_at
from sim.result.totals import LATENCIES

Json = Mapping[str, Any]
Ends = list[float]


def doublings(replicas: int, sample: int) -> float:
    """From the sample to the fleet, in the steps that lead from half the sample to it."""
    return math.log(replicas / sample) / math.log(sample / (sample // 2))


def widened(
    told: dict[str, Any],
    half: Json,
    batches: Callable[[str], Batch],
    half_batches: Callable[[str], Batch],
    times: float,
) -> None:
    """Widen the intervals of a sample's JSON, in place. `batches`: of a latency, see `sim.result.books`; `times`: the
    `doublings` from the sample to the fleet."""
    for name in LATENCIES:
        latency, of_half = told["latency"][name], half["latency"][name]
        if latency["ci"] is None or of_half["mean"] is None:
            latency["ci"] = None
            continue
        sample, fewer = batches(name), half_batches(name)[0]
        for figure, ends in latency["ci"].items():
            if ends is None:
                continue
            value = latency[figure]
            latency["ci"][figure] = (
                _moved(ends, value - of_half[figure], times)
                if figure == "mean"
                else _moved_by_shares(ends, int(figure[1:]) / 100, value, sample, fewer, times)
            )
    ci = told["fleet"]["ci"]
    if ci is None:
        return
    ci["throughput"] = _spread(ci["throughput"], told["throughput"], half["throughput"], times)
    price = "usd_per_million"
    ci[price] = _spread(ci[price], told["cost"][price], half["cost"][price], times)
    goodput = "goodput_requests_per_s"
    ci |= _spread({goodput: ci[goodput]}, told, half, times)


def _spread(ci: Json, told: Json, half: Json, times: float) -> dict[str, Ends | None]:
    """Intervals by name; None where half the sample has none."""
    return {
        name: None if ends is None or half[name] is None else _moved(ends, told[name] - half[name], times)
        for name, ends in ci.items()
    }


def _moved(ends: Ends, by: float, times: float) -> Ends:
    """The interval of a figure that halving moved by so much, on the way from half the sample."""
    down, up = _further(by, (ends[1] - ends[0]) / 2, times)
    return [max(0.0, ends[0] + down), ends[1] + up]


def _moved_by_shares(
    ends: Ends, share: float, told_s: float, sample: Batch, fewer: Values, times: float
) -> Ends:
    """That of the percentile of a share, which is `told_s`; `fewer` are the values of half the sample."""
    values, batches = sample
    wide = float(half_width(np.array([shares_at(batch, told_s) for batch in batches])).max())
    # Where more of the fleet lies up to here than of the sample, its percentile is that of a smaller share.
    by = shares_at(fewer, told_s) - shares_at(values, told_s)
    (down, _), (_, up) = _further(by.min(), wide, times), _further(by.max(), wide, times)
    return [
        max(0.0, ends[0] + min(0.0, at_share(values, share + down) - told_s)),
        ends[1] + max(0.0, at_share(values, share + up) - told_s),
    ]


def _further(by: float, wide: float, times: float) -> tuple[float, float]:
    """How far the ends move out."""
    return (min(0.0, by) - wide / 2) * times, (max(0.0, by) + wide / 2) * times

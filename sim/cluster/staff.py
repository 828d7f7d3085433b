"""How many GPUs a service has: always the same, or as many as its workers hold; of a fleet all, though a part ran."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from sim.cluster.record import RunRecord
from sim.scenario.schema import Scenario
from sim.units import HOUR_S

MOST_HOURS: Final = 366 * 24
"""That are told one by one: a year. A run of few requests that are far apart, or of steps that last for days, may take
millions."""


def copies(record: RunRecord) -> float:
    """Replicas of the fleet over those that were simulated: what is counted in the run stands for so much more."""
    fleet = record.scenario.fleet
    return 1 if fleet is None else fleet.replicas / fleet.sample


def mean_gpus(record: RunRecord) -> Mapping[str, float]:
    """GPUs of each pool of the service, on average over `paid_window_s`."""
    if record.life is None:
        return {role: _all(record, pool.gpus) for role, pool in record.pools.items()}
    window_s, scale = paid_window_s(record), copies(record)
    return {role: record.life.paid(role).mean(*window_s) * scale for role in record.pools}


def most_gpus(record: RunRecord) -> int:
    """GPUs of the service, spares included, when they were most."""
    if record.life is None:
        return _all(record, sum(pool.gpus for pool in record.pools.values()))
    return round(record.life.paid().highest * copies(record))


def bought_gpu_s(record: RunRecord, unit: int, above: int = 0) -> Callable[[float, float], float]:
    """(start, end) in seconds -> GPU seconds paid for in between: at each moment whole multiples of `unit`, as far as
    they are `above` a number of GPUs."""
    if record.life is None:
        bought = -(-_all(record, sum(pool.gpus for pool in record.pools.values())) // unit) * unit
        bought = max(0, bought - above)
        return lambda start_s, end_s: bought * (end_s - start_s)
    scale = copies(record)
    paid = record.life.paid(unit=unit, above=above / scale)
    return lambda start_s, end_s: paid.between(start_s, end_s) * scale


def paid_window_s(record: RunRecord) -> tuple[float, float]:
    """The measurement window, or the whole run where that is empty or no GPU was held in it."""
    start_s, end_s = record.window_s
    held = record.life is None or record.life.paid().between(start_s, end_s) > 0
    return record.window_s if end_s > start_s and held else (0.0, record.end_s)


def by_the_clock(scenario: Scenario) -> bool:
    """Whether anything changes by the hour: the load, the workers, or the GPUs."""
    arrivals = scenario.workload.arrivals
    diurnal = arrivals is not None and arrivals.diurnal is not None
    return diurnal or scenario.autoscale is not None or scenario.failures is not None


def hours(record: RunRecord) -> list[tuple[float, float]]:
    """Start and end of each hour of a run by the clock, seconds; the last one ends with the run. None of a run of more
    than `MOST_HOURS`."""
    count = math.ceil(record.end_s / HOUR_S)
    if count > MOST_HOURS or not by_the_clock(record.scenario):
        return []
    return [(hour * HOUR_S, min((hour + 1) * HOUR_S, record.end_s)) for hour in range(count)]


def _all(record: RunRecord, gpus: int) -> int:
    """Of all replicas, where so many were simulated."""
    fleet = record.scenario.fleet
    return gpus if fleet is None else gpus // fleet.sample * fleet.replicas

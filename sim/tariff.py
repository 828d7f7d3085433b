"""What GPUs cost over a run: by the hour of the day, and those reserved round the clock at a price of their own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sim.cluster.record import RunRecord
from sim.cluster.staff import bought_gpu_s, by_the_clock
from sim.scenario.terms import PriceFrom
from sim.units import HOUR_S
from sim.workload.arrivals import HOURS_PER_DAY

DAY_S: Final = HOURS_PER_DAY * HOUR_S
GpuSeconds = Callable[[float, float], float]
"""Between a start and an end, seconds of the run."""


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per GPU-hour."""

    usd: float
    """Of every GPU above the reserved ones; the day's mean where it changes by the hour."""
    hours: tuple[PriceFrom, ...] = ()
    """By the hour of the day; empty where it is always the same."""
    reserved: int = 0
    """GPUs that are paid for all the time."""
    reserved_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Bill:
    """The GPU time of a run that is paid for."""

    bought: GpuSeconds
    """GPU seconds: of reserved GPUs always, of those above as long as they are held."""
    charged: GpuSeconds
    """As many GPU seconds at `Rates.usd` as cost the same."""

    def dearer(self, start_s: float, end_s: float) -> float:
        """The mean price of a GPU second bought between two times, over `Rates.usd`; 1 where none was bought."""
        bought = self.bought(start_s, end_s)
        return self.charged(start_s, end_s) / bought if bought else 1.0


def mean_of_day(hours: Sequence[PriceFrom]) -> float:
    """USD per GPU-hour of a GPU that is held all day."""
    return sum(usd * (end_s - start_s) for start_s, end_s, usd in _spans(hours, 0.0, DAY_S)) / DAY_S


def bill(record: RunRecord, rates: Rates, unit: int) -> Bill:
    """Reserved GPUs x their price x time, and those above, in whole units, at the price of each moment.

    The run begins at hour 0 of the day. Where nothing changes by the clock any of its hours stands for the day: GPUs
    above the reserved ones cost the mean of the day.
    """
    above = bought_gpu_s(record, unit, rates.reserved)
    through_the_day = bool(rates.hours) and by_the_clock(record.scenario)
    if not rates.reserved and not through_the_day:
        return Bill(above, above)

    def bought(start_s: float, end_s: float) -> float:
        return rates.reserved * (end_s - start_s) + above(start_s, end_s)

    def charged(start_s: float, end_s: float) -> float:
        spans = _spans(rates.hours, start_s, end_s) if through_the_day else [(start_s, end_s, rates.usd)]
        changing = sum(above(a, b) * usd for a, b, usd in spans)
        return (rates.reserved * (end_s - start_s) * rates.reserved_usd + changing) / rates.usd

    return Bill(bought, charged)


def _spans(hours: Sequence[PriceFrom], start_s: float, end_s: float) -> Iterator[tuple[float, float, float]]:
    """Start, end and price of every stretch of one price between two times."""
    day_s = start_s // DAY_S * DAY_S
    while day_s < end_s:
        edges_s = [*(day_s + one.from_hour * HOUR_S for one in hours), day_s + DAY_S]
        for (a, b), one in zip(pairwise(edges_s), hours, strict=True):
            if max(a, start_s) < min(b, end_s):
                yield max(a, start_s), min(b, end_s), one.usd_per_gpu_hour
        day_s += DAY_S

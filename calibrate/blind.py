"""Blind shapes: between those that were measured, predicted by a profile before they are measured."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, zip_longest
from pathlib import Path
from time import monotonic
from typing import Any, Final

import yaml

from calibrate.cases import Case, of_axes
from calibrate.environment import Device, Watch, describe
from calibrate.grid import CPU_AXES, GPU_AXES, KILO, Axes
from calibrate.measure import Bench, find_points
from calibrate.timing import percentile
from calibrate.trial import answering
from calibrate.worker import Worker
from sim.catalog import Model, efficiency
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import Profile, device_gpu
from sim.kernels import FAMILIES as KNOWN

SEED: Final = 5
"""Of the shapes: the same ones whoever draws them."""
ASSEMBLED: Final = ("moe", "copy")
"""Kernels that no table prices under their own name: see `calibrate.experts`."""


@cache
def bars() -> Mapping[str, float]:
    """What the median and the p90 of the errors may be at most: those of `blind.yaml`."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["bars"]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Blind:
    """A case off the grid, and what a profile says of it."""

    case: Case
    predicted_us: float
    how: str
    """See `PricedBy`."""

    def json(self) -> dict[str, Any]:
        """What is written before it is measured."""
        operation = self.case.operation
        return {
            "operation": operation.kernel,
            "dtype": operation.dtype,
            "options": dict(operation.options),
            "shape": dict(operation.shape),
            "predicted_us": self.predicted_us,
            "how": self.how,
        }


def off_grid(axes: Axes, seed: int = SEED) -> Axes:
    """Axes with one value between each two neighbours of another's, drawn evenly in logarithms.

    What shards the model stays: nobody asks for half a head.
    """
    draw = random.Random(seed).uniform

    def between(low: float, high: float) -> float:
        return math.expm1(draw(math.log1p(low), math.log1p(high)))

    def whole(values: Sequence[int], unit: int = 1) -> tuple[int, ...]:
        rooms = [(low + unit, high - unit) for low, high in pairwise(values)]
        return tuple(round(between(*room) / unit) * unit for room in rooms if room[0] <= room[1])

    by_count: dict[int, list[int]] = {}
    for count, new in axes.prompts:
        by_count.setdefault(count, []).append(new)
    prompts = tuple((count, new) for count, lengths in by_count.items() for new in whole(sorted(lengths)))
    return replace(
        axes,
        rows=whole(axes.rows),
        tokens=whole(axes.tokens),
        batch=whole(axes.batch),
        context=whole(axes.context),
        prompts=prompts or axes.prompts,
        cached=whole(axes.cached),
        load=tuple(between(low, high) for low, high in pairwise(axes.load)),
        traffic=whole(axes.traffic, KILO),
    )


def predict(profile: Profile, model: Model, kind: str, memory_bytes: int) -> list[Blind]:
    """Every case off the grid that the profile's own tables enclose, the most valuable first, with its price."""
    gpu = device_gpu(profile)
    cost = ProfileCost(profile, AnalyticCost(gpu, efficiency()), gpu)
    axes = off_grid(CPU_AXES if kind == "cpu" else GPU_AXES)
    found = []
    for case in of_axes(axes, model, kind, memory_bytes):
        if case.operation.kernel in ASSEMBLED or case.operation.kernel not in KNOWN:
            continue
        priced = cost.price(case.operation)
        if priced.own and priced.priced_by in ("measured", "fitted"):
            found.append(Blind(case, priced.seconds * 1e6, priced.priced_by))
    return found


def chosen_of(profile: Profile, model: Model, device: Device, count: int) -> list[Blind]:
    """So many that a back-end runs here, the tables in turns."""
    tables: dict[tuple[Any, ...], list[Blind]] = {}
    for one in predict(profile, model, device.kind, device.memory_bytes):
        operation = one.case.operation
        table = operation.kernel, operation.dtype, *sorted(operation.options.items())
        if find_points([one.case], device)[0]:
            tables.setdefault(table, []).append(one)
    for rows in tables.values():
        random.Random(SEED).shuffle(rows)
    return [one for turn in zip_longest(*tables.values()) for one in turn if one is not None][:count]


Measured = Sequence[tuple[Blind, float]]
"""Blind shapes that were measured, with their microseconds."""


def measure(chosen: Sequence[Blind], device: Device, seconds: float) -> Measured:
    """Measure as many as the time allows; those that a kernel fails on are left out."""
    bench = Bench(device, describe(device), Watch(device), Worker(answering, device))
    found = []
    try:
        bench.start()
        bench.until = monotonic() + seconds
        with bench.watch:
            for one in chosen:
                record = bench.try_point(find_points([one.case], device)[0][0])
                if record is None:
                    break
                if record.us_median is not None:
                    found.append((one, record.us_median))
    finally:
        bench.close()
    return found


def check(measured: Measured) -> dict[str, Any]:
    """Median and p90 of |predicted / measured - 1|, and whether both keep to `bars`; nothing measured is not ok."""
    off = sorted(abs(one.predicted_us / us - 1) for one, us in measured)
    if not off:
        return {"shapes": 0, "ok": False}
    told = {"median": percentile(off, 50), "p90": percentile(off, 90)}
    return {"shapes": len(off), **told, "ok": all(told[name] <= bar for name, bar in bars().items())}

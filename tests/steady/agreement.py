"""How well the estimate agrees with the simulation over the whole range of What-if's sliders.

    python tests/steady/agreement.py --count 200 --seed 7

Settings are drawn at random from what the sliders offer; those that no machine holds, or that take too long to
simulate, are drawn again. The simulation is long enough to show a steady state: requests arrive for several times as
long as one stays, and at most half as fast again as the service can serve them, so that it drains.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from dashboard.settings import CHOICES, DEFAULTS, OWN_PRICE, scenario_of
from sim import catalog, simulate
from sim.cluster.window import LEAST_STAYS
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.steady import SteadyState, steady

LISTS = {"m": catalog.model_names(), "g": catalog.gpu_names(), "e": catalog.engine_names()}
OVERLOAD = 1.5
WITHIN = 0.1
FIGURES = ("blended price", "output price", "throughput", "utilisation", "TPOT", "TTFT")


@dataclass
class Compared:
    """One setting: figures by name as (estimate, simulation), None where there is none."""

    settings: dict[str, Any]
    state: SteadyState
    figures: dict[str, tuple[float | None, float | None]]
    provenance: float
    """Share of GPU time that the two put down to different sources."""

    def off(self, figure: str) -> float | None:
        """Estimate over simulation, less 1."""
        estimate, simulated = self.figures[figure]
        return estimate / simulated - 1 if estimate and simulated else None

    @property
    def price_agrees(self) -> bool:
        off = self.off("blended price")
        return off is not None and abs(off) <= WITHIN


def draw(chance: random.Random) -> dict[str, Any]:
    """Settings of the sliders, each on its own; half of the time no cached prefixes, and no limit of groups."""
    settings = DEFAULTS | {key: chance.choice(values) for key, values in (CHOICES | LISTS).items()}
    own = {"t": OWN_PRICE, "ep": chance.random() < 0.7, "s": chance.choice((0.0, 0.5, 1.0, 2.0))}
    own["y"], own["h"] = chance.choice((0.0, 0.5, 1.0)), chance.choice((0, chance.randrange(0, 96, 5)))
    own["l"] = chance.choice((0, settings["l"]))
    return settings | own


def scenario(settings: dict[str, Any], rate: float, warmup_s: float, duration_s: float) -> Scenario:
    data = scenario_of(settings | {"r": rate})
    return parse(yaml.safe_dump(data | {"duration_s": duration_s, "warmup_s": warmup_s})).scenario


def compare(
    settings: dict[str, Any], seed: int, most_requests: float, requests: int = 1500
) -> Compared | None:
    """Estimate and simulation of settings; None where the simulation would need more requests."""
    spread = 1 + settings["v"] ** 2
    if requests * (1 / 3 + spread) > most_requests:  # the fewest it can need, known before anything is priced
        return None
    first = steady(scenario(settings, settings["r"], 0.0, 3600.0))
    capacity, point = first.capacity_requests_per_s / (1 - first.demand.too_long), first.point
    rate = min(float(settings["r"]), OVERLOAD * capacity)
    stay_s = point.ttft_s + point.tpot_s * max(0.0, first.demand.output_tokens - 1)
    warmup_s = max(2 * stay_s * spread, requests / 3 / rate)
    duration_s = warmup_s + max(1.5 * LEAST_STAYS * stay_s, requests * spread / rate)
    if rate * duration_s > most_requests:
        return None
    form = scenario(settings, rate, warmup_s, duration_s)
    state = steady(form)
    run = simulate(form, seed).json()
    price, sold, latency = state.point.price.usd_per_million, run["cost"]["usd_per_million"], run["latency"]
    shares, first_pool = state.priced_by, next(iter(state.utilization))
    return Compared(
        settings,
        state,
        {
            "blended price": (price.blended, sold["blended"]),
            "output price": (price.output, sold["output"]),
            "throughput": (state.point.output_tokens_per_s, run["throughput"]["output_tokens_per_s"]),
            "utilisation": (state.utilization[first_pool], run["utilization"][first_pool]),
            "TPOT": (state.point.tpot_s, latency["tpot_s"]["mean"]),
            "TTFT": (state.point.ttft_s, latency["ttft_s"]["mean"]),
        },
        sum(abs(shares[source] - share) for source, share in run["priced_by"].items()) / 2,
    )


def agreement(seed: int, count: int, most_requests: float, requests: int = 1500) -> Iterator[Compared]:
    """Comparisons of `count` random settings."""
    chance, done = random.Random(seed), 0
    while done < count:
        settings = draw(chance)
        try:
            compared = compare(settings, chance.randrange(2**31), most_requests, requests)
        except (DeploymentError, ScenarioError):
            continue
        if compared is not None:
            done += 1
            yield compared


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--most-requests", type=float, default=20_000)
    asked = options.parse_args()
    began, found = time.perf_counter(), []
    for one in agreement(asked.seed, asked.count, asked.most_requests):
        found.append(one)
        if not one.price_agrees:
            changed = {k: v for k, v in one.settings.items() if v != DEFAULTS[k]}
            print(
                f"load {one.state.load:.2f}, {one.state.limit}: {one.figures}\n  {changed}\n  {one.state.doubts}",
                flush=True,
            )
    for figure in FIGURES:
        off = np.abs([value for one in found if (value := one.off(figure)) is not None])
        p50, p90 = np.percentile(off, (50, 90))
        print(
            f"{figure:14} {len(off):4} compared: off by {p50:.1%} (p50), {p90:.1%} (p90), {off.max():.1%} at most"
        )
    p50, p90 = np.percentile([one.provenance for one in found], (50, 90))
    print(
        f"{'provenance':14} {len(found):4} compared: {p50:.1%} (p50), {p90:.1%} (p90) of GPU time elsewhere"
    )
    wrong, doubted = (
        [one for one in found if not one.price_agrees],
        [one for one in found if one.state.doubts],
    )
    silent = sum(not one.state.doubts for one in wrong)
    print(f"price more than {WITHIN:.0%} off: {len(wrong)} of {len(found)}, {silent} of them without a doubt")
    print(f"with a doubt: {len(doubted)}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

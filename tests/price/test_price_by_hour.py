"""Prices by the hour of the day, and reserved GPUs: every dollar worked out by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from priced_runs import SERVED, price, record

import sim
from sim.cluster.life_record import LifeRecord, Span
from sim.cluster.record import PoolRecord, RunRecord
from sim.scenario.errors import ScenarioError
from sim.steady import steady

HOUR = 3600.0
DAY = 24 * HOUR
TWO_PRICES = [
    {"from_hour": 0, "usd_per_gpu_hour": 1.0},
    {"from_hour": 8, "usd_per_gpu_hour": 3.0},
    {"from_hour": 20, "usd_per_gpu_hour": 1.0},
]
"""Twelve hours at one dollar, twelve at three."""
STEADY: dict[str, Any] = {
    "model": "deepseek-v3", "gpu": "h200_sxm", "profile": "analytic",
    "deployment": {"serve": {"workers": 2, "gpus": 8, "tp": 8}},
    "workload": {"arrivals": {"poisson": {"rate_per_s": 2.0}},
                 "lengths": {"input": {"constant": 200}, "output": {"constant": 4}}},
    "duration_s": 60,
}  # fmt: skip


def day(price: dict[str, Any], end_s: float = DAY, window_s: tuple[float, float] | None = None) -> RunRecord:
    """A worker of eight GPUs all day, and another from hour 6 to hour 10."""
    pools = {"serve": PoolRecord(gpus=8, busy_gpu_s={"prefill": 1000.0, "decode": 1000.0})}
    run = record(pools, SERVED, end_s, failures={}, price={"overhead_fraction": 0.0, **price})
    spans = [
        Span("serve", 0, "up", 0.0, end_s, 8),
        Span("serve", 1, "starting", 6 * HOUR, 7 * HOUR, 8),
        Span("serve", 1, "up", 7 * HOUR, 10 * HOUR, 8),
    ]
    life = LifeRecord(np.zeros(2, dtype=np.int64), spans=spans)
    return replace(run, life=life, window_s=window_s or (0.0, end_s))


def test_a_day_of_two_prices() -> None:
    """8 x (12 x 1 + 12 x 3) = 384 for the first worker, 8 x (2 x 1 + 2 x 3) = 64 for the second: 448 in all."""
    priced = price(day({"hours": TWO_PRICES}))
    expected = [8.0] * 6 + [16.0] * 2 + [48.0] * 2 + [24.0] * 10 + [8.0] * 4
    assert priced.usd_by_hour == pytest.approx(expected)
    assert priced.usd == pytest.approx(sum(expected)) == pytest.approx(448)
    assert priced.usd_per_hour == pytest.approx(448 / 24)
    gpu_hours = 24 * 8 + 4 * 8
    assert priced.purchase.bought == pytest.approx(gpu_hours / 24)
    assert priced.gpu_hour.usd == pytest.approx(448 / gpu_hours), "of what was paid for, on average"


def test_the_second_day_is_as_the_first() -> None:
    priced = price(day({"hours": TWO_PRICES}, 2 * DAY))
    assert priced.usd_by_hour[24:] == pytest.approx([8.0] * 8 + [24.0] * 12 + [8.0] * 4)


def test_a_window_costs_what_its_hours_cost() -> None:
    """From 7:00 to 9:00 two workers: 16 x 1 and 16 x 3."""
    priced = price(day({"hours": TWO_PRICES}, window_s=(7 * HOUR, 9 * HOUR)))
    assert priced.usd_per_hour == pytest.approx((16 + 48) / 2)
    assert sum(priced.usd_by_hour) == pytest.approx(448)


def test_reserved_gpus_are_paid_for_used_or_not() -> None:
    """Of 12 at half a dollar 8 work all day; of the second worker's 8 four are theirs, and four pay 64 / 2."""
    priced = price(day({"hours": TWO_PRICES, "reserved": {"gpus": 12, "usd_per_gpu_hour": 0.5}}))
    assert sum(priced.usd_by_hour) == pytest.approx(12 * 24 * 0.5 + 32)
    assert priced.purchase.bought == pytest.approx(12 + 4 * 4 / 24)
    assert priced.purchase.stranded == pytest.approx(12 + 16 / 24 - 224 / 24)
    assert "12 GPUs reserved" in priced.gpu_hour.tier


def test_reserved_below_the_tier_of_the_hour() -> None:
    """By the catalog: 8 at a one-year reservation, the second worker's four hours on demand."""
    priced = price(day({"tier": "on_demand_low", "reserved": {"gpus": 8, "tier": "res_1yr"}}))
    assert sum(priced.usd_by_hour) == pytest.approx(8 * 24 * 2.79 + 8 * 4 * 3.99)


def test_one_price_by_the_hour_is_that_price() -> None:
    once = price(day({"usd_per_gpu_hour": 2.0}))
    hourly = price(day({"hours": [{"from_hour": 0, "usd_per_gpu_hour": 2.0}]}))
    assert hourly.usd_by_hour == pytest.approx(once.usd_by_hour)
    assert hourly.usd_per_million.blended == pytest.approx(once.usd_per_million.blended)


def test_where_nothing_changes_by_the_hour_the_mean_of_the_day_counts() -> None:
    """A minute of a steady load stands for the day, in the simulation as in the estimate: 16 x (1 + 3) / 2, or with 24
    reserved at half a dollar, of which eight idle, 12."""
    for more, usd in (({}, 32.0), ({"reserved": {"gpus": 24, "usd_per_gpu_hour": 0.5}}, 12.0)):
        asked = {**STEADY, "price": {"hours": TWO_PRICES, "overhead_fraction": 0.0, **more}}
        assert sim.simulate(asked).json()["cost"]["usd_per_hour"] == pytest.approx(usd)
        assert steady(sim.load(asked)).point.price.usd_per_hour == pytest.approx(usd)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hours": TWO_PRICES, "tier": "rent_3yr"}, "expected `tier` or `hours`, not both"),
        ({"hours": TWO_PRICES[1:]}, "expected from_hour 0 first, then ascending below 24"),
        ({"hours": [*TWO_PRICES, {"from_hour": 20, "usd_per_gpu_hour": 2}]}, "expected from_hour 0 first"),
        ({"hours": [{"from_hour": 24, "usd_per_gpu_hour": 2}]}, "expected a number from 0 to below 24"),
        (
            {"hours": 3},
            "a list of 1 to 1440 items, each a section with keys such as from_hour, usd_per_gpu_hour",
        ),
        ({"reserved": {"gpus": 8}}, "expected exactly one of `tier` and `usd_per_gpu_hour`"),
        ({"reserved": {"gpus": 8, "tier": "rent_4yr"}}, "did you mean 'rent_3yr'"),
    ],
)
def test_prices_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        sim.simulate({**STEADY, "price": given})


def test_reserved_gpus_of_a_steady_service_are_a_whole_number_whoever_came() -> None:
    """24 reserved, 16 held: 8 are unused; a workload that ends before anybody comes pays for them too."""
    reserved = {"hours": TWO_PRICES, "reserved": {"gpus": 24, "usd_per_gpu_hour": 0.5}}
    cost = sim.simulate({**STEADY, "price": {"overhead_fraction": 0.0, **reserved}}).json()["cost"]
    assert (cost["bought_gpus"], cost["stranded_gpus"]) == (24, 8)
    nobody = {**STEADY, "workload": {**STEADY["workload"], "arrivals": {"poisson": {"rate_per_s": 1e-6}}}}
    cost = sim.simulate({**nobody, "price": {"overhead_fraction": 0.0, **reserved}}).json()["cost"]
    assert (cost["bought_gpus"], cost["stranded_gpus"], cost["usd_per_hour"]) == (24, 8, 12)

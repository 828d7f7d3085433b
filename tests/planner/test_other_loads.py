"""What a plan says of other loads is what the planner finds there."""

from collections.abc import Callable
from typing import Any

import pytest
from stub_service import Ask, stub

from sim.planner import other_loads
from sim.planner.budgets import Telling, telling
from sim.planner.plan import plan
from sim.planner.question import Question

RATES = (5, 7.5, 9, 12, 17, 23, 31)
BOTH = "aggregated, disaggregated"


def row(answer: dict[str, Any], change: str) -> dict[str, Any]:
    return next(r for r in answer["sensitivity"] if (r["input"], r["change"]) == ("load", change))


@pytest.mark.parametrize("change", ["-20%", "+20%"])
@pytest.mark.parametrize("kinds", ["aggregated", BOTH])
@pytest.mark.parametrize("rate", RATES)
def test_another_load_costs_what_the_planner_finds_there(
    ask: Ask, rate: float, kinds: str, change: str
) -> None:
    told = row(ask(rate=rate, kinds=kinds), change)
    there = ask(rate=rate * (1 + float(change.rstrip("%")) / 100), kinds=kinds)["best"]
    assert not told["at_most"]
    assert told["usd_per_hour"] == pytest.approx(there["usd_per_hour"])
    assert told["usd_per_million"] == pytest.approx(there["usd_per_million"]["blended"])


def test_where_nothing_may_be_simulated_further_it_is_at_most_so_much(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then what is told is never less than what the planner finds."""
    stub(monkeypatch)
    none = Telling(**{key: getattr(telling(), key) for key in Telling.__slots__} | {"sensitivity_resumed": 0})
    monkeypatch.setattr(other_loads, "telling", lambda: none)
    marked = 0
    for rate in RATES:
        told = row(plan(question(rate=rate, kinds=BOTH), workers=1).json(), "-20%")
        there = plan(question(rate=0.8 * rate, kinds=BOTH), workers=1).json()["best"]["usd_per_hour"]
        assert told["usd_per_hour"] >= there - 1e-9
        assert told["at_most"] or told["usd_per_hour"] == pytest.approx(there)
        marked += told["at_most"]
    assert marked


def test_what_a_load_must_be_to_beat_an_api_is_told_beside_what_the_gpus_hold(ask: Ask) -> None:
    """A replica holds more than its share of the load: one that is even between the two is enough."""
    answer = ask(rate=20)
    best = answer["best"]
    assert best["usable_per_s"] == best["held_per_s"] and best["engine"] == {
        "name": "sglang",
        "assumed": True,
    }
    for one in answer["break_even"]:
        assert one["holds_per_s"] == pytest.approx(best["replicas"] * best["held_per_s"])
        assert one["rate_per_s_at_least"] == pytest.approx(20 * one["load_share_at_least"])
        assert one["load_is_enough"] == (one["rate_per_s_at_least"] <= one["holds_per_s"])
        # At that load the same GPUs cost as much per token as the API asks.
        per_hour = one["rate_per_s_at_least"] * 1200 * 3600 / 1e6
        assert best["usd_per_hour"] / per_hour == pytest.approx(one["usd_per_million"])


def test_the_usable_rate_leaves_the_margin_of_throughput(
    question: Callable[..., Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, 0.1)
    answer = plan(question(), workers=1).json()
    best = answer["best"]
    assert best["usable_per_s"] == pytest.approx(best["held_per_s"] / 1.1)
    assert best["replicas"] * best["usable_per_s"] >= 20 - 1e-9


def test_with_one_gpu_its_price_leaves_nothing_open(ask: Ask) -> None:
    """All get dearer alike: what could not win still cannot."""
    rows = ask(kinds=BOTH, exclude="[{gpu: b200_sxm}]")["sensitivity"]
    assert [r["at_most"] for r in rows if r["input"].startswith("price")] == [False, False]

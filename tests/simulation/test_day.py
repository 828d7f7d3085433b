"""A day with failures and autoscaling: what is told by hour adds up to what is told of the whole."""

import itertools
from functools import cache
from typing import Any

import pytest
from rich.console import Console

import sim
from sim.cli.day_table import day
from sim.report.html import report
from sim.report.run import shown
from sim.result import Result

BASE: dict[str, Any] = {
    "model": "deepseek-v3",
    "gpu": "h200_sxm",
    "profile": "analytic",
    "deployment": {"serve": {"workers": 2, "gpus": 8, "tp": 8}},
    "workload": {
        "arrivals": {"diurnal": {"mean_rate_per_s": 0.5, "curve": "deepseek-24h"}},
        "lengths": {"input": {"constant": 200}, "output": {"uniform": [2, 20]}},
    },
    "duration_s": 9000,
    "objectives": {"ttft_p99_s": 0.5},
    "price": {"usd_per_gpu_hour": 2.0, "overhead_fraction": 0.1},
}
TROUBLE: dict[str, Any] = {
    "autoscale": {
        "pools": {"serve": {"max": 4}},
        "signal": "requests_per_s",
        "target": 0.15,
        "period_s": 60,
        "start_up_s": 100,
        "scale_down_after_s": 120,
    },
    "failures": {"per_gpu_hour": 0.2, "repair_h": 0.3, "spare_nodes": 1},
}


@cache
def run(seed: int = 0) -> Result:
    return sim.simulate({**BASE, **TROUBLE}, seed)


def test_hours_add_up_to_the_day() -> None:
    result = run()
    told, hours, table = result.json(), result.json()["hours"], result.requests
    assert told["invariants"] == [] and len(hours) == 3
    assert told["requests"]["retried"] > 0 and told["requests"]["rejected"] == 0
    sums = {key: sum(hour[key] for hour in hours) for key in ("arrived", "completed", "retried", "missed")}
    assert sums["arrived"] == sums["completed"] == told["requests"]["arrived"] == len(table)
    assert sums["retried"] == told["requests"]["retried"] == table.retries.sum()
    assert sums["missed"] == (table.ttft_s > 0.5).sum() > 0
    for kind in ("input", "output"):
        assert sum(hour[f"{kind}_tokens"] for hour in hours) == told["tokens"][kind]


def test_what_is_paid_is_what_was_held() -> None:
    """Workers of one node each, so that whole nodes strand nothing: every second of every span, at 2.2 dollars."""
    result = run()
    life, hours = result.record.life, result.json()["hours"]
    assert life is not None
    gpu_hours = sum(span.gpus * (span.end_s - span.start_s) for span in life.spans) / 3600
    assert {span.state for span in life.spans} >= {"up", "failed", "restarting", "starting", "spare"}
    assert sum(hour["gpu_hours"] for hour in hours) == pytest.approx(gpu_hours)
    assert sum(hour["usd"] for hour in hours) == pytest.approx(gpu_hours * 2.0 * 1.1)
    start_s, end_s = result.json()["window_s"]
    in_window = sum(
        span.gpus * max(0.0, min(span.end_s, end_s) - max(span.start_s, start_s)) for span in life.spans
    )
    assert result.json()["cost"]["usd_per_hour"] == pytest.approx(in_window / (end_s - start_s) * 2.2)
    busy_s = sum(result.record.pools["serve"].busy_gpu_s.values())
    assert busy_s <= 3600 * gpu_hours


def test_an_hour_costs_what_was_held_in_it_at_its_price() -> None:
    """One dollar in the first hour, three from then on, and a node reserved at half a dollar."""
    prices = [{"from_hour": 0, "usd_per_gpu_hour": 1.0}, {"from_hour": 1, "usd_per_gpu_hour": 3.0}]
    asked = {"hours": prices, "reserved": {"gpus": 8, "usd_per_gpu_hour": 0.5}, "overhead_fraction": 0.0}
    result = sim.simulate({**BASE, **TROUBLE, "price": asked})
    life, hours, end_s = result.record.life, result.json()["hours"], result.record.end_s
    assert life is not None
    usd = 8 * end_s * 0.5
    edges = sorted({0.0, 3600.0, *(t for span in life.spans for t in (span.start_s, span.end_s))})
    for start_s, next_s in itertools.pairwise(edges):
        held = sum(span.gpus for span in life.spans if span.start_s <= start_s < span.end_s)
        usd += max(0, held - 8) * (next_s - start_s) * (1.0 if start_s < 3600 else 3.0)
    assert sum(hour["usd"] for hour in hours) == pytest.approx(usd / 3600)
    assert {h["arrived"] for h in hours} == {h["arrived"] for h in run().json()["hours"]}, (
        "prices change nothing else"
    )


def test_one_seed_the_same_day() -> None:
    first, again = run().json(), sim.simulate({**BASE, **TROUBLE}, 0).json()
    assert {**first, "wall_s": 0} == {**again, "wall_s": 0}
    assert run(1).json()["hours"] != first["hours"]


def test_an_hour_is_shown_on_the_terminal_and_in_the_report() -> None:
    told = run().json()
    console = Console(width=160, record=True)
    console.print(day(told))
    head, first, *_ = console.export_text().splitlines()
    assert head.split("  ")[0] == "hour" and "retried" in head and "workers failed" in head
    assert first.split()[0] == "0"
    assert "By hour" in report([shown("day", run())])


def test_a_sampled_fleet_fails_as_often_as_all_of_it() -> None:
    """Two of four replicas, of two workers each: GPUs, workers and hours are those of eight workers. At 0.2 failures
    per GPU-hour, 64 GPUs in 2,000 s have 7 on average."""
    told = sim.simulate(
        {
            **BASE,
            "duration_s": 2000,
            "failures": {"per_gpu_hour": 0.2, "repair_h": 0},
            "fleet": {"replicas": 4, "simulated": 2},
        }
    ).json()
    [hour] = told["hours"]
    assert told["gpus"] == 64 and hour["gpus"] == pytest.approx(64)
    assert 4 < hour["workers"]["serve"] < 8
    assert hour["failures"] % 2 == 0 and 1 <= hour["failures"] <= 20
    assert hour["arrived"] == pytest.approx(2000 * 0.5 * 0.93, rel=0.2)


def test_where_nothing_comes_and_goes_nothing_is_told_of_it() -> None:
    steady = {**BASE["workload"], "arrivals": {"poisson": {"rate_per_s": 1.0}}}
    told = sim.simulate({**BASE, "workload": steady, "duration_s": 60}).json()
    assert not {"hours", "fleet"} & set(told) and "retried" not in told["requests"]
    told = sim.simulate({**BASE, "duration_s": 4000}).json()
    assert [hour["workers"] for hour in told["hours"]] == [{"serve": 2}, {"serve": 2}]
    assert told["cost"]["usd_per_hour"] == told["hours"][0]["usd"] == pytest.approx(16 * 2.2)

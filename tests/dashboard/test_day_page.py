"""The day by hour on the Capacity page: of a plan for a daily load, and of a scenario."""

from pathlib import Path
from typing import Any

import pytest
from opened_pages import opened, sound, tables
from test_capacity import ASKED

import sim
from dashboard.data import plans, scenarios, services
from sim.planner.question import load_question
from sim.planner.traffic import traffic_of
from sim.result import SavedResult, load
from sim.scenario.loading import parse

DAY: dict[str, Any] = {
    "model": "deepseek-v3",
    "gpu": "h200_sxm",
    "profile": "analytic",
    "deployment": {"serve": {"workers": 2, "gpus": 8, "tp": 8}},
    "workload": {
        "arrivals": {"diurnal": {"mean_rate_per_s": 0.3, "curve": "deepseek-24h"}},
        "lengths": {"input": {"constant": 200}, "output": {"constant": 8}},
    },
    "duration_s": 9000,
    "objectives": {"ttft_p99_s": 0.2},
    "failures": {"per_gpu_hour": 0.1, "repair_h": 0.2},
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> SavedResult:
    folder = tmp_path_factory.mktemp("day")
    sim.simulate(DAY).save(folder)
    return load(folder)


def test_the_rate_is_that_of_the_busiest_hour(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(plans.question({**ASKED, "curve": plans.DAILY}))
    traffic = traffic_of(load_question(tmp_path / "plan.yaml").loaded.scenario, 0)
    assert traffic.peak_per_s == pytest.approx(ASKED["rate"], rel=1e-4)
    assert traffic.mean_per_s == pytest.approx(ASKED["rate"] / 1.3262, rel=1e-3), "the curve's highest hour"


def test_a_winner_may_follow_its_load_and_fail() -> None:
    workload = {**DAY["workload"]}
    best = {"scenario": {**DAY, "workload": workload, "failures": None}, "deployment": DAY["deployment"]}
    found = {"best": best}
    text = plans.day(found, follows=True, fails=True)
    assert text is not None
    day = parse(text).scenario
    assert day.autoscale is not None and day.autoscale.pools is not None and day.failures is not None
    assert {role: (p.min, p.max) for role, p in day.autoscale.pools.given().items()} == {"serve": (1, 2)}
    still = parse(plans.day(found, follows=False, fails=False) or "").scenario
    assert still.autoscale is None and still.failures is None
    workload["arrivals"] = {"poisson": {"rate_per_s": 1.0}}
    assert (
        plans.day(found, follows=True, fails=True) is None and plans.day({"best": None}, True, True) is None
    )


def test_the_page_shows_the_day_of_a_scenario(
    simulated: SavedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "day" in scenarios.by_the_clock()
    monkeypatch.setattr(services, "simulated", lambda text: simulated)
    app = sound(opened("capacity", cap_view="The day by hour"))
    hours = simulated.json()["hours"]
    totals = {metric.label: metric.value for metric in app.metric}
    assert totals["Requests"] == f"{sum(hour['arrived'] for hour in hours):,}"
    assert totals["USD"] == f"${sum(hour['usd'] for hour in hours):,.0f}"
    assert totals["Missed"] == f"{sum(hour['missed'] for hour in hours):,}"
    assert totals["Retried"] == f"{simulated.json()['requests']['retried']:,}"
    [rows] = [table for table in tables(app) if "hour" in table[0]]
    headings = {
        "requests/s",
        "serve workers up",
        "USD",
        "missed an objective",
        "asked again",
        "workers failed",
    }
    assert len(rows) == len(hours) == 3 and headings <= set(rows[0])
    assert len(app.get("plotly_chart")) == 1


def test_the_winner_of_a_daily_plan_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"scenario": {k: v for k, v in DAY.items() if k != "failures"}, "deployment": DAY["deployment"]}
    monkeypatch.setattr(plans, "answer", lambda text: {"best": best})
    started: list[str] = []
    monkeypatch.setattr(services, "start", started.append)
    app = sound(opened("capacity", cap_view="The day by hour"))
    assert app.selectbox(key="day_True").value == "the plan's winner"
    app.toggle(key="day_fails").set_value(True).run()
    app.button(key="day_start").click().run()
    [text] = started
    day = parse(text).scenario
    assert day.failures is not None and day.autoscale is not None


def test_without_a_daily_load_the_page_says_so() -> None:
    app = sound(opened("capacity", cap_view="The day by hour"))
    assert any("choose a daily load" in one.value for one in app.caption)

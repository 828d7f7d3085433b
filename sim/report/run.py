"""The charts of one or several services, estimated or simulated: what the dashboard and the HTML report share."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import pandas as pd

from sim.api_prices import api_prices
from sim.price import TokenPrices
from sim.report import service, tables
from sim.report.day import day_chart
from sim.report.look import Chart, Trace
from sim.scenario.difference import against_first
from sim.scenario.schema import Scenario
from sim.steady import SteadyState, steady

Json = Mapping[str, Any]


class Run(Protocol):
    """A simulated result: `sim.result.Result`, or one read back from its folder."""

    @property
    def requests(self) -> pd.DataFrame:
        """One row per request."""
        ...

    def json(self) -> dict[str, Any]:
        """The JSON of the run."""
        ...


@dataclass(frozen=True)
class Shown:
    """One service on a page: its estimate, its simulation, or both."""

    name: str
    scenario: Scenario
    state: SteadyState | None = None
    run: Run | None = None


def shown(name: str, run: Run) -> Shown:
    """A simulated run with the estimate of its scenario beside, where one can be made (its files are still there)."""
    scenario = Scenario.model_validate(run.json()["scenario"])
    try:
        state = steady(scenario)
    except Exception:  # the run says why; its page has the rest
        state = None
    return Shown(name, scenario, state, run)


def charts(services: Sequence[Shown], keys: Collection[str] | None = None) -> dict[str, Chart]:
    """The charts that the services have numbers for, by key, in the order in which they are read.

    keys: draw only these.
    """
    states = {one.name: one.state for one in services if one.state}
    runs = {one.name: one.run.json() for one in services if one.run}
    alone = services[0] if len(services) == 1 else None
    drawn: dict[str, Callable[[], Chart]] = {
        "throughput": lambda: _throughput(services),
        "prices": lambda: _prices(services),
    }
    if runs:
        drawn["latency"] = lambda: service.latency_chart(
            tables.latency_table(runs),
            [one.name for one in services],
            {one.name: one.scenario.objectives for one in services if one.run},
        )
    if alone and (run := alone.run) and alone.scenario.metrics == "rows":
        drawn["timeline"] = lambda: service.timeline_chart(run.requests)
    if alone and alone.run and (hours := tables.at(alone.run.json(), "hours")):
        drawn["day"] = lambda: day_chart(hours)
    if alone and (state := alone.state):
        drawn["memory"] = lambda: service.memory_chart(tables.memory_table(state))
    shares = {n: dict(s.priced_by) for n, s in states.items()} | {
        n: tables.at(r, "priced_by") or {} for n, r in runs.items()
    }
    drawn["provenance"] = lambda: service.provenance_chart(shares)
    return {key: draw() for key, draw in drawn.items() if keys is None or key in keys}


def _throughput(services: Sequence[Shown]) -> Chart:
    curves = {one.name: tables.curve_table(one.state) for one in services if one.state}
    marked = tables.point_table({s.name: ("estimate", s.state.point) for s in services if s.state})
    simulated = [
        {"name": one.name, "kind": "simulation", **tables.run_point(one.run.json())}
        for one in services
        if one.run
    ]
    return service.throughput_chart(curves, pd.concat([marked, pd.DataFrame(simulated)], ignore_index=True))


def _prices(services: Sequence[Shown]) -> Chart:
    """Simulated prices where everything ran; else estimates of all, with what ran beside."""
    prices: dict[tuple[str, str], TokenPrices | Json] = {}
    alike = all(one.run for one in services)
    for one in services:
        if one.state and not alike:
            prices[one.name, "estimate"] = one.state.point.price.usd_per_million
        if one.run:
            prices[one.name, "simulation"] = tables.at(one.run.json(), "cost", "usd_per_million") or {}
    api = _listed(tuple(dict.fromkeys(one.scenario.model for one in services)))
    return service.price_chart(tables.price_table(prices), *api)


@cache
def _listed(models: tuple[str, ...]) -> tuple[pd.DataFrame, list[Trace]]:
    """Public API prices of these models (`tables.api_table`), and their points."""
    api = tables.api_table(pd.concat(map(api_prices, models), ignore_index=True))
    return api, service.public_prices(api)


def unlike(services: Sequence[Shown]) -> list[str]:
    """What each service has other than the first: ratios of unlike work are no ratios of two deployments."""
    return against_first({one.name: one.scenario for one in services}) if services else []

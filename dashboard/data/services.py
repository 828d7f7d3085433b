"""Services: their estimates, their simulations, their charts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st

from dashboard.data.problems import said
from dashboard.data.scenarios import FIRST, scenario, sources
from dashboard.jobs import Job, Jobs
from sim import result
from sim.report import run, tables
from sim.report.html import report
from sim.report.look import Chart
from sim.report.run import Shown
from sim.scenario.loading import load
from sim.steady import SteadyState, steady

__all__ = ["Shown"]


class Figure(NamedTuple):
    """One number of a headline."""

    label: str
    value: float | None
    text: str
    term: str
    """The word that explains it."""
    less_is_better: bool


@st.cache_resource(max_entries=512, show_spinner="Computing")
@said
def estimate(text: str) -> SteadyState:
    """The steady state of a scenario."""
    return steady(scenario(text))


def warm_up() -> None:
    """Price what the first page shows, so that it finds tables and traces read; no page waits for it."""
    for name, file in sources().items():
        if name in FIRST:
            steady(load(file).scenario)


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The simulations of this server."""
    return Jobs()


def start(text: str) -> Job:
    """Simulate a scenario in a child process. Raises Busy."""
    return jobs().start(text)


def job(text: str) -> Job | None:
    """The simulation of a scenario that runs or ran."""
    return jobs().find(text)


@st.cache_resource(max_entries=64, show_spinner="Computing")
def _result(folder: Path) -> result.SavedResult:
    return result.load(folder)


def simulated(text: str) -> result.SavedResult | None:
    """The result of a scenario's simulation, where there is one."""
    found = job(text)
    return _result(found.result) if found and found.state == "done" else None


def shown(name: str, text: str) -> Shown:
    """A scenario with its estimate and, where it ran, its simulation. Raises BadInput."""
    return Shown(name, scenario(text), estimate(text), simulated(text))


def headline(state: SteadyState) -> list[Figure]:
    """The figures that an estimate is about."""
    point, sold = state.point, state.point.price.usd_per_million

    def usd(value: float | None) -> str:
        return "-" if value is None else f"${value:.3g}/M"

    per_gpu, per_user = point.output_tokens_per_s_per_gpu, point.interactivity
    return [
        Figure("Blended", sold.blended, usd(sold.blended), "blended", True),
        Figure("Output", sold.output, usd(sold.output), "price of output", True),
        Figure("Per GPU", per_gpu, f"{per_gpu:,.3g} tok/s", "throughput", False),
        Figure("Per user", per_user, f"{per_user:.3g} tok/s", "interactivity", False),
        Figure("TTFT", point.ttft_s, f"{point.ttft_s:.3g} s", "TTFT", True),
        Figure("Load", state.load, f"{state.load:.0%}", "load", True),
    ]


def charts(services: Sequence[Shown], *keys: str) -> dict[str, Chart]:
    """The charts of services, by key; the same that the HTML report shows. Only `keys`, if any."""
    return run.charts(services, keys or None)


def overview(services: Sequence[Shown]) -> pd.DataFrame:
    """The numbers that a comparison is about, one row per service: simulated where it ran, else estimated."""
    return tables.overview_table(
        [(one.name, one.state, one.run.json() if one.run else None) for one in services]
    )


def page(services: Sequence[Shown]) -> bytes:
    """The HTML report of the simulated ones among the services."""
    return report([one for one in services if one.run]).encode()

"""Services: their estimates, their simulations, their charts."""

from collections.abc import Sequence
from pathlib import Path

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
    """The result of a scenario's simulation, where there is one; a job whose result cannot be read has failed."""
    found = job(text)
    if found is None or found.state != "done":
        return None
    try:
        return _result(found.result)
    except (OSError, ValueError, LookupError) as error:
        found.broken = f"The result cannot be read: {error}"
        return None


def shown(name: str, text: str) -> Shown:
    """A scenario with its estimate and, where it ran, its simulation. Raises BadInput."""
    return Shown(name, scenario(text), estimate(text), simulated(text))


def charts(services: Sequence[Shown], *keys: str) -> dict[str, Chart]:
    """The charts of services, by key; the same that the HTML report shows. Only `keys`, if any."""
    return run.charts(services, keys or None)


def overview(services: Sequence[Shown]) -> pd.DataFrame:
    """The numbers that a comparison is about, one row per service: simulated where it ran, else estimated."""
    return tables.overview_table(
        [(one.name, one.state, one.run.json() if one.run else None) for one in services]
    )


def unlike(services: Sequence[Shown]) -> list[str]:
    """What each service has other than the first, in sentences."""
    return run.unlike(services)


def first_tokens(services: Sequence[Shown]) -> pd.DataFrame:
    """Where the time to the first token goes in the simulated ones among the services."""
    return tables.ttft_table({one.name: one.run.json() for one in services if one.run})


def page(services: Sequence[Shown]) -> bytes:
    """The HTML report of the simulated ones among the services."""
    return report([one for one in services if one.run]).encode()


def day_totals(service: Shown) -> dict[str, str]:
    """What a day that was simulated by the hour adds up to, as a page shows it."""
    hours = service.run.json().get("hours", []) if service.run else []
    sums = {
        key: sum(hour[key] or 0 for hour in hours)
        for key in ("arrived", "usd", "gpu_hours", "missed", "retried")
    }
    return {
        "Requests": f"{sums['arrived']:,.0f}",
        "USD": f"${sums['usd']:,.0f}",
        "GPU-hours": f"{sums['gpu_hours']:,.0f}",
        "Missed": f"{sums['missed']:,.0f}",
        "Retried": f"{sums['retried']:,.0f}",
    }

"""Plans: the question that a page asks, the answer that a child process finds, and how it is shown."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import pandas as pd
import yaml

from dashboard.data import addresses
from dashboard.data.services import jobs
from dashboard.jobs import Job
from sim.report import plan as pages
from sim.report.look import Chart
from sim.scenario.loading import to_yaml
from sim.scenario.schema import Diurnal, Scenario
from sim.workload.arrivals import DailyCurve

Json = Mapping[str, Any]
DECIMALS: Final = 4
"""Of a mean rate in a file."""
DAILY: Final = "deepseek-24h"
"""The curve that the page offers."""


def question(asked: Mapping[str, Any]) -> str:
    """The plan file that the page's settings spell; `tokenworks plan` reads the same.

    `asked`: rate, curve (None: always the same; else a shipped one, of which the rate is the highest hour's), input,
    output, spread, hits (share), model, gpus, tier (None: the catalog's), drafts (a list), ttft_s, tpot_s, percentile,
    most (GPUs).
    """
    workload: dict[str, Any] = {
        "arrivals": _arrivals(asked["rate"], asked["curve"]),
        "lengths": {side: _length(asked[side], asked["spread"]) for side in ("input", "output")},
    }
    if asked["hits"]:
        workload["cached_fraction"] = asked["hits"]
    search: dict[str, Any] = {"gpu": list(asked["gpus"]), "max_gpus": asked["most"]}
    if asked["drafts"] != [0]:
        search["speculation.draft_tokens"] = list(asked["drafts"])
    at = f"p{asked['percentile']:g}"
    data = {
        "model": asked["model"],
        "workload": workload,
        "objectives": {f"ttft_{at}_s": asked["ttft_s"], f"tpot_{at}_s": asked["tpot_s"]},
        **({"price": {"tier": asked["tier"]}} if asked["tier"] else {}),
        "search": search,
    }
    text: str = yaml.safe_dump(data, sort_keys=False)
    return text


def _arrivals(peak_per_s: float, curve: str | None) -> dict[str, Any]:
    if curve is None:
        return {"poisson": {"rate_per_s": peak_per_s}}
    peak_over_mean = DailyCurve.load(Diurnal(mean_rate_per_s=1.0, curve=curve), None).peak_per_s
    return {"diurnal": {"mean_rate_per_s": round(peak_per_s / peak_over_mean, DECIMALS), "curve": curve}}


def _length(mean: int, spread: float) -> dict[str, Any]:
    return {"lognormal": {"mean": mean, "cv": spread}} if spread else {"constant": mean}


def start(text: str) -> Job:
    """Look for the answer in a child process. Raises Busy."""
    return jobs().start(text, command="plan")


def job(text: str) -> Job | None:
    """The plan that waits, runs or ran."""
    return jobs().find(text)


def answer(text: str) -> Json | None:
    """The answer, where there is one; a job whose answer cannot be read has failed."""
    found = job(text)
    if found is None or found.state != "done":
        return None
    try:
        return _read(found.result / "plan.json")
    except (OSError, ValueError) as error:
        found.broken = f"The answer cannot be read: {error}"
        return None


@cache
def _read(file: Path) -> Json:
    content: Json = json.loads(file.read_text(encoding="utf-8"))
    return content


def charts(plan: Json) -> Sequence[Chart]:
    """The charts of an answer; the same that the HTML report shows."""
    return pages.charts(plan)


def plans(plan: Json) -> pd.DataFrame:
    """The winner with its margin, without it, and with a worker to spare."""
    return pages.plans_table(plan)


def candidates(plan: Json) -> pd.DataFrame:
    """The candidates with what rules each out, and the address under which What-if has it."""
    return pages.candidates_table(plan)


def report(plan: Json) -> bytes:
    """The HTML report."""
    return pages.page(plan).encode()


def winner(plan: Json) -> str | None:
    """The winner's scenario as YAML."""
    best = plan["best"]
    return None if best is None else to_yaml(Scenario.model_validate(best["scenario"]))


def day(plan: Json, follows: bool, fails: bool) -> str | None:
    """The winner through a day of the question's load, as YAML; None where that is always the same.

    `follows`: workers come and go with the load, between one and those of the plan; `fails`: GPUs fail at the
    catalog's rate.
    """
    best = plan["best"]
    if best is None or "diurnal" not in best["scenario"]["workload"].get("arrivals", {}):
        return None
    pools = {role: {"min": 1, "max": pool.get("workers", 1)} for role, pool in best["deployment"].items()}
    more = {
        **({"autoscale": {"pools": pools}} if follows else {}),
        **({"failures": {}} if fails else {}),
    }
    return to_yaml(Scenario.model_validate({**best["scenario"], **more}))


def what_if(candidate: Json) -> addresses.Address:
    """Where What-if shows a candidate, as far as its settings can."""
    return addresses.what_if(Scenario.model_validate(candidate["scenario"]))

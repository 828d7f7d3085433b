"""Plans: the question that a page asks, the answer that a child process finds, and how it is shown."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dashboard.data.services import jobs
from dashboard.jobs import Job
from dashboard.settings import DEFAULTS, encode
from sim.report import plan as pages
from sim.report.look import Chart
from sim.scenario.loading import to_yaml
from sim.scenario.schema import Scenario

Json = Mapping[str, Any]


def question(asked: Mapping[str, Any]) -> str:
    """The plan file that the page's settings spell; `tokenworks plan` reads the same.

    `asked`: rate, input, output, spread, hits (share), model, gpus, tier (None: the catalog's), drafts (a list),
    ttft_s, tpot_s, percentile, most (GPUs).
    """
    workload: dict[str, Any] = {
        "arrivals": {"poisson": {"rate_per_s": asked["rate"]}},
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


def what_if(candidate: Json) -> str:
    """The query under which What-if shows a candidate, as far as its sliders can: one word of `dashboard.settings`."""
    scenario = candidate["scenario"]
    workload = scenario["workload"]
    lengths = {side: _mean(workload["lengths"][side]) for side in ("input", "output")}
    settings: dict[str, Any] = {
        **DEFAULTS,
        "m": scenario["model"],
        "g": scenario["gpu"],
        "r": float(workload["arrivals"]["poisson"]["rate_per_s"]),
        "i": lengths["input"][0],
        "o": lengths["output"][0],
        "v": float(lengths["input"][1]),
        "h": round(100 * workload.get("cached_fraction", 0)),
        "d": scenario.get("speculation", {}).get("draft_tokens", 0),
        "t": scenario.get("price", {}).get("tier", DEFAULTS["t"]),
        "k": "joint" if candidate["kind"] == "aggregated" else "separate",
        "ep": all(pool.get("ep", 1) > 1 for pool in candidate["deployment"].values()),
    }
    for role, pool in candidate["deployment"].items():
        letter = {"prefill": "p", "decode": "d", "serve": "s"}[role]
        settings |= {f"{letter}w": pool["workers"], f"{letter}g": pool["gpus"], f"{letter}t": pool["tp"]}
        settings["b"] = pool.get("max_batch_per_gpu", settings["b"])
    changed = encode(settings)
    return "&".join(part.replace(":", "=", 1).replace("True", "true").replace("False", "false")
                    for part in changed.split(";") if ":" in part)  # fmt: skip


def _mean(length: Json) -> tuple[int, float]:
    if "constant" in length:
        return length["constant"], 0.0
    return round(length["lognormal"]["mean"]), length["lognormal"]["cv"]

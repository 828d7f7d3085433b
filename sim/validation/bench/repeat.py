"""A run of a benchmark client -> the scenario that repeats it, and what the client would have printed of that."""

import csv
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.result import Result
from sim.saving import whole_file
from sim.scenario.errors import Place
from sim.scenario.form import check
from sim.scenario.schema import Scenario, Workload
from sim.scenario.tree import graft
from sim.validation.bench.run import BenchError, BenchRun, Figures
from sim.validation.errors import quantile
from sim.validation.recipes import recipes
from sim.validation.scenarios import duration_s, scenario_of

Floats = NDArray[np.float64]


def repeated(run: BenchRun, scenario: Scenario | None, folder: Path, max_prompts: int) -> Scenario:
    """The scenario's deployment, or that of the file, under the run's workload; the lengths of single requests go to a
    trace in `folder`. At most `max_prompts` prompts, but a few rounds (`rounds_at_least`) of what is in flight.

    Raises BenchError where neither tells the deployment, and ScenarioError where the workload is none that is
    simulated, such as prompts longer than any.
    """
    count = run.simulated(max_prompts)
    if scenario is None:
        if run.row is None:
            raise BenchError(
                f"{run.id}: {run.about['name']} does not say what it measured; give the deployment: --scenario "
                "S.yaml, or a launch command"
            )
        known = run.row.hardware in recipes()["scripts_read"]
        return scenario_of(replace(run.row, by_recipe=known), max_prompts)
    given = scenario.workload.cached_fraction
    workload = _workload(run, folder, count) | ({"cached_fraction": given} if given is not None else {})
    changes: dict[str, Any] = {
        "workload": check(graft(workload, Place(run.id)), Workload),
        "duration_s": None,
        "warmup_s": 0.0,
        "metrics": "rows",
    }
    return scenario.model_copy(update=changes)


def _workload(run: BenchRun, folder: Path, count: int) -> dict[str, Any]:
    load, lengths = run.load, run.lengths
    arrivals: dict[str, Any] | None
    if load.times_s is not None:
        arrivals = None
    elif load.rate_per_s < inf:
        even = {"rate_per_s": load.rate_per_s}
        arrivals = {"poisson": even} if load.cv == 1 else {"gamma": {**even, "cv": load.cv}}
    elif run.in_flight is not None:
        arrivals = {"closed_loop": {"concurrency": run.in_flight}}
    else:
        arrivals = {"all_at_once": {}}
    found: dict[str, Any] = {"requests": count} | ({"arrivals": arrivals} if arrivals else {})
    if lengths.each is None:
        return {**found, "lengths": {"input": dict(lengths.input), "output": dict(lengths.output)}}
    return {**found, "trace": str(_trace(run, folder))}


def _trace(run: BenchRun, folder: Path) -> Path:
    """The requests of a run as a trace's file."""
    file = folder / f"{run.id.replace(':', '-')}.csv"
    times = run.load.times_s
    with whole_file(file) as beside, beside.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow((*(["arrival_s"] if times is not None else []), "input_tokens", "output_tokens"))
        for i, pair in enumerate(run.lengths.each or ()):
            rows.writerow((*([f"{times[i]:.6f}"] if times is not None else []), *pair))
    return file.resolve()


def printed(result: Result, run: BenchRun) -> Figures:
    """The figures of a simulation as the client would have printed them after all requests of the run.

    The first requests of a closed loop start in a burst: where fewer were simulated, each later one weighs for those
    that were not. ITL is the time of all answers after their first tokens over the steps, or the tokens, that made
    them.
    """
    table, flight = result.requests, run.in_flight or 0
    finish_s = table["finish_s"].to_numpy(dtype=np.float64)
    count = len(table)
    whole = run.requests if flight else count
    weights = np.ones(count)
    if flight < count < whole:
        weights[flight:] = (whole - flight) / (count - flight)
    seconds = {name: table[f"{name}_s"].to_numpy(dtype=np.float64) for name in ("ttft", "tpot", "e2e")}
    found: dict[str, dict[str, float]] = {
        name: _statistics(values, weights) for name, values in seconds.items()
    }
    tokens = {name: table[f"{name}_tokens"].to_numpy(dtype=np.float64) for name in ("input", "output")}
    gaps = np.maximum(tokens["output"] - 1, 0)
    drafted = result.json().get("speculation") or {}
    pieces = drafted.get("accept_length", 1.0) if run.about.get("itl") == "pieces" else 1.0
    if gaps.any():
        decoding = np.nansum(weights * (seconds["e2e"] - seconds["ttft"]) * (gaps > 0))
        found["itl"] = {"mean": float(decoding / (weights * gaps).sum() * pieces)}
    lasted_s = duration_s(finish_s - float(table["arrival_s"].min()), flight, whole)
    sums = {name: float((weights * of).sum()) for name, of in tokens.items()}
    return {
        **{name: of for name, of in found.items() if of},
        "requests_per_s": {"rate": float(weights.sum()) / lasted_s},
        "output_tokens_per_s": {"rate": sums["output"] / lasted_s},
        "total_tokens_per_s": {"rate": sum(sums.values()) / lasted_s},
    }


def _statistics(seconds: Floats, weights: Floats) -> dict[str, float]:
    there = ~np.isnan(seconds)
    if not there.any():
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    return {
        "mean": float(np.average(seconds[there], weights=weights[there])),
        **{name: quantile(seconds[there], weights[there], share) for name, share in shares.items()},
    }

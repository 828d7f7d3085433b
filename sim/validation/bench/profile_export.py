"""The results of genai-perf and AIPerf: a block of unit and statistics per metric, and what was asked for."""

import re
from collections.abc import Mapping
from math import inf
from typing import Any, Final

from sim.validation.bench.numbers import Values
from sim.validation.bench.run import BenchError, BenchLengths, BenchRun, Figures, Load, formats

NEEDED: Final = ("input_sequence_length", "output_sequence_length")
"""Without them no workload can be told."""
LEAST_CV: Final = 1e-3
"""Of lengths that are not alike; the least that a scenario takes."""
OPTION: Final = r"--{}[= ]'?([\w.,]+)"


def tool_of(values: Values) -> str | None:
    """`genai-perf` or `aiperf`; None for another file."""
    blocks = [name for name in formats()["blocks"] if isinstance(values.data.get(name), dict)]
    if not any("unit" in values.data[name] for name in blocks):
        return "aiperf" if {"aiperf_version", "input_config"} <= values.data.keys() else None
    config = values.data.get("input_config")
    own = {"aiperf_version", "schema_version", "run_info", "was_cancelled", "error_summary"}
    modern = own & values.data.keys() or (isinstance(config, dict) and "loadgen" in config)
    return "aiperf" if modern else "genai-perf"


def read_export(id: str, tool: str, values: Values) -> BenchRun:
    """The run that an export holds."""
    if tool == "aiperf" and not any(isinstance(values.data.get(name), dict) for name in formats()["blocks"]):
        errors = values.data.get("error_summary")
        counts = (
            [one.get("count") for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
        )
        told = sum(count for count in counts if isinstance(count, int))
        beside = f", {told} failed (error_summary)" if told else ""
        raise BenchError(f"{values.place}: no figure in it: no request was answered{beside}")
    missing = [name for name in NEEDED if not isinstance(values.data.get(name), dict)]
    if missing:
        raise BenchError(f"{values.place}: expected {' and '.join(missing)}, which tell the workload")
    measured = _figures(values)
    notes = ["lengths: the mean and the spread that the file tells, not each request's"]
    if values.data.get("was_cancelled"):
        notes.append("the run was cancelled before its end")
    if "time_to_first_token" not in values:
        notes.append(formats()["why"]["no_tpot"])
    return BenchRun(
        id=id,
        tool=tool,
        load=_load(values, tool),
        lengths=BenchLengths(input=_length(values, NEEDED[0]), output=_length(values, NEEDED[1])),
        requests=_requests(values, measured),
        measured=measured,
        model=_model(values),
        notes=tuple(notes),
    )


def _figures(values: Values) -> Figures:
    known, found = formats(), dict[str, dict[str, float]]()
    for name, metric in known["blocks"].items():
        block = values.data.get(name)
        if not isinstance(block, dict):
            continue
        inside, unit = Values(f"{values.place}: {name}", block), str(block.get("unit", ""))
        if metric.endswith("_s"):
            if block.get("avg"):
                found[metric] = {"rate": inside.positive("avg")}
            continue
        if unit not in known["units"]:
            raise inside.wrong("unit", f"one of {', '.join(known['units'])}")
        found[metric] = {
            ours: inside.positive(theirs) * known["units"][unit]
            for theirs, ours in known["statistics"].items()
            if block.get(theirs)
        }
    return {metric: statistics for metric, statistics in found.items() if statistics}


def _length(values: Values, name: str) -> Mapping[str, Any]:
    inside = Values(f"{values.place}: {name}", values.data[name])
    mean = inside.positive("avg")
    spread = inside.positive("std") / mean if inside.data.get("std") else 0.0
    if spread < LEAST_CV:
        return {"constant": max(1, round(mean))}
    return {"lognormal": {"mean": max(1.0, mean), "cv": min(100.0, spread)}}


def _requests(values: Values, measured: Figures) -> int:
    """Answered: counted by AIPerf; genai-perf counts them too in later releases, and the lengths' `count` in others."""
    for path in ("request_count.avg", "input_sequence_length.count", "input_config.request_count"):
        told = values.at(path)
        if isinstance(told, int | float) and told == 0:
            raise BenchError(f"{values.place}: {path}: no request was answered")
        if isinstance(told, int | float) and told >= 1:
            return int(told)
    seconds = values.at("benchmark_duration.avg")
    if isinstance(seconds, int | float) and "requests_per_s" in measured:
        return max(1, round(seconds * measured["requests_per_s"]["rate"]))
    raise BenchError(f"{values.place}: expected request_count, which tells how many requests there were")


def _load(values: Values, tool: str) -> Load:
    """What was asked for; a client that is told nothing sends one request at a time."""
    bound, rate = (_asked(values, kind) for kind in ("concurrency", "rate"))
    even = str(values.at("input_config.loadgen.request_rate_mode")).lower().endswith("constant")
    cv = formats()["tools"]["genai-perf" if even else tool]["cv"]
    if rate is not None:
        return Load(rate_per_s=rate, cv=cv)
    if bound is None and values.data.get("input_config") is None:
        raise BenchError(f"{values.place}: expected input_config, which tells the load")
    return Load(int(bound or 1), inf)


def _asked(values: Values, kind: str) -> float | None:
    """What a sweep set in this run, else the first of the places that have it, else the option of the command line."""
    swept = values.at("run_info.variation_values")
    found = [swept.get(path) if isinstance(swept, dict) else None for path in formats()[kind]]
    found += [values.at(f"input_config.{path}") for path in formats()[kind]]
    number = next((one for one in found if isinstance(one, int | float) and one > 0), None)
    if number is not None:
        return float(number)
    said = " ".join(str(values.at(path)) for path in ("input_config.cli_command", "run_info.cli_command"))
    option = re.search(OPTION.format("concurrency" if kind == "concurrency" else "request-rate"), said)
    if option and "," in option[1]:
        raise BenchError(
            f"{values.place}: '{option[0]}' is of several runs, and nothing tells which this file is of"
        )
    try:
        return float(option[1]) if option else None
    except ValueError:
        return None


def _model(values: Values) -> str:
    places = ("model_names", "model", "endpoint.model_names", "formatted_model_name")
    found = next((one for path in places if (one := values.at(f"input_config.{path}"))), "")
    return str(found[0] if isinstance(found, list) else found)

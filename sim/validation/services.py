"""Published services with a launch command of their own: all at once, or a closed loop (`services.yaml`)."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.scenario.schema import Scenario
from sim.units import MILLISECOND_S
from sim.validation.case import described
from sim.validation.rows import Published
from sim.validation.runs import Benchmark, Trial

FILE: Final = Path(__file__).with_name("services.yaml")
RATES: Final = ("output_tput_per_gpu", "total_tput_per_gpu")
TIMES: Final = {"ttft_ms": "ttft", "tpot_ms": "tpot"}


@cache
def services() -> Mapping[str, Any]:
    """`services.yaml`."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def ids() -> list[str]:
    """Of all services, in their order."""
    return [entry["id"] for entry in services()["services"]]


def benchmarks(wanted: Sequence[str], seed: int) -> list[Benchmark]:
    """The services with these ids."""
    return [_benchmark(entry, seed) for entry in services()["services"] if entry["id"] in wanted]


def service_scenario(entry: Mapping[str, Any]) -> Scenario:
    """The scenario of an entry."""
    loop = entry.get("concurrency")
    workload = {
        "arrivals": {"closed_loop": {"concurrency": loop}} if loop else {"all_at_once": {}},
        "lengths": {"input": _length(entry, "in"), "output": _length(entry, "out")},
        "requests": entry["requests"],
        "cached_fraction": entry.get("cached"),
    }
    base = services()["bases"][entry["base"]]
    return Scenario.model_validate({**base, **entry.get("set", {}), "workload": workload})


def _length(entry: Mapping[str, Any], side: str) -> dict[str, Any]:
    mean, cv = entry[side], entry.get("cv")
    return {"lognormal": {"mean": mean, "cv": cv}} if cv else {"constant": round(mean)}


def _benchmark(entry: Mapping[str, Any], seed: int) -> Benchmark:
    scenario = service_scenario(entry)
    pool = scenario.deployment.serve
    assert pool is not None
    told = entry["published"]
    published = {name: Published(told[name], "rate") for name in RATES if name in told}
    published |= {
        metric: Published(told[n] * MILLISECOND_S, "mean") for n, metric in TIMES.items() if n in told
    }
    columns = {
        "id": entry["id"],
        "layout": f"{entry['base']} {scenario.engine} {pool.gpus} GPUs TP{pool.tp} EP{pool.ep}",
        "point": f"{entry['in']:g}/{entry['out']:g} {_load(entry)}: {entry['note']}",
        "source": "GPUStack performance lab" if entry["base"].startswith("h200") else "vLLM blog",
        **described(scenario, "service"),
    }
    conc = entry.get("concurrency", entry["requests"])
    return Benchmark(columns, published, [Trial(scenario, seed, conc, entry["requests"])])


def _load(entry: Mapping[str, Any]) -> str:
    return f"conc {loop}" if (loop := entry.get("concurrency")) else f"{entry['requests']} at once"

"""Published services with a launch command of their own (`services.yaml`), and public reports of speed
(`reports.yaml`): all at once, or a closed loop."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.scenario.schema import Scenario
from sim.units import MILLISECOND_S
from sim.validation.case import described
from sim.validation.rows import Published
from sim.validation.runs import Benchmark, Trial

FOLDER: Final = Path(__file__).parent
KINDS: Final = ("services", "reports")
"""Files of the folder, and the names that mean all of their entries."""
RATES: Final = ("output_tput_per_gpu", "total_tput_per_gpu")
TIMES: Final = {
    "ttft_ms": ("ttft", "mean"), "tpot_ms": ("tpot", "mean"),
    "ttft_p50_ms": ("ttft", "p50"), "tpot_p50_ms": ("tpot", "p50"),
}  # fmt: skip
"""Name of a published time -> metric and statistic."""


@cache
def listed(kind: str) -> Mapping[str, Any]:
    """`services.yaml` or `reports.yaml`."""
    return yaml.safe_load((FOLDER / f"{kind}.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def entries() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All of both files, in their order: (kind, entry)."""
    for kind in KINDS:
        for entry in listed(kind)["services"]:
            yield kind, entry


def ids(kind: str) -> list[str]:
    """Of all entries of a file, in their order."""
    return [entry["id"] for entry in listed(kind)["services"]]


def benchmarks(wanted: Sequence[str], seed: int) -> list[Benchmark]:
    """The services with these ids."""
    return [_benchmark(kind, entry, seed) for kind, entry in entries() if entry["id"] in wanted]


def loads(entry: Mapping[str, Any]) -> list[int | None]:
    """Requests in flight, None where all come at once; fewest and most where nobody says how many."""
    told = entry.get("concurrency")
    return list(told) if isinstance(told, list) else [told]


def service_scenario(kind: str, entry: Mapping[str, Any], load: int | None = None) -> Scenario:
    """The scenario of an entry of a file, with so many requests in flight; default: the most that it may have had."""
    loop = load or loads(entry)[-1]
    workload = {
        "arrivals": {"closed_loop": {"concurrency": loop}} if loop else {"all_at_once": {}},
        "lengths": {"input": _length(entry, "in"), "output": _length(entry, "out")},
        "requests": entry["requests"],
        "cached_fraction": entry.get("cached"),
    }
    base = {name: said for name, said in listed(kind)["bases"][entry["base"]].items() if name != "source"}
    sigma = {"experts": {"popularity_sigma": 1.05}}
    return Scenario.model_validate({**sigma, **base, **entry.get("set", {}), "workload": workload})


def _length(entry: Mapping[str, Any], side: str) -> dict[str, Any]:
    tokens = entry[side]
    if cv := entry.get("cv"):
        return {"lognormal": {"mean": tokens, "cv": cv}}
    if share := entry.get("from"):
        return {"uniform": (max(1, int(tokens * share)), tokens)}
    return {"constant": round(tokens)}


def _benchmark(kind: str, entry: Mapping[str, Any], seed: int) -> Benchmark:
    scenarios = [service_scenario(kind, entry, load) for load in reversed(loads(entry))]
    scenario, pool = scenarios[0], scenarios[0].deployment.serve
    assert pool is not None
    told = entry["published"]
    published = {name: Published(told[name], "rate") for name in RATES if name in told}
    published |= {
        metric: Published(told[name] * MILLISECOND_S, statistic)
        for name, (metric, statistic) in TIMES.items()
        if name in told
    }
    columns = {
        "id": entry["id"],
        "layout": f"{entry['base']} {scenario.engine} {pool.gpus} GPUs TP{pool.tp} EP{pool.ep}",
        "point": f"{entry['in']:g}/{entry['out']:g} {_load(entry)}: {entry['note']}",
        "source": listed(kind)["bases"][entry["base"]].get("source") or _source(entry["base"]),
        **described(scenario, "service"),
    }
    requests = entry["requests"]
    concs = [load or requests for load in reversed(loads(entry))]
    trials = [Trial(one, seed, conc, requests) for one, conc in zip(scenarios, concs, strict=True)]
    return Benchmark(columns, published, trials)


def _source(base: str) -> str:
    return "GPUStack performance lab" if base.startswith("h200") else "vLLM blog"


def _load(entry: Mapping[str, Any]) -> str:
    told = [str(load) for load in loads(entry) if load]
    return f"conc {' to '.join(told)}" if told else f"{entry['requests']} at once"

"""Facts, one source per number: GPUs, models, engines, default efficiencies, prices.

The numbers live in the YAML and CSV files beside this module, each with its unit and its source; engines have a file
each in `engines/`. What a run costs is `sim.price`'s alone.
"""

from collections.abc import Callable, Mapping

from sim.catalog.acceptance import (
    GENERAL,
    accept_length,
    acceptance,
    acceptance_rows,
    acceptance_tasks,
    longest_block,
)
from sim.catalog.cache_tiers import CacheTiers, cache_tiers
from sim.catalog.engine_rules import DispatchMode, Engine
from sim.catalog.engines import engine, engine_aliases, engine_names, release_taken
from sim.catalog.facts import UnknownName, nearest_names, read, respelt
from sim.catalog.hardware import (
    Efficiency,
    Gpu,
    LowLatencyAllToAll,
    described_gpu,
    efficiency,
    gpu,
    gpu_names,
    price_tiers,
    tier_names,
    tiles,
)
from sim.catalog.hugging_face import ConfigError
from sim.catalog.launch_defaults import LaunchDefaults, launch_defaults
from sim.catalog.models import kv_layouts, model, model_names, release
from sim.catalog.network import Collectives, Protocol, collectives
from sim.catalog.reserve import Reserve, Work
from sim.catalog.shapes import LayerGroup, Model
from sim.catalog.traffic import popularity_sigma

__all__ = [
    "GENERAL",
    "CacheTiers",
    "Collectives",
    "ConfigError",
    "DispatchMode",
    "Efficiency",
    "Engine",
    "Gpu",
    "LaunchDefaults",
    "LayerGroup",
    "LowLatencyAllToAll",
    "Model",
    "Protocol",
    "Reserve",
    "UnknownName",
    "Work",
    "accept_length",
    "acceptance",
    "acceptance_rows",
    "acceptance_tasks",
    "aliases",
    "cache_tiers",
    "catalog_date",
    "collectives",
    "described_gpu",
    "efficiency",
    "engine",
    "engine_names",
    "gpu",
    "gpu_names",
    "kv_layouts",
    "launch_defaults",
    "longest_block",
    "model",
    "model_names",
    "nearest_names",
    "popularity_sigma",
    "price_tiers",
    "release",
    "release_taken",
    "spelling",
    "tier_names",
    "tiles",
]


def aliases(kind: str) -> Mapping[str, str]:
    """Other names of the catalog's models, GPUs or engines, and what they stand for; `kind`: model, gpu or engine."""
    return engine_aliases() if kind == "engine" else read(f"{kind}s.yaml")["aliases"]


def spelling(kind: str, name: str) -> str:
    """The catalog's own name for one that differs from it in `-`, `_` and spaces alone; any other as it is. `kind`:
    model, gpu, engine or tier."""
    names: Mapping[str, Callable[[], tuple[str, ...]]] = {
        "model": model_names, "gpu": gpu_names, "engine": engine_names, "tier": tier_names,
    }  # fmt: skip
    known = names[kind]()
    others = {} if kind == "tier" else aliases(kind)
    if name.lower() in known or name.lower() in others:
        return name
    return respelt(name, known, others) or name


def catalog_date() -> str:
    """The latest day on which a source of the catalog was read, as YYYY-MM-DD."""
    return str(max(source["read"] for source in read("sources.yaml").values()))

"""`tokenworks catalog`: the names that a scenario may use, and its keys."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from sim.cli.files import print_json
from sim.cli.terminal import Screen, number, usd
from sim.units import GB_BYTES, TERA

Rows = list[dict[str, Any]]

HEADINGS: Final = {
    "parameters_b": "parameters, billion",
    "active_b": "active",
    "cache_bytes_per_token_fp8": "FP8 cache, B/token",
    "memory_gb": "memory, GB",
    "memory_tb_per_s": "TB/s",
    "fp8_tflop_per_s": "FP8, TFLOP/s",
    "gpus_joined_by_nvlink": "joined by NVLink",
    "usd_per_gpu_hour": "USD per GPU-hour, by price tier",
    "host_overhead_ms": "host time per step, ms",
}
"""Columns that a person reads under another name than a program."""
POOL: Final = "POOL"
"""Stands for prefill, decode and serve, whose keys are the same."""


class Topic(StrEnum):
    """What to list."""

    MODELS = "models"
    GPUS = "gpus"
    ENGINES = "engines"
    PROFILES = "profiles"
    TRACES = "traces"
    KEYS = "keys"


def show_catalog(
    topic: Annotated[
        Topic | None, typer.Argument(help="default: all but the keys", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object as the last line of stdout; the rest to stderr")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="with --json no tables")] = False,
) -> None:
    """The names that a scenario may use: models, GPUs with their prices, engines, profiles, traces; and its keys."""
    screen = Screen(as_json, quiet)
    topics = [topic] if topic else [one for one in Topic if one is not Topic.KEYS]
    found = {one.value: LISTS[one]() for one in topics}
    screen.show(_table(name, rows) for name, rows in found.items())
    if as_json:
        print_json(found)


def models() -> Rows:
    """Models, their size, and the cache that each of their tokens takes."""
    from sim import catalog
    from sim.model import architecture

    return [
        {
            "model": name,
            "also": _aliases("model", name),
            "parameters_b": architecture.total_parameters(model) / 1e9,
            "active_b": architecture.active_parameters(model) / 1e9,
            "attention": " + ".join(group.attention for group in model.attention),
            "cache_bytes_per_token_fp8": architecture.cache_bytes_per_token(model, "fp8"),
        }
        for name in catalog.model_names()
        for model in [catalog.model(name)]
    ]


def gpus() -> Rows:
    """GPUs, and what an hour of one costs in each tier."""
    from sim import catalog
    from sim.price import gpu_hour
    from sim.scenario.schema import Price

    return [
        {
            "gpu": name,
            "also": _aliases("gpu", name),
            "memory_gb": gpu.memory_bytes / GB_BYTES,
            "memory_tb_per_s": gpu.memory_bytes_per_s / TERA,
            "fp8_tflop_per_s": gpu.fp8_flop_per_s / TERA,
            "gpus_joined_by_nvlink": gpu.scale_up_domain,
            "usd_per_gpu_hour": {
                tier: gpu_hour(gpu, Price(tier=tier)).usd for tier in catalog.price_tiers(name)
            },
        }
        for name in catalog.gpu_names()
        for gpu in [catalog.gpu(name)]
    ]


def engines() -> Rows:
    """Engines, and the time per step that the GPU waits for each."""
    from sim import catalog

    return [
        {
            "engine": name,
            "also": _aliases("engine", name),
            "host_overhead_ms": catalog.engine(name).host_overhead_s * 1e3,
        }
        for name in catalog.engine_names()
    ]


def profiles() -> Rows:
    """Measured profiles that ship."""
    from sim.catalog.profiles import shipped_profiles

    return [{"profile": name} for name in shipped_profiles()]


def traces() -> Rows:
    """Recorded workloads that ship."""
    from sim.workload.trace import shipped

    return [{"trace": name} for name in shipped()]


def keys() -> Rows:
    """Every key of a scenario: what it takes, its default, what it means."""
    from sim.scenario.form import expected, key_paths, schema_at
    from sim.scenario.schema import Scenario

    rows: Rows = []
    for path in key_paths(Scenario):
        if {"prefill", "decode"} & {*path[1:3]} or path[2:3] == ("experts",) != path[3:]:
            continue  # said once, for `serve` and under `experts`
        schema = schema_at(Scenario, path)
        named = [POOL if part == "serve" else str(part) for part in path]
        default = schema.get("default")
        rows.append(
            {
                "key": ".".join(named),
                "takes": expected(schema),
                "default": default if isinstance(default, str | int | float) else None,
                "means": schema.get("description", ""),
            }
        )
    return rows


LISTS: Final[Mapping[Topic, Callable[[], Rows]]] = {
    Topic.MODELS: models,
    Topic.GPUS: gpus,
    Topic.ENGINES: engines,
    Topic.PROFILES: profiles,
    Topic.TRACES: traces,
    Topic.KEYS: keys,
}


def _aliases(kind: str, name: str) -> list[str]:
    from sim import catalog

    return [alias for alias, known in catalog.aliases(kind).items() if known == name]


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in rows[0]:
        numbers = all(isinstance(row[column], int | float) for row in rows)
        table.add_column(
            HEADINGS.get(column, column), justify="right" if numbers else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    for value in row.values():
        match value:
            case dict():
                yield (
                    ", ".join(f"{tier} {usd(price)}" for tier, price in value.items())
                    or "none: give your own"
                )
            case list():
                yield ", ".join(value)
            case bool() | str():
                yield str(value)
            case None:
                yield ""
            case _:
                yield number(value)

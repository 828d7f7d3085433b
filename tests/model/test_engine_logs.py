"""Weights and KV room against what engines print when they start; no number here was fitted to a row's own log."""

import csv
from pathlib import Path
from typing import Any

import pytest

from sim import catalog
from sim.model.deployment import plan_pool
from sim.scenario.schema import Scenario

GIB = 2**30
ROWS = [*csv.DictReader((Path(__file__).parent / "data" / "engine_logs.csv").open(encoding="utf-8"))]


def budget(row: dict[str, str]) -> Any:
    serve = {
        "gpus": int(row["gpus"]),
        "tp": int(row["tp"]),
        "ep": int(row["ep"]),
        "max_batch_per_gpu": 32,
        "experts": {"redundant": int(row["redundant"])},
    }
    serve |= {"exchange": row["exchange"]} if row["exchange"] else {}
    serve |= {"memory_fraction": float(row["memory_fraction"])} if row["memory_fraction"] else {}
    return plan_pool(
        Scenario.model_validate(
            {
                "model": row["model"],
                "gpu": row["gpu"],
                "engine": row["engine"],
                "precision": {"weights": "fp8", "kv_cache": row["kv_cache"]},
                "deployment": {"serve": serve},
                "workload": {
                    "arrivals": {"closed_loop": {"concurrency": 1}},
                    "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
                    "requests": 1,
                },
                "price": {"usd_per_gpu_hour": 1.0},
            }
        ),
        "serve",
    ).memory


@pytest.mark.parametrize("row", ROWS, ids=[f"{r['source']}: {r['quantity']}" for r in ROWS])
def test_what_an_engine_printed(row: dict[str, str]) -> None:
    memory, runtime = budget(row), catalog.engine(row["engine"]).runtime_bytes
    simulated = {
        "weights_gib": memory.weights_bytes / GIB,
        "used_gib": (memory.weights_bytes + runtime) / GIB,
        "kv_tokens": memory.kv_tokens,
    }[row["quantity"]]
    assert simulated == pytest.approx(float(row["published"]), rel=float(row["tolerance"]))

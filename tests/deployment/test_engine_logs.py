"""Weights and KV room against what engines print when they start; no number here was fitted to a row's own log."""

import csv
from pathlib import Path
from typing import Any

import pytest

from sim import catalog
from sim.deployment.memory import MemoryBudget
from sim.deployment.plan import deploy, plan_pool
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario

GIB = 2**30
ROWS = [*csv.DictReader((Path(__file__).parent / "data" / "engine_logs.csv").open(encoding="utf-8"))]


def scenario(row: dict[str, str]) -> Scenario:
    serve: dict[str, Any] = {
        "gpus": int(row["gpus"]),
        "tp": int(row["tp"]),
        "ep": int(row["ep"]),
        "max_batch_per_gpu": 32,
        "experts": {"redundant": int(row["redundant"])},
    }
    serve |= {"exchange": row["exchange"]} if row["exchange"] else {}
    serve |= {"memory_fraction": float(row["memory_fraction"])} if row["memory_fraction"] else {}
    return Scenario.model_validate(
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
    )


def budget(row: dict[str, str]) -> MemoryBudget:
    return plan_pool(scenario(row), "serve").memory


@pytest.mark.parametrize("row", ROWS, ids=[f"{r['source']}: {r['quantity']}" for r in ROWS])
def test_what_an_engine_printed(row: dict[str, str]) -> None:
    memory, runtime = budget(row), catalog.engine(row["engine"]).runtime_bytes
    simulated = {
        "weights_gib": memory.weights_bytes / GIB,
        "used_gib": (memory.weights_bytes + runtime) / GIB,
        "kv_tokens": memory.kv_tokens,
    }[row["quantity"]]
    assert simulated == pytest.approx(float(row["published"]), rel=float(row["tolerance"]))


def test_sglangs_own_fraction_does_not_hold_v3_on_eight_h20_and_the_advice_says_which_does() -> None:
    """1 - 14,848 / 97,871 MiB = 0.848 of what is free is less than the weights: people give 0.88 to 0.92."""
    row = {"model": "deepseek-v3", "gpu": "h20", "engine": "sglang", "gpus": "8", "tp": "8", "ep": "1"}
    row |= {"redundant": "0", "exchange": "", "kv_cache": "bf16"}
    default, given = (budget({**row, "memory_fraction": fraction}) for fraction in ("", "0.9"))
    assert not default.fits and given.fits
    with pytest.raises(DeploymentError, match=r"memory_fraction 0\.9"):
        deploy(scenario({**row, "memory_fraction": ""}))

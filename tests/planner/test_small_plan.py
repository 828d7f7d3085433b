"""One small plan for real: simulated, saved, and the same whoever computes it."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import sim
from sim.cli.commands import app
from sim.planner.plan import Plan

PLAN = """
model: deepseek-v3
profile: analytic
workload:
  arrivals: {poisson: {rate_per_s: 12}}
  lengths: {input: {constant: 1000}, output: {constant: 40}}
objectives: {ttft_p95_s: 2.0, tpot_p90_s: 0.06}
search:
  gpu: [h200_sxm]
  ratio: ["1:1"]
  deployment.serve.gpus: [4, 8]
  deployment.serve.tp: [8, 4]
  deployment.serve.ep: [1]
  deployment.serve.max_batch_per_gpu: [64]
  deployment.prefill.gpus: [8]
  deployment.prefill.tp: [1]
  deployment.prefill.ep: [8]
  deployment.decode.gpus: [8]
  deployment.decode.tp: [1]
  deployment.decode.ep: [8]
  deployment.decode.max_batch_per_gpu: [64]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def plan(file: Path) -> Plan:
    return sim.plan(file, seed=3)


def test_the_winner_keeps_its_promises_with_other_seeds(plan: Plan) -> None:
    best = plan.json()["best"]
    assert best["meets_objectives"] and plan.scenario is not None
    whole = plan.scenario.model_copy(update={"duration_s": 150.0, "warmup_s": 20.0})
    for seed in (11, 12, 13):
        rows = sim.simulate(whole, seed).requests
        rows = rows[rows.counted]
        assert rows.ttft_s.quantile(0.95) <= 2.0 and rows.tpot_s.quantile(0.9) <= 0.06


def test_what_does_not_fit_or_divide_is_told(plan: Plan) -> None:
    refused = {r["shape"]["gpus"]: r["why_not"] for r in plan.json()["refused"] if r["shape"]["tp"] == 4}
    assert "does not fit" in refused[4]


def test_the_names_of_the_contract_are_there(plan: Plan) -> None:
    data = plan.json()
    each = {"scenario", "deployment", "gpu", "gpus", "gpus_paid", "stranded", "replicas", "usd_per_hour",
            "usd_per_million", "latency", "expected_error", "limited_by", "meets_objectives", "why_not"}  # fmt: skip
    for one in (data["best"], data["without_margin"], data["n_plus_1"], *data["candidates"]):
        assert each <= set(one)
    assert {"screened", "simulated", "failed", "complete", "seed", "wall_s"} <= set(data["ledger"])
    assert data["sensitivity"] and {"input", "change", "usd_per_million", "best_changes"} <= set(
        data["sensitivity"][0]
    )
    assert sim.load(data["best"]["scenario"]) == plan.scenario


def test_two_processes_say_what_one_says(file: Path, plan: Plan) -> None:
    assert _told(sim.plan(file, seed=3, workers=2).json()) == _told(plan.json())


def _told(data: dict[str, Any]) -> str:
    return json.dumps({**data, "ledger": {**data["ledger"], "wall_s": None}})


def test_the_command_leaves_what_can_be_run_and_read(
    file: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.planner.plan.plan", lambda *_: plan)
    done = CliRunner().invoke(app, ["plan", str(file), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["best"]["name"] == plan.json()["best"]["name"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"scenario.yaml", "plan.json", "candidates.csv", "report.html", "launch.sh"}
    assert sim.load(tmp_path / "out" / "scenario.yaml") == plan.scenario
    rows = pd.read_csv(tmp_path / "out" / "candidates.csv").set_index("name")
    for one in plan.json()["candidates"]:
        row = rows.loc[one["name"]]
        for metric, p in itertools.product(("ttft", "tpot"), ("p50", "p99")):
            known = one["latency"] and one["latency"][f"{metric}_s"][p]
            assert np.isnan(row[f"{metric}_{p}_s"]) if known is None else row[f"{metric}_{p}_s"] == known
        if one["latency"]:  # 12 requests a second of 40 tokens
            assert row["output_tokens_per_s"] == pytest.approx(480)
            assert row["output_tokens_per_s_per_gpu"] == pytest.approx(480 / one["gpus"])
    said = (tmp_path / "out" / "scenario.yaml").read_text().splitlines()
    assert said[0] == "# Planned for objectives {ttft_p95_s: 2, tpot_p90_s: 0.06}."
    price = plan.json()["best"]["price"]
    assert price["overhead_fraction"] == 0.05  # sim/catalog/prices.yaml, in the price of an hour:
    best = plan.json()["best"]
    assert best["usd_per_hour"] == pytest.approx(best["gpus_paid"] * price["usd_per_gpu_hour"] * 1.05)
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "Why the others lost" in page and 'id="chart-frontier"' in page and 'id="chart-sensitivity"' in page
    )


def test_the_table_says_the_price_and_why_the_others_lost(
    file: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.planner.plan.plan", lambda *_: plan)
    said = CliRunner().invoke(app, ["plan", str(file)]).output
    assert "At the peak 480 output tokens/s" in said
    assert "per hour" in said and "kept" in said and "why not" in said and "screened" in said

"""What can run but may not be meant is asked about, in `check` and in results, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sim.catalog.slips import usual_ranges
from sim.cli import app
from sim.deployment.slips import slips
from sim.scenario.form import key_paths
from sim.scenario.loading import from_data
from sim.scenario.schema import Scenario

PLAIN: dict[str, Any] = {
    "model": "deepseek-v3.2", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 8, "ep": 8}},
    "workload": {"requests": 40, "arrivals": {"poisson": {"rate_per_s": 2}},
                 "lengths": {"input": {"lognormal": {"mean": 1000, "cv": 1}}, "output": {"constant": 5}}},
}  # fmt: skip

POOL = {"gpus": 8, "ep": 8}


def said(**overrides: Any) -> list[str]:
    return [
        *slips(
            from_data(
                PLAIN, [f"{key.replace('__', '.')}={json.dumps(v)}" for key, v in overrides.items()]
            ).scenario
        )
    ]


@pytest.mark.parametrize(
    ("key", "value", "asks"),
    [
        ("objectives.ttft_p99_s", 2000, "milliseconds"), ("objectives.tpot_p99_s", 50, "milliseconds"),
        ("objectives.ttft_p99_s", 200, "milliseconds"), ("objectives.tpot_p99_s", 3, "milliseconds"),
        ("objectives.e2e_p99_s", 60_000, "milliseconds"), ("price.usd_per_gpu_hour", 0.01, "per GPU-hour"),
        ("price.usd_per_gpu_hour", 1500, "server"), ("price.overhead_fraction", 30, "percentage"),
        ("workload.lengths.input.lognormal.cv", 50, "standard deviation"),
        ("deployment.serve.chunk_tokens", 32, "engines"),
        ("scheduling.host_overhead_s", 5, "milliseconds"),
        ("prefix_cache.block_tokens", 16, "prefix_cache.enabled is false"),
        ("router", "prefix_aware", "prefix cache"),
        ("speculation.acceptance", [0.5], "no drafts"), ("scheduling.draft_host_s", 0.001, "no drafts"),
        ("price.host_usd_per_gb_month", 3, "host memory"), ("price.disk_usd_per_gb_month", 3, "disks"),
        ("allow_foreign_profile", True, "no `profile`"),
    ],
)  # fmt: skip
def test_a_slip_is_asked_about(key: str, value: object, asks: str) -> None:
    (note,) = said(**{key.replace(".", "__"): value})
    assert note.startswith(key) and asks in note


def test_settings_of_the_other_phase_are_asked_about() -> None:
    deployment = {
        "prefill": {**POOL, "max_batch_per_gpu": 4},
        "decode": {**POOL, "chunk_tokens": 512},
    }
    scenario = from_data({**PLAIN, "deployment": deployment}).scenario
    assert [note.split(":")[0] for note in slips(scenario)] == [
        "deployment.prefill.max_batch_per_gpu", "deployment.decode.chunk_tokens",
    ]  # fmt: skip


def test_a_sound_scenario_is_not_asked_about() -> None:
    assert said() == []
    assert said(objectives__ttft_p99_s=2, objectives__tpot_p99_s=0.05, price__usd_per_gpu_hour=2.5) == []
    assert said(router="least_loaded", speculation__draft_tokens=0, prefix_cache__block_tokens=64) == []


def test_ranges_are_of_keys_that_exist() -> None:
    known = {".".join(map(str, path)) for path in key_paths(Scenario)}
    for pattern in usual_ranges():
        names = (
            [pattern.replace("*", name) for name in ("serve", "input", "p99")]
            if "*" in pattern
            else [pattern]
        )
        assert any(name in known for name in names), pattern


@pytest.mark.parametrize(("rate_per_s", "says"), [(1e6, "arrive within"), (1e-6, "no request")])
def test_a_load_that_is_none_is_asked_about(tmp_path: Path, rate_per_s: float, says: str) -> None:
    """40 requests at a million per second are a batch; one in eleven days does not come within ten seconds."""
    file = tmp_path / "s.yaml"
    workload = {**PLAIN["workload"], "arrivals": {"poisson": {"rate_per_s": rate_per_s}}}
    file.write_text(yaml.safe_dump({**PLAIN, "workload": workload, "duration_s": 10}))
    for command in ("check", "run"):
        told = CliRunner().invoke(app, [command, str(file), "--json"])
        assert told.exit_code == 0, told.output
        data = json.loads(told.stdout.splitlines()[-1])
        assert any(says in note for note in data["notes"]) and says in told.stderr
        if command == "run":
            assert data["stable"] is not True or data["capacity"]["load"] < 1

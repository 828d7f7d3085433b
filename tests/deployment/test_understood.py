"""`check` says what the model was understood as."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.deployment.understood import understood
from sim.scenario.loading import parse, to_yaml

SCENARIO = """\
model: {model}
gpu: h200
deployment: {{serve: {{gpus: 8, tp: 8}}}}
workload: {{requests: 4, arrivals: {{all_at_once: {{}}}}, lengths: {{input: {{constant: 9}}, output: {{constant: 9}}}}}}
"""


def test_the_block_of_deepseek_v3_has_the_papers_figures() -> None:
    """671 B parameters, 37 B active (V3 report, section 1; without norms); 576 x 61 bytes of FP8 cache."""
    found = understood(parse(SCENARIO.format(model="deepseek-v3")).scenario)
    assert (found.layers, found.dense_layers, found.routed_experts, found.shared_experts) == (61, 3, 256, 1)
    assert found.parameters / 1e9 == pytest.approx(671, abs=0.5)
    assert found.active_parameters / 1e9 == pytest.approx(37, abs=0.7)
    assert found.weights_gb == pytest.approx(found.parameters / 1e9, rel=0.01)
    assert (found.attention, found.cache_bytes_per_token, found.notes) == ("MLA", 576 * 61, ())


def test_formats_follow_the_checkpoint_unless_they_are_said() -> None:
    published = parse(SCENARIO.format(model="llama-3.1-405b"))
    assert published.scenario.precision.weights == "bf16"
    asked = parse(SCENARIO.format(model="llama-3.1-405b") + "precision: {weights: fp8}\n").scenario
    assert asked.precision.weights == "fp8"
    assert understood(asked).notes == ("weights converted from bf16 to fp8",)
    for scenario in (published.scenario, asked):
        assert parse(to_yaml(scenario)).scenario == scenario
    back = parse(
        SCENARIO.format(model="llama-3.1-405b") + "precision: {weights: fp8}",
        overrides=["precision.weights=checkpoint"],
    )
    assert back.scenario.precision.weights == "bf16"


def test_check_prints_it_and_has_it_in_json(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIO.format(model="deepseek-ai/DeepSeek-V3.2"))
    shown = CliRunner().invoke(app, ["check", str(file), "--json"])
    model = json.loads(shown.stdout.splitlines()[-1])["model"]
    assert (model["attention"], model["weights"], model["checkpoint"]) == (
        "MLA, sparse: 2,048 keys (DSA)",
        "fp8",
        "fp8",
    )
    assert "256 experts, 8 per token, 1 shared" in shown.stderr

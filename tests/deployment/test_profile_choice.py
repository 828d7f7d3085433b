"""Measurements of one device do not price another in silence."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.deployment.plan import deploy
from sim.deployment.profile_choice import profile_notes
from sim.explain import explain
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.loading import parse
from sim.steady import steady

BASE = """\
model: deepseek-v2-lite
gpu: h200_sxm
deployment: {serve: {gpus: 1, max_batch_per_gpu: 8}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 300}, output: {constant: 20}}
  requests: 4
price: {usd_per_gpu_hour: 2.0}
"""
CPU = """\
gpu: some_cpu
engine: sglang
device: {memory_bytes: 64.0e+9, memory_bytes_per_s: 50.0e+9, bf16_flop_per_s: 1.0e+12}
tables: []
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def of_a_cpu(folder: Path) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "profile.yaml").write_text(CPU)
    return folder / "cpu"


@pytest.mark.parametrize("profile", ["b200_sxm/sglang", "h100_sxm/vllm", "./cpu", "cpu/profile.yaml"])
def test_the_profile_of_another_device_is_refused_where_it_is_written(tmp_path: Path, profile: str) -> None:
    of_a_cpu(tmp_path)
    file = write(tmp_path, BASE + f"profile: {profile}\n")
    with pytest.raises(ScenarioError) as caught:
        sim.load(file)
    [problem] = caught.value.problems
    assert (problem.path, problem.line) == (("profile",), 9)
    assert "gpu is h200_sxm" in problem.message
    assert "h200_sxm/sglang, h200_sxm/trtllm, h200_sxm/vllm" in problem.message
    assert "allow_foreign_profile" in problem.message


def test_every_way_to_an_answer_refuses_it() -> None:
    scenario = parse(BASE + "profile: b200_sxm/sglang").scenario
    for way in (deploy, sim.simulate, explain, steady):
        with pytest.raises(DeploymentError, match="measured on b200_sxm"):
            way(scenario)


def test_allowed_it_scales_and_every_result_says_so(tmp_path: Path) -> None:
    file = write(tmp_path, BASE)
    foreign = ["profile=b200_sxm/sglang", "allow_foreign_profile=true"]
    notes = sim.simulate(sim.load(file, foreign)).json()["notes"]
    assert any("another device, b200_sxm, scaled to h200_sxm" in note for note in notes)
    scenario = sim.load(file, foreign)
    assert any("b200_sxm" in note for note in sim.estimate(scenario).json()["notes"])
    for command in ("check", "explain", "run"):
        sets = [option for change in foreign for option in ("--set", change)]
        shown = CliRunner().invoke(app, [command, str(file), *sets, "--json"])
        told = json.loads(shown.stdout.splitlines()[-1])["notes"]
        assert any("b200_sxm" in note for note in told), command
    cpu = [f"profile={of_a_cpu(tmp_path)}", "allow_foreign_profile=true"]
    assert any("some_cpu" in note for note in profile_notes(sim.load(file, cpu)))


def test_another_engines_kernels_of_the_same_device_are_a_note(tmp_path: Path) -> None:
    scenario = sim.load(write(tmp_path, BASE), ["profile=h200_sxm/trtllm"])
    assert [*profile_notes(scenario)] == ["priced by the kernels of trtllm, scheduled as sglang"]
    assert not [*profile_notes(sim.load(write(tmp_path, BASE), ["profile=h200_sxm/sglang"]))]


@pytest.mark.parametrize("change", [["gpu=h800", "profile=h100_sxm/sglang"], ["profile=analytic"]])
def test_what_is_scaled_by_design_or_priced_by_none_needs_no_leave(tmp_path: Path, change: list[str]) -> None:
    assert not [*profile_notes(sim.load(write(tmp_path, BASE), change))]


def test_the_device_of_a_fitted_profile_is_its_own(tmp_path: Path) -> None:
    of_a_cpu(tmp_path)
    assert sim.load(write(tmp_path, BASE), ["gpu=some_cpu", f"profile={tmp_path / 'cpu'}"])

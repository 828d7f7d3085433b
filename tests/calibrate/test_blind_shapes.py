"""Blind shapes lie between the measured ones, are written down before they are measured, and judge the profile; a layer
as a whole is held against the sum of its kernels."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import json
from dataclasses import asdict, fields

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from typer.testing import CliRunner

from calibrate import blind, layer
from calibrate.cases import plan, reduced
from calibrate.cli import app
from calibrate.environment import find_device
from calibrate.grid import CPU_AXES, GPU_AXES, moved
from calibrate.measure import SOURCE, find_points
from calibrate.records import Measurement, RecordFile
from sim.catalog import model
from sim.cost.profile import load_profile
from sim.model import operations as ops

V32 = model("deepseek-v3.2")
CPU = find_device("cpu")
HERE = {"device": "cpu", "name": CPU.name, "memory_bytes": CPU.memory_bytes}


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """Of this CPU, whose kernels took 5 us and what 50 GFLOP/s and 10 GB/s take."""
    folder = tmp_path_factory.mktemp("measured")
    with RecordFile(folder, HERE) as file:
        for point in find_points(plan(V32, "cpu", CPU.memory_bytes), CPU)[0]:
            operation = point.case.operation
            us = 5 + 1e6 * max(operation.flop / 5e10, operation.bytes / 1e10)
            file.append(
                Measurement(
                    operation.kernel, dict(operation.shape), operation.dtype, us, options=dict(operation.options),
                    us_p10=us, us_p90=us, source=SOURCE, backend=point.backend.name, environment=HERE,
                    flop=operation.flop, bytes=operation.bytes,
                )
            )  # fmt: skip
    found = CliRunner().invoke(app, ["fit", str(folder)])
    assert found.exit_code == 0, found.output
    return folder / "profile"


@pytest.mark.parametrize("axes", [CPU_AXES, GPU_AXES])
def test_blind_values_lie_between_two_of_the_grid_and_are_the_same_whoever_draws(axes):
    off = blind.off_grid(axes)
    assert off == blind.off_grid(axes)
    for name in ("rows", "tokens", "batch", "context", "cached", "load", "traffic"):
        drawn, grid = getattr(off, name), getattr(axes, name)
        assert drawn and all(min(grid) < value < max(grid) and value not in grid for value in drawn), name
    assert all(prompt not in axes.prompts for prompt in off.prompts) or off.prompts == axes.prompts
    kept = {field.name for field in fields(axes)} & {"tp", "experts", "queries", "ceiling"}
    assert all(asdict(off)[name] == asdict(axes)[name] for name in kept)


@pytest.mark.parametrize(("slower", "code"), [(1.04, 0), (1.2, 1)])
def test_what_was_predicted_is_written_first_and_judged(profile, tmp_path, monkeypatch, slower, code):
    file, asked = tmp_path / "blind.json", ["blind", str(profile), "--out", str(tmp_path), "--shapes", "30"]

    def measured(chosen, device, seconds):
        told = json.loads(file.read_text())
        assert "measured" not in told and len(told["predicted"]) == len(chosen) == 30
        return [(one, one.predicted_us * slower) for one in chosen]

    monkeypatch.setattr(blind, "measure", measured)
    found = CliRunner().invoke(app, [*asked, "--device", "cpu", "--json"])
    assert found.exit_code == code, found.output
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["median"] == pytest.approx(told["p90"]) == pytest.approx(1 - 1 / slower)
    written = json.loads(file.read_text())
    assert len(written["measured"]) == 30
    assert len({one["operation"] for one in written["predicted"]}) > 5  # the tables in turns
    for name, bar in blind.bars().items():
        assert f"{name} {told[name]:.1%} ({bar:.0%} at most)" in found.stderr
    again = CliRunner().invoke(app, [*asked, "--device", "cpu"])
    assert again.exit_code == 2 and "there already" in again.stderr


def test_a_profile_of_another_device_is_refused(tmp_path):
    asked = ["blind", "h200_sxm/sglang", "--out", str(tmp_path), "--device", "cpu"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 2 and "measured on h200_sxm" in found.stderr


def test_blind_shapes_are_measured_for_real(profile):
    chosen = blind.chosen_of(load_profile(str(profile)), V32, CPU, 2)
    found = blind.measure(chosen, CPU, 60.0)
    assert [one for one, _ in found] == chosen and all(us > 0 for _, us in found)
    assert blind.check(found)["shapes"] == 2
    assert blind.check([]) == {"shapes": 0, "ok": False}


def test_a_layer_in_a_row_is_held_against_the_sum_of_its_kernels(monkeypatch):
    shown = reduced(V32)
    row = [ops.gemm("gate", "moe", 4, 256, shown.hidden, "bf16"), ops.elementwise("norms", "other", 2**16)]
    monkeypatch.setattr(layer, "operations", lambda *_: [*row, moved("unknown", {"x": 1.0}, 1.0)])
    found = layer.time_layer(V32, CPU)
    assert (found.kernels, found.lacking) == (2, ("unknown",))
    assert found.together_us > 0 and found.parts_us > 0
    assert found.error == pytest.approx(found.parts_us / found.together_us - 1)


def test_a_layer_has_every_kernel_of_a_decode_step_but_what_moves_between_gpus():
    kernels = [operation.kernel for operation in layer.operations(V32, "cuda")]
    assert {
        "gemm",
        "quantize",
        "absorb_bmm",
        "index_logits",
        "index_topk",
        "sparse_mla_decode",
        "moe",
    } <= set(kernels)
    assert not set(kernels) & {"all_reduce", "dispatch", "combine"}
    experts = next(o for o in layer.operations(V32, "cuda") if o.kernel == "moe")
    assert (experts.shape["rows"], experts.shape["experts"]) == (128 * 8, 32)  # one of eight GPUs

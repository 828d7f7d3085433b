"""A calibration that was stopped at half its plan makes a profile that prices steps, and says what it lacks."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from typer.testing import CliRunner

from calibrate.cases import plan
from calibrate.cli import app
from calibrate.environment import Device
from calibrate.measure import SOURCE, find_points
from calibrate.records import Measurement, RecordFile
from calibrate.session import Session
from sim import explain
from sim.catalog import model
from sim.cost.profile import read_profile
from sim.scenario.loading import load

V32 = model("deepseek-v3.2")
H200 = Device("cuda", "NVIDIA H200", 1, 150 * 10**9, 60 * 2**20, (9, 0), 132)
HERE = {"device": "cuda", "name": "NVIDIA H200", "memory_bytes": 150e9}


def roofline(point, records):
    """A stand-in for kernels: 5 us, and what 500 TFLOP/s and 3 TB/s take."""
    operation = point.case.operation
    us = 5 + 1e6 * max(operation.flop / 5e14, operation.bytes / 3e12)
    return Measurement(
        operation.kernel, dict(operation.shape), operation.dtype, us, options=dict(operation.options), us_p10=us,
        us_p90=us, source=SOURCE, backend=point.backend.name, environment=HERE, flop=operation.flop,
        bytes=operation.bytes,
    )  # fmt: skip


def test_half_a_plan_is_a_profile_that_says_what_it_lacks(tmp_path):
    cases = plan(V32, "cuda", H200.memory_bytes)
    first = find_points(cases, H200)[0][: len(cases)]  # every case with its preferred back-end
    with RecordFile(tmp_path, HERE) as file:
        session = Session(first, file)
        for _, _ in zip(range(len(first) // 2), session.run(roofline, roofline), strict=False):
            pass
        session.note_coverage()

    found = CliRunner().invoke(app, ["fit", str(tmp_path)])

    assert found.exit_code == 0, found.output
    assert "The plan was cut short. Incomplete: " in found.stderr
    lacking = " ".join(read_profile(tmp_path / "profile").header["lacks"])
    assert "gemm fp8" in lacking
    assert "(0 of" not in lacking  # every table has something: the tables take turns
    scenario = load("scenarios/chat.yaml", [f"profile={tmp_path / 'profile'}"]).scenario
    for phase in ("decode", "prefill"):
        assert explain.explain(scenario, phase).step_s > 0

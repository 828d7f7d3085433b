"""A finished run is kept, whatever is wrong with the estimate beside it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
import sim.steady
from sim.cli import app
from sim.report import run as drawn

SCENARIO = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8}}
workload: {requests: 5, arrivals: {poisson: {rate_per_s: 2}}, lengths: {input: {constant: 100}, output: {constant: 5}}}
"""


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("float division by zero"), KeyError("tpot_s"), MemoryError()]
)
def test_an_estimate_that_fails_leaves_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> object:
        raise error

    monkeypatch.setattr(sim.steady, "steady", fails)
    monkeypatch.setattr(drawn, "steady", fails)
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIO)
    told = CliRunner().invoke(app, ["run", str(file), "--json", "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    saved = sim.load_result(tmp_path / "out").json()
    assert json.loads(told.stdout.splitlines()[-1]) == saved
    assert saved["requests"]["completed"] == 5
    assert saved["capacity"] is None and saved["limited_by"] is None
    assert type(error).__name__ in saved["notes"][-1] and saved["notes"][-1] in told.stderr


def test_a_run_of_no_request_has_a_result_and_a_reason(tmp_path: Path) -> None:
    """The first window of the only client begins after the run has ended."""
    (tmp_path / "late.jsonl").write_text(
        '{"client": 0, "window_s": 600, "windows": [[2400, 51, "gamma", 1]], '
        '"lengths": [{"from_s": 0, "input": [[100], [1]], "output": [[10], [1]]}]}'
    )
    file = tmp_path / "s.yaml"
    file.write_text(
        SCENARIO.split("workload", maxsplit=1)[0] + "workload: {trace: late.jsonl}\nduration_s: 600\n"
    )
    told = CliRunner().invoke(app, ["run", str(file), "--json"])
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout.splitlines()[-1])
    assert data["requests"]["arrived"] == 0 and data["capacity"] is None
    assert "no estimate of the capacity can be made: workload: holds no request" in data["notes"]


@pytest.mark.parametrize("one", [{"constant": 1}, {"uniform": [1, 1]}, {"lognormal": {"mean": 1, "cv": 1}}])
def test_lengths_of_one_token_have_an_estimate(one: dict[str, object]) -> None:
    scenario = {
        "model": "deepseek-v3.2",
        "gpu": "h200_sxm",
        "deployment": {"serve": {"gpus": 8, "ep": 8}},
        "workload": {
            "requests": 5, "arrivals": {"poisson": {"rate_per_s": 2}}, "lengths": {"input": one, "output": one},
        },
    }  # fmt: skip
    assert sim.estimate(scenario).json()["capacity"]["requests_per_s"] > 0

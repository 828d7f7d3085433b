"""What a notebook does: files, dictionaries, estimates, saved results."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.result import Result
from sim.scenario.errors import ScenarioError

TINY = {
    "model": "deepseek-v2-lite",
    "gpu": "H200",
    "deployment": {"serve": {"gpus": 1, "max_batch_per_gpu": 16}},
    "workload": {
        "arrivals": {"poisson": {"rate_per_s": 4}},
        "lengths": {"input": {"constant": 300}, "output": {"constant": 20}},
        "requests": 20,
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(TINY))  # JSON is YAML
    return path


def figures(result: Result) -> dict[str, Any]:
    return {key: value for key, value in result.json().items() if key != "wall_s"}


def test_a_file_a_text_and_a_dictionary_are_the_same_scenario(file: Path) -> None:
    first, *others = (
        figures(sim.simulate(source, seed=2)) for source in (file, str(file), TINY, sim.load(TINY))
    )
    assert all(other == first for other in others)


def test_overrides_are_texts_or_a_dictionary() -> None:
    by_text = sim.load(TINY, ["gpu=b200", "deployment.serve.max_batch_per_gpu=8"])
    by_keys = sim.load(TINY, {"gpu": "b200", "deployment.serve.max_batch_per_gpu": np.int64(8)})
    assert by_text == by_keys == sim.load(by_text)
    assert sim.load(by_text, {"gpu": "h100"}).gpu == "h100"


@pytest.mark.parametrize("use", [sim.load, sim.simulate, sim.estimate])
def test_what_is_wrong_with_a_dictionary_is_told_by_its_key(use: object) -> None:
    with pytest.raises(ScenarioError, match="the dictionary: gpus: unknown key; did you mean 'gpu'"):
        use({**TINY, "gpus": "h200"})  # type: ignore[operator]


def test_a_result_has_capacity_and_is_saved_and_loaded_by_any_name(tmp_path: Path) -> None:
    result = sim.simulate(TINY)
    result.save(str(tmp_path / "a"))
    result.save(tmp_path / "b")
    saved = [sim.load_result(str(tmp_path / "a")), sim.load_result(tmp_path / "b")]
    for one in saved:
        assert one.json() == result.json()
        assert one.json()["capacity"]["requests_per_s"] > 4
        assert one.scenario == sim.load(TINY)
        assert len(one.requests) == 20


def test_the_estimate_has_the_names_of_a_run() -> None:
    """Its figures are those of the simulation of a load without queues, as far as means go."""
    estimate, run = sim.estimate(TINY).json(), sim.simulate(TINY).json()
    assert json.dumps(estimate, allow_nan=False)
    assert run["capacity"] == {
        **estimate["capacity"],
        "load": None,
    }  # 20 requests end before a load is reached
    assert estimate["cost"].keys() == run["cost"].keys()
    for name in ("ttft_s", "tpot_s"):
        assert estimate["latency"][name]["mean"] == pytest.approx(run["latency"][name]["mean"], rel=0.25)
    assert estimate["stable"] and sum(estimate["priced_by"].values()) == pytest.approx(1)


def test_importing_sim_loads_nothing() -> None:

    code = "import sys, sim; print([m for m in ('numpy', 'pandas', 'pydantic', 'yaml') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"

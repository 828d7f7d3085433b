"""A user's benchmark beside its simulation, through the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_files as files
import pytest
import yaml
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.scenario.loading import load

RUNNER = CliRunner()


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(files.SCENARIO)
    return path


def validate(*words: object, code: int = 0) -> dict[str, Any]:
    told = RUNNER.invoke(app, ["validate", *map(str, words), "--json"])
    assert told.exit_code == code, told.stderr
    return json.loads(told.stdout.splitlines()[-1]) if code == 0 else {"error": told.stderr}


@pytest.mark.parametrize(
    ("changes", "concurrency", "rate"),
    [
        ({}, 4, "inf"),
        ({"workload.arrivals": {"poisson": {"rate_per_s": 3.0}}}, None, 3.0),
        ({"workload.arrivals": {"all_at_once": {}}}, None, "inf"),
    ],
    ids=["closed loop", "rate", "all at once"],
)
def test_a_service_that_is_as_simulated_is_met_to_the_digit(
    tmp_path: Path, scenario: Path, changes: dict[str, Any], concurrency: int | None, rate: float | str
) -> None:
    """The client's own formulas over the requests of a simulation, read back from its file, give no error at all."""
    mine = sim.load(scenario, changes)
    file = files.saved(tmp_path / "r.json", files.served(sim.simulate(mine), concurrency, rate))
    found = validate("--bench", file, "--scenario", scenario)
    told = {(c["metric"], c["statistic"]): c["error"] for c in found["cases"]}
    latencies = {(metric, statistic) for metric in ("ttft", "tpot", "e2e") for statistic in ("mean", "p50")}
    assert told.keys() == latencies | {
        (f"{name}_per_s", "rate") for name in ("requests", "output_tokens", "total_tokens")
    }
    assert all(abs(error) < 1e-3 for (_, statistic), error in told.items() if statistic != "p50")
    assert all(
        abs(error) < 0.02 for error in told.values()
    )  # medians between two of 24 are a matter of convention
    assert found["median_abs_error"]["tpot"] < 0.02 and found["cases"][0]["band"] is None


def test_a_file_of_means_is_repeated_with_its_ranges(tmp_path: Path, scenario: Path) -> None:
    file = files.saved(tmp_path / "s.jsonl", files.sglang(), files.sglang(max_concurrency=2))
    found = validate("--bench", file, "--scenario", scenario, "--out", tmp_path / "out")
    assert [one["id"] for one in found["bench"]] == ["s:1", "s:2"]
    applied = found["bench"][1]["scenario"]["workload"]
    assert applied["arrivals"] == {"closed_loop": {"concurrency": 2}} and applied["requests"] == 24
    assert applied["lengths"]["output"] == {"uniform": [48, 60]}
    left = {(one["metric"], one["statistic"]): one["why"] for one in found["not_compared"]}
    assert "single gaps" in left["itl", "p99"]
    notes = {c["metric"]: c["note"] for c in found["cases"]}
    assert "long answers weigh more" in notes["itl"] and notes["ttft"] == ""
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == found


def test_the_deployment_of_a_launch_command(tmp_path: Path) -> None:
    file = files.saved(tmp_path / "v.json", files.vllm())
    command = "vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --max-num-seqs 64"
    found = validate("--bench", file, "--scenario", command, "--gpu", "h200")
    applied = found["bench"][0]["scenario"]
    assert applied["engine"] == "vllm" and applied["deployment"]["serve"]["max_batch_per_gpu"] == 8
    (tmp_path / "serve.sh").write_text(command)
    assert validate("--bench", file, "--scenario", tmp_path / "serve.sh", "--gpu", "h200") == found


def test_inferencex_needs_no_scenario_and_others_say_that_they_do(tmp_path: Path) -> None:
    found = validate("--bench", files.saved(tmp_path / "agg.json", files.inferencex()))
    assert found["bench"][0]["scenario"]["deployment"]["serve"]["gpus"] == 8
    assert {c["metric"] for c in found["cases"]} >= {"tpot", "ttft", "e2e", "output_tokens_per_s"}
    said = validate("--bench", files.saved(tmp_path / "v.json", files.vllm()), code=2)["error"]
    assert "--scenario" in said and "vllm bench serve" in said


def test_what_cannot_be_is_one_error(tmp_path: Path, scenario: Path) -> None:
    file = files.saved(tmp_path / "v.json", files.vllm(total_input_tokens=24 * 500_000))
    assert "500,050 tokens" in validate("--bench", file, "--scenario", scenario, code=2)["error"]
    assert "need --bench" in validate("--anchor", tmp_path / "a.json", code=2)["error"]
    assert "leave --bench out" in validate("P0304", "--bench", file, code=2)["error"]
    other = files.saved(tmp_path / "o.json", {"benchmarks": []})
    assert "GuideLLM" in validate("--bench", other, "--scenario", scenario, code=2)["error"]


def test_a_streaming_interval_shows_in_itl_and_is_said(tmp_path: Path, scenario: Path) -> None:
    file = files.saved(tmp_path / "v.json", files.vllm(mean_itl_ms=60.0, model_id="deepseek-ai/DeepSeek-R1"))
    notes = validate("--bench", file, "--scenario", scenario)["bench"][0]["notes"]
    assert any("about 4.0 tokens" in note for note in notes)
    assert any("another model" in note for note in notes)
    anchor = tmp_path / "a.json"
    refused = validate("--bench", file, "--scenario", scenario, "--anchor", anchor, code=2)["error"]
    assert "an anchor is made of the model that was measured" in refused and not anchor.exists()


def test_files_of_one_name_are_two_points(tmp_path: Path, scenario: Path) -> None:
    """Their requests are kept apart, also when an anchor simulates them again."""
    found = []
    for folder, concurrency in (("low", 1), ("high", 6)):
        (tmp_path / folder).mkdir()
        mine = sim.load(scenario, {"workload.arrivals": {"closed_loop": {"concurrency": concurrency}}})
        mine = sim.load(mine, {"workload.requests": 8 * concurrency})
        found.append(files.saved(tmp_path / folder / "r.json", files.served(sim.simulate(mine), concurrency)))
    words = [word for file in found for word in ("--bench", file)]
    data = validate(*words, "--scenario", scenario, "--anchor", tmp_path / "a.json")
    assert [one["id"] for one in data["bench"]] == ["r", "r-2"]
    assert data["anchor"]["step_factor"] == pytest.approx(1.0, abs=0.01)
    assert data["anchor"]["error"]["tpot"] < 0.01


def test_a_file_that_contradicts_itself_is_told(tmp_path: Path, scenario: Path) -> None:
    """4 requests/s of 0.2 s + 49 x 15 ms are 3.7 in flight; of 49 x 60 ms more than 4 can be."""
    for tpot_ms, says in ((15.0, False), (60.0, True)):
        file = files.saved(tmp_path / "v.json", files.vllm(mean_tpot_ms=tpot_ms))
        notes = validate("--bench", file, "--scenario", scenario)["bench"][0]["notes"]
        assert any("contradicts itself" in note for note in notes) is says


@pytest.mark.parametrize("written", [files.sglang, files.vllm])
def test_a_batch_that_was_none_is_told(
    tmp_path: Path, scenario: Path, written: Callable[..., dict[str, Any]]
) -> None:
    """24 requests sent at once: at 4 requests/s of about a second 4 were in flight; at 16 requests/s, 16."""
    for per_s, says in ((4.0, True), (16.0, False)):
        told = {"duration": 24 / per_s, "request_throughput": per_s, "output_throughput": 50 * per_s}
        file = files.saved(tmp_path / "r.jsonl", written(max_concurrency=None, **told))
        [bench] = validate("--bench", file, "--scenario", scenario)["bench"]
        found = [note for note in bench["notes"] if "Little's law" in note]
        assert bench["load"] == "all at once" and bool(found) is says
        assert not says or ("were in flight" in found[0] and "max_concurrency" in found[0])


def test_a_long_benchmark_is_cut_and_says_so(tmp_path: Path, scenario: Path) -> None:
    totals = {"completed": 400, "total_input_tokens": 360_000, "total_output_tokens": 20_000}
    file = files.saved(tmp_path / "v.json", files.vllm(**totals))
    cut, whole = (
        validate("--bench", file, "--scenario", scenario, "--max-prompts", most) for most in (40, 400)
    )
    assert any("first 40 of 400" in note for note in cut["bench"][0]["notes"])
    for one, other in zip(cut["cases"], whole["cases"], strict=True):
        if one["statistic"] in ("mean", "rate"):
            assert one["simulated"] == pytest.approx(other["simulated"], rel=0.05), one["metric"]


def test_the_anchor_is_named_by_a_scenario_and_every_result_says_so(tmp_path: Path, scenario: Path) -> None:
    file = files.saved(tmp_path / "v.json", files.vllm())
    made = validate("--bench", file, "--scenario", scenario, "--anchor", tmp_path / "my.json")["anchor"]
    assert made == json.loads((tmp_path / "my.json").read_text()) and made["error"] is None
    [point] = made["points"]
    for metric in ("tpot", "ttft", "throughput"):
        told = point[metric]
        assert abs(told["anchored"] / told["measured"] - 1) < abs(told["simulated"] / told["measured"] - 1)
    data = yaml.safe_load(files.SCENARIO) | {"anchor": "my.json"}
    (tmp_path / "anchored.yaml").write_text(yaml.safe_dump(data))
    told = RUNNER.invoke(app, ["run", str(tmp_path / "anchored.yaml"), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0 and "anchored on my.json: steps x" in told.stderr
    assert "Anchor" in told.stdout and "from 1 measured point of one's own" in told.stdout
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["anchor"]["file"] == "my.json" and run["anchor"]["step_factor"] == made["step_factor"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Anchored on my.json" in page
    assert load(tmp_path / "anchored.yaml").scenario.anchor == str(tmp_path / "my.json")

"""`run`, `compare` and `bench`: what they leave on stdout, on stderr and in `--out`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.cli.tables import offers
from sim.cluster.record import RunRecord
from sim.result import Result, load
from sim.workload import reading, trace

TINY = """\
model: deepseek-v2-lite
gpu: h200_sxm
deployment: {prefill: {gpus: 1}, decode: {gpus: 1, max_batch_per_gpu: 16}}
workload:
  arrivals: {poisson: {rate_per_s: 4}}
  lengths: {input: {constant: 300}, output: {constant: 20}}
duration_s: 20
price: {tier: rent_3yr}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def invoke(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def last_json(result: Any) -> Any:
    return json.loads(result.stdout.splitlines()[-1])


def test_run_prints_a_table_with_the_price_and_its_tier(scenario: Path) -> None:
    result = invoke("run", scenario)
    assert result.exit_code == 0
    for words in (
        "per million tokens at rent_3yr ($2.05 per GPU-hour)",
        "TTFT p99",
        "TPOT p99",
        "analytic",
        "overhead",
    ):
        assert words in result.stdout


def test_a_trace_is_parsed_once_however_often_its_requests_are_asked_for(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation, the outlook and the page of `--out` all want them; a file that changed is read again."""
    file = scenario.with_name("requests.csv")
    file.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{t},300,20\n" for t in range(20)))
    begin, rest = TINY.split("workload:\n")
    scenario.write_text(
        f"{begin}workload: {{trace: {file}, time_unit: s}}\nduration_s{rest.split('duration_s')[1]}"
    )
    parsed = []
    monkeypatch.setattr(trace, "read", lambda path, *rows: parsed.append(path) or reading.read(path, *rows))
    assert invoke("run", scenario, "--out", scenario.with_name("out"), "--quiet").exit_code == 0
    assert parsed == [file]
    file.write_text(file.read_text() + "20,300,20\n")
    counted = last_json(invoke("run", scenario, "--json", "--quiet"))["requests"]["arrived"]
    assert (len(parsed), counted) == (2, 20)  # the last request comes at duration_s


def test_run_json_is_the_last_line_and_the_rest_goes_to_stderr(scenario: Path) -> None:
    result = invoke("run", scenario, "--json", "--seed", "3")
    assert len(result.stdout.splitlines()) == 1
    assert "per million tokens" in result.stderr
    data = last_json(result)
    assert data["seed"] == 3
    counts = data["requests"]
    assert counts["arrived"] == counts["completed"] + counts["rejected"] + counts["in_flight"]
    assert invoke("run", scenario, "--json", "--quiet").stderr == ""
    again = last_json(invoke("run", scenario, "--json", "--seed", "3"))
    assert {**again, "wall_s": 0} == {**data, "wall_s": 0}


def test_out_can_be_loaded_again(scenario: Path, tmp_path: Path) -> None:
    result = invoke("run", scenario, "--out", tmp_path / "out", "--json")
    assert "written to" in result.stderr
    saved = load(tmp_path / "out")
    told = last_json(result)
    assert told["capacity"]["load"] > 0
    assert told["limited_by"] == "decode"
    assert saved.json() == told
    assert len(saved.requests) == saved.json()["requests"]["arrived"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "tiny.yaml"]


def test_compare_shows_ratios_to_the_first_and_the_api_price_beside(scenario: Path, tmp_path: Path) -> None:
    other = tmp_path / "two" / "tiny.yaml"
    other.parent.mkdir()
    other.write_text("extends: ../tiny.yaml\nmodel: deepseek-v3\ndeployment: {serve: {gpus: 8, ep: 8}}\n")
    result = invoke("compare", scenario, other, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0
    runs = last_json(result)["runs"]
    assert [run["name"] for run in runs] == ["tiny", "tiny-2"]
    assert "4.00x" in result.stderr  # 8 GPUs against 2, and their price per hour
    assert "Public API price" in result.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "comparison.json",
        "report.html",
        "tiny",
        "tiny-2",
    }


def test_an_overload_is_said_in_words_before_any_price(scenario: Path) -> None:
    result = invoke(
        "run",
        scenario,
        "--set",
        "workload.arrivals.poisson.rate_per_s=4000",
        "--set",
        "duration_s=3",
        "--json",
    )
    assert last_json(result)["stable"] is False
    told = result.stderr
    assert told.index("stable: no (the backlog grows)") < told.index("per million tokens")
    assert "TTFT p99" not in told


def test_work_that_ends_is_not_called_stable_beside_a_load_that_it_never_has(scenario: Path) -> None:
    result = invoke(
        "run", scenario, "--set", "workload.arrivals.poisson.rate_per_s=4000", "--set", "workload.requests=32",
        "--json",
    )  # fmt: skip
    run, told = last_json(result), result.stderr
    assert (run["stable"], run["capacity"]["load"]) == (None, None)
    assert "ends: told over the whole run" in told and "paid until the last answer" in told
    assert "load: arrivals" not in told and "stable: no" not in told
    assert "TTFT p99" in told and "of this prefill" in told


def test_a_run_says_which_pool_fills_first(scenario: Path) -> None:
    result = invoke("run", scenario, "--json")
    run = last_json(result)
    assert run["limited_by"] == "decode"
    assert re.search(rf"Fills first +decode pool, {run['capacity']['limit']}", result.stderr)
    short = invoke("run", scenario, "--set", "workload.lengths={input: {constant: 3000}, output: {constant: 2}}",
                   "--set", "workload.arrivals.poisson.rate_per_s=0.5", "--json")  # fmt: skip
    assert last_json(short)["limited_by"] == "prefill"
    assert re.search(r"Fills first +prefill pool\s", short.stderr)
    both = invoke("run", scenario, "--set", "deployment={serve: {gpus: 1, max_batch_per_gpu: 16}}", "--json")
    assert last_json(both)["limited_by"] == "serve"


def test_a_run_that_breaks_an_invariant_ends_with_1(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Result.__init__

    def broken(self: Result, record: RunRecord, *rest: Any) -> None:
        record.invariants.append("a KV block was used twice")
        whole(self, record, *rest)

    monkeypatch.setattr(Result, "__init__", broken)
    result = invoke("run", scenario)
    assert result.exit_code == 1
    assert "a KV block was used twice" in result.stderr


def test_bench_tells_the_simulator_s_own_speed(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.bench.SCENARIO", scenario)
    result = invoke("bench", "--json")
    assert result.exit_code == 0
    speed = last_json(result)
    assert {
        "requests_per_s", "events_per_s", "simulated_gpu_seconds_per_s", "peak_rss_mb", "requests",
        "simpy_floor_events_per_s",
    } <= set(speed)  # fmt: skip
    assert all(speed[key] > 0 for key in speed)
    assert "bare SimPy" in result.stderr


def test_api_prices_in_short_are_the_maker_s_latest_and_the_spread_of_the_others() -> None:
    def price(official: bool, as_of: str, output: float | None) -> dict[str, Any]:
        kinds = ("input_cache_hit", "input_cache_miss", "output")
        return {"official": official, "as_of": as_of, **{f"{kind}_usd_per_million": output for kind in kinds}}

    short = offers(
        [
            price(True, "2025-02", 9),
            price(True, "2025-09", 7),
            *(price(False, "2026", x) for x in (3, None, 1, 8)),
        ]
    )
    assert {name: prices["output"] for name, prices in short.items()} == {
        "official": 7,
        "lowest": 1,
        "median": 3,
    }
    assert offers([])["lowest"]["output"] is None


def test_objectives_are_said_to_be_kept_or_missed(scenario: Path) -> None:
    told = invoke("run", scenario, "--set", "objectives={ttft_p99_s: 1000, tpot_p99_s: 1e-6}").stdout
    assert "objective TTFT p99 <= 1,000 s: kept" in told.replace("1000 s", "1,000 s")
    assert "objective TPOT p99 <=" in told
    assert "missed" in told
    assert "requests/s that meet the objectives" not in invoke("run", scenario).stdout

"""What the result files of benchmark clients are read as, and how a file that is none is refused."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import bench_files as files
import pytest

from sim.validation.bench.files import read_bench
from sim.validation.bench.run import BenchError, BenchRun, formats


def read(folder: Path, *objects: Any, name: str = "bench.json") -> list[BenchRun]:
    return read_bench(files.saved(folder / name, *objects))


def test_a_result_of_vllm(tmp_path: Path) -> None:
    [run] = read(tmp_path, files.vllm())
    assert (run.tool, run.id, run.requests, run.model) == ("vllm", "bench", 24, "deepseek-ai/DeepSeek-V3.2")
    assert (run.load.concurrency, run.load.rate_per_s, run.in_flight) == (4, inf, 4)
    assert (run.lengths.input, run.lengths.output) == ({"constant": 900}, {"constant": 50})
    assert run.measured["ttft"] == pytest.approx({"mean": 0.2, "p50": 0.18, "p99": 0.32})
    assert run.measured["tpot"]["mean"] == pytest.approx(0.015)
    rates = ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s")
    assert [run.measured[name]["rate"] for name in rates] == [4.0, 200.0, 3800.0]
    assert any("--save-detailed" in note for note in run.notes)


def test_single_requests_of_vllm_without_those_that_failed(tmp_path: Path) -> None:
    lens = {
        "input_lens": [800, 900, 1000, 1000],
        "output_lens": [40, 0, 50, 60],
        "start_times": [5.0, 5.5, 6.0, 7.5],
    }
    totals = {"completed": 3, "failed": 1, "total_input_tokens": 2800, "total_output_tokens": 150}
    [run] = read(tmp_path, files.vllm(**lens, **totals, request_rate=2.0, max_concurrency=None))
    assert run.lengths.each == [(800, 40), (1000, 50), (1000, 60)]
    assert run.load.times_s == [0.0, 1.0, 2.5] and run.in_flight is None
    assert "1 requests failed" in run.notes[0]


@pytest.mark.parametrize(
    ("rate", "burstiness", "cv"),
    [(2.0, 1.0, 1.0), (2.0, 4.0, 0.5), (2.0, 0.25, 2.0), (0.5, float("inf"), 1e-3)],
)
def test_a_rate_with_its_burstiness(tmp_path: Path, rate: float, burstiness: float, cv: float) -> None:
    """vLLM draws gaps from a gamma distribution of shape b: cv 1 / sqrt(b)."""
    [run] = read(tmp_path, files.vllm(request_rate=rate, burstiness=burstiness, max_concurrency=None))
    assert (run.load.rate_per_s, run.load.cv, run.in_flight) == (rate, pytest.approx(cv), None)


@pytest.mark.parametrize(("bound", "held"), [(4, True), (400, False)])
def test_of_a_rate_and_a_bound_that_which_held_counts(tmp_path: Path, bound: int, held: bool) -> None:
    """4 requests/s of 0.2 + 0.015 x 49 = 0.935 s: 3.74 in flight."""
    [run] = read(tmp_path, files.vllm(request_rate=4.0, max_concurrency=bound, num_prompts=500))
    assert (run.load.rate_per_s == inf) is held
    assert "3.7 in flight" in run.notes[-1] and "simulated as" in run.notes[-1]


def test_lines_of_sglang_are_runs(tmp_path: Path) -> None:
    first, second = read(tmp_path, files.sglang(), files.sglang(max_concurrency=8), name="sweep.jsonl")
    assert (first.tool, first.id, second.id) == ("sglang", "sweep:1", "sweep:2")
    assert (first.load.concurrency, second.load.concurrency) == (4, 8)
    assert first.lengths.input == {"uniform": [800, 1000]} and first.lengths.output == {"uniform": [48, 60]}
    assert first.measured["e2e"]["p50"] == pytest.approx(0.985)
    assert first.measured["total_tokens_per_s"]["rate"] == 3816.0


def test_a_range_that_contradicts_the_totals_is_not_taken(tmp_path: Path) -> None:
    [run] = read(tmp_path, files.sglang(total_input_tokens=24 * 500))
    assert run.lengths.input == {"constant": 500} and run.lengths.output == {"uniform": [48, 60]}
    [run] = read(tmp_path, files.sglang(dataset_name="sharegpt"))
    assert run.lengths.input == {"constant": 900}


def test_lengths_of_some_requests_only_are_not_taken(tmp_path: Path) -> None:
    [run] = read(tmp_path, files.vllm(input_lens=[10, 10], output_lens=[5, 5]))
    assert run.lengths.each is None and "hold 2 of 24" in run.notes[0]


def test_an_export_of_aiperf(tmp_path: Path) -> None:
    [run] = read(tmp_path, files.aiperf())
    assert (run.tool, run.load.concurrency, run.requests) == ("aiperf", 4, 24)
    assert run.measured["tpot"]["p50"] == pytest.approx(0.015)  # inter_token_latency, by its formula
    assert run.lengths.input == {"lognormal": {"mean": 900.0, "cv": pytest.approx(58 / 900)}}
    assert run.lengths.output == {"constant": 50}


@pytest.mark.parametrize(
    ("config", "load"),
    [
        ({"loadgen": {"request_rate": 3.0, "request_rate_mode": "poisson"}}, (3.0, 1.0)),
        ({"loadgen": {"request_rate": 3.0, "request_rate_mode": "constant"}}, (3.0, 1e-3)),
        ({"phases": [{"name": "warmup", "concurrency": 1}, {"name": "profiling", "rate": 3.0}]}, (3.0, 1.0)),
        ({"cli_command": "aiperf profile --model m --request-rate 3 --streaming"}, (3.0, 1.0)),
    ],
)
def test_the_load_of_aiperf_by_release(
    tmp_path: Path, config: dict[str, Any], load: tuple[float, float]
) -> None:
    [run] = read(tmp_path, files.aiperf(input_config=config))
    assert (run.load.rate_per_s, run.load.cv) == load


def test_an_export_of_genai_perf(tmp_path: Path) -> None:
    [run] = read(tmp_path, files.genai_perf())
    assert (run.tool, run.load.rate_per_s, run.load.cv) == ("genai-perf", 4.0, 1e-3)
    older = {"model": ["m"], "concurrency": 7, "request_rate": None}
    assert read(tmp_path, files.genai_perf(input_config=older))[0].load.concurrency == 7


def test_units_are_the_exports_own(tmp_path: Path) -> None:
    block = {"unit": "us", "avg": 200000.0, "p50": 180000.0}
    assert read(tmp_path, files.aiperf(time_to_first_token=block))[0].measured["ttft"][
        "mean"
    ] == pytest.approx(0.2)
    with pytest.raises(BenchError, match="unit: expected one of s, sec"):
        read(tmp_path, files.aiperf(time_to_first_token={"unit": "min", "avg": 1.0}))


def test_a_result_of_inferencex_says_its_deployment(tmp_path: Path) -> None:
    [run] = read(tmp_path, files.inferencex())
    assert run.row is not None and run.row.layout == "h200 sglang fp8 8 GPUs EP1"
    assert (run.load.concurrency, run.lengths.input) == (4, {"uniform": [819, 1024]})
    assert run.measured["tpot"] == {"mean": 0.0103, "p50": 0.0102}
    assert run.measured["total_tokens_per_s"]["rate"] == 3200.0
    assert (
        len(
            read_bench(files.saved(tmp_path / "agg_bmk.json", [files.inferencex(), files.inferencex(conc=8)]))
        )
        == 2
    )
    with pytest.raises(BenchError, match="expected isl"):
        read(tmp_path, {k: v for k, v in files.inferencex().items() if k != "isl"})


OTHERS: list[tuple[str, Any]] = [
    ("GuideLLM", {"metadata": {}, "benchmarks": []}),
    ("vllm bench throughput", {"elapsed_time": 1.0, "num_requests": 4, "requests_per_second": 4.0}),
    ("single requests of AIPerf", {"metadata": {"session_num": 0}, "metrics": {}}),
    ("single requests of genai-perf", {"service_kind": "openai", "experiments": []}),
    ("not a result", {"timestamp": 0, "input_length": 10, "output_length": 5}),
    ("not a result", [1, 2]),
    ("not a result", "text"),
]


@pytest.mark.parametrize(("what", "data"), OTHERS)
def test_a_file_of_another_tool_is_one_error_that_names_what_is_read(
    tmp_path: Path, what: str, data: Any
) -> None:
    with pytest.raises(BenchError) as refused:
        read(tmp_path, data)
    said = str(refused.value)
    assert what in said and str(tmp_path / "bench.json") in said
    assert all(tool["name"] in said for tool in formats()["tools"].values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("model: deepseek-v3.2\n", "bench.json:1:1: broken JSON"),
        ('{"completed": 3,\n "duration": }\n', "bench.json:2:14: broken JSON"),
        ('{"completed": 3, "duration": 1, "backend": "x"}\n{"completed\n', "bench.json:2:"),
        ("[]", "is empty"),
        ("[" * 100_000, "too deep"),
    ],
)
def test_a_broken_file_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(BenchError) as refused:
        read_bench(tmp_path / "bench.json")
    assert says in str(refused.value)


@pytest.mark.parametrize("make", [files.vllm, files.sglang])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"completed": 0}, "completed: expected a number above 0, got 0"),
        ({"completed": "many"}, "completed: expected a number above 0"),
        ({"completed": 2.5}, "completed: expected a whole number"),
        ({"mean_ttft_ms": -3.0}, "mean_ttft_ms: expected a number above 0"),
        ({"max_concurrency": True}, "max_concurrency: expected"),
        ({"request_rate": "fast"}, 'request_rate: expected a number above 0 or "inf"'),
        ({"input_lens": [1.5]}, "input_lens: expected a list of token counts"),
        ({"duration": float("nan")}, "duration: expected"),
        ({"total_input_tokens": None}, "expected the lengths of requests"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_key(
    tmp_path: Path, make: Callable[..., dict[str, Any]], change: dict[str, Any], says: str
) -> None:
    data = make(**change)
    if "duration" in change:
        data["request_throughput"] = 0
    with pytest.raises(BenchError) as refused:
        read(tmp_path, data)
    assert says in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        read_bench(tmp_path / "none.json")

"""Result files as newer tools write them, and files with nothing to compare: one clear error each."""

import json
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from typing import Any

import bench_files as files
import pytest

from sim.validation.bench.files import read_bench
from sim.validation.bench.run import BenchError, BenchRun


def read(folder: Path, data: Any) -> BenchRun:
    [run] = read_bench(files.saved(folder / "bench.json", data))
    return run


def refused(folder: Path, data: Any) -> str:
    with pytest.raises(BenchError) as caught:
        read(folder, data)
    return str(caught.value)


MORE: dict[str, Any] = {
    "failed": 1, "start_times": [0.0], "input_lens": [10], "output_lens": [10], "ramp_up_strategy": "linear",
    "ramp_up_start_rps": 1, "ramp_up_end_rps": 2, "spec_decode_acceptance_length": 2.0, "accept_length": 2.0,
    "cache_report": {"cache_hit_rate_pct": 5.0}, "error_summary": [{"count": 1}],
    "run_info": {"variation_values": {"phases.profiling.concurrency": 8}, "cli_command": "--concurrency 4"},
    "metadata": {}, "was_cancelled": False, "pp": 1,
}  # fmt: skip
"""Keys that files may have besides."""


def bare_aiperf(**more: Any) -> dict[str, Any]:
    """AIPerf's export of a run whose requests all failed: no metric is in it."""
    kept = {
        name: value
        for name, value in files.aiperf().items()
        if not isinstance(value, dict) or "unit" not in value
    }
    return kept | more


NOTHING: dict[str, tuple[Any, str]] = {
    "vLLM, none answered": (files.vllm(completed=0, failed=24, total_output_tokens=0), "no request was answered, 24"),
    "SGLang, none answered": (files.sglang(completed=0, total_output_tokens=0), "no request was answered"),
    "AIPerf, none answered": (bare_aiperf(error_summary=[{"count": 20}, {"count": 4}]), "no request was answered, 24"),
    "AIPerf, errors without a count": (bare_aiperf(error_summary=[{"count": "many"}, {}]), "no request was answered"),
    "AIPerf, no list of errors": (bare_aiperf(error_summary=True), "no request was answered"),
    "AIPerf, a count of none": (
        files.aiperf(request_count={"unit": "requests", "avg": 0.0}),
        "request_count.avg: no request was answered",
    ),
    "AIPerf, several runs": (
        {"aiperf_version": "0.12.0", "metadata": {"aggregation_type": "confidence"}, "metrics": {}, "input_config": {}},
        "several runs of AIPerf together",
    ),
    "AIPerf, several runs pooled": ({"schema_version": "1.0.0", "combined": {}, "per_run": []}, "several runs of AIP"),
    "AIPerf, a sweep's command line": (
        files.aiperf(input_config={"cli_command": "aiperf profile --concurrency 4,8"}),
        "'--concurrency 4,8' is of several runs",
    ),
    "PyTorch's dashboard": (
        [{"benchmark": {"name": "vLLM benchmark"}, "model": {}, "metric": {"name": "p99_itl_ms"}}],
        "the result of vllm bench serve lies beside it",
    ),
    "InferenceX, another engine": (files.inferencex(framework="atom"), "framework: expected one of sglang, trt"),
    "InferenceX, another format": (files.inferencex(precision="int4"), "precision: expected one of bf16, fp8"),
    "InferenceX, other drafts": (files.inferencex(spec_decoding="eagle3"), "spec_decoding: expected one of none, mtp"),
    "InferenceX, a pipeline": (files.inferencex(pp=2), "pp 2: pipelines and context parallelism are not simulated"),
    "InferenceX, context parallelism": (files.inferencex(prefill_pcp_size=4), "prefill_pcp_size 4: pipelines"),
    "InferenceX, no GPUs": (files.inferencex(tp=0), "serve: 1 workers of 0 GPUs"),
    "InferenceX, no pools": (files.inferencex(disagg=True), "prefill: 0 workers of 0 GPUs"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_to_compare_is_one_error_with_its_reason(case: str, tmp_path: Path) -> None:
    data, says = NOTHING[case]
    said = refused(tmp_path, data)
    assert says in said and said.startswith(str(tmp_path / "bench.json"))


@pytest.mark.parametrize("text", ["", "  \n\n"])
def test_an_empty_file_is_called_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(BenchError, match="is empty; expected a result of vllm bench serve"):
        read_bench(tmp_path / "bench.json")


@pytest.mark.parametrize("make", [files.vllm, files.sglang, files.aiperf, files.genai_perf, files.inferencex])
def test_no_number_that_is_none_is_taken_for_one(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Every figure in turn, top level or block: NaN is an error that names it, or it is no figure that is read."""
    plain = make()
    whole = read(tmp_path, plain).measured
    for key, value in plain.items():
        if isinstance(value, dict) and "avg" in value:
            broken: Any = plain | {key: value | {"avg": nan}}
        elif isinstance(value, float):
            broken = plain | {key: nan}
        else:
            continue
        try:
            found = read(tmp_path, broken)
        except BenchError as error:
            assert key in str(error)
        else:
            assert found.measured == whole and "nan" not in json.dumps(found.measured).lower(), key


ODD: tuple[Any, ...] = (
    None,
    "x",
    "",
    True,
    -1,
    0,
    1e308,
    [],
    {},
    [None],
    ["x"],
    [{}],
    {"avg": "x"},
    {"x": {"y": 1}},
)


def spots(data: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *below) for below in spots(value))


def put(data: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**data, first: put(data[first], tuple(rest), value) if rest else value}


@pytest.mark.parametrize("make", [files.vllm, files.sglang, files.aiperf, files.genai_perf, files.inferencex])
def test_what_no_tool_would_write_is_an_error_or_read(
    make: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Every key in turn, at any depth, also those that only some files have."""
    plain = {**MORE, **make()}
    assert read(tmp_path, plain).measured == read(tmp_path, make()).measured
    for path in spots(plain):
        for odd in ODD:
            try:
                read(tmp_path, put(plain, path, odd))
            except BenchError as error:
                assert str(error).startswith(str(tmp_path)), (path, odd)


def test_newer_keys_change_nothing(tmp_path: Path) -> None:
    """vLLM's queue in the client and probes; SGLang's server_info and rate as a number; InferenceX' sizes of one."""
    vllm = files.vllm(mean_client_queue_time_ms=3.0, p99_client_queue_time_ms=9.0, rtfx=0.0)
    assert read(tmp_path, vllm).measured == read(tmp_path, files.vllm()).measured
    sglang = files.sglang(request_rate=float("inf"), server_info={"tp_size": 8}, max_concurrent_requests=5)
    assert read(tmp_path, sglang).load == read(tmp_path, files.sglang()).load
    sizes = {"pp": 1, "dcp_size": 1, "pcp_size": 1, "router": {"name": "x", "version": "1"}, "power_valid": 0}
    assert read(tmp_path, files.inferencex(**sizes)).row == read(tmp_path, files.inferencex()).row
    warm = files.aiperf(schema_version="1.5", warmup_metrics={"request_latency": {"unit": "ms", "avg": 9.0}})
    assert read(tmp_path, warm).measured == read(tmp_path, files.aiperf()).measured


def test_a_sweep_of_aiperf_tells_the_load_of_each_run(tmp_path: Path) -> None:
    swept = {
        "variation_values": {"phases.profiling.concurrency": 8},
        "cli_command": "aiperf profile --concurrency 4,8",
    }
    config = {"phases": {"profiling": {"concurrency": [4, 8]}}}
    assert read(tmp_path, files.aiperf(run_info=swept, input_config=config)).load.concurrency == 8


def test_a_rate_that_rises_is_no_burst(tmp_path: Path) -> None:
    """24 requests in 6 s: 4/s on average; at the file's own times where it has them."""
    rises = {
        "ramp_up_strategy": "linear",
        "ramp_up_start_rps": 1,
        "ramp_up_end_rps": 7,
        "max_concurrency": None,
    }
    steady = read(tmp_path, files.vllm(**rises))
    assert steady.load.rate_per_s == 4.0 and any("rises from 1 to 7/s" in note for note in steady.notes)
    each = {
        "input_lens": [900] * 24,
        "output_lens": [50] * 24,
        "start_times": [100 + i * i / 100 for i in range(24)],
    }
    timed = read(tmp_path, files.vllm(**rises, **each))
    assert timed.load.times_s == pytest.approx([i * i / 100 for i in range(24)])


@pytest.mark.parametrize(("last_s", "spread"), [(0.01, False), (5.0, True)])
def test_times_of_a_trace_are_told_from_a_burst(tmp_path: Path, last_s: float, spread: bool) -> None:
    """`--self-timed` leaves the rate infinite; a burst is sent within moments of a run of 6 s."""
    each = {
        "input_lens": [900] * 24,
        "output_lens": [50] * 24,
        "start_times": [i * last_s / 23 for i in range(24)],
    }
    load = read(tmp_path, files.vllm(max_concurrency=None, **each)).load
    assert (load.times_s is not None) is spread


def test_caches_and_drafts_of_the_file_are_told(tmp_path: Path) -> None:
    cached = read(
        tmp_path, files.sglang(cache_report={"cache_hit_rate_pct": 61.5}, accept_length=2.314)
    ).notes
    assert any("61.5% of its prompt tokens were cached" in note for note in cached)
    assert any("accept length was 2.31" in note for note in cached)
    drafted = read(tmp_path, files.vllm(spec_decode_acceptance_length=1.85)).notes
    assert any("accept length was 1.85" in note for note in drafted)

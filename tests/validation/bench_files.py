"""Result files of benchmark clients, written anew in the tools' formats (see sim/validation/bench/formats.yaml)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sim.result import Result

SCENARIO = """model: deepseek-v3.2
gpu: h200_sxm
engine: sglang
deployment: {serve: {gpus: 8, tp: 8, max_batch_per_gpu: 16}}
precision: {weights: fp8, kv_cache: bf16}
workload:
  arrivals: {closed_loop: {concurrency: 4}}
  lengths: {input: {uniform: [800, 1000]}, output: {uniform: [40, 60]}}
  requests: 24
price: {tier: rent_3yr}
"""


def vllm(**changes: Any) -> dict[str, Any]:
    """`vllm bench serve --save-result`: 24 requests of 900 tokens in and 50 out, 4 in flight; no single requests."""
    data = {
        "date": "20261130-101500", "endpoint_type": "vllm", "backend": "vllm", "label": None,
        "model_id": "deepseek-ai/DeepSeek-V3.2", "tokenizer_id": "deepseek-ai/DeepSeek-V3.2", "num_prompts": 24,
        "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 4, "duration": 6.0, "completed": 24, "failed": 0,
        "total_input_tokens": 21600, "total_output_tokens": 1200, "request_throughput": 4.0,
        "request_goodput": None, "output_throughput": 200.0, "total_token_throughput": 3800.0,
        "max_output_tokens_per_s": 260.0, "max_concurrent_requests": 8,
        "mean_ttft_ms": 200.0, "median_ttft_ms": 180.0, "std_ttft_ms": 40.0, "p99_ttft_ms": 320.0,
        "mean_tpot_ms": 15.0, "median_tpot_ms": 14.8, "std_tpot_ms": 1.0, "p99_tpot_ms": 18.0,
        "mean_itl_ms": 15.1, "median_itl_ms": 13.9, "std_itl_ms": 9.0, "p99_itl_ms": 61.0,
    }  # fmt: skip
    return data | changes


def sglang(**changes: Any) -> dict[str, Any]:
    """A line of SGLang's `bench_serving`: the same service."""
    data = {
        "tag": None, "backend": "sglang", "dataset_name": "random", "request_rate": "inf", "max_concurrency": 4,
        "sharegpt_output_len": None, "random_input_len": 1000, "random_output_len": 60, "random_range_ratio": 0.8,
        "duration": 6.0, "completed": 24, "total_input_tokens": 21600, "total_output_tokens": 1296,
        "total_output_tokens_retokenized": 1290, "request_throughput": 4.0, "input_throughput": 3600.0,
        "output_throughput": 216.0, "total_throughput": 3816.0,
        "mean_e2e_latency_ms": 990.0, "median_e2e_latency_ms": 985.0, "std_e2e_latency_ms": 60.0,
        "p99_e2e_latency_ms": 1150.0, "mean_ttft_ms": 200.0, "median_ttft_ms": 180.0, "std_ttft_ms": 40.0,
        "p99_ttft_ms": 320.0, "mean_tpot_ms": 15.0, "median_tpot_ms": 14.8, "std_tpot_ms": 1.0, "p99_tpot_ms": 18.0,
        "mean_itl_ms": 15.1, "median_itl_ms": 13.9, "std_itl_ms": 9.0, "p95_itl_ms": 30.0, "p99_itl_ms": 61.0,
        "max_itl_ms": 90.0, "concurrency": 3.96, "accept_length": None,
    }  # fmt: skip
    return data | changes


def aiperf(**changes: Any) -> dict[str, Any]:
    """AIPerf's `profile_export_aiperf.json`, schema 1.4: 24 requests, 4 in flight."""

    def record(unit: str, avg: float, std: float) -> dict[str, Any]:
        shares = {"p50": avg, "p90": avg + std, "p95": avg + 1.5 * std, "p99": avg + 2 * std}
        return {
            "unit": unit,
            "avg": avg,
            "min": avg - 2 * std,
            "max": avg + 2 * std,
            **shares,
            "std": std,
            "count": 24,
        }

    data = {
        "schema_version": "1.4", "aiperf_version": "0.12.0", "benchmark_id": "b", "was_cancelled": False,
        "time_to_first_token": record("ms", 200.0, 40.0), "inter_token_latency": record("ms", 15.0, 1.0),
        "request_latency": record("ms", 935.0, 50.0), "input_sequence_length": record("tokens", 900.0, 58.0),
        "output_sequence_length": record("tokens", 50.0, 0.0),
        "request_throughput": {"unit": "requests/sec", "avg": 4.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 200.0},
        "request_count": {"unit": "requests", "avg": 24.0},
        "inter_chunk_latency": record("ms", 30.0, 1.0),
        "input_config": {"endpoint": {"model_names": ["deepseek-ai/DeepSeek-V3.2"]}, "loadgen": {"concurrency": 4}},
    }  # fmt: skip
    return data | changes


def genai_perf(**changes: Any) -> dict[str, Any]:
    """genai-perf's `profile_export_genai_perf.json`: a rate, evenly spaced."""
    data = {name: value for name, value in aiperf().items() if isinstance(value, dict) and "unit" in value}
    config = {
        "model_names": ["deepseek_v3"],
        "perf_analyzer": {"stimulus": {"request_rate": 4.0}},
        "input": {},
    }
    return data | {"input_config": config} | changes


def inferencex(**changes: Any) -> dict[str, Any]:
    """InferenceX's `agg_*.json`: 8 H200 with SGLang, TP8, 4 in flight."""
    data = {
        "hw": "h200-cw", "conc": 4, "image": "lmsysorg/sglang:v0.5.9-cu130", "model": "deepseek-ai/DeepSeek-R1-0528",
        "infmax_model_prefix": "dsr1", "framework": "sglang", "precision": "fp8", "spec_decoding": "none",
        "disagg": False, "isl": 1024, "osl": 128, "is_multinode": False, "tp": 8, "ep": 1, "dp_attention": "false",
        "tput_per_gpu": 400.0, "output_tput_per_gpu": 45.0, "mean_ttft": 0.2, "median_ttft": 0.18, "std_ttft": 0.1,
        "mean_tpot": 0.0103, "median_tpot": 0.0102, "mean_intvty": 97.1, "median_intvty": 98.0, "mean_itl": 0.0103,
        "mean_e2el": 1.4, "median_e2el": 1.39,
    }  # fmt: skip
    return data | changes


def saved(path: Path, *objects: Any) -> Path:
    """One object as JSON; several one a line."""
    path.write_text("\n".join(map(json.dumps, objects)) + "\n", encoding="utf-8")
    return path


def served(result: Result, concurrency: int | None, rate_per_s: float | str = "inf") -> dict[str, Any]:
    """What `vllm bench serve --save-result --save-detailed` would have written of a simulated service."""
    table = result.requests
    ttft, e2e = table["ttft_s"].to_numpy(), table["e2e_s"].to_numpy()
    outputs = table["output_tokens"].to_numpy()
    tpot = (e2e - ttft)[outputs > 1] / (outputs[outputs > 1] - 1)
    lasted = float(table["finish_s"].max() - table["arrival_s"].min())

    def statistics(name: str, seconds: Any) -> dict[str, float]:
        found = {"mean": np.mean(seconds), "median": np.median(seconds)}
        return {f"{kind}_{name}_ms": float(value) * 1e3 for kind, value in found.items()}

    tokens = {name: int(table[f"{name}_tokens"].sum()) for name in ("input", "output")}
    return vllm(
        num_prompts=len(table), completed=len(table), max_concurrency=concurrency, request_rate=rate_per_s,
        duration=lasted, total_input_tokens=tokens["input"], total_output_tokens=tokens["output"],
        request_throughput=len(table) / lasted, output_throughput=tokens["output"] / lasted,
        total_token_throughput=sum(tokens.values()) / lasted, input_lens=table["input_tokens"].tolist(),
        output_lens=outputs.tolist(), start_times=(table["arrival_s"] + 812.5).tolist(),
        **{f"{kind}_{name}_ms": None for name in ("ttft", "tpot", "itl") for kind in ("p99", "mean", "median")}
        | statistics("ttft", ttft) | statistics("tpot", tpot) | statistics("e2el", e2e),
    )  # fmt: skip

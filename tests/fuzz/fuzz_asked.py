"""Cases of what else commands read: sweeps, plans, anchors, benchmarks, launch commands, step logs."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fuzz_bases import HEAD, SERVE, WORKLOAD
from fuzz_files import Given, fresh
from fuzz_mutations import NUMBERS, SHAPES, TEXTS, broken_text, shaken

SCENARIO: Final = HEAD + SERVE + WORKLOAD + "profile: analytic\n"
SWEEP: Final = """
base: plain.yaml
grid:
  workload.requests: [2, 3]
  deployment.serve.max_batch_per_gpu: [8, 16]
cases:
  - {gpu: b200_sxm, precision.kv_cache: bf16}
  - {profile: analytic}
"""
PLAN: Final = """
base: plain.yaml
objectives: {ttft_p99_s: 2.0, tpot_p90_s: 0.06}
search:
  gpu: [h200_sxm, b200_sxm]
  kind: [aggregated]
  max_gpus: 64
  deployment.serve.gpus: [8]
  deployment.serve.tp: [8, 4]
  exclude: [{gpu: b200_sxm}]
"""
ANCHOR: Final = {
    "step_factor": 1.1, "step_constant_s": 0.001, "ttft_added_s": -0.01,
    "measured_on": {"model": "deepseek-v3.2", "gpu": "h200_sxm", "engine": "sglang"},
    "points": [{"concurrency": 4, "tpot": {"measured": 0.01, "before": 0.009, "after": 0.01}}],
    "error": {"tpot": 0.02, "ttft": None, "throughput": 0.01, "left_out": 3}, "version": "1",
}  # fmt: skip
BENCHES: Final[tuple[dict[str, Any], ...]] = (
    {"endpoint_type": "vllm", "model_id": "deepseek-ai/DeepSeek-V3.2", "num_prompts": 6, "request_rate": "inf",
     "burstiness": 1.0, "max_concurrency": 2, "duration": 3.0, "completed": 6, "failed": 0, "total_input_tokens": 5400,
     "total_output_tokens": 300, "request_throughput": 2.0, "output_throughput": 100.0, "mean_ttft_ms": 200.0,
     "median_ttft_ms": 180.0, "p99_ttft_ms": 320.0, "mean_tpot_ms": 15.0, "median_tpot_ms": 14.8, "p99_tpot_ms": 18.0},
    {"backend": "sglang", "dataset_name": "random", "request_rate": "inf", "max_concurrency": 2, "duration": 3.0,
     "random_input_len": 1000, "random_output_len": 60, "random_range_ratio": 0.8, "completed": 6,
     "total_input_tokens": 5400, "total_output_tokens": 324, "request_throughput": 2.0, "output_throughput": 108.0,
     "mean_ttft_ms": 200.0, "median_ttft_ms": 180.0, "mean_tpot_ms": 15.0, "median_tpot_ms": 14.8},
)  # fmt: skip
COMMANDS: Final = (
    "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3.2 --tp 8 --dp 8 --enable-dp-attention "
    "--chunked-prefill-size 8192 --mem-fraction-static 0.85 --max-running-requests 256 --kv-cache-dtype fp8_e4m3",
    "vllm serve deepseek-ai/DeepSeek-V3.2 --tensor-parallel-size 8 --enable-expert-parallel --max-num-seqs 128 "
    "--max-num-batched-tokens 8192 --gpu-memory-utilization 0.9 "
    "--speculative-config '{\"method\": \"mtp\", \"num_speculative_tokens\": 1}'",
    "trtllm-serve deepseek-ai/DeepSeek-V3.2 --backend pytorch --tp_size 8 --ep_size 8 --max_batch_size 64",
)  # fmt: skip
ROW: Final = {
    "row_id": "X", "model": "DeepSeek-R1-0528", "hardware": "b200", "framework": "trt", "precision": "fp8",
    "spec": "none", "disagg": 0, "decode_tp": 8, "decode_ep": 8, "decode_dp_attn": 0, "total_gpu": 8, "isl": 512,
    "osl": 16, "conc": 2, "median_tpot_ms": 9.0,
}  # fmt: skip
WORDS: Final = ("'", '"', "\\", "$(ls)", "`ls`", "|", "&&", ";", "--", "-", "=", "--tp=", "--tp 0", "--tp -8", "\n",
                "{}", "--config x.yaml", "--dp 10000000000", "--ep 3", "--nnodes 0",
                "--speculative-num-steps 99999999")  # fmt: skip
DECODE: Final = (
    "[2026-11-04 05:32:32 DP3 TP24 EP24] Decode batch, #running-req: {n}, #token: {tokens}, token usage: 0.10, "
    "cuda graph: True, gen throughput (token/s): {rate:.4f}, #queue-req: 0"
)
ITERATION: Final = (
    "(EngineCore_DP0 pid=7) INFO 11-30 09:00:00 [core.py:400] Iteration(1): 0 context requests, 0 context tokens, "
    "{n} generation requests, {n} generation tokens, iteration elapsed time: {ms:.2f} ms, GPU KV cache usage: 4.0%"
)
CACHE: Final = "INFO 11-30 08:59:00 [kv_cache_utils.py:1087] GPU KV cache size: 1,000,000 tokens"


def sweep(folder: Path, rng: random.Random) -> Given:
    """A broken sweep: its points are listed."""
    text = shaken(SWEEP, rng)
    (folder / "own-sweep.yaml").write_text(text, errors="surrogatepass")
    told = ["sweep", str(folder / "own-sweep.yaml"), "--quiet"]
    return Given(([*told, "--dry-run", "--json"],), text)


def anchor(folder: Path, rng: random.Random) -> Given:
    """A broken anchor: `check`, then a step."""
    text = _broken_json(ANCHOR, rng)
    own, scenario = folder / "files" / "own-anchor.json", folder / "own.yaml"
    own.write_text(text, errors="surrogatepass")
    scenario.write_text(SCENARIO + "anchor: files/own-anchor.json\n")
    return Given((["check", str(scenario), "--json"], ["explain", str(scenario), "--json"]), text)


def bench(folder: Path, rng: random.Random) -> Given:
    """A broken result of a benchmark's client, repeated."""
    text = _broken_json(rng.choice(BENCHES), rng)
    own, scenario = folder / "files" / "own-bench.json", folder / "own.yaml"
    own.write_text(text, errors="surrogatepass")
    scenario.write_text(SCENARIO)
    told = [
        "validate",
        "--bench",
        str(own),
        "--scenario",
        str(scenario),
        "--max-prompts",
        "4",
        "--quiet",
        "--json",
    ]
    return Given((told,), text)


def launch(folder: Path, rng: random.Random) -> Given:
    """A broken launch command, said or in a file."""
    words = rng.choice(COMMANDS).split(" ")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(words))
        how = rng.random()
        if how < 0.5:
            words[at] = str(rng.choice((*NUMBERS, *TEXTS, *WORDS)))
        elif how < 0.75:
            words.insert(at, str(rng.choice((*WORDS, *words))))
        else:
            words.pop(at)
    text = " ".join(words).replace("\0", "")
    (folder / "own.sh").write_text(text, errors="surrogatepass")
    given = str(folder / "own.sh") if rng.random() < 0.5 else f" {text}"
    return Given((["launch", "read", given, "--gpu", "h200", "--json"],), text)


def steps(folder: Path, rng: random.Random) -> Given:
    """A broken log of steps: fitted."""
    if rng.random() < 0.5:
        lines = [DECODE.format(n=n, tokens=n * c, rate=n / (0.02 + n * c * 1e-8))
                 for n in (1, 8, 32, 64) for c in (1000, 4000) for _ in range(3)]  # fmt: skip
    else:
        lines = [CACHE, *(ITERATION.format(n=n, ms=20 + n / 4) for n in (1, 2, 4, 8, 16, 32, 64))]
    text = "\n".join(lines)
    for _ in range(rng.choice((1, 3, 10))):
        text = broken_text(text, rng)
    (folder / "own.log").write_text(text, errors="surrogatepass")
    told = ["calibrate", "step", str(folder / "own.log"), "--out", str(fresh(folder, "steps", rng)), "--json"]
    return Given((told,), text)


def plan(folder: Path, rng: random.Random, bases: list[str]) -> tuple[Callable[[], object], str]:
    """A broken plan, only read: to answer it takes a while."""
    from dashboard.data.problems import BadInput  # noqa: PLC0415 - streamlit takes a second
    from sim.planner.question import load_question  # noqa: PLC0415
    from sim.scenario.errors import DeploymentError, ScenarioError  # noqa: PLC0415

    text = shaken(PLAN, rng)
    file = folder / "own-plan.yaml"
    file.write_text(text, errors="surrogatepass")

    def read() -> object:
        try:
            return load_question(file)
        except (ScenarioError, DeploymentError) as error:
            raise BadInput(str(error)[:1000]) from error

    return read, text


def table(folder: Path, rng: random.Random) -> Given:
    """A broken row of a published table, repeated."""
    row: dict[str, Any] = dict(ROW)
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice([*row])
        row[key] = rng.choice((*NUMBERS, *NUMBERS, rng.randint(1, 300), *TEXTS, ""))
    lines = io.StringIO()
    rows = csv.DictWriter(lines, [*row])
    rows.writeheader()
    rows.writerow(row)
    text = lines.getvalue()
    text = broken_text(text, rng) if rng.random() < 0.2 else text
    (folder / "own-rows.csv").write_text(text, errors="surrogatepass")
    return Given(
        (["validate", "--table", str(folder / "own-rows.csv"), "--max-prompts", "4", "--quiet", "--json"],),
        text,
    )


def _broken_json(data: dict[str, Any], rng: random.Random) -> str:
    """The data with other values in a few places, as text, now and then with other characters."""
    copy: dict[str, Any] = json.loads(json.dumps(data))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder = rng.choice([copy, *(inner for inner in copy.values() if isinstance(inner, dict) and inner)])
        key = rng.choice([*holder])
        if rng.random() < 0.15:
            holder.pop(key)
        else:
            holder[key] = rng.choice((*NUMBERS, *NUMBERS, rng.randint(1, 300), rng.random(), *TEXTS, *SHAPES))
        if not copy:
            break
    text = json.dumps(copy)
    return broken_text(text, rng) if rng.random() < 0.2 else text


ASKED: Final[dict[str, Callable[[Path, random.Random], Given]]] = {
    "sweeps": sweep, "anchors": anchor, "benches": bench, "launches": launch, "steps": steps,
    "tables": table,
}  # fmt: skip

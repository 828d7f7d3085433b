"""What the fuzzer starts from: every ready scenario, a few written by hand, and files, whole and broken."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Final

READY: Final = Path(__file__).parents[2] / "scenarios"
HEAD: Final = "model: deepseek-v3.2\ngpu: h200_sxm\n"
SERVE: Final = "deployment: {serve: {gpus: 8, ep: 8}}\n"
WORKLOAD: Final = (
    "workload:\n  requests: 40\n  arrivals: {poisson: {rate_per_s: 2}}\n"
    "  lengths: {input: {constant: 1000}, output: {constant: 50}}\n"
)
LOGNORMAL: Final = WORKLOAD.replace("{constant: 1000}", "{lognormal: {mean: 1000, cv: 1}}").replace(
    "{constant: 50}", "{lognormal: {mean: 50, cv: 1}}"
)
WRITTEN: Final = {
    "plain.yaml": HEAD + SERVE + WORKLOAD,
    "lognormal.yaml": HEAD + SERVE + LOGNORMAL + "warmup_s: 1\n",
    "uniform.yaml": HEAD
    + SERVE
    + WORKLOAD.replace("{constant: 1000}", "{uniform: [10, 20000]}").replace("poisson", "gamma")
    .replace("rate_per_s: 2", "rate_per_s: 2, cv: 2"),
    "two-pools.yaml": HEAD
    + "deployment: {prefill: {gpus: 8, ep: 8, workers: 2}, decode: {gpus: 16, ep: 16}}\n"
    + LOGNORMAL
    + "price: {tier: rent_3yr, margin: 0.2, overhead_fraction: 0.1}\n",
    "drafts.yaml": HEAD
    + SERVE
    + LOGNORMAL
    + "speculation: {draft_tokens: 3, adaptive: [{up_to_batch: 4, draft_tokens: 3}, {up_to_batch: 16, "
    "draft_tokens: 1}]}\nindexer: {logits_gb: 0.5, dense_threshold: 2048}\noverlap: {two_batch: true}\n",
    "prefixes.yaml": HEAD
    + SERVE
    + "workload: {trace: files/hashes.jsonl}\n"
    "prefix_cache: {enabled: true, scope: worker, block_tokens: 512, host_gb: 100, disk_gb: 1000}\n"
    "router: prefix_aware\nduration_s: 100\n",
    "cached.yaml": HEAD + SERVE + WORKLOAD + "  cached_fraction: 0.5\nprefix_cache: {enabled: true, host_gb: 10}\n",
    "sessions.yaml": HEAD
    + SERVE
    + "workload: {trace: files/sessions.jsonl, arrivals: {closed_loop: {concurrency: 2}}}\n",
    "clients.yaml": HEAD + SERVE + "workload: {trace: files/clients.jsonl}\nduration_s: 600\n",
    "trace.yaml": HEAD + SERVE + "workload: {trace: files/trace.csv}\n",
    "counts.yaml": HEAD
    + "deployment: {serve: {gpus: 8, ep: 8, experts: {counts: files/counts.json, redundant: 8}}}\n"
    + WORKLOAD,
    "experts.yaml": HEAD
    + "deployment: {serve: {gpus: 8, ep: 8, experts: {popularity_sigma: 1, redundant: 8, drift_rho: 0.9, "
    "drift_every_steps: 10, rebalance_every_steps: 1000}}}\n"
    + WORKLOAD,
    "histogram.yaml": HEAD
    + SERVE
    + WORKLOAD.replace("{constant: 1000}", "{histogram: files/lengths.csv}"),
    "diurnal.yaml": HEAD
    + SERVE
    + WORKLOAD.replace("{poisson: {rate_per_s: 2}}", "{diurnal: {mean_rate_per_s: 2, curve: files/curve.csv}}"),
    "day.yaml": HEAD
    + SERVE
    + WORKLOAD
    + "autoscale: {pools: {serve: {min: 1, max: 3}}, signal: concurrency, target: 2, tolerance: 0.1, period_s: 2, "
    "start_up_s: 4, scale_down_after_s: 6}\n"
    "failures: {per_gpu_hour: 0.9, detect_s: 1, restart_s: 5, repair_h: 0.01, spare_nodes: 1, retry: prefix_cache}\n",
    "schedule.yaml": HEAD
    + SERVE
    + WORKLOAD
    + "autoscale: {schedule: files/schedule.csv, start_up_s: 4}\n",
    "fleet.yaml": HEAD + SERVE + WORKLOAD + "fleet: {replicas: 4, simulated: 2}\n",
    "at-once.yaml": HEAD + SERVE + WORKLOAD.replace("{poisson: {rate_per_s: 2}}", "{all_at_once: {}}"),
    "loop.yaml": HEAD
    + "deployment: {serve: {gpus: 8, tp: 8, ep: 1, max_batch_per_gpu: 4}}\nengine: vllm\n"
    + LOGNORMAL.replace("{poisson: {rate_per_s: 2}}", "{closed_loop: {concurrency: 16}}"),
    "config.yaml": HEAD.replace("deepseek-v3.2", "files/config.json") + SERVE + WORKLOAD,
    "habits.yaml": HEAD
    + SERVE
    + WORKLOAD
    + "scheduling: {host_overhead_s: 0.001, ingress_s: 0.1, communication_factor: 1.5, poll_every_steps: 4}\n"
    "objectives: {ttft_p99_s: 2, tpot_p99_s: 0.05, e2e_p99_s: 60}\nprofile: analytic\n",
}  # fmt: skip
"""Every section of a scenario at least once."""

CONFIG: Final = {
    "hidden_size": 7168, "num_hidden_layers": 8, "num_attention_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 3,
    "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
    "moe_intermediate_size": 2048, "intermediate_size": 18432, "vocab_size": 129280,
    "num_nextn_predict_layers": 1, "max_position_embeddings": 163840, "index_n_heads": 64, "index_head_dim": 128,
    "index_topk": 2048, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32",
}  # fmt: skip
HOT: Final = [[i % 7 + 1 for i in range(256)] for _ in range(58)]
GOOD: Final = {
    "config.json": json.dumps(CONFIG),
    "counts.json": json.dumps({"logical_count": HOT}),
    "lengths.csv": "tokens,weight\n100,1\n2000,3\n",
    "curve.csv": "hour,load\n0,1\n12,3\n",
    "schedule.csv": "hour,serve\n0,2\n0.002,1\n12,3\n",
    "trace.csv": "arrival_s,input_tokens,output_tokens\n0,100,10\n1.5,2000,50\n3,300,1\n",
    "hashes.jsonl": "".join(
        json.dumps({"timestamp": 1000 * i, "input_length": 1200, "output_length": 20, "hash_ids": [0, 1, 9 + i]})
        + "\n"
        for i in range(6)
    ),
    "sessions.jsonl": json.dumps(
        {"session": "a", "block_tokens": 64, "turns": [[-1, 0, 128, 70, [[1, 2]]], [0, 5.5, 260, 30, [[1, 4]]]]}
    ),
    "clients.jsonl": json.dumps(
        {"client": 0, "window_s": 600, "windows": [[0, 60, "gamma", 1.2]],
         "lengths": [{"from_s": 0, "input": [[100, 800], [1, 3]], "output": [[50], [1]]}]}
    ),
}  # fmt: skip
"""Sound files; the mutations break them further."""

SPECIAL: Final = ("/dev/zero", "/dev/stdin", "/dev/urandom", "/dev/null", "/proc/self/mem", "/proc/kmsg", "/sys", ".",
                  "files", "files/pipe", "files/none.csv", "files/zeros.csv.gz", "files/bomb.jsonl.gz",
                  "files/deep.json", "files/wide.csv", "files/nul.csv", "files/latin.csv",
                  "/etc/hostname", "files/\0")  # fmt: skip
"""Names that are no file one should read: devices, a pipe, folders, bombs."""


def lay_out(folder: Path) -> list[str]:
    """Copy the bases into `folder`, with their files; the names of the scenarios."""
    shutil.copytree(READY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("published"))
    for name, text in WRITTEN.items():
        (folder / name).write_text(text, encoding="utf-8")
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, text in GOOD.items():
        (files / name).write_text(text, encoding="utf-8")
    os.mkfifo(files / "pipe")
    (files / "zeros.csv.gz").write_bytes(gzip.compress(b"\0" * 1_000_000))
    line = b'{"timestamp": 1, "input_length": 5, "output_length": 5}\n'
    (files / "bomb.jsonl.gz").write_bytes(gzip.compress(line) * 4)
    (files / "deep.json").write_text("[" * 100_000 + "]" * 100_000, encoding="utf-8")
    (files / "wide.csv").write_text(",".join(f"c{i}" for i in range(20_000)) + "\n1\n", encoding="utf-8")
    (files / "nul.csv").write_bytes(b"tokens,weight\n1\0,2\n")
    (files / "latin.csv").write_bytes(b"tokens,weight\n\xe9,2\n")
    names = (
        str(path.relative_to(folder))
        for path in folder.rglob("*.yaml")
        if "\nsearch:" not in path.read_text()
    )
    return sorted(name for name in names if name != "bench.yaml")  # extends a file of the package

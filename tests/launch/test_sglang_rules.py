"""SGLang's rules, one by one: what a flag makes of a scenario, by hand."""

from typing import Any

import pytest

from launches import at, launch, pool
from sim.scenario.errors import ScenarioError

START = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 "
V32 = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3.2 "
ONE_NODE = START + "--tp 8 "

KEYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain TP": (ONE_NODE, "h200", {
        "engine": "sglang", "model": "deepseek-r1", "gpu": "h200_sxm",
        "deployment.serve.gpus": 8, "deployment.serve.tp": 8, "deployment.serve.ep": 1, "deployment.serve.workers": 1,
        # 2,048 requests of the only rank over its 8 GPUs; the chunk of GPUs below 160 GiB.
        "deployment.serve.max_batch_per_gpu": 256, "deployment.serve.chunk_tokens": 8192,
        "precision.weights": "fp8", "precision.kv_cache": "bf16", "speculation.draft_tokens": 0,
        "prefix_cache.enabled": True, "prefix_cache.scope": "rank", "router": None,
    }),
    "attention DP divides the chunk": (ONE_NODE + "--dp 8 --enable-dp-attention", "h200", {
        "deployment.serve.gpus": 8, "deployment.serve.tp": 1, "deployment.serve.ep": 1,
        "deployment.serve.chunk_tokens": 1024, "deployment.serve.max_batch_per_gpu": 2048, "router": "round_robin",
    }),
    "the flag's chunk is divided too": (ONE_NODE + "--dp 4 --enable-dp-attention --chunked-prefill-size 32768", "h200", {
        "deployment.serve.tp": 2, "deployment.serve.chunk_tokens": 8192,
    }),
    "attention DP without a size is plain TP": (ONE_NODE + "--enable-dp-attention", "h200", {
        "deployment.serve.tp": 8, "deployment.serve.chunk_tokens": 8192,
    }),
    "attention DP in its new spelling": (ONE_NODE + "--attn-dp-size 8", "h200", {
        "deployment.serve.tp": 1, "deployment.serve.workers": 1, "deployment.serve.chunk_tokens": 1024,
    }),
    "DP without attention DP is replicas": (ONE_NODE + "--dp 2", "h200", {
        "deployment.serve.workers": 2, "deployment.serve.gpus": 8, "deployment.serve.tp": 8,
    }),
    "the chunk of large GPUs": (ONE_NODE, "b200", {"deployment.serve.chunk_tokens": 16384}),
    "whole prompts": (ONE_NODE + "--chunked-prefill-size -1", "h200", {"deployment.serve.chunk_tokens": 16384}),
    "whole prompts, bounded": (ONE_NODE + "--chunked-prefill-size -1 --max-prefill-tokens 4096", "h200", {
        "deployment.serve.chunk_tokens": 4096,
    }),
    "seats are of all ranks": (ONE_NODE + "--dp 8 --enable-dp-attention --max-running-requests 512", "h200", {
        "deployment.serve.max_batch_per_gpu": 64,
    }),
    "seats of one rank over its GPUs": (ONE_NODE + "--max-running-requests 512", "h200", {
        "deployment.serve.max_batch_per_gpu": 64,
    }),
    "EP with its flag": (ONE_NODE + "--ep 8", "h200", {"deployment.serve.ep": 8, "deployment.serve.exchange": None}),
    "EP and attention DP gather": (ONE_NODE + "--dp 8 --enable-dp-attention --ep-size 8", "h200", {
        "deployment.serve.ep": 8, "deployment.serve.exchange": "all_gather",
    }),
    "DeepEP spans all GPUs": (ONE_NODE + "--dp 8 --enable-dp-attention --moe-a2a-backend deepep", "h200", {
        "deployment.serve.ep": 8, "deployment.serve.exchange": "all_to_all",
    }),
    "DeepEP as it was written before": (ONE_NODE + "--dp 8 --enable-dp-attention --enable-deepep-moe", "h200", {
        "deployment.serve.ep": 8, "deployment.serve.exchange": "all_to_all",
    }),
    "MTP": (ONE_NODE + "--speculative-algorithm EAGLE --speculative-num-steps 2 --speculative-eagle-topk 1 "
            "--speculative-num-draft-tokens 3", "h200", {
        # 48 requests with drafts, over 8 GPUs of the one rank.
        "speculation.draft_tokens": 2, "deployment.serve.max_batch_per_gpu": 6,
    }),
    "MTP with the engine's own drafts": (ONE_NODE + "--speculative-algorithm NEXTN", "h200", {"speculation.draft_tokens": 3}),
    "MTP from its own checkpoint": (
        ONE_NODE + "--speculative-algo EAGLE --speculative-draft-model-path lmsys/DeepSeek-R1-NextN", "h200",
        {"speculation.draft_tokens": 3},
    ),
    "V3.2's cache on Hopper": (V32 + "--tp 8", "h200", {"precision.kv_cache": "bf16"}),
    "V3.2's cache on Blackwell": (V32 + "--tp 8", "b200", {"precision.kv_cache": "fp8"}),
    "R1's cache on Blackwell": (ONE_NODE, "b200", {"precision.kv_cache": "bf16"}),
    "the cache's flag": (ONE_NODE + "--kv-cache-dtype fp8_e4m3", "h200", {"precision.kv_cache": "fp8"}),
    "NVFP4 by the flag": (ONE_NODE + "--quantization modelopt_fp4", "b200", {
        "precision.weights": "nvfp4", "precision.attention": "bf16", "precision.dense": "nvfp4",
    }),
    "NVFP4 by the checkpoint": (
        "python -m sglang.launch_server --model nvidia/DeepSeek-R1-0528-FP4-v2 --tp 4", "b200",
        {"model": "deepseek-r1-0528", "precision.weights": "nvfp4", "deployment.serve.gpus": 4},
    ),
    "the memory's flag": (ONE_NODE + "--mem-fraction-static 0.85", "h200", {"deployment.serve.memory_fraction": 0.85}),
    "the experts' kernels": (ONE_NODE + "--moe-runner-backend flashinfer_trtllm", "b200", {
        "deployment.serve.moe_backend": "trtllm_gen",
    }),
    "the experts' kernels as before": (ONE_NODE + "--enable-flashinfer-trtllm-moe", "b200", {
        "deployment.serve.moe_backend": "trtllm_gen",
    }),
    "replicas of experts": (
        ONE_NODE + "--dp 8 --enable-dp-attention --moe-a2a-backend deepep --ep-num-redundant-experts 32 --enable-eplb",
        "h200", {"deployment.serve.experts": {"redundant": 32}},
    ),
    "rebalanced without replicas": (ONE_NODE + "--ep 8 --enable-eplb", "h200", {
        "deployment.serve.experts": {"placement": "global"},
    }),
    "two-batch overlap": (ONE_NODE + "--enable-two-batch-overlap", "h200", {"overlap.two_batch": True}),
    "no CUDA graphs": (ONE_NODE + "--disable-cuda-graph", "h200", {"scheduling.cuda_graphs": False}),
    "looks for requests": (ONE_NODE + "--scheduler-recv-interval 10", "h200", {"scheduling.poll_every_steps": 10}),
    "no prefix cache": (ONE_NODE + "--disable-radix-cache", "h200", {"prefix_cache.enabled": False}),
    "blocks": (ONE_NODE + "--page-size 32", "h200", {"prefix_cache.block_tokens": 32}),
    "host memory": (ONE_NODE + "--enable-hierarchical-cache --hicache-size 100", "h200", {"prefix_cache.host_gb": 100.0}),
    "ranks by load": (ONE_NODE + "--dp 8 --enable-dp-attention --load-balance-method total_tokens", "h200", {
        "router": "least_loaded",
    }),
    "two nodes of one worker": (
        START + "--tp 16 --nnodes 2 --node-rank 0 --dist-init-addr 10.0.0.1:5000", "h100",
        {"deployment.serve.workers": 1, "deployment.serve.gpus": 16, "deployment.serve.tp": 16},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KEYS)
def test_a_command_becomes_the_scenario_that_sglang_would_run(case: str) -> None:
    text, gpu, expected = KEYS[case]
    scenario = launch(text, gpu).scenario
    assert {path: at(scenario, path) for path in expected} == expected


def test_memory_is_what_the_reserve_leaves() -> None:
    """By hand after memory_hook.py, MiB: 512 + 1.5 x 8,192 + 8 x 128 + 2 x 512 captured + 1,536 for prompts' graphs
    = 16,384 of 144,384. Attention DP adds (3 + 1.5) x 512 x 8 = 18,432."""
    assert pool(ONE_NODE)["memory_fraction"] == round(1 - 16384 / 144384, 3) == 0.887
    assert pool(ONE_NODE + "--dp 8 --enable-dp-attention")["memory_fraction"] == round(1 - 34816 / 144384, 3) == 0.759
    # 256 captured: 512 + 12,288 + 1,024 + 512 + 1,536 + 3 x 256 x 8; no more than 300, so no further 1.5 MiB.
    small = pool(ONE_NODE + "--dp 8 --enable-dp-attention --cuda-graph-max-bs 256")
    assert small["memory_fraction"] == round(1 - 22016 / 144384, 3)


def test_memory_that_would_not_suffice_is_told_and_left_to_the_catalog() -> None:
    deep = ONE_NODE + "--dp 8 --enable-dp-attention --chunked-prefill-size 65536"
    found = launch(deep)
    assert "memory_fraction" not in found.scenario["deployment"]["serve"]
    assert [told.flag for told in found.not_modelled] == ["deployment.serve.memory_fraction"]


TOLD = {
    "a tree of drafts": (
        "--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 4 --speculative-num-draft-tokens 8",
        "--speculative-eagle-topk 4", "speculation.draft_tokens", 3,
    ),
    "drafts of another model": (
        "--speculative-algorithm EAGLE3 --speculative-draft-model-path other/model --speculative-num-steps 3",
        "--speculative-algorithm EAGLE3, --speculative-draft-model-path other/model", "speculation.draft_tokens", 0,
    ),
    "n-grams": ("--speculative-algorithm NGRAM", "--speculative-algorithm NGRAM", "speculation.draft_tokens", 0),
    "stages": ("--pp-size 2 --nnodes 2", "--pp-size 2", "deployment.serve.tp", 16),
    "a format of the weights": ("--quantization awq", "--quantization awq", "precision.weights", "fp8"),
    "a format of the cache": ("--kv-cache-dtype fp4_e2m1", "--kv-cache-dtype fp4_e2m1", "precision.kv_cache", "fp8"),
    "kernels that were not measured": ("--moe-runner-backend marlin", "--moe-runner-backend marlin", "x", None),
    "kernels not measured on this GPU": (
        "--moe-runner-backend flashinfer_trtllm", "--moe-runner-backend flashinfer_trtllm",
        "deployment.serve.moe_backend", None,
    ),
    "DeepEP's mode": (
        "--dp 8 --enable-dp-attention --moe-a2a-backend deepep --deepep-mode low_latency --mem-fraction-static 0.85",
        "--deepep-mode low_latency", "deployment.serve.exchange", "all_to_all",
    ),
    "seats that do not divide": ("--max-running-requests 4", "--max-running-requests 4", "deployment.serve.max_batch_per_gpu", 1),
    "host memory as a multiple": ("--enable-hierarchical-cache --hicache-ratio 2", "--enable-hierarchical-cache, --hicache-ratio 2", "prefix_cache.host_gb", None),
    "a habit": ("--enable-mixed-chunk", "--enable-mixed-chunk", "x", None),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_what_no_key_can_hold_is_told(case: str) -> None:
    more, flag, path, value = TOLD[case]
    found = launch(ONE_NODE + more)
    assert flag in [told.flag for told in found.not_modelled]
    assert at(found.scenario, path) == value


CONTRADICTIONS = {
    "DP does not divide TP": ("--tp 8 --dp 3 --enable-dp-attention", "command:1:77: --dp 3 does not divide 8 (--tp 8)"),
    "EP does not divide TP": ("--tp 8 --ep 3", "--ep 3 does not divide 8 (--tp 8)"),
    "nodes do not divide GPUs": ("--tp 8 --nnodes 3", "--nnodes 3 does not divide 8 GPUs (--tp 8)"),
    "more GPUs than the nodes have": ("--tp 32 --nnodes 2", "--tp 32 takes 32 GPUs, 16 on each of 2 node(s); h200_sxm has 8"),
    "more GPUs than may be seen": ("--tp 8", None),
    "steps missing": ("--tp 8 --speculative-algorithm EAGLE --speculative-eagle-topk 1", "--speculative-num-steps"),
    "an unknown side": ("--tp 8 --disaggregation-mode both", "expected prefill, decode or null"),
    "one side only": ("--tp 8 --disaggregation-mode prefill", "the decode command is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_an_error_that_names_the_flag(case: str) -> None:
    more, says = CONTRADICTIONS[case]
    text = f"CUDA_VISIBLE_DEVICES=0,1,2,3 {START}{more}" if says is None else START + more
    with pytest.raises(ScenarioError, match="command:1:") as caught:
        launch(text)
    assert (says or "CUDA_VISIBLE_DEVICES=0,1,2,3 shows fewer") in str(caught.value)


def test_nodes_that_the_user_names_bound_a_worker_and_multiply_it() -> None:
    assert pool(ONE_NODE, nodes=3)["workers"] == 3
    assert pool(ONE_NODE, nodes=1)["workers"] == 1
    with pytest.raises(ScenarioError, match=r"--tp 16 takes 16 GPUs; 1 node\(s\) of h200_sxm have 8"):
        launch(START + "--tp 16", nodes=1)

"""SGLang's rules, one by one: what a flag makes of a scenario, by hand."""

from typing import Any

import pytest
from launches import at, launch

from sim.scenario.errors import DeploymentError, Problem, ScenarioError

START = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 "
V32 = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3.2 "
ONE_NODE = START + "--tp 8 "

KEYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "decode steps after prompts": (
        ONE_NODE + "--prefill-decode-interval 24",
        "h200",
        {"scheduling.rest_after_prompts_steps": 24, "scheduling.poll_every_steps": None},
    ),
    "prompts held for company": (
        ONE_NODE + "--dp 8 --enable-dp-attention --enable-prefill-delayer",
        "h200",
        {"scheduling.wait_all_ranks_steps": 30},  # the passes that it is shipped with
    ),
    "prompts held for company, not as long": (
        ONE_NODE
        + "--dp 8 --enable-dp-attention --enable-prefill-delayer --prefill-delayer-max-delay-passes 12",
        "h200",
        {"scheduling.wait_all_ranks_steps": 12},
    ),
    "plain TP": (
        ONE_NODE,
        "h200",
        {
            "engine": "sglang",
            "model": "deepseek-r1",
            "gpu": "h200_sxm",
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 8,
            "deployment.serve.ep": 1,
            "deployment.serve.workers": 1,
            # 2,048 requests of the only rank over its 8 GPUs; the chunk of GPUs below 160 GiB.
            "deployment.serve.max_batch_per_gpu": 256,
            "deployment.serve.chunk_tokens": 8192,
            "precision.weights": "fp8",
            "precision.kv_cache": "bf16",
            "speculation.draft_tokens": 0,
            "prefix_cache.enabled": True,
            "prefix_cache.scope": "rank",
            "router": None,
        },
    ),
    "attention DP divides the chunk": (
        ONE_NODE + "--dp 8 --enable-dp-attention",
        "h200",
        {
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 1,
            "deployment.serve.ep": 1,
            "deployment.serve.chunk_tokens": 1024,
            "deployment.serve.max_batch_per_gpu": 2048,
            "router": "round_robin",
        },
    ),
    "the flag's chunk is divided too": (
        ONE_NODE + "--dp 4 --enable-dp-attention --chunked-prefill-size 32768",
        "h200",
        {
            "deployment.serve.tp": 2,
            "deployment.serve.chunk_tokens": 8192,
        },
    ),
    "attention DP without a size is plain TP": (
        ONE_NODE + "--enable-dp-attention",
        "h200",
        {
            "deployment.serve.tp": 8,
            "deployment.serve.chunk_tokens": 8192,
        },
    ),
    "attention DP in its new spelling": (
        ONE_NODE + "--attn-dp-size 8",
        "h200",
        {
            "deployment.serve.tp": 1,
            "deployment.serve.workers": 1,
            "deployment.serve.chunk_tokens": 1024,
        },
    ),
    "DP without attention DP is replicas": (
        ONE_NODE + "--dp 2",
        "h200",
        {
            "deployment.serve.workers": 2,
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 8,
        },
    ),
    "the chunk of large GPUs": (ONE_NODE, "b200", {"deployment.serve.chunk_tokens": 16384}),
    "whole prompts": (
        ONE_NODE + "--chunked-prefill-size -1",
        "h200",
        {"deployment.serve.chunk_tokens": 16384},
    ),
    "whole prompts, bounded": (
        ONE_NODE + "--chunked-prefill-size -1 --max-prefill-tokens 4096",
        "h200",
        {
            "deployment.serve.chunk_tokens": 4096,
        },
    ),
    "seats are of all ranks": (
        ONE_NODE + "--dp 8 --enable-dp-attention --max-running-requests 512",
        "h200",
        {
            "deployment.serve.max_batch_per_gpu": 64,
        },
    ),
    "seats of one rank over its GPUs": (
        ONE_NODE + "--max-running-requests 512",
        "h200",
        {
            "deployment.serve.max_batch_per_gpu": 64,
        },
    ),
    "EP with its flag": (
        ONE_NODE + "--ep 8",
        "h200",
        {"deployment.serve.ep": 8, "deployment.serve.exchange": None},
    ),
    "EP and attention DP gather": (
        ONE_NODE + "--dp 8 --enable-dp-attention --ep-size 8",
        "h200",
        {
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": "all_gather",
        },
    ),
    "DeepEP spans all GPUs": (
        ONE_NODE + "--dp 8 --enable-dp-attention --moe-a2a-backend deepep",
        "h200",
        {
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": "all_to_all",
        },
    ),
    "DeepEP as it was written before": (
        ONE_NODE + "--dp 8 --enable-dp-attention --enable-deepep-moe",
        "h200",
        {
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": "all_to_all",
        },
    ),
    "MTP": (
        ONE_NODE + "--speculative-algorithm EAGLE --speculative-num-steps 2 --speculative-eagle-topk 1 "
        "--speculative-num-draft-tokens 3",
        "h200",
        {
            # 48 requests with drafts, over 8 GPUs of the one rank.
            "speculation.draft_tokens": 2,
            "deployment.serve.max_batch_per_gpu": 6,
        },
    ),
    "MTP with the engine's own drafts": (
        ONE_NODE + "--speculative-algorithm NEXTN",
        "h200",
        {"speculation.draft_tokens": 3},
    ),
    "MTP from its own checkpoint": (
        ONE_NODE + "--speculative-algo EAGLE --speculative-draft-model-path lmsys/DeepSeek-R1-NextN",
        "h200",
        {"speculation.draft_tokens": 3},
    ),
    "V3.2's cache on Hopper": (V32 + "--tp 8", "h200", {"precision.kv_cache": "bf16"}),
    "V3.2's cache on Blackwell": (V32 + "--tp 8", "b200", {"precision.kv_cache": "fp8"}),
    "R1's cache on Blackwell": (ONE_NODE, "b200", {"precision.kv_cache": "bf16"}),
    "the cache's flag": (ONE_NODE + "--kv-cache-dtype fp8_e4m3", "h200", {"precision.kv_cache": "fp8"}),
    "NVFP4 by the flag": (
        ONE_NODE + "--quantization modelopt_fp4",
        "b200",
        {
            "precision.weights": "nvfp4",
            "precision.attention": "bf16",
            "precision.dense": "nvfp4",
        },
    ),
    "NVFP4 by the checkpoint": (
        "python -m sglang.launch_server --model nvidia/DeepSeek-R1-0528-FP4-v2 --tp 4",
        "b200",
        {"model": "deepseek-r1-0528", "precision.weights": "nvfp4", "deployment.serve.gpus": 4},
    ),
    "the memory's flag": (
        ONE_NODE + "--mem-fraction-static 0.85",
        "h200",
        {"deployment.serve.memory_fraction": 0.85},
    ),
    "the experts' kernels": (
        ONE_NODE + "--moe-runner-backend flashinfer_trtllm",
        "b200",
        {
            "deployment.serve.moe_backend": "trtllm_gen",
        },
    ),
    "the experts' kernels as before": (
        ONE_NODE + "--enable-flashinfer-trtllm-moe",
        "b200",
        {
            "deployment.serve.moe_backend": "trtllm_gen",
        },
    ),
    "replicas of experts": (
        ONE_NODE
        + "--dp 8 --enable-dp-attention --moe-a2a-backend deepep --ep-num-redundant-experts 32 --enable-eplb",
        "h200",
        {"deployment.serve.experts": {"redundant": 32}},
    ),
    "replicas of the first experts": (
        ONE_NODE + "--dp 8 --enable-dp-attention --moe-a2a-backend deepep --ep-num-redundant-experts 32",
        "h200",
        {"deployment.serve.experts": {"redundant": 32, "placement": "contiguous"}},
    ),
    "replicas that a file places": (
        ONE_NODE + "--dp 8 --enable-dp-attention --moe-a2a-backend deepep --ep-num-redundant-experts 32 "
        "--init-expert-location /counts.json",
        "h200",
        {"deployment.serve.experts": {"redundant": 32}},
    ),
    "rebalanced without replicas": (
        ONE_NODE + "--ep 8 --enable-eplb",
        "h200",
        {
            "deployment.serve.experts": {"placement": "global"},
        },
    ),
    "two-batch overlap": (ONE_NODE + "--enable-two-batch-overlap", "h200", {"overlap.two_batch": True}),
    "no CUDA graphs": (ONE_NODE + "--disable-cuda-graph", "h200", {"scheduling.cuda_graphs": False}),
    "looks for requests": (
        ONE_NODE + "--scheduler-recv-interval 10",
        "h200",
        {"scheduling.poll_every_steps": 10},
    ),
    "no prefix cache": (ONE_NODE + "--disable-radix-cache", "h200", {"prefix_cache.enabled": False}),
    "blocks": (ONE_NODE + "--page-size 32", "h200", {"prefix_cache.block_tokens": 32}),
    "host memory": (
        ONE_NODE + "--enable-hierarchical-cache --hicache-size 100",
        "h200",
        {"prefix_cache.host_gb": 100.0},
    ),
    "prompts in decode steps": (ONE_NODE + "--enable-mixed-chunk", "h200", {"scheduling.mix_prompts": True}),
    "no graphs of prompts": (
        ONE_NODE + "--disable-piecewise-cuda-graph",
        "h200",
        {"scheduling.prefill_graph_tokens": 0, "scheduling.cuda_graphs": None},
    ),
    "graphs of prompts up to a size": (
        ONE_NODE + "--piecewise-cuda-graph-max-tokens 4096",
        "h200",
        {"scheduling.prefill_graph_tokens": 4096},
    ),
    "ranks by load": (
        ONE_NODE + "--dp 8 --enable-dp-attention --load-balance-method total_tokens",
        "h200",
        {
            "router": "least_loaded",
        },
    ),
    "two nodes of one worker": (
        START + "--tp 16 --nnodes 2 --node-rank 0 --dist-init-addr 10.0.0.1:5000",
        "h100",
        {"deployment.serve.workers": 1, "deployment.serve.gpus": 16, "deployment.serve.tp": 16},
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_command_becomes_the_scenario_that_sglang_would_run(case: str) -> None:
    text, gpu, expected = KEYS[case]
    scenario = launch(text, gpu).scenario
    assert {path: at(scenario, path) for path in expected} == expected


def test_prompt_graphs_are_placed_where_their_size_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise DeploymentError([Problem(("scheduling", "prefill_graph_tokens"), "too many")])

    monkeypatch.setattr("sim.launch.checked.deploy", refused)
    with pytest.raises(ScenarioError, match=r":2:\d+: scheduling.prefill_graph_tokens: too many"):
        launch(ONE_NODE + "\\\n  --piecewise-cuda-graph-max-tokens 4096", "h200")


def test_eplb_needs_experts_that_are_spread() -> None:
    with pytest.raises(ScenarioError, match=r"command:1:\d+: --enable-eplb needs experts over several GPUs"):
        launch(ONE_NODE + "--enable-eplb")

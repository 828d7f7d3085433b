"""vLLM's rules, one by one: what a flag makes of a scenario, by hand."""

from typing import Any

import pytest
from launches import at, launch, pool

from sim.scenario.errors import ScenarioError

R1 = "vllm serve deepseek-ai/DeepSeek-R1-0528 "
V32 = "vllm serve deepseek-ai/DeepSeek-V3.2 "
WIDE = R1 + "-tp 1 -dp 8 --enable-expert-parallel "

KEYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain TP": (
        R1 + "-tp 8",
        "h200",
        {
            "engine": "vllm",
            "model": "deepseek-r1-0528",
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 8,
            "deployment.serve.ep": 1,
            "deployment.serve.exchange": None,
            "deployment.serve.memory_fraction": 0.92,
            # 1,024 sequences over the 8 GPUs of the rank; 8,192 tokens on GPUs from 70 to 160 GiB.
            "deployment.serve.max_batch_per_gpu": 128,
            "deployment.serve.chunk_tokens": 8192,
            "precision.kv_cache": "bf16",
            "speculation.draft_tokens": 0,
            "prefix_cache.enabled": True,
        },
    ),
    "the module that starts the server": (
        "python -m vllm.entrypoints.openai.api_server --model deepseek-ai/DeepSeek-R1 -tp=8",
        "h200",
        {"engine": "vllm", "model": "deepseek-r1", "deployment.serve.tp": 8},
    ),
    "the image that starts the server": (
        "docker run --gpus all -p 8000:8000 vllm/vllm-openai:v0.20.0 --model deepseek-ai/DeepSeek-R1 -tp 8",
        "h200",
        {"engine": "vllm", "deployment.serve.gpus": 8},
    ),
    "EP with its flag spans TP": (
        R1 + "-tp 8 --enable-expert-parallel",
        "h200",
        {
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": None,
        },
    ),
    "data parallel attention gathers by default": (
        WIDE,
        "h200",
        {
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 1,
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": "all_gather",
            "deployment.serve.max_batch_per_gpu": 1024,
            "deployment.serve.chunk_tokens": 8192,
        },
    ),
    "data parallel without EP shards the experts": (
        R1 + "-tp 1 -dp 8",
        "h200",
        {
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 1,
            "deployment.serve.ep": 1,
        },
    ),
    "TP inside data parallel": (
        R1 + "-tp 2 -dp 4 -ep",
        "h200",
        {
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 2,
            "deployment.serve.ep": 8,
            "deployment.serve.max_batch_per_gpu": 512,
        },
    ),
    "DeepEP": (
        WIDE + "--all2all-backend deepep_low_latency",
        "h200",
        {"deployment.serve.exchange": "all_to_all"},
    ),
    "DeepEP by the environment": (
        "VLLM_ALL2ALL_BACKEND=deepep_high_throughput " + WIDE,
        "h200",
        {
            "deployment.serve.exchange": "all_to_all",
        },
    ),
    "a dense model's ranks are replicas": (
        "vllm serve meta-llama/Llama-3.1-405B-Instruct-FP8 -tp 8 -dp 2 --max-model-len 32k",
        "h200",
        {
            "model": "llama-3.1-405b-instruct",
            "deployment.serve.workers": 2,
            "deployment.serve.gpus": 8,
            "deployment.serve.ep": 1,
            "precision.weights": "fp8",
        },
    ),
    "large GPUs": (
        R1 + "-tp 8",
        "b200",
        {"deployment.serve.chunk_tokens": 16384, "deployment.serve.max_batch_per_gpu": 128},
    ),
    "the token budget and the seats": (
        R1 + "-tp 8 --max-num-batched-tokens 16384 --max-num-seqs 256",
        "h200",
        {
            "deployment.serve.chunk_tokens": 16384,
            "deployment.serve.max_batch_per_gpu": 32,
        },
    ),
    "throughput mode doubles both": (
        R1 + "-tp 8 --performance-mode throughput",
        "h200",
        {
            "deployment.serve.chunk_tokens": 16384,
            "deployment.serve.max_batch_per_gpu": 256,
        },
    ),
    "MTP": (
        V32 + '-tp 8 --speculative-config \'{"method": "deepseek_mtp", "num_speculative_tokens": 3}\'',
        "h200",
        {
            "speculation.draft_tokens": 3,
            "deployment.serve.max_batch_per_gpu": 128,
        },
    ),
    "MTP by single flags": (
        V32 + "-tp 8 --spec-method mtp --spec-tokens 2",
        "h200",
        {"speculation.draft_tokens": 2},
    ),
    "MTP without a number": (V32 + '-tp 8 -sc {"method":"mtp"}', "h200", {"speculation.draft_tokens": 1}),
    "V3.2's cache": (V32 + "-tp 8", "h200", {"precision.kv_cache": "bf16"}),
    "the cache's flag": (V32 + "-tp 8 --kv-cache-dtype fp8_ds_mla", "h200", {"precision.kv_cache": "fp8"}),
    "the memory's flag": (
        R1 + "-tp 8 --gpu-memory-utilization 0.95",
        "h200",
        {"deployment.serve.memory_fraction": 0.95},
    ),
    "eager": (R1 + "-tp 8 --enforce-eager", "h200", {"scheduling.cuda_graphs": False}),
    "dual-batch overlap": (WIDE + "--enable-dbo", "h200", {"overlap.two_batch": True}),
    "the pace of prompts": (
        WIDE + "--prefill-schedule-interval 4",
        "h200",
        {"scheduling.poll_every_steps": 4},
    ),
    "no prefix cache": (R1 + "-tp 8 --no-enable-prefix-caching", "h200", {"prefix_cache.enabled": False}),
    "host memory, GiB": (R1 + "-tp 8 --kv-offloading-size 100", "h200", {"prefix_cache.host_gb": 107.374}),
    "replicas of experts": (
        WIDE + "--enable-eplb --eplb-config '{\"num_redundant_experts\": 32}'",
        "h200",
        {
            "deployment.serve.experts": {"redundant": 32},
        },
    ),
    "the experts' kernels": (
        R1 + "-tp 8 --moe-backend deep_gemm",
        "b200",
        {"deployment.serve.moe_backend": "deepgemm"},
    ),
    "one node of a worker that spans two": (
        R1 + "-dp 16 --data-parallel-size-local 8 --data-parallel-address 10.0.0.1 --enable-expert-parallel",
        "h200",
        {"deployment.serve.workers": 1, "deployment.serve.gpus": 16, "deployment.serve.ep": 16},
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_command_becomes_the_scenario_that_vllm_would_run(case: str) -> None:
    text, gpu, expected = KEYS[case]
    scenario = launch(text, gpu).scenario
    assert {path: at(scenario, path) for path in expected} == expected


def test_defaults_are_those_of_the_release() -> None:
    before = launch(V32 + "-tp 8", engine_version="0.13.0")
    assert at(before.scenario, "precision.kv_cache") == "fp8"
    assert before.scenario["deployment"]["serve"]["memory_fraction"] == 0.9
    assert not any("defaults are those" in note for note in before.notes)
    oldest = launch(V32 + "-tp 8", engine_version="0.6.4")
    assert any("defaults are those of vllm 0.9.0, not of 0.6.4" in note for note in oldest.notes)
    assert at(launch(V32 + "-tp 8", engine_version="0.33.0").scenario, "precision.kv_cache") == "bf16"


def test_both_nodes_of_a_worker_are_one_worker() -> None:
    both = (
        R1 + "-dp 16 -dpl 8 -dpa 10.0.0.1 -ep\n" + R1 + "-dp 16 -dpl 8 -dpa 10.0.0.1 -ep --headless -dpr 8\n"
    )
    assert pool(both)["workers"] == 1
    assert pool(both + both.replace("10.0.0.1", "10.0.0.2"))["workers"] == 2


SIDE = (
    R1
    + '-tp 8 --port {port} --kv-transfer-config \'{{"kv_connector":"NixlConnector","kv_role":"{role}"}}\'\n'
)


def test_the_sides_of_a_service_are_told_by_their_role() -> None:
    text = SIDE.format(port=1, role="kv_producer") + SIDE.format(port=2, role="kv_consumer") * 2
    deployment = launch(text).scenario["deployment"]
    assert {role: one["workers"] for role, one in deployment.items()} == {"prefill": 1, "decode": 2}
    assert "max_batch_per_gpu" not in deployment["prefill"] and "chunk_tokens" not in deployment["decode"]


def test_where_both_sides_say_the_same_a_comment_or_the_router_tells() -> None:
    both = SIDE.format(port=8100, role="kv_both"), SIDE.format(port=8200, role="kv_both")
    noted = f"# Prefill\n{both[0]}# then decode\n{both[1]}"
    assert set(launch(noted).scenario["deployment"]) == {"prefill", "decode"}
    routed = (
        "".join(both) + "python3 toy_proxy_server.py --port 80 --prefiller-ports 8200 --decoder-ports 8100"
    )
    assert set(launch(routed).scenario["deployment"]) == {"prefill", "decode"}
    with pytest.raises(ScenarioError, match="kv_both does not tell which side"):
        launch("".join(both))
    assert set(launch(both[0]).scenario["deployment"]) == {"serve"}


TOLD = {
    "n-grams": ('--speculative-config {"method":"ngram","num_speculative_tokens":4}', "--speculative-config"),
    "a part of the drafts": (
        '--speculative-config {"method":"mtp","num_speculative_tokens":1,"disable_by_batch_size":32}',
        "--speculative-config disable_by_batch_size",
    ),
    "context parallelism": ("--decode-context-parallel-size 8", "--decode-context-parallel-size 8"),
    "a connector on one worker": (
        '--kv-transfer-config {"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}',
        "--kv-transfer-config",
    ),
    "a variable of the engine that nobody knows": ("", "VLLM_NEW_THING=1"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_no_key_can_hold_is_told(case: str) -> None:
    more, flag = TOLD[case]
    before = flag + " " if flag.startswith("VLLM_") else ""
    assert any(told.flag.startswith(flag) for told in launch(f"{before}{R1}-tp 8 {more}").not_modelled)


CONTRADICTIONS = {
    "ranks of a node do not divide all": ("-dp 8 -dpl 3", "-dpl 3 does not divide -dp 8"),
    "more GPUs than a node has": (
        "-tp 4 -dp 8 -dpl 4",
        "-tp 4, -dpl 4 take 16 GPUs of a node; h200_sxm has 8",
    ),
    "heads do not divide": (
        "-tp 3",
        "deployment.serve.tp: tp 3 does not divide the 128 heads of deepseek-v3 (from -tp 3)",
    ),
    "an unknown side": (
        '-tp 8 --kv-transfer-config {"kv_connector":"x","kv_role":"both"}',
        "kv_role 'both': expected one of",
    ),
    "no drafts": (
        '-tp 8 --speculative-config {"method":"mtp","num_speculative_tokens":0}',
        "whole number from 1, got 0",
    ),
    "two counts of drafts": (
        '-tp 8 --spec-tokens 5 --speculative-config {"method":"mtp","num_speculative_tokens":3}',
        "--spec-tokens 5 beside num_speculative_tokens 3",
    ),
    "replicas that are off": (
        '-tp 1 -dp 8 --enable-expert-parallel --eplb-config {"num_redundant_experts":32}',
        "needs --enable-eplb",  # config/parallel.py refuses it
    ),
    "EPLB of experts that are not spread": (
        "-tp 8 --enable-eplb",
        "--enable-eplb needs --enable-expert-parallel",
    ),
    "no memory": ("-tp 2", "deployment.serve: does not fit"),
    "a word too many": ("-tp 8 now", "'now' belongs to no flag before it"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_an_error_that_names_the_flag(case: str) -> None:
    more, says = CONTRADICTIONS[case]
    with pytest.raises(ScenarioError, match="command:1:") as caught:
        launch(R1 + more)
    assert says in str(caught.value)


def test_a_misspelt_flag_is_named_beside_what_it_leads_to() -> None:
    with pytest.raises(ScenarioError, match="does not fit") as caught:
        launch(R1 + "--tensor-paralel-size 8")
    assert "command:1:41: --tensor-paralel-size 8: no flag that is known of vllm" in str(caught.value)
    assert "the nearest known one is --tensor-parallel-size" in str(caught.value)

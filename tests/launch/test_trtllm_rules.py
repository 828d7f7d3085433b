"""TensorRT-LLM's rules, one by one: what flags and the YAML file make of a scenario, by hand."""

from pathlib import Path
from typing import Any

import pytest
from launches import at, launch

from sim.scenario.errors import ScenarioError

R1 = "trtllm-serve deepseek-ai/DeepSeek-R1 --tp_size 8 "


def with_file(options: str, command: str = R1) -> str:
    return f"cat > extra.yml <<EOF\n{options}\nEOF\n{command}--extra_llm_api_options extra.yml\n"


KEYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain TP": (
        R1,
        "b200",
        {
            "engine": "trtllm",
            "deployment.serve.gpus": 8,
            "deployment.serve.tp": 8,
            "deployment.serve.ep": 1,
            # 2,048 requests over the 8 GPUs of the rank.
            "deployment.serve.max_batch_per_gpu": 256,
            "deployment.serve.chunk_tokens": 8192,
            "deployment.serve.memory_fraction": 0.9,
            "precision.kv_cache": "bf16",
            "prefix_cache.enabled": True,
        },
    ),
    "serve as a word": (
        "trtllm-serve serve deepseek-ai/DeepSeek-R1 --tp_size 8 --ep_size 8",
        "b200",
        {
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": None,
        },
    ),
    "attention DP": (
        with_file("enable_attention_dp: true", R1 + "--ep_size 8 "),
        "b200",
        {
            "deployment.serve.tp": 1,
            "deployment.serve.ep": 8,
            "deployment.serve.exchange": "all_gather",
            "deployment.serve.max_batch_per_gpu": 2048,
            "deployment.serve.chunk_tokens": 8192,
        },
    ),
    "all-to-all where NVLink joins a rack and EP is wide": (
        with_file("enable_attention_dp: true\ntensor_parallel_size: 16\nmoe_expert_parallel_size: 16"),
        "gb200",
        {"deployment.serve.gpus": 16, "deployment.serve.exchange": "all_to_all"},
    ),
    "gathers in a rack where EP is no wider than a token's experts": (
        with_file("enable_attention_dp: true\nmoe_expert_parallel_size: 8"),
        "gb200",
        {"deployment.serve.exchange": "all_gather"},
    ),
    "an exchange that is forced": (
        "export TRTLLM_FORCE_ALLTOALL_METHOD=DeepEP\n"
        + with_file("enable_attention_dp: true", R1 + "--ep_size 8 "),
        "b200",
        {"deployment.serve.exchange": "all_to_all"},
    ),
    "the file wins": (
        with_file("max_batch_size: 256\nmax_num_tokens: 4096", R1 + "--max_batch_size 8 "),
        "b200",
        {
            "deployment.serve.max_batch_per_gpu": 32,
            "deployment.serve.chunk_tokens": 4096,
        },
    ),
    "the cache": (
        with_file("kv_cache_config: {dtype: fp8, free_gpu_memory_fraction: 0.8, enable_block_reuse: false}"),
        "b200",
        {
            "precision.kv_cache": "fp8",
            "deployment.serve.memory_fraction": 0.8,
            "prefix_cache.enabled": False,
        },
    ),
    "blocks and host memory": (
        with_file("kv_cache_config:\n  tokens_per_block: 32\n  host_cache_size: 100000000000"),
        "b200",
        {
            "prefix_cache.block_tokens": 32,
            "prefix_cache.host_gb": 100.0,
        },
    ),
    "MTP": (
        with_file("speculative_config:\n  decoding_type: MTP\n  num_nextn_predict_layers: 3"),
        "b200",
        {
            "speculation.draft_tokens": 3,
        },
    ),
    "MTP by length": (
        with_file("speculative_config: {decoding_type: MTP, max_draft_len: 2}"),
        "b200",
        {
            "speculation.draft_tokens": 2,
        },
    ),
    "the experts' kernels": (
        with_file("moe_config:\n  backend: TRTLLM"),
        "b200",
        {
            "deployment.serve.moe_backend": "trtllm_gen",
        },
    ),
    "slots of experts": (
        with_file(
            "enable_attention_dp: true\nmoe_config:\n  load_balancer: {num_slots: 288}", R1 + "--ep_size 8 "
        ),
        "b200",
        {"deployment.serve.experts": {"redundant": 32}},
    ),
    "prompts wait for all ranks": (
        with_file(
            "enable_attention_dp: true\nattention_dp_config: {enable_balance: true, timeout_iters: 60}"
        ),
        "b200",
        {"scheduling.wait_all_ranks_steps": 60},
    ),
    "prompts wait for all ranks, as shipped": (
        with_file("enable_attention_dp: true\nattention_dp_config:\n  enable_balance: true"),
        "b200",
        {"scheduling.wait_all_ranks_steps": 50},
    ),
    "company that is waited for, and full steps": (
        with_file(
            "attention_dp_config: {batching_wait_iters: 4}\nbatch_wait_timeout_iters: 40\n"
            "batch_wait_max_tokens_ratio: 0.8"
        ),
        "b200",
        {
            "scheduling.gather_prompts_steps": 4,
            "scheduling.batch_wait_steps": 40,
            "scheduling.batch_wait_fill": 0.8,
            "scheduling.whole_prompts": None,
        },
    ),
    "prompts in parts": (
        with_file("enable_chunked_prefill: true"),
        "b200",
        {"scheduling.whole_prompts": False},
    ),
    "no CUDA graphs": (with_file("cuda_graph_config: null"), "b200", {"scheduling.cuda_graphs": False}),
    "CUDA graphs": (
        with_file("cuda_graph_config: {enable_padding: true}"),
        "b200",
        {"scheduling.cuda_graphs": None},
    ),
    "FP4": (
        "trtllm-serve nvidia/DeepSeek-R1-FP4 --tp_size 4 --ep_size 4",
        "b200",
        {
            "model": "deepseek-r1",
            "precision.weights": "nvfp4",
            "precision.attention": "bf16",
            "precision.dense": "nvfp4",
        },
    ),
    "MoE's own TP": (
        with_file("moe_tensor_parallel_size: 2\nmoe_expert_parallel_size: 4"),
        "b200",
        {"deployment.serve.ep": 4},
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_command_becomes_the_scenario_that_tensorrt_llm_would_run(case: str) -> None:
    text, gpu, expected = KEYS[case]
    scenario = launch(text, gpu).scenario
    assert {path: at(scenario, path) for path in expected} == expected


def test_the_file_is_looked_for_beside_the_command(tmp_path: Path) -> None:
    (tmp_path / "extra.yml").write_text("enable_attention_dp: true\n")
    found = launch(R1 + "--config extra.yml", "b200", folder=tmp_path)
    assert at(found.scenario, "deployment.serve.tp") == 1
    assert found.json()["reasons"]["deployment.serve.tp"] == "enable_attention_dp: true (extra.yml)"


def test_the_sides_of_a_service_are_told_by_their_role() -> None:
    text = f"{R1}--server_role CONTEXT\n" * 2 + f"{R1}--server_role generation --max_batch_size 64\n"
    deployment = launch(text + "trtllm-serve disaggregated -c router.yaml", "b200").scenario["deployment"]
    assert {role: one["workers"] for role, one in deployment.items()} == {"prefill": 2, "decode": 1}
    assert deployment["decode"]["max_batch_per_gpu"] == 8


def test_keys_that_matter_and_those_that_nobody_knows_are_told() -> None:
    options = "stream_interval: 20\ndisable_overlap_scheduler: true\nnew_thing: {deep: 1}\nkv_cache_config: {dtyp: fp8}"
    told = {one.flag: one.why for one in launch(with_file(options), "b200").not_modelled}
    assert set(told) == {
        "stream_interval: 20 (extra.yml)",
        "disable_overlap_scheduler: true (extra.yml)",
        'new_thing: {"deep": 1} (extra.yml)',
        "kv_cache_config.dtyp: fp8 (extra.yml)",
    }
    assert "the nearest known one is kv_cache_config.dtype" in told["kv_cache_config.dtyp: fp8 (extra.yml)"]


WRONG = {
    "a file that is not there": (R1 + "--config none.yml", "command:1:50: none.yml: no such file"),
    "a key of another kind": (
        with_file("max_batch_size: many"),
        "extra.yml:1:17: max_batch_size takes a whole number",
    ),
    "YAML that is none": (with_file("a: [1"), "extra.yml:2:1: not valid YAML"),
    "MoE's TP and EP do not make TP": (
        with_file("moe_tensor_parallel_size: 2", R1 + "--ep_size 8 "),
        "--ep_size 8, moe_tensor_parallel_size: 2 (extra.yml): their product",
    ),
    "EP does not divide": (R1 + "--ep_size 3", "--ep_size 3 does not divide 8 (--tp_size 8)"),
    "fewer slots than experts": (
        with_file("moe_config: {load_balancer: {num_slots: 128}}"),
        "expected at least the 256 experts' slots",
    ),
    "an unknown side": (R1 + "--server_role encode", "expected CONTEXT or GENERATION"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_place(case: str) -> None:
    text, says = WRONG[case]
    with pytest.raises(ScenarioError) as caught:
        launch(text, "b200")
    assert says in str(caught.value)

"""What SGLang's commands say that no scenario can hold, what contradicts itself, and what its memory comes to."""

import pytest
from launches import at, launch, pool

from sim.deployment.plan import deploy
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import parse

START = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 "
ONE_NODE = START + "--tp 8 "


def test_memory_is_what_the_reserve_leaves() -> None:
    """By hand after memory_hook.py, MiB: 512 + 1.5 x 8,192 + 8 x 128 + 2 x 512 captured + 1,536 for prompts' graphs
    = 16,384 of 144,384. Attention DP adds (3 + 1.5) x 512 x 8 = 18,432, and captures no prompts."""
    assert pool(ONE_NODE)["memory_fraction"] == round(1 - 16384 / 144384, 3) == 0.887
    assert (
        pool(ONE_NODE + "--dp 8 --enable-dp-attention")["memory_fraction"]
        == round(1 - 33280 / 144384, 3)
        == 0.77
    )
    # 256 captured: 512 + 12,288 + 1,024 + 512 + 3 x 256 x 8; no more than 300, so no further 1.5 MiB.
    small = pool(ONE_NODE + "--dp 8 --enable-dp-attention --cuda-graph-max-bs 256")
    assert small["memory_fraction"] == round(1 - 20480 / 144384, 3)


def test_memory_of_the_sides_of_a_service() -> None:
    """By hand, MiB. Prefill: 512 + 1.5 x 8,192 + 1,024. Decode: 1,024 running requests that
    verify 2 tokens each: 512 + 1.5 x 2,048 + 1,024 + 2 x 512 + (3 + 1.5) x 512 x 8, and 2,048 for DeepEP's buffers."""
    layout = f"{ONE_NODE}--dp 8 --enable-dp-attention --moe-a2a-backend deepep "
    drafts = "--speculative-algorithm EAGLE --speculative-num-steps 1 --speculative-eagle-topk 1 "
    sides = (
        f"{layout}--disaggregation-mode prefill\n"
        f"{layout}--disaggregation-mode decode --max-running-requests 1024 {drafts}--speculative-num-draft-tokens 2\n"
    )
    deployment = launch(sides).scenario["deployment"]
    assert deployment["prefill"]["memory_fraction"] == round(1 - 13824 / 144384, 3)
    assert deployment["decode"]["memory_fraction"] == round(1 - (24064 + 2048) / 144384, 3)
    # Two-batch overlap turns the prompts' graphs off, and eager mode all of them.
    assert pool(ONE_NODE + "--enable-two-batch-overlap")["memory_fraction"] == round(1 - 14848 / 144384, 3)
    assert pool(ONE_NODE + "--disable-cuda-graph")["memory_fraction"] == round(1 - 13824 / 144384, 3)
    # Drafts bound the running requests only after the memory was shared out.
    assert pool(ONE_NODE + "--speculative-algorithm EAGLE")["memory_fraction"] == 0.887


def test_memory_that_would_not_suffice_is_told_and_left_to_the_catalog() -> None:
    deep = ONE_NODE + "--dp 8 --enable-dp-attention --chunked-prefill-size 65536"
    found = launch(deep)
    assert "memory_fraction" not in found.scenario["deployment"]["serve"]
    assert [told.flag for told in found.not_modelled] == ["deployment.serve.memory_fraction"]


TOLD = {
    "a tree of drafts": (
        "--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 4 "
        "--speculative-num-draft-tokens 8",
        "--speculative-eagle-topk 4",
        "speculation.draft_tokens",
        3,
    ),
    "drafts of another model": (
        "--speculative-algorithm EAGLE3 --speculative-draft-model-path other/model --speculative-num-steps 3",
        "--speculative-algorithm EAGLE3, --speculative-draft-model-path other/model",
        "speculation.draft_tokens",
        0,
    ),
    "n-grams": (
        "--speculative-algorithm NGRAM",
        "--speculative-algorithm NGRAM",
        "speculation.draft_tokens",
        0,
    ),
    "stages": ("--pp-size 2 --nnodes 2", "--pp-size 2", "deployment.serve.tp", 16),
    "a format of the weights": ("--quantization awq", "--quantization awq", "precision.weights", "fp8"),
    "a format of the cache": (
        "--kv-cache-dtype fp4_e2m1",
        "--kv-cache-dtype fp4_e2m1",
        "precision.kv_cache",
        "fp8",
    ),
    "kernels that were not measured": (
        "--moe-runner-backend marlin",
        "--moe-runner-backend marlin",
        "x",
        None,
    ),
    "kernels not measured on this GPU": (
        "--moe-runner-backend flashinfer_trtllm",
        "--moe-runner-backend flashinfer_trtllm",
        "deployment.serve.moe_backend",
        None,
    ),
    "DeepEP's mode": (
        "--dp 8 --enable-dp-attention --moe-a2a-backend deepep --deepep-mode low_latency --mem-fraction-static 0.85",
        "--deepep-mode low_latency",
        "deployment.serve.exchange",
        "all_to_all",
    ),
    "a habit": ("--disable-overlap-schedule", "--disable-overlap-schedule", "x", None),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_no_key_can_hold_is_told(case: str) -> None:
    more, flag, path, value = TOLD[case]
    found = launch(ONE_NODE + more)
    assert flag in [told.flag for told in found.not_modelled]
    assert at(found.scenario, path) == value


CONTRADICTIONS = {
    "DP does not divide TP": (
        "--tp 8 --dp 3 --enable-dp-attention",
        "command:1:77: --dp 3 does not divide 8 (--tp 8)",
    ),
    "EP does not divide TP": ("--tp 8 --ep 3", "--ep 3 does not divide 8 (--tp 8)"),
    "nodes do not divide GPUs": ("--tp 8 --nnodes 3", "--nnodes 3 does not divide 8 GPUs (--tp 8)"),
    "more GPUs than the nodes have": (
        "--tp 32 --nnodes 2",
        "--tp 32 takes 32 GPUs, 16 on each of 2 node(s); h200_sxm has 8",
    ),
    "more GPUs than may be seen": ("--tp 8", None),
    "steps missing": (
        "--tp 8 --speculative-algorithm EAGLE --speculative-eagle-topk 1",
        "--speculative-num-steps",
    ),
    "an unknown side": ("--tp 8 --disaggregation-mode both", "expected prefill, decode or null"),
    "one side only": ("--tp 8 --disaggregation-mode prefill", "the decode command is missing"),
}


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


@pytest.mark.parametrize(("more", "times"), [("", 2.0), (" --hicache-ratio 3", 3.0)])
def test_host_memory_as_a_multiple_holds_as_many_times_the_tokens(more: str, times: float) -> None:
    found = launch(ONE_NODE + "--mem-fraction-static 0.9 --enable-hierarchical-cache" + more)
    cache = deploy(parse(found.text).scenario).prefix_cache
    assert cache is not None
    gpu, host = (tier.capacity_tokens for tier in cache.tiers[:2])
    assert host == pytest.approx(times * gpu, rel=1e-3)
    assert found.keys[("prefix_cache", "host_gb")][1].startswith(
        more.strip() or "--enable-hierarchical-cache"
    )

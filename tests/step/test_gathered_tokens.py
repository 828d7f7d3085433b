"""Attention DP without an all-to-all: what runs on gathered tokens costs as many tokens as there are."""

import numpy as np
import pytest

from sim.deployment.plan import deploy
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.step import PromptLoad
from sim.step.prices import seconds_by_source
from sim.step.pricing import cost_model, pool_step_cost, step_operations

RANKS, TOKENS = 8, 4096
WHOLE = 8 * 64 * 7168 * 2
QUANTISED = 8 * 64 * 7168 * (1 / 2 + 1 / 16)
LAYOUTS = {"slices of experts": "ep: 1", "whole experts": "ep: 8, exchange: all_gather"}


def scenario(engine: str, layout: str) -> Scenario:
    text = (
        f"model: deepseek-v3\ngpu: h200_sxm\nengine: {engine}\n"
        f"deployment: {{serve: {{gpus: {RANKS}, dp: {RANKS}, {LAYOUTS[layout]}, chunk_tokens: 8192}}}}\n"
        "workload: {arrivals: {poisson: {rate_per_s: 1}}, lengths: {input: {constant: 9}, output: {constant: 9}}}\n"
        "duration_s: 9\n"
    )
    return parse(text).scenario


def gathered_s(scenario: Scenario, tokens: float) -> float:
    """Seconds of the experts and of what else has all ranks' tokens, at as many tokens on each."""
    deployment = deploy(scenario)
    step = step_operations(deployment, "prefill")
    operations = [o for o in step.prefill_rest(tokens) if o.gathered or o.stream == "experts"]
    return float(seconds_by_source(operations, cost_model(deployment, "prefill")).sum())


@pytest.mark.parametrize("engine", ["sglang", "vllm", "trtllm"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_on_one_rank_gathers_its_own_tokens(engine: str, layout: str) -> None:
    """All ranks with a prompt each against one: of what is gathered an eighth is left, the rest takes as long.
    SGLang's SUM_LEN (dp_attention.py); before, the one prompt was gathered as if it were eight."""
    mine = scenario(engine, layout)
    cost = pool_step_cost(deploy(mine), "serve")
    context = np.full(RANKS, (TOKENS + 1) / 2)
    all_ranks, one = (
        PromptLoad.alike(tokens, context)
        for tokens in (np.full(RANKS, float(TOKENS)), np.eye(RANKS)[0] * TOKENS)
    )
    saved_s = cost.prefill_s(all_ranks) - cost.prefill_s(one)
    assert saved_s == pytest.approx(gathered_s(mine, TOKENS) - gathered_s(mine, TOKENS / RANKS), rel=0.02)


def test_sglang_gathers_more_than_experts_need() -> None:
    """Gate, shared expert and dense FFN are sharded over all GPUs there, and run on what was gathered."""
    mine = scenario("sglang", "slices of experts")
    step = step_operations(deploy(mine), "prefill")
    names = {o.name.split(":")[0] for o in step.prefill_rest(64.0) if o.gathered}
    moved = {"dense FFN gather by all-reduce", "dense FFN all-reduce"}
    moved |= {"MoE gather by all-reduce", "MoE all-reduce"}
    assert names == {"gate", "shared expert", "dense FFN"} | moved


@pytest.mark.parametrize(
    ("engine", "more", "phase", "expected"),
    [
        ("sglang", "", "prefill", {"all_reduce": 2 * WHOLE}),
        ("sglang", "", "decode", {"all_gather": WHOLE, "reduce_scatter": WHOLE}),
        ("trtllm", "", "prefill", {"all_gather": WHOLE, "reduce_scatter": WHOLE}),
        ("sglang", "fp4, moe_backend: trtllm_gen", "prefill", {"all_reduce": 2 * WHOLE}),
        (
            "sglang",
            "fp4, moe_backend: cutlass",
            "prefill",
            {"all_gather": QUANTISED, "reduce_scatter": WHOLE},
        ),
        (
            "trtllm",
            "fp4, moe_backend: trtllm_gen",
            "prefill",
            {"all_gather": QUANTISED, "reduce_scatter": WHOLE},
        ),
    ],
)
def test_how_gathered_tokens_travel(engine: str, more: str, phase: str, expected: dict[str, float]) -> None:
    """64 tokens on each of eight ranks, 7,168 values each: BF16 both ways, or NVFP4 (half a byte, and a scale in FP8
    for 16 values) there. In steps with prompts SGLang sums buffers of all tokens, most of them zeros, and the results.
    """
    mine = scenario(engine, "whole experts")
    if more:
        pool = mine.deployment.serve.model_copy(update={"moe_backend": more.rpartition(" ")[2]})
        changes = {"deployment": mine.deployment.model_copy(update={"serve": pool}), "gpu": "b200_sxm"}
        precision = mine.precision.model_copy(update={"weights": "nvfp4"})
        mine = mine.model_copy(update={**changes, "precision": precision})
    step = step_operations(deploy(mine), phase)
    rest = step.prefill_rest(64.0) if phase == "prefill" else step.decode_rest(64.0)
    moved: dict[str, float] = {}
    for operation in rest:
        if operation.name.startswith("MoE ") and operation.group == "communication":
            moved[operation.kernel] = moved.get(operation.kernel, 0.0) + operation.shape["bytes"]
    assert moved == pytest.approx(expected)


def test_decode_steps_are_padded_to_the_fullest_rank() -> None:
    """MAX_LEN inside CUDA graphs: one rank of 64 sequences and seven of one cost what is gathered of 8 x 64."""
    mine = deploy(scenario("sglang", "slices of experts"))
    cost, step = pool_step_cost(mine, "serve"), step_operations(mine, "decode")
    context = np.full(RANKS, 1000.0)
    uneven, even = np.array([64.0] + [1.0] * 7), np.full(RANKS, 64.0)

    def experts_s(sequences: float) -> float:
        operations = [o for o in step.decode_rest(sequences) if o.stream == "experts"]
        return float(seconds_by_source(operations, cost_model(mine, "decode")).sum())

    saved_s = cost.decode_s(even, context) - cost.decode_s(uneven, context)
    assert saved_s == pytest.approx(experts_s(64) - experts_s(71 / 8), rel=0.05)

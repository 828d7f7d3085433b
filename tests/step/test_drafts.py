"""Drafts in a step: what verifying and drafting add, by hand on DeepSeek-V3's shapes."""

import pytest
from even_routing import balanced_routing

from sim.catalog import engine, model
from sim.model.architecture import mtp_active_parameters
from sim.model.layout import Layout
from sim.model.operations import Operation
from sim.step.operations import StepOperations

LAYOUT = Layout(model("deepseek-v3"), gpus=1, tp=1, ep=1, gpus_per_node=8, kv_cache="bf16")
SPARSE = Layout(model("deepseek-v3.2"), gpus=1, tp=1, ep=1, gpus_per_node=8)
LOADED = Layout(model("deepseek-v3"), gpus=1, tp=1, ep=1, gpus_per_node=8, kv_cache="bf16", mtp=True)
BATCH, CONTEXT = 8, 4096


def steps(drafts: int, layout: Layout = LAYOUT) -> StepOperations:
    return StepOperations(layout, balanced_routing(layout, 256), engine("sglang"), drafts)


def linear(operations: list[Operation]) -> float:
    kernels = ("gemm", "moe", "absorb_bmm")
    parts = [p for o in operations for p in (o.parts or (o,))]
    return sum(p.flop * p.layers for p in parts if p.kernel in kernels)


def core(block: Operation) -> Operation:
    return next(p for p in block.parts if p.kernel in ("mla_decode", "sparse_mla_decode"))


def test_verifying_reads_a_dense_cache_once_and_a_sparse_one_for_every_query() -> None:
    plain, two = (core(steps(k).decode_attention(BATCH, CONTEXT)[0]) for k in (0, 1))
    latents = BATCH * CONTEXT * 1152
    assert two.flop == pytest.approx(2 * plain.flop, rel=1e-3)  # 2 queries; one key more
    assert two.bytes - plain.bytes < 0.1 * latents
    plain, two = (core(steps(k, SPARSE).decode_attention(BATCH, CONTEXT)[0]) for k in (0, 1))
    assert two.bytes == pytest.approx(2 * plain.bytes)  # 2,048 entries each


def test_index_keys_are_read_once_for_all_queries_of_a_sequence() -> None:
    def logits(drafts: int) -> Operation:
        block = steps(drafts, SPARSE).decode_attention(BATCH, CONTEXT)[0]
        return next(p for p in block.parts if p.kernel == "index_logits")

    keys = BATCH * CONTEXT * 132
    one_query = BATCH * (CONTEXT * 4 + 64 * 132)  # FP32 logits; 64 index heads of 128 FP8 and a weight
    assert logits(1).bytes - logits(0).bytes == pytest.approx(one_query, rel=0.01)
    assert logits(0).bytes == pytest.approx(keys + one_query, rel=0.01)


@pytest.mark.parametrize("drafts", [1, 2, 3])
def test_linear_work_of_a_step_with_drafts(drafts: int) -> None:
    """Verify: 1 + k tokens through the model. Drafts: the module's first pass over the same tokens, then k - 1 of one
    token each; the head gives one draft per sequence and pass."""
    step = steps(drafts)
    plain = steps(0)
    one_token = linear(plain.decode_rest(BATCH)) + linear(plain.decode_attention(BATCH, CONTEXT))
    head = 2 * 129280 * 7168 * BATCH
    module = (
        2 * mtp_active_parameters(model("deepseek-v3")) * BATCH - head
    )  # one token per sequence, headless
    by_hand = (1 + drafts) * one_token + ((1 + drafts) + (drafts - 1)) * module + drafts * head
    done = linear(step.decode_rest(BATCH)) + linear(step.decode_attention(BATCH, CONTEXT))
    assert done == pytest.approx(by_hand, rel=1e-6)


def test_a_draft_reads_eh_proj_experts_and_head_of_the_module() -> None:
    names = {o.name for o in steps(2).decode_rest(BATCH) if "draft" in o.name}
    for name in ("eh_proj", "routed experts", "shared expert: down", "head"):
        assert {f"first draft: {name}", f"later drafts: {name}"} <= names


def test_the_prompt_passes_through_the_module() -> None:
    """One MoE layer and eh_proj (2 x 7168^2) more per token, and the head once more for the first draft."""
    tokens = 4096
    with_module, without = (steps(1, layout).prefill_rest(tokens) for layout in (LOADED, LAYOUT))
    attention = [linear(steps(1, layout).prefill_attention(1, tokens, 0)) for layout in (LOADED, LAYOUT)]
    assert attention[0] / attention[1] == pytest.approx(62 / 61)
    experts = [next(o for o in ops if o.name == "routed experts") for ops in (with_module, without)]
    assert [o.layers for o in experts] == [59, 58]
    more = linear(with_module) - linear(without)
    head = 2 * 129280 * 7168
    layer = 2 * (9 * 44_040_192 + 256 * 7168)  # 8 routed and 1 shared expert, gate
    assert more == pytest.approx((layer + 2 * 2 * 7168**2) * tokens + head, rel=1e-3)

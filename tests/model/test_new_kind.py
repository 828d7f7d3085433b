"""A model with a kind of attention that the simulator has never seen: a file and a catalog entry suffice.

Qwen3-235B-A22B (94 layers, 64 heads, 4 key-value heads of 128), every second layer over a window of 128. By hand, in
FP8 on one GPU:

- cache of a token and layer: 2 x 4 x 128 = 1,024 B. The 47 full layers take 48,128 B per token, the 47 windows, once
  full, 47 x 128 x 1,024 = 6,160,384 B per request;
- a decode token at context L: 4 x 64 x 128 = 32,768 FLOP per key and layer, over L and over min(L, 128) keys;
- a prompt of 1,000 tokens: 1,000 x 1,001 / 2 = 500,500 pairs, in a window 128 x 129 / 2 + 872 x 128 = 119,872.
"""

import numpy as np
import pytest
from toy_window import Window

from sim import catalog
from sim.catalog import efficiency
from sim.cluster.plan import cluster_plan
from sim.cost.latency import AnalyticCost, price_all
from sim.deployment.plan import deploy, resolve
from sim.explain import explain
from sim.model import architecture as arch
from sim.model.attention import KINDS, Batch, attention_operations, prefill_forms
from sim.model.layout import Layout
from sim.scenario.loading import parse
from sim.serving.decode_batch import DecodeBatch
from sim.serving.served_request import ServedRequest
from sim.simulation import simulate
from sim.steady import steady
from sim.step.build import build_step_cost
from sim.step.pricing import step_operations

ENTRY = {
    "inherits": "qwen3-235b-a22b",
    "attention": {
        "value": [{"kind": "window", "layers": 47, "window": 128}, {"kind": "gqa", "layers": 47}],
        "unit": "group",
        "source": "assumption",
    },
}
SCENARIO = """
model: toy
gpu: h200_sxm
engine: sglang
deployment: {DEPLOYMENT}
workload:
  arrivals: {poisson: {rate_per_s: 20}}
  lengths: {input: {constant: 1000}, output: {constant: 60}}
  requests: 40
"""
SERVE = "{serve: {gpus: 8, ep: 8, max_batch_per_gpu: 32}}"
POOLS = "{prefill: {gpus: 8, ep: 8}, decode: {gpus: 8, ep: 8, max_batch_per_gpu: 32}}"
KEY_FLOP = 4 * 64 * 128


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> catalog.Model:
    monkeypatch.setitem(KINDS, Window.name, Window)
    monkeypatch.setitem(catalog.read("models.yaml")["models"], "toy", ENTRY)
    return catalog.model("toy")


def scenario(deployment: str = SERVE):
    return parse(SCENARIO.replace("{DEPLOYMENT}", deployment)).scenario


def test_parameters_are_those_of_the_model_that_it_is_made_from(toy: catalog.Model) -> None:
    assert toy.layers == 94
    assert arch.parameters(toy) == arch.parameters(catalog.model("qwen3-235b-a22b"))


def test_the_cache_grows_in_half_of_the_layers_once_the_windows_are_full(toy: catalog.Model) -> None:
    assert arch.cache_bytes(toy, "fp8", 100) == 94 * 100 * 1024
    assert arch.cache_bytes(toy, "fp8", 1000) == 47 * 1000 * 1024 + 6_160_384
    assert arch.cache_bytes_per_token(toy, "fp8") == 48_128
    assert arch.cache_bytes_per_request(toy, "fp8") == 6_160_384


def test_flop_of_a_decode_step_and_of_a_prompt(toy: catalog.Model) -> None:
    layout = Layout(toy, gpus=1, tp=1, ep=1, gpus_per_node=8)

    def cores(batch: Batch) -> dict[str, float]:
        blocks = attention_operations(layout, toy.attention, batch)
        parts = [part for block in blocks for part in block.parts if "core" in part.name]
        return {part.kernel: part.flop * part.layers for part in parts}

    for context in (100, 128, 1000):
        assert cores(Batch("decode", 3, 1, context - 1)) == {
            "gqa_window_decode": 3 * 47 * KEY_FLOP * min(context, 128),
            "gqa_decode": 3 * 47 * KEY_FLOP * context,
        }
    assert cores(Batch("prefill", 1, 1000, 0)) == {
        "gqa_window_prefill": 47 * KEY_FLOP * 119_872,
        "gqa_prefill": 47 * KEY_FLOP * 500_500,
    }
    assert prefill_forms(layout) == [(float("inf"), ("full", "full"))]


def test_the_plan_sets_the_windows_aside_for_each_request() -> None:
    deployment = deploy(scenario())
    memory = deployment.pools["serve"].memory
    assert memory.cache_bytes_per_token == 48_128
    block = memory.block_tokens * 48_128
    assert memory.request_blocks == -(-6_160_384 // block)
    pool = cluster_plan(deployment, seed=0).pools["serve"]
    assert pool.blocks_of(1000) == -(-1000 // memory.block_tokens) + memory.request_blocks
    assert pool.longest_tokens == pool.kv_blocks * pool.block_tokens - pool.request_tokens


def test_admission_counts_what_a_request_has_beside_its_tokens() -> None:
    """Ten blocks, one for the tokens of a sequence and two for itself: three sequences, not ten."""
    batch = DecodeBatch(1, 16, 10, block_tokens=64, request_blocks=2)
    admitted = 0
    while batch.room_after(0, 0) >= batch.need(0, 60):
        batch.reserve(0, 60)
        batch.join(ServedRequest(admitted, 60, 0, 3, request=admitted), 0, 3)
        admitted += 1
    assert admitted == 3
    assert [len(batch.advance(1)) for _ in range(3)] == [0, 0, 3]
    assert batch.ranks[0].used_after(batch.step) == batch.ranks[0].demand == 0


@pytest.mark.parametrize("context", [100.0, 128.0, 129.0, 700.0, 5000.0])
def test_the_step_cost_bends_where_the_window_is_full(context: float) -> None:
    step = step_operations(resolve(scenario()), "decode")
    roofline = AnalyticCost(catalog.gpu("h200_sxm"), efficiency())
    cost = build_step_cost({"decode": step}, roofline, 32, 64)
    assert 128.0 in cost.level(1).surface.context
    direct_s = sum(
        p.total_s for p in price_all(step.decode_attention(16, context) + step.decode_rest(16), roofline)
    )
    assert cost.decode_s(np.full(8, 16.0), np.full(8, context)) == pytest.approx(direct_s, rel=0.01)


def test_explain_lists_both_kinds() -> None:
    explained = explain(scenario(), "decode", 16, 4000)
    cache = {row["name"]: row["cache_bytes"] for row in explained.json()["operations"] if row["cache_bytes"]}
    assert cache == {"window core, window": 16 * 6_160_384, "GQA core, GQA": 16 * 4000 * 48_128}
    memory = explained.plan.memory
    assert explained.kv_tokens_needed == 16 * (4000 + memory.request_blocks * memory.block_tokens)


@pytest.mark.parametrize("deployment", [SERVE, POOLS])
def test_a_short_simulation_and_the_estimate(deployment: str) -> None:
    result = simulate(scenario(deployment))
    assert result.json()["requests"]["completed"] == 40
    assert result.record.invariants == []
    assert steady(scenario(deployment)).point.tpot_s > 0
    sent = cluster_plan(deploy(scenario(deployment)), seed=0).transfer
    assert sent is None or (sent.bytes_per_token, sent.bytes_per_request) == (48_128, 6_160_384)


def test_an_unknown_kind_is_answered_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KINDS, Window.name)
    with pytest.raises(catalog.UnknownName, match="unknown kind of attention 'window'"):
        arch.cache_bytes(catalog.model("toy"), "fp8", 1)

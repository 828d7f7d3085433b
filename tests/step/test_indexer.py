"""The indexer in a step: dense or sparse by threshold, rounds under a logits memory, concentrated scores."""

from dataclasses import replace

import pytest

from sim.catalog import efficiency, engine, gpu, model
from sim.cost.latency import AnalyticCost, ConcentratedScores
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile
from sim.explain import explain
from sim.model.attention import Batch, attention_operations
from sim.model.layout import Layout
from sim.model.operations import index_topk
from sim.scenario.loading import parse

LAYOUT = Layout(model("deepseek-v3.2"), gpus=8, tp=1, ep=8, gpus_per_node=8, dense_prefill_max_kv=2048)
H200 = gpu("h200_sxm")
V3 = replace(LAYOUT, model=model("deepseek-v3"))
MEASURED = ProfileCost(load_profile("h200_sxm/sglang"), AnalyticCost(H200, efficiency()), H200)


def attention(layout: Layout, prompts: float, new: float, cached: float):
    """The block of a prefill step, and the keys that it reads again."""
    batch = Batch("prefill", prompts, new, cached)
    block, *again = attention_operations(layout, layout.model.attention, batch)
    return block, again


def rereads(layout: Layout, prompts: float, new: float, cached: float):
    return attention(layout, prompts, new, cached)[1]


def test_logits_that_fit_are_made_at_once() -> None:
    # 8,192 queries x 16,384 keys x 4 B = 536,870,912 B: exactly vLLM's 512 MiB.
    vllm = replace(LAYOUT, index_logits_bytes=engine("vllm").index_logits_bytes)
    assert rereads(vllm, 1, 8192, 8192) == []
    assert len(rereads(vllm, 1, 8192, 8193)) == 1


def test_each_further_round_of_logits_reads_every_key_again() -> None:
    # 131,072 keys x 4 B = 512 KiB per query: 1,024 queries at once, 8 rounds, of which 7 read the keys again.
    vllm = replace(LAYOUT, index_logits_bytes=512 * 2**20)
    [again] = rereads(vllm, 2, 8192, 131_072 - 8192)
    assert again.layers == 61 * 7
    assert again.bytes == 2 * 131_072 * 132
    assert "8 rounds" in again.name


def test_no_memory_limit_and_no_indexer_mean_no_rounds() -> None:
    tight = replace(LAYOUT, index_logits_bytes=1.0)
    assert rereads(LAYOUT, 1, 8192, 120_000) == []
    assert rereads(tight, 1, 2048, 0) == []  # short enough for masked MHA
    assert rereads(replace(V3, index_logits_bytes=1.0), 1, 8192, 120_000) == []


@pytest.mark.parametrize(("threshold", "branch"), [(2048, "dense"), (0, "sparse")])
def test_an_engine_s_threshold_chooses_the_measured_branch(threshold: int, branch: str) -> None:
    block, _ = attention(replace(LAYOUT, dense_prefill_max_kv=threshold), 1, 1024, 0)
    assert block.options["branch"] == branch
    kernels = {part.kernel for part in block.parts}
    assert ("sparse_mla_prefill" in kernels) == (branch == "sparse")
    assert MEASURED.knows(block)


def test_concentrated_scores_select_faster_by_what_the_bare_kernel_gains() -> None:
    cost = ConcentratedScores(MEASURED)
    select = index_topk(batch=2, new=8192, cached=0, top_k=2048)
    flat, near = MEASURED.price(select), cost.price(select)
    # H200, aiconfigurator: 771.9 us on flat scores, 272.3 us on scores whose best come last.
    assert flat.seconds == pytest.approx(771.9e-6, rel=0.01)
    assert near.seconds == pytest.approx(272.3e-6, rel=0.01)
    block, _ = attention(LAYOUT, 2, 8192, 0)
    gained = MEASURED.price(block).seconds - cost.price(block).seconds
    assert gained == pytest.approx(flat.seconds - near.seconds)
    dense, _ = attention(V3, 2, 8192, 0)
    assert cost.price(dense) == MEASURED.price(dense)


SCENARIO = """
model: deepseek-v3.2
gpu: h200_sxm
engine: vllm
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 32}}
indexer: {INDEXER}
workload:
  arrivals: {closed_loop: {concurrency: 1}}
  lengths: {input: {constant: 9}, output: {constant: 9}}
  requests: 1
"""


def prefill(indexer: str):
    return explain(parse(SCENARIO.replace("{INDEXER}", indexer)).scenario, "prefill", 8192, 122_880)


def test_a_scenario_says_memory_and_scores_and_explain_shows_the_rounds() -> None:
    default, roomy, near = (prefill(text) for text in ("{}", "{logits_gb: 10}", "{scores: concentrated}"))
    rounds = [p for p in default.operations if "8 rounds of logits" in p.operation.name]
    assert len(rounds) == 1
    assert not [p for p in roomy.operations if "rounds" in p.operation.name]
    assert default.step_s - roomy.step_s == pytest.approx(rounds[0].total_s)
    assert near.step_s < default.step_s

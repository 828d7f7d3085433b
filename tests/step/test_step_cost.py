"""Surfaces and sums over steps: against direct pricing, and against adding steps one by one."""

from dataclasses import replace

import numpy as np
import pytest
from even_routing import balanced_routing
from hypothesis import given, settings
from hypothesis import strategies as st
from steady_ranks import Steady, lines_of

from sim.catalog import efficiency, engine, gpu, model
from sim.cost.latency import AnalyticCost, Latency, price_all
from sim.model.layout import Layout
from sim.model.operations import Operation
from sim.step import PromptLoad
from sim.step.build import build_step_cost
from sim.step.operations import StepOperations, StepOverlap, typical_prompts

COST = AnalyticCost(gpu("h200_sxm"), efficiency())


def _operations(name: str) -> StepOperations:
    layout = Layout(model(name), 16, 1, 16, 8, dense_prefill_max_kv=2048, dispatch_mode="low_latency")
    return StepOperations(layout, balanced_routing(layout, 16), engine("sglang"))


OPERATIONS = {name: _operations(name) for name in ("deepseek-v3", "deepseek-v3.2")}
STEP = {name: build_step_cost({"prefill": o, "decode": o}, COST, 256, 8192) for name, o in OPERATIONS.items()}
models = st.sampled_from(list(STEP))


def _direct_s(operations) -> float:
    return sum(p.total_s for p in price_all(operations, COST))


@given(name=models, sequences=st.integers(1, 256), context=st.integers(2, 160_000))
@settings(max_examples=60, deadline=None)
def test_decode_surface_is_close_to_pricing_the_step_itself(name: str, sequences: int, context: int) -> None:
    operations = OPERATIONS[name]
    direct = _direct_s(operations.decode_attention(sequences, context) + operations.decode_rest(sequences))
    looked_up = STEP[name].decode_s(np.full(16, float(sequences)), np.full(16, float(context)))
    assert looked_up == pytest.approx(direct, rel=0.02)


@given(name=models, tokens=st.integers(16, 8192), context=st.floats(8, 100_000))
@settings(max_examples=60, deadline=None)
def test_prefill_surface_is_close_to_pricing_the_step_itself(name: str, tokens: int, context: float) -> None:
    operations = OPERATIONS[name]
    batch, new, cached = typical_prompts(tokens, context)
    direct = _direct_s(operations.prefill_attention(batch, new, cached) + operations.prefill_rest(tokens))
    looked_up = STEP[name].prefill_s(PromptLoad.alike(np.full(16, float(tokens)), np.full(16, context)))
    assert looked_up == pytest.approx(direct, rel=0.03)


def test_asking_what_a_prefill_or_mixed_step_takes_is_not_work() -> None:
    step = OPERATIONS["deepseek-v3"]
    cost = build_step_cost({"decode": step, "prefill": step}, COST, 64, 1024)
    chunk = PromptLoad.alike(np.array([500.0, 100.0]), np.array([2000.0, 50.5]))
    seconds = cost.prefill_s(chunk)
    cost.mixed_s(np.full(2, 8.0), np.full(2, 1000.0), chunk)
    assert sum(cost.provenance_s().values()) == 0
    cost.book_prefill(chunk, seconds)
    assert sum(cost.provenance_s().values()) == pytest.approx(seconds)


class _TwoSources:
    """Prices everything alike, but says that kernels of small shapes were measured."""

    def knows(self, operation: Operation) -> bool:
        return True

    def price(self, operation: Operation) -> Latency:
        small = operation.shape.get("batch", 99) <= 4 and operation.shape["context"] <= 512
        return Latency(1.0, "measured" if small else "analytic", "", "compute")


def test_a_step_is_booked_where_it_ran() -> None:
    """Attention of 2 sequences of 256 keys was measured, that of 64 of 8,192 was not; the rest never is."""
    step = replace(OPERATIONS["deepseek-v3"], engine=engine("sglang"))
    cost = build_step_cost({"decode": step}, _TwoSources(), 64, 1)
    blocks = step.decode_attention(2, 256)
    rest = step.decode_rest(2)
    share = sum(o.layers for o in blocks) / sum(o.layers for o in [*blocks, *rest])
    for sequences, context, measured in ((2, 255.0, share), (64, 8191.0, 0.0)):
        before = cost.provenance_s()
        lines = lines_of(cost, [Steady(1, 1.0, 1.0), Steady(sequences, context, 1.0)])
        lines.run(0, 1, 1 + sequences)
        lines.book(10.0)
        booked = {source: seconds - before[source] for source, seconds in cost.provenance_s().items()}
        assert booked["measured"] == pytest.approx(10 * measured)
        assert booked["analytic"] == pytest.approx(10 * (1 - measured))


def test_a_step_lasts_as_long_as_its_slowest_rank() -> None:
    cost = STEP["deepseek-v3"]
    even = cost.decode_s(np.array([20.0, 20.0]), np.array([3000.0, 3000.0]))
    uneven = cost.decode_s(np.array([20.0, 20.0]), np.array([3000.0, 9000.0]))
    longest = cost.decode_s(np.array([20.0, 20.0]), np.array([9000.0, 9000.0]))
    assert even < uneven == pytest.approx(longest)


@pytest.mark.parametrize(("loads", "mean"), [([64, 0], 32), ([96, 32], 64), ([1] + [0] * 15, 1 / 16)])
def test_experts_see_the_tokens_of_all_ranks_and_all_else_waits_for_the_fullest(loads, mean) -> None:
    """Loads on the grid. A single token on one of 16 ranks touches 8 experts, not the 16 of a token on each."""
    operations = OPERATIONS["deepseek-v3"]
    x = np.array(loads, dtype=float)
    others = [o for o in operations.decode_rest(x.max()) if o.kernel != "moe"]
    experts = [o for o in operations.decode_rest(mean) if o.kernel == "moe"]
    surface = STEP["deepseek-v3"].level(x.max()).surface
    assert surface.step_s(np.zeros(len(x)), x) == pytest.approx(
        _direct_s(others) + _direct_s(experts), rel=0.01
    )


def test_a_mixed_step_costs_more_than_its_prompt_and_less_than_both_apart() -> None:
    cost = STEP["deepseek-v3"]
    batch = np.full(2, 32.0), np.full(2, 4000.0)
    chunk = PromptLoad.alike(np.full(2, 512.0), np.full(2, 256.0))
    mixed = cost.mixed_s(*batch, chunk)
    assert cost.prefill_s(chunk) < mixed < cost.prefill_s(chunk) + cost.decode_s(*batch)


def test_in_a_mixed_step_a_rank_without_prompt_runs_the_attention_of_decode() -> None:
    """The slower rank decodes 128 sequences of 4,000 tokens, the other one computes a short prompt."""
    cost, operations = STEP["deepseek-v3"], OPERATIONS["deepseek-v3"]
    prompt = PromptLoad.alike(np.array([0.0, 16.0]), np.array([0.0, 8.5]))
    mixed = cost.mixed_s(np.array([128.0, 0.0]), np.array([4000.0, 0.0]), prompt)
    rest = cost.prefill.step_s(np.zeros(2), np.array([128.0, 16.0]))
    assert mixed - rest == pytest.approx(_direct_s(operations.decode_attention(128, 4000)), rel=0.02)


@given(tokens=st.integers(1, 16_384), context=st.floats(1, 100_000))
def test_typical_prompts_keep_tokens_and_mean_context(tokens: int, context: float) -> None:
    batch, new, cached = typical_prompts(tokens, context)
    assert batch * new == pytest.approx(tokens)
    assert cached + (new + 1) / 2 == pytest.approx(context)


def test_drafts_add_work_to_every_step_but_share_the_cache_reads() -> None:
    layout = OPERATIONS["deepseek-v3"].layout
    routing = balanced_routing(layout, 16)
    plain, one = (StepOperations(layout, routing, engine("sglang"), k) for k in (0, 1))
    core = [
        next(p for p in o.decode_attention(8, 4096)[0].parts if p.kernel == "mla_decode")
        for o in (plain, one)
    ]
    assert core[1].flop == pytest.approx(2 * core[0].flop, rel=1e-3)
    assert core[1].bytes < 1.2 * core[0].bytes


def test_two_half_batches_hide_the_exchange_of_a_large_batch_and_slow_a_small_one() -> None:
    plain = OPERATIONS["deepseek-v3"]
    cost = {
        o: build_step_cost({"decode": replace(plain, overlap=o)}, COST, 512, 1)
        for o in (StepOverlap(), StepOverlap(two_batch=True))
    }
    apart, together = cost[StepOverlap()], cost[StepOverlap(two_batch=True)]

    def gain(sequences: float) -> float:
        batch = np.full(16, sequences), np.full(16, 4000.0)
        return apart.decode_s(*batch) / together.decode_s(*batch)

    assert gain(4) < 1 < gain(512)


def test_the_shared_expert_hides_behind_the_exchange() -> None:
    plain = OPERATIONS["deepseek-v3"]
    hidden = replace(plain, overlap=StepOverlap(shared_expert=True))
    batch = np.full(16, 64.0), np.full(16, 4000.0)
    saved_s = STEP["deepseek-v3"].decode_s(*batch) - build_step_cost(
        {"decode": hidden}, COST, 256, 1
    ).decode_s(*batch)
    shared_s = sum(
        p.total_s for p in price_all(plain.decode_rest(64), COST) if p.operation.stream == "shared"
    )
    assert saved_s == pytest.approx(shared_s, rel=0.01)

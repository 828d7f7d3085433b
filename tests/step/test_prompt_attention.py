"""Prefill steps of several prompts behind cached prefixes, against the attention of the very prompts."""

from dataclasses import replace

import numpy as np
import pytest
from even_routing import balanced_routing
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.catalog import efficiency, engine, gpu, model
from sim.cost.latency import AnalyticCost, price_all
from sim.deployment.plan import resolve
from sim.model.layout import Layout
from sim.scenario.schema import Scenario
from sim.step import PromptLoad, RankPrompts
from sim.step.build import build_step_cost
from sim.step.load import one_prompt
from sim.step.operations import StepOperations, StepOverlap
from sim.step.pricing import cost_model, step_operations

ROOFLINE = AnalyticCost(gpu("h200_sxm"), efficiency())


def _operations(name: str, overlap: StepOverlap) -> StepOperations:
    layout = Layout(model(name), 8, 1, 8, 8, dense_prefill_max_kv=2048)
    return StepOperations(layout, balanced_routing(layout, 32), engine("sglang"), overlap=overlap)


KINDS = {
    (name, two): _operations(name, StepOverlap(two_batch=two))
    for name in ("deepseek-v3", "deepseek-v3.2")
    for two in (False, True)
}
STEPS = {
    kind: build_step_cost({"prefill": o, "decode": o}, ROOFLINE, 64, 20_000) for kind, o in KINDS.items()
}


def _attention_s(step: StepOperations, cost, batch: float, new: float, cached: float) -> float:
    """Directly, whole or in two half batches."""
    parts = step.overlap.parts(batch * new)
    return parts * sum(p.total_s for p in price_all(step.prefill_attention(batch / parts, new, cached), cost))


def _load(batch: float, new: float, cached: float, ranks: int = 8) -> PromptLoad:
    """`batch` equal prompts, the same on every rank, told by tokens, mean context and KV tokens."""
    sums = batch * new, cached + (new + 1) / 2, batch * (new + cached)
    return PromptLoad.alike(*(np.full(ranks, x) for x in sums))


def _untold(load: PromptLoad) -> PromptLoad:
    """The same as if it followed from tokens and context what the prompts hold."""
    tokens, context = np.zeros((2, load.ranks))
    for prompts in load.prompts:
        tokens[prompts.rank], context[prompts.rank] = prompts.tokens, prompts.context
    return PromptLoad.alike(tokens, context)


def _with_longest(load: PromptLoad, *longest: float) -> PromptLoad:
    """The same with prompts among them that are this long, by rank."""
    pairs = zip(load.prompts, longest, strict=True)
    return replace(load, prompts=[replace(prompts, longest=length) for prompts, length in pairs])


@pytest.mark.parametrize(
    ("name", "batch", "new", "cached", "expected_ms"),
    [("deepseek-v3.1", 164, 100, 1500, 1838), ("deepseek-v3.1", 16, 1024, 10_000, 1909),
     ("deepseek-v3.2", 164, 100, 1500, None), ("deepseek-v3.2", 16, 1024, 10_000, None)],
)  # fmt: skip
def test_prompts_behind_prefixes_cost_what_they_cost(name, batch, new, cached, expected_ms):
    """H200, SGLang's profile; V3.1 as its tables have it.

    V3.2 takes the dense form of 164 prompts, since each ends at 1,600 KV tokens, below 2,048."""
    pool = {"workers": 1, "gpus": 8, "ep": 8}
    lengths = {"input": {"constant": 1000}, "output": {"constant": 100}}
    scenario = Scenario.model_validate(
        {"model": name, "gpu": "h200_sxm", "deployment": {"prefill": pool, "decode": pool}}
        | {"workload": {"arrivals": {"poisson": {"rate_per_s": 1.0}}, "lengths": lengths, "requests": 10}}
    )
    step = step_operations(resolve(scenario, "prefill"), "prefill")
    cost = cost_model(resolve(scenario), "prefill")
    direct_s = _attention_s(step, cost, batch, new, cached)
    if expected_ms is not None:
        assert direct_s * 1e3 == pytest.approx(expected_ms, rel=0.02)
    core = build_step_cost({"prefill": step}, cost, 64, batch * new).prompts.core_s(_load(batch, new, cached))
    assert core == pytest.approx(np.full(8, direct_s), rel=0.01)


@pytest.mark.parametrize(("batch", "new"), [(1, 2047), (1, 2048), (4, 2048), (4, 2049)])
def test_the_longest_prompt_short_enough_for_the_dense_form_runs_it_alone(batch, new):
    """Mean contexts 1,024, 1,024.5 and 1,025: between them no mixture of the two forms is priced."""
    kind = "deepseek-v3.2", False
    direct_s = _attention_s(KINDS[kind], ROOFLINE, batch, new, 0)
    load = _untold(_load(batch, new, 0))
    assert STEPS[kind].prompts.core_s(load) == pytest.approx(np.full(8, direct_s), rel=0.01)


@given(
    kind=st.sampled_from(list(KINDS)),
    batch=st.integers(2, 40),
    new=st.integers(16, 500),
    cached=st.integers(0, 20_000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_prompts_follow_from_three_sums(kind, batch, new, cached):
    step, cost = KINDS[kind], STEPS[kind]
    if kind[0] == "deepseek-v3.2" and abs(new + cached - 2048) < 64:
        return  # the switch to sparse attention falls between
    parts = step.overlap.parts(batch * new)
    rest_s = sum(
        p.total_s * step.overlap.times(p.operation, parts)
        for p in price_all(step.prefill_rest(batch * new / parts), ROOFLINE)
    )
    load = _load(batch, new, cached)
    core = cost.prompts.core_s(load)
    assert core[0] == pytest.approx(_attention_s(step, ROOFLINE, batch, new, cached), rel=0.03)
    if parts == 1:
        assert cost.prefill_s(load) == pytest.approx(core[0] + rest_s, rel=0.03)


def test_a_single_prompt_is_looked_up_and_an_idle_rank_costs_nothing():
    cost = STEPS["deepseek-v3", False]
    tokens, context, held = (np.array(x, dtype=float) for x in ([1024, 0], [5000.5, 0], [1024 + 4488, 0]))
    core = cost.prompts.core_s(PromptLoad.alike(tokens, context, held))
    assert core.tolist() == cost.prefill.core_s(tokens, context).tolist()
    assert core[1] == 0


def test_prefixes_count_in_a_mixed_step_as_in_a_prefill_step():
    cost = STEPS["deepseek-v3", False]
    decode = np.full(8, 4.0), np.full(8, 100.0)
    load = _load(40, 100, 3000)
    more = cost.prefill_s(load) - cost.prefill_s(_untold(load))
    assert more > 0
    mixed = cost.mixed_s(*decode, load) - cost.mixed_s(*decode, _untold(load))
    assert mixed == pytest.approx(more)


def test_the_longest_prompt_of_a_rank_decides_between_dense_and_sparse():
    """SGLang: masked MHA while the longest KV of the batch is at most 2,048.

    One prompt of 3,000 tokens beside 50 of 100 has the pairs of equal prompts of (3,000^2 + 50 x 100^2) / 8,000 =
    1,187.5 tokens, which alone would run dense."""
    step, cost = KINDS["deepseek-v3.2", False], STEPS["deepseek-v3.2", False]
    prompts = [(1, 3000), (50, 100)]
    tokens = sum(n * new for n, new in prompts)
    context = sum(n * new * (new + 1) / 2 for n, new in prompts) / tokens
    assert 2 * context - 1 == 1187.5
    alike = PromptLoad.alike(np.full(8, float(tokens)), np.full(8, context))
    loads = [_with_longest(alike, *[longest] * 8) for longest in (3000.0, 2048.0)]

    def one_by_one_s(dense_up_to: int) -> float:
        forced = replace(step, layout=replace(step.layout, dense_prefill_max_kv=dense_up_to))
        every = [o for n, new in prompts for o in forced.prefill_attention(n, new, 0)]
        return sum(p.total_s for p in price_all(every, ROOFLINE))

    sparse_s, dense_s = (cost.prompts.core_s(load)[0] for load in loads)
    assert sparse_s == pytest.approx(one_by_one_s(0), rel=0.08)
    assert dense_s == pytest.approx(one_by_one_s(3000), rel=0.08)
    assert sparse_s > 1.2 * dense_s
    mixed = [cost.mixed_s(np.full(8, 4.0), np.full(8, 100.0), load) for load in loads]
    assert mixed[0] - mixed[1] == pytest.approx(sparse_s - dense_s)


def test_ranks_choose_their_form_one_by_one_and_other_models_have_none():
    for name in ("deepseek-v3", "deepseek-v3.2"):
        prompts = STEPS[name, False].prompts
        alike = PromptLoad.alike(np.array([4000.0, 4000.0, 0.0]), np.array([300.5, 300.5, 0.0]))
        core = prompts.core_s(_with_longest(alike, 3000.0, 600.0))
        short = prompts.core_s(alike)
        assert core[1:].tolist() == short[1:].tolist()
        assert (core[0] > short[0]) == (name == "deepseek-v3.2")


@given(
    tokens=st.integers(1, 8192), before=st.integers(0, 8192), prompts=st.integers(1, 4), long=st.booleans()
)
@settings(max_examples=100, deadline=None)
def test_far_from_a_switch_nobody_looks_at_the_forms(tokens, before, prompts, long):
    """Prompts whose form the surface knows cost the same whether that is seen at once or by looking at every form."""
    attention = STEPS["deepseek-v3.2", False].prompts
    context = before * (prompts == 1) + (tokens / prompts + 1) / 2
    _, length = one_prompt(tokens, context)
    longest = length + (tokens - tokens / prompts) * long * (prompts > 1)
    load = RankPrompts(0, tokens, context, tokens * length / min(tokens, 2 * context - 1), longest)
    assert attention.attention_s(load) == attention._among_forms_s(
        tokens, context, load.held, longest, differ=False
    )


@given(new=st.integers(1, 2500), cached=st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_dense_gives_way_to_sparse_at_the_token_not_over_a_cell_of_the_grid(new: int, cached: int) -> None:
    step = KINDS["deepseek-v3.2", False]
    load = _untold(_load(1, new, cached))
    attention_s = STEPS["deepseek-v3.2", False].prompts.core_s(load)[0]
    assert attention_s == pytest.approx(_attention_s(step, ROOFLINE, 1, new, cached), rel=0.03)

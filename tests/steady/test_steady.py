"""The steady state against hand computation, Little's law, one priced step, and the simulation."""

import json
import math

import pytest

from sim import simulate
from sim.cluster.plan import cluster_plan
from sim.deployment.plan import deploy
from sim.explain import explain
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.steady import demand_of, steady
from sim.steady.service import Service

SPLIT = "{prefill: {gpus: 8, ep: 8}, decode: {gpus: 16, ep: 16, max_batch_per_gpu: 128}}"
JOINT = "{serve: {workers: 2, gpus: 8, ep: 8, max_batch_per_gpu: 64}}"
VARIED = "{input: {lognormal: {mean: 2000, cv: 1}}, output: {lognormal: {mean: 300, cv: 0.8}}}"
CONSTANT = "{input: {constant: 2000}, output: {constant: 300}}"


def scenario(
    arrivals: str, deployment: str = SPLIT, lengths: str = CONSTANT, workload: str = "", more: str = ""
) -> Scenario:
    text = f"""
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {deployment}
workload: {{arrivals: {arrivals}, lengths: {lengths}{workload}}}
duration_s: 200
warmup_s: 50
{more}
"""
    return parse(text).scenario


def poisson(rate: float) -> str:
    return f"{{poisson: {{rate_per_s: {rate}}}}}"


def test_demand_of_lognormal_lengths_by_hand() -> None:
    lengths = "{input: {lognormal: {mean: 1000, cv: 2}}, output: {uniform: [1, 3]}}"
    demand = demand_of(scenario(poisson(3), lengths=lengths, workload=", cached_fraction: 0.25"))
    assert demand.cached_tokens == 250
    assert demand.new_tokens == 750
    assert demand.output_tokens == 2
    # E[O^2] = (1 + 4 + 9) / 3.
    assert demand.decode_context == pytest.approx(1000 + (14 / 3) / (2 * 2))
    # Var[I] = (2 x 1000)^2; E[O^3] = (1 + 8 + 27) / 3.
    assert demand.decode_context_sd == pytest.approx((2000**2 + 12 / (3 * 2) - (7 / 6) ** 2) ** 0.5)
    assert sum(demand.new_quantiles) / len(demand.new_quantiles) == pytest.approx(750)
    assert demand.rate_per_s == 3


def test_demand_of_sessions_is_that_of_all_their_turns(tmp_path) -> None:
    """Two sessions of 3 and 1 turns: 2 sessions a second are 4 requests a second; prompts 100, 200, 300 and 400."""
    talks = [[[-1, 0, 100, 10, []], [0, 5, 200, 10, []], [1, 5, 300, 10, []]], [[-1, 0, 400, 30, []]]]
    rows = [{"session": i, "block_tokens": 64, "turns": turns} for i, turns in enumerate(talks)]
    trace = tmp_path / "two.jsonl"
    trace.write_text("\n".join(map(json.dumps, rows)))
    demand = demand_of(scenario(poisson(2), lengths="null", workload=f", trace: {trace}"))
    assert (demand.input_tokens, demand.output_tokens) == (250, 15)
    assert (demand.rate_per_s, demand.concurrency) == (4, None)
    closed = scenario("{closed_loop: {concurrency: 2}}", lengths="null", workload=f", trace: {trace}")
    assert (demand_of(closed).rate_per_s, demand_of(closed).concurrency) == (None, None)


def test_demand_of_a_trace_is_counted(tmp_path) -> None:
    trace = tmp_path / "two.csv"
    trace.write_text("input_tokens,output_tokens\n100,10\n300,30\n")
    form = scenario(poisson(1), lengths="null", workload=f", trace: {trace}")
    demand = demand_of(form)
    assert demand.input_tokens == 200
    assert demand.output_tokens == 20
    assert demand.decode_context == pytest.approx((10 * 105 + 30 * 315) / 40)


@pytest.mark.parametrize(("deployment", "lengths"), [(SPLIT, CONSTANT), (JOINT, VARIED)])
def test_littles_law_holds_along_the_curve(deployment: str, lengths: str) -> None:
    state = steady(scenario(poisson(4), deployment, lengths))
    ranks = 16
    for point in state.curve:
        decoding = point.requests_per_s * (300 - 1) * point.tpot_s
        # The point at a limit lies between priced loads, where rate and TPOT are interpolated one by one.
        assert decoding == pytest.approx(ranks * point.batch, rel=4e-3)
    rates = [point.requests_per_s for point in state.curve]
    assert rates == sorted(rates)
    assert state.point.requests_per_s == pytest.approx(4, rel=1e-3)
    assert math.isclose(sum(state.priced_by.values()), 1)


def test_prefill_capacity_is_that_of_one_full_step() -> None:
    whole = SPLIT.replace("gpus: 8,", "gpus: 8, chunk_tokens: 8192,")
    state = steady(scenario(poisson(1), whole, "{input: {constant: 8192}, output: {constant: 10}}"))
    one = scenario(poisson(1), deployment=whole)
    step_s = explain(one, "prefill", batch=8192, context=0).step_s
    assert state.limit == "prefill"
    # 8 ranks compute one prompt of 8192 tokens each per step, priced on the simulation's grid.
    assert state.capacity_requests_per_s == pytest.approx(8 / step_s, rel=0.03)


def test_the_kv_cache_ends_the_batch() -> None:
    lengths = "{input: {constant: 100000}, output: {constant: 2000}}"
    roomy = SPLIT.replace("prefill: {gpus: 8", "prefill: {workers: 64, gpus: 8")
    state = steady(scenario(poisson(0.1), roomy, lengths, ", cached_fraction: 0.9"))
    tokens = state.deployment.pools["decode"].memory.kv_tokens // 64 * 64  # whole blocks
    assert state.limit == "KV cache"
    # Room for half a prompt is free on average while the next one waits, and SGLang reserves 512 tokens for growth.
    held = (tokens - 50_000) / (101_000 + 512)
    assert state.curve[-1].batch == pytest.approx(held, rel=0.01)  # but for places that wait for a transfer
    assert state.curve[-1].kv_cache_share == pytest.approx(held * 101_000 / tokens, rel=0.01)


def test_tokens_set_aside_for_cached_prefixes_hold_no_sequences() -> None:
    lengths = "{input: {constant: 100000}, output: {constant: 2000}}"
    cache = "prefix_cache: {enabled: true, scope: rank, block_tokens: 64, hbm_tokens: 128000}"
    form = scenario(poisson(0.1), "{serve: {gpus: 8, tp: 8, ep: 1}}", lengths, more=cache)
    deployment = deploy(form)
    service = Service(deployment, demand_of(form), cluster_plan(deployment, seed=0), form.price)
    tokens = deployment.pools["serve"].memory.kv_tokens // 64 * 64  # whole blocks
    assert service.largest == pytest.approx((tokens - 128_000 - 50_000) / (101_000 + 512))


def test_a_closed_loop_keeps_its_requests_in_flight() -> None:
    state = steady(scenario("{closed_loop: {concurrency: 64}}"))
    stay_s = state.point.ttft_s + 299 * state.point.tpot_s
    assert state.point.requests_per_s * stay_s == pytest.approx(64, rel=0.02)
    assert state.stable


def test_price_per_million_by_hand() -> None:
    state = steady(scenario(poisson(4), more="price: {usd_per_gpu_hour: 2.0, overhead_fraction: 0.0}"))
    prices = state.point.price.usd_per_million
    # 24 GPUs x 2 USD; 2 / 3 of them decode. 4 requests/s x 3600 s x 300 tokens.
    assert prices.output == pytest.approx(2 / 3 * 48 / (4 * 3600 * 300) * 1e6, rel=1e-3)
    assert prices.blended == pytest.approx(48 / (4 * 3600 * 2300) * 1e6, rel=1e-3)
    assert prices.input_cache_hit is None


@pytest.mark.parametrize(
    ("deployment", "lengths", "rate", "within"),
    [
        (SPLIT, CONSTANT, 5, 0.03),
        (SPLIT, VARIED, 15, 0.05),
        (JOINT, CONSTANT, 8, 0.08),
        (JOINT, VARIED, 5, 0.08),
    ],
    ids=["split", "split, varied", "joint", "joint, varied"],
)
def test_agrees_with_the_simulation(deployment: str, lengths: str, rate: float, within: float) -> None:
    form = scenario(poisson(rate), deployment, lengths)
    state, run = steady(form), simulate(form).json()
    latency = run["latency"]
    assert run["stable"] and state.stable
    assert state.point.tpot_s == pytest.approx(latency["tpot_s"]["mean"], rel=within)
    # A request of the simulation may wait for more than the running step, one of the steady state does not.
    assert 0.7 < state.point.ttft_s / latency["ttft_s"]["mean"] < 1.15
    served = run["throughput"]["output_tokens_per_s"]
    assert state.point.output_tokens_per_s == pytest.approx(served, rel=0.1)


@pytest.mark.parametrize("deployment", [SPLIT, JOINT])
def test_overload_is_said_by_both(deployment: str) -> None:
    capacity = steady(scenario(poisson(1), deployment, VARIED)).capacity_requests_per_s
    over = scenario(poisson(2 * capacity), deployment, VARIED)
    state = steady(over)
    assert not state.stable
    assert state.load == pytest.approx(2)
    assert state.point.requests_per_s == pytest.approx(capacity)
    assert not simulate(over.model_copy(update={"duration_s": 60.0, "warmup_s": 0.0})).json()["stable"]


def test_drafts_by_batch_follow_the_level_that_a_batch_is_in() -> None:
    """Up to 8 sequences per rank the curve is that of three drafts, beyond it that of none; a token finds one more
    than there are, on one of 16 ranks."""
    kinds = {
        "three": "speculation: {draft_tokens: 3}",
        "none": "",
        "by batch": "speculation: {draft_tokens: 3, adaptive: [{up_to_batch: 8, draft_tokens: 3}]}",
    }
    split = SPLIT.replace("{prefill: {", "{prefill: {workers: 9, ")
    curves = {
        name: {round(p.batch, 9): p.tpot_s for p in steady(scenario(poisson(1), split, more=more)).curve}
        for name, more in kinds.items()
    }
    both = curves["by batch"]
    small = [b for b in both if b + 1 / 16 <= 8 and b in curves["three"]]
    large = [b for b in both if b >= 9 and b in curves["none"]]
    assert len(small) > 3 and len(large) > 3
    for batch in small:
        assert both[batch] == pytest.approx(curves["three"][batch])
    for batch in large:
        assert both[batch] == pytest.approx(curves["none"][batch])


def test_requests_that_are_all_alike_stay_in_step() -> None:
    form = scenario("{closed_loop: {concurrency: 64}}", JOINT).model_copy(
        update={"duration_s": 120.0, "warmup_s": 0.0}
    )
    state, run = steady(form), simulate(form).json()
    served = run["throughput"]["output_tokens_per_s"]
    assert state.point.output_tokens_per_s == pytest.approx(served, rel=0.03)
    assert state.point.tpot_s == pytest.approx(run["latency"]["tpot_s"]["mean"], rel=0.03)
    # By hand: 4 prompts of 2000 tokens per rank fit a chunk, so every answer begins when all prompts are done.
    cycle_s = state.point.ttft_s + 299 * state.point.tpot_s
    assert state.point.requests_per_s == pytest.approx(64 / cycle_s, rel=1e-3)


VARIED_PROMPTS = "{lognormal: {mean: 1000, cv: 1}}"


@pytest.mark.parametrize(
    ("engine", "prompts", "within"),
    [
        ("sglang", "{constant: 2000}", 0.12),
        ("vllm", "{constant: 2000}", 0.2),
        ("vllm", VARIED_PROMPTS, 0.2),
    ],
)
def test_answers_of_one_length_fall_in_step(engine: str, prompts: str, within: float) -> None:
    """At saturation a batch ends at once, and its successors' prompts are computed together: far above what workers
    reach that interrupt their answers for every prompt."""
    lengths = f"{{input: {prompts}, output: {{constant: 300}}}}"
    rates = {}
    for arrivals in ("{closed_loop: {concurrency: 1024}}", poisson(150)):
        form = scenario(arrivals, JOINT, lengths, more=f"engine: {engine}")
        served = simulate(form).json()["throughput"]["output_tokens_per_s"] / 300
        rates[arrivals] = steady(form).capacity_requests_per_s
        assert rates[arrivals] == pytest.approx(served, rel=within)
    assert len(set(rates.values())) == 1
    varied = scenario(poisson(1), JOINT, lengths.replace("{constant: 300}", "{uniform: [299, 301]}"))
    assert steady(varied).capacity_requests_per_s < 0.8 * min(rates.values())


def test_ranks_that_decode_beside_the_prompts_of_others_drift_out_of_step() -> None:
    """SGLang's ranks wait for their own prompts alone. Where these differ in length the ranks come apart, round by
    round, and the rate falls towards that of workers that are not in step; the estimate says that it depends on it."""
    form = scenario(
        "{closed_loop: {concurrency: 1024}}", JOINT, f"{{input: {VARIED_PROMPTS}, output: {{constant: 300}}}}"
    )
    state = steady(form)
    served = [
        simulate(form.model_copy(update={"duration_s": 100.0 + s, "warmup_s": float(s)})).json()["throughput"]
        for s in (50, 400)
    ]
    early, late = (rate["output_tokens_per_s"] / 300 for rate in served)
    apart = scenario(poisson(1), JOINT, f"{{input: {VARIED_PROMPTS}, output: {{uniform: [299, 301]}}}}")
    assert steady(apart).capacity_requests_per_s < late < 0.95 * early < state.capacity_requests_per_s
    assert any("All answers have the same length" in doubt for doubt in state.doubts)

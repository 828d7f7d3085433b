"""Whole prefill steps of V3.2: more tokens or a longer prefix is never faster than the tables themselves say."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim.catalog import efficiency, gpu
from sim.catalog.profiles import shipped_profiles
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile
from sim.explain import explain
from sim.scenario.schema import Scenario

HEADS = 128
DEPLOYMENT = {
    "prefill": {"workers": 4, "gpus": 8, "tp": 1, "ep": 8},
    "decode": {"workers": 2, "gpus": 16, "tp": 1, "ep": 16},
}
WORKLOAD = {
    "arrivals": {"poisson": {"rate_per_s": 1}},
    "lengths": {"input": {"constant": 1000}, "output": {"constant": 10}},
}
LONGEST = 131072
ROUNDING = 0.03
"""Falls that come from what the step runs beside attention, whose tables have noise of their own."""


@cache
def scenario(profile):
    device, engine = profile.split("/")
    given = {"model": "deepseek-v3.2", "gpu": device, "engine": engine, "deployment": DEPLOYMENT}
    return Scenario.model_validate({**given, "workload": WORKLOAD, "duration_s": 20})


def step(profile, tokens, context):
    return explain(scenario(profile), "prefill", tokens, context)


def block(profile):
    priced = step(profile, 512, 0).operations
    return next(p.operation for p in priced if p.operation.kernel == "dsa_prefill_block")


def branch(of):
    return {b for p in of.operations if (b := p.operation.options.get("branch"))}


def dearer_than(branches, profile, of):
    """Seconds by which the attention of a step exceeds the same in another branch; none where that is not known."""
    device = gpu(profile.split("/")[0])
    cost = ProfileCost(load_profile(profile), AnalyticCost(device, efficiency()), device)
    more_s = 0.0
    for p in of.operations:
        for other in branches if "branch" in p.operation.options else ():
            there = replace(p.operation, options={**p.operation.options, "branch": other})
            more_s += p.total_s - cost.price(there).seconds * p.operation.layers
    return max(0.0, more_s)


@cache
def measured_falls(profile):
    """Largest fall of measured time below an earlier one, one prompt on 128 heads, along prefix or new tokens, as a
    share: over the tables of both branches and those that carry them on."""
    device = gpu(profile.split("/")[0])
    model = ProfileCost(load_profile(profile), AnalyticCost(device, efficiency()), device)
    worst = 0.0
    for branch in ("dense", "sparse"):
        asked = block(profile)
        choice = model._choice(replace(asked, options={**asked.options, "branch": branch})).priced
        for table in (choice.table, *([choice.peer.table] if choice.peer else [])):
            one = (table.shape["heads"] == HEADS) & (table.shape["batch"] == 1)
            new, cached, seconds = table.shape["new"][one], table.shape["cached"][one], table.seconds[one]
            for line, along in ((new, cached), (cached, new)):
                for value in np.unique(line):
                    times = seconds[line == value][np.argsort(along[line == value])]
                    worst = max(worst, float(np.max(1 - times / np.maximum.accumulate(times))))
    return worst


# GB200 with SGLang: of 17,319 shapes that its table times twice, one in ten has repeats more than 8.5% above and below
# their mean (v32_dsa_context of aiconfigurator-core 0.12.0). The others lost rows that an interrupted host spoiled.
INTERRUPTED = {
    ("b200_sxm/sglang", 512, 1024): 0.015,
    ("h200_sxm/sglang", 512, 1024): 0.015,
    ("h200_sxm/vllm", 512, 1024): 0.015,
    ("gb200_nvl72/sglang", 16384, 32768): 0.015,
    ("gb200_nvl72/sglang", 0, 1): 0.085,
}


@pytest.mark.parametrize(("profile", "shorter", "longer"), INTERRUPTED)
def test_a_longer_prefix_is_not_faster_because_a_host_was_interrupted(profile, shorter, longer):
    allowed = INTERRUPTED[profile, shorter, longer]
    assert step(profile, 512, longer).step_s >= step(profile, 512, shorter).step_s * (1 - allowed)


@settings(max_examples=200, deadline=None)
@given(
    profile=st.sampled_from(shipped_profiles()),
    tokens=st.floats(2, 13).map(lambda x: round(2**x)),
    context=st.floats(0, 16).map(lambda x: round(2**x) - 1),
    growth=st.floats(1.02, 4.0),
    by_tokens=st.booleans(),
)
@example("h200_sxm/vllm", 8, 1023, 2.0, False)
def test_more_tokens_or_a_longer_prefix_never_make_a_step_faster_than_its_tables_do(
    profile, tokens, context, growth, by_tokens
):
    further = min(round((context + 1) * growth), LONGEST)
    larger = (round(tokens * growth), context) if by_tokens else (tokens, further)
    before, after = step(profile, tokens, context), step(profile, *larger)
    attention_s = sum(p.total_s for p in before.operations if p.operation.group == "attention")
    # Routed experts of less than 16 tokens each are carried on from SGLang's normal-mode table, and fall there.
    experts_s = [
        sum(
            p.total_s
            for p in of.operations
            if p.operation.kernel == "moe" and p.latency.priced_by == "extrapolated"
        )
        for of in (before, after)
    ]
    fall_s = max(0.0, experts_s[0] - experts_s[1]) if experts_s[1] else 0.0
    # A few tokens behind a long prefix are dearer dense, which expands the prefix; the engine's threshold decides.
    fall_s += dearer_than(branch(after), profile, before) if branch(before) != branch(after) else 0.0
    allowed_s = fall_s + measured_falls(profile) * attention_s + ROUNDING * before.step_s
    assert after.step_s >= before.step_s - allowed_s


ONCE = pytest.mark.xfail(reason="1.24 since quantisation is counted once", strict=True)


@pytest.mark.parametrize(
    ("profile", "tokens", "context", "longer"),
    [
        ("h200_sxm/sglang", 2048, 0, 1.25),
        pytest.param("b200_sxm/sglang", 2048, 0, 1.25, marks=ONCE),
        *[
            (gpu, *at)
            for gpu in ("h200_sxm/sglang", "b200_sxm/sglang")
            for at in ((512, 1536, 1.0), (1, 2047, 0.25))
        ],
    ],
)
def test_one_more_token_than_the_engine_s_threshold_is_sparse(profile, tokens, context, longer):
    """SGLang runs masked MHA up to 2,048 KV tokens; its sparse kernels take at least a quarter longer for a whole
    prompt. Few tokens behind a prefix are cheaper there, since MHA expands every key; launches had hidden it.
    """
    at, beyond = (
        next(p for p in step(profile, tokens, kv).operations if p.operation.kernel == "dsa_prefill_block")
        for kv in (context, context + 1)
    )
    assert at.operation.options["branch"] == "dense"
    assert beyond.operation.options["branch"] == "sparse"
    assert beyond.latency.seconds > longer * at.latency.seconds

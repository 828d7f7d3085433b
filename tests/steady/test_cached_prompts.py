"""Several prompts behind cached prefixes: the steady state prices the step that the simulation runs."""

import numpy as np
import pytest

from sim.deployment.plan import resolve
from sim.scenario.loading import parse
from sim.steady import demand_of
from sim.steady.phases import phases
from sim.step import PromptLoad
from sim.step.pricing import pool_step_cost


@pytest.mark.parametrize("model", ["deepseek-v3.1", "deepseek-v3.2"])
def test_a_step_of_prompts_behind_prefixes_is_the_simulated_one(model: str) -> None:
    """Prompts of 1,600 tokens, 1,500 of them cached: a chunk of 8,192 new tokens holds 81.92 x 1,600 KV tokens."""
    scenario = parse(f"""
model: {model}
gpu: h200_sxm
profile: analytic
deployment: {{prefill: {{gpus: 8, ep: 8, chunk_tokens: 8192}}, decode: {{gpus: 16, ep: 16}}}}
workload:
  arrivals: {{poisson: {{rate_per_s: 1}}}}
  lengths: {{input: {{constant: 1600}}, output: {{constant: 300}}}}
  cached_fraction: 0.9375
duration_s: 200
""").scenario
    deployment = resolve(scenario)
    plan = deployment.pools["prefill"]
    _, computing = phases(deployment, demand_of(scenario))
    tokens, context = np.full(plan.dp, 8192.0), np.full(plan.dp, 1500 + 101 / 2)
    simulated_s = pool_step_cost(deployment, "prefill").prefill_s(
        PromptLoad.alike(tokens, context, tokens * 16)
    )
    assert computing.full_s() == pytest.approx(simulated_s, rel=0.03)

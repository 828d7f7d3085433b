"""The prefill capacity of prompts that differ: a saturated simulation serves what the steady state says."""

import numpy as np
import pytest

from sim import simulate
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.steady import demand_of, steady
from sim.workload import requests

LOGNORMAL = "{lognormal: {mean: 1000, cv: 1}}"


def scenario(prompts: str, rate: float = 1.0, more: str = "") -> Scenario:
    """Answers of 20 tokens: the prefill pool is what fills."""
    return parse(f"""
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {{prefill: {{gpus: 8, ep: 8}}, decode: {{gpus: 16, ep: 16}}}}
workload:
  arrivals: {{poisson: {{rate_per_s: {rate}}}}}
  lengths: {{input: {prompts}, output: {{constant: 20}}}}
  {more}
duration_s: 60
warmup_s: 20
""").scenario


@pytest.mark.parametrize(
    ("prompts", "within"),
    [(LOGNORMAL, 0.1), ("{lognormal: {mean: 1000, cv: 0.3}}", 0.1), ("{uniform: [1, 4000]}", 0.1),
     ("{constant: 1000}", 0.05), ("{constant: 3000}", 0.1)],
)  # fmt: skip
@pytest.mark.parametrize("more", ["", "cached_fraction: 0.5"])
def test_a_saturated_simulation_serves_the_capacity(prompts: str, within: float, more: str) -> None:
    state = steady(scenario(prompts, more=more))
    assert state.limit == "prefill"
    capacity = state.capacity_requests_per_s
    run = simulate(scenario(prompts, 2 * capacity, more)).json()
    assert run["utilization"]["prefill"] > 0.99
    assert capacity == pytest.approx(run["throughput"]["output_tokens_per_s"] / 20, rel=within)


@pytest.mark.parametrize(
    "prompts", ["{constant: 5000}", "{constant: 12000}", "{lognormal: {mean: 4000, cv: 0.5}}"]
)
def test_so_it_does_where_prompts_are_not_divided(prompts: str) -> None:
    """Room of 8,192 tokens that prompts do not fill: a step takes one of 5,000, and 12,000 leave half a step empty."""

    def served(rate: float, whole: bool = True) -> Scenario:
        one = scenario(prompts, rate)
        assert one.deployment.prefill is not None
        pool = one.deployment.prefill.model_copy(update={"chunk_tokens": 8192})
        deployment = one.deployment.model_copy(update={"prefill": pool})
        rules = one.scheduling.model_copy(update={"whole_prompts": whole})
        return one.model_copy(update={"deployment": deployment, "scheduling": rules})

    capacity = steady(served(1.0)).capacity_requests_per_s
    run = simulate(served(2 * capacity)).json()
    assert capacity == pytest.approx(run["throughput"]["output_tokens_per_s"] / 20, rel=0.1)
    assert steady(served(1.0, whole=False)).capacity_requests_per_s != pytest.approx(capacity, rel=0.02)


def test_one_long_prompt_makes_a_chunk_sparse() -> None:
    """1,000 tokens on average: all below the threshold of 2,048, or one in nine above it, eight in every chunk."""
    alike, mixed = (steady(scenario(p)).capacity_requests_per_s for p in ("{constant: 1000}", LOGNORMAL))
    assert mixed < 0.8 * alike


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prompts", [LOGNORMAL, "{constant: 500}", "{constant: 1}"])
def test_at_least_one_token_is_computed(prompts: str, fraction: float) -> None:
    """As in the simulation, where a prompt's last token gives the first one of the answer."""
    form = scenario(prompts, 20, f"cached_fraction: {fraction}")
    demand, asked = demand_of(form), requests(form, 0, None).prompts
    cached = np.minimum(asked.cached_tokens, asked.input_tokens - 1)
    assert demand.new_tokens >= 1
    assert demand.cached_tokens == pytest.approx(cached.mean(), rel=0.1)
    assert steady(form).capacity_requests_per_s > 0

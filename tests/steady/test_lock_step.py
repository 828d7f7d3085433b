"""A prefill pool of many ranks in lock-step: nearly always busy at a quarter of its load, and yet not full.

A step lasts as long as its longest prompt: 8,192 tokens on one of 32 ranks take about as long as on all of them. So a
worker is busy as soon as long prompts come often, with steps that are mostly empty, and fills them as more arrive.
"""

import pytest

from sim import simulate
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.steady import steady


def scenario(rate: float = 1.0) -> Scenario:
    """Short answers and a large decode pool: the prefill pool is what fills."""
    return parse(f"""
model: deepseek-v3
gpu: h200_sxm
profile: analytic
deployment:
  prefill: {{workers: 2, gpus: 32, ep: 32, chunk_tokens: 8192}}
  decode: {{gpus: 64, ep: 64}}
workload:
  arrivals: {{poisson: {{rate_per_s: {rate}}}}}
  lengths: {{input: {{lognormal: {{mean: 1049, cv: 1}}}}, output: {{constant: 20}}}}
duration_s: 40
warmup_s: 10
""").scenario


def test_it_is_busy_at_a_quarter_of_its_capacity_and_waits_for_the_longest_prompt() -> None:
    capacity = steady(scenario()).capacity_requests_per_s
    light = scenario(0.24 * capacity)
    run, state = simulate(light).json(), steady(light)
    assert run["utilization"]["prefill"] > 0.98 and run["stable"]
    assert run["latency"]["ttft_s"]["mean"] == pytest.approx(state.point.ttft_s, rel=0.15)


def test_more_prompts_fill_its_steps_up_to_the_capacity() -> None:
    state = steady(scenario())
    assert state.limit == "prefill"
    run = simulate(scenario(2 * state.capacity_requests_per_s)).json()
    served = run["throughput"]["output_tokens_per_s"] / 20
    assert state.capacity_requests_per_s == pytest.approx(served, rel=0.1)

"""Workers that compute prompts before they decode: an overload first hides in answers that hardly advance, until the
batch is full. Capacities are those of saturated runs of the same service. It has one rank: of several, those without
prompts decode, and where answers are alike a saturated run loses the step that it begins in, and its rate."""

import pytest

from sim import simulate
from sim.scenario.loading import parse

LENGTHS = {"alike": "{constant: 100}", "varied": "{lognormal: {mean: 100, cv: 0.8}}"}


def run(answers: str, rate: float, requests: int, seed: int = 0) -> dict:
    return simulate(
        parse(f"""
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {{serve: {{gpus: 8, tp: 8, ep: 8, max_batch_per_gpu: 16}}}}
workload:
  arrivals: {{poisson: {{rate_per_s: {rate}}}}}
  lengths: {{input: {{lognormal: {{mean: 1000, cv: 1}}}}, output: {LENGTHS[answers]}}}
  requests: {requests}
""").scenario,
        seed,
    ).json()


@pytest.fixture(scope="module", params=LENGTHS)
def service(request: pytest.FixtureRequest) -> tuple[str, float]:
    """(answers, requests per second that it serves when saturated)"""
    served = run(request.param, 40, 6000)
    return request.param, served["throughput"]["output_tokens_per_s"] / 100


@pytest.mark.parametrize("seed", [0, 1])
def test_below_capacity_it_is_stable(service: tuple[str, float], seed: int) -> None:
    answers, capacity = service
    below = run(answers, 0.85 * capacity, 1500, seed)
    assert below["stable"]
    assert below["latency"]["ttft_s"]["p99"] is not None


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("overload", "requests"), [(1.3, 3000), (2.0, 1000)])
def test_above_capacity_it_is_not(
    service: tuple[str, float], overload: float, requests: int, seed: int
) -> None:
    answers, capacity = service
    above = run(answers, overload * capacity, requests, seed)
    assert not above["stable"]
    assert above["latency"]["ttft_s"]["p99"] is None

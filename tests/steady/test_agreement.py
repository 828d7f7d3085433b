"""The estimate agrees with the simulation wherever the sliders are, or says why it may not; see `agreement.py`."""

import pytest
from agreement import agreement, compare, scenario

from dashboard.settings import DEFAULTS, OWN_PRICE
from sim.scenario.loading import parse
from sim.simulation import simulate
from sim.steady import steady


def test_price_of_random_settings() -> None:
    found = [*agreement(seed=3, count=8, most_requests=2500, requests=500)]
    assert all(one.price_agrees or one.state.doubts for one in found)
    # Most doubts are about overload; those who can be served get a plain answer.
    assert not any(one.state.doubts for one in found if one.state.load < 0.9)
    assert all(one.provenance < 0.2 for one in found)


@pytest.mark.parametrize(
    ("rate", "prompt", "answer", "blended_usd"),
    # 24 H200 at 2 USD and 5% overhead, paid by the tokens that come in an hour: 24 x 2.1 / (3600 x rate x tokens).
    [(5.0, 2000, 1, 1.399), (0.1, 2000, 10, 69.65), (0.1, 16, 1, 8235.0)],
)
def test_light_load_pays_for_idle_gpus(rate: float, prompt: int, answer: int, blended_usd: float) -> None:
    settings = DEFAULTS | {"r": rate, "i": prompt, "o": answer, "v": 0.0, "t": OWN_PRICE, "u": 2.0}
    form = scenario(settings, rate, 0.0, 3600.0)
    point = steady(form).point
    tokens = (prompt + answer) * rate * 3600 / 1e6
    assert point.requests_per_s == pytest.approx(rate)
    assert point.price.usd_per_million.blended == pytest.approx(point.price.usd_per_hour / tokens)
    assert point.price.usd_per_million.blended == pytest.approx(blended_usd, rel=0.01)
    one = compare(settings, seed=1, most_requests=5000)
    assert one is not None and one.price_agrees


CHAT = "{lognormal: {mean: 1200, cv: 1}}, output: {lognormal: {mean: 100, cv: 0.5}}"
SCENARIOS = {
    "chat, aggregated": ("{serve: {workers: 2, gpus: 8, ep: 8}}", 6.0, CHAT, "sglang"),
    "chat, mixed steps": ("{serve: {workers: 2, gpus: 8, ep: 8}}", 6.0, CHAT, "vllm"),
    "many short ones, wide EP": (
        "{prefill: {workers: 2, gpus: 16, ep: 16}, decode: {gpus: 32, ep: 32, max_batch_per_gpu: 64}}",
        30.0,
        "{lognormal: {mean: 2000, cv: 1.5}}, output: {lognormal: {mean: 150, cv: 1}}",
        "sglang",
    ),
    "light load": ("{prefill: {gpus: 8, ep: 8}, decode: {gpus: 16, ep: 16}}", 0.3, CHAT, "sglang"),
    "long prompts": (
        "{serve: {workers: 2, gpus: 8, tp: 8, ep: 1}}",
        0.4,
        "{constant: 20000}, output: {lognormal: {mean: 200, cv: 0.5}}",
        "sglang",
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("model", ["deepseek-v3.2", "deepseek-v3.1"])
def test_provenance_is_that_of_the_simulated_steps(name: str, model: str) -> None:
    deployment, rate, lengths, engine = SCENARIOS[name]
    form = parse(f"""
model: {model}
gpu: h200_sxm
engine: {engine}
deployment: {deployment}
workload: {{arrivals: {{poisson: {{rate_per_s: {rate}}}}}, lengths: {{input: {lengths}}}}}
duration_s: {max(1500 / rate, 150)}
warmup_s: {300 / rate}
""").scenario
    simulated = simulate(form).json()["priced_by"]
    for source, share in steady(form).priced_by.items():
        # A mixed step's seconds are booked on two grids in shares that depend on both.
        within = 0.1 if engine == "vllm" else 0.08
        assert share == pytest.approx(simulated[source], abs=within), source

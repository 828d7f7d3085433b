"""A full KV cache whose answers outgrow what the engine keeps free: it throws some out, and the estimate says so."""

import pytest

import sim


def full(gpu: str, answer: int) -> dict[str, object]:
    """Llama 3.1 405B in BF16, TP8, at 1.2 times what it can serve; SGLang keeps 512 tokens a request free."""
    data = {
        "model": "llama-3.1-405b", "gpu": gpu, "engine": "sglang",
        "precision": {"weights": "bf16", "kv_cache": "bf16"},
        "price": {"usd_per_gpu_hour": 2.0},
        "deployment": {"serve": {"gpus": 8, "tp": 8, "ep": 1, "max_batch_per_gpu": 128}},
        "workload": {
            "requests": 400, "arrivals": {"poisson": {"rate_per_s": 1}},
            "lengths": {"input": {"constant": 4000}, "output": {"uniform": [answer // 2, answer * 3 // 2]}},
        },
    }  # fmt: skip
    capacity = sim.estimate(data).capacity_requests_per_s
    data["workload"]["arrivals"] = {"poisson": {"rate_per_s": 1.2 * capacity}}
    return data


@pytest.mark.parametrize(
    ("gpu", "answer", "outgrown"), [("h20_141gb", 16000, True), ("h20_141gb", 4000, False)]
)
def test_answers_that_outgrow_what_is_kept_free_are_doubted(gpu: str, answer: int, outgrown: bool) -> None:
    """n requests keep 512 n free; their growth, uniform up to the answer, varies by answer / sqrt(12) x sqrt(n).

    n = 45 with 16,000 tokens: 23,000 and 31,000; n = 85 with 4,000: 44,000 and 10,600.
    """
    data = full(gpu, answer)
    state = sim.estimate(data)
    assert any("throws some out" in doubt for doubt in state.doubts) == outgrown
    requests = sim.simulate(data).requests
    assert (requests.preemptions.mean() > 0.3) == outgrown

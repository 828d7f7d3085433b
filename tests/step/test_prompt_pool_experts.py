"""What routed experts take in a pool of prompts, over their table."""

from dataclasses import replace
from functools import partial

import pytest

from sim.cost.latency import InSituCost, Latency
from sim.deployment.plan import resolve
from sim.model.operations import gemm
from sim.scenario.schema import Scenario
from sim.step.pricing import step_operations


class Back:
    """Every operation takes 10 ms back to back."""

    def knows(self, operation) -> bool:
        return True

    def price(self, operation) -> Latency:
        return Latency(10e-3, "measured", "a table", "memory")


def factor(
    backend: str | None,
    role: str = "prefill",
    engine: str = "trtllm",
    gpu: str = "b200",
    exchange: str = "all_gather",
) -> float:
    """Of the routed experts in a step of the pool's phase."""
    ranks = {"gpus": 8, "tp": 1, "ep": 8, "exchange": exchange}
    pools = {"prefill": {**ranks, "moe_backend": backend}, "decode": {**ranks, "moe_backend": backend}}
    serve = {"serve": {**ranks, "moe_backend": backend}}
    scenario = Scenario.model_validate({
        "model": "deepseek-r1", "gpu": gpu, "engine": engine, "precision": {"weights": "fp8"},
        "deployment": serve if role == "serve" else pools, "price": {"usd_per_gpu_hour": 1.0},
        "workload": {"requests": 1, "arrivals": {"all_at_once": {}},
                     "lengths": {"input": {"constant": 1024}, "output": {"constant": 8}}},
    })  # fmt: skip
    phase = "decode" if role == "decode" else "prefill"
    step = step_operations(resolve(scenario, phase), phase)
    rest = step.decode_rest(64) if phase == "decode" else step.prefill_rest(8192)
    [experts] = [one for one in rest if one.kernel == "moe"]
    return experts.in_situ


def test_experts_on_blackwell_are_slower_in_pools_of_prompts() -> None:
    assert factor("deepgemm") == 1.5
    assert factor("trtllm_gen") == 1.15 and factor(None) == 1
    assert factor("deepgemm", "decode") == factor("deepgemm", "serve") == 1
    sglang = partial(factor, engine="sglang")
    assert sglang("trtllm_gen") == 3.4  # in FP8, over eight GPUs
    assert sglang(None, exchange="all_to_all") == 2.2  # DeepEP's normal mode hands over to DeepGEMM
    assert (
        factor(None, exchange="all_to_all", gpu="gb200") == 1.15
    )  # SGLang's table of trtllm_gen prices them
    assert sglang(None) == sglang(None, exchange="all_to_all", gpu="h200") == 1


@pytest.mark.parametrize(
    ("kernel", "in_situ", "seconds"),
    [("gemm", 1.0, 10e-3), ("moe", 1.5, 15e-3), ("all_gather", 1.0, 20e-3), ("all_gather", 1.5, 30e-3)],
)
def test_a_running_engine_by_hand(kernel: str, in_situ: float, seconds: float) -> None:
    """10 ms back to back; collectives take twice as long, and what says so of itself its own factor more."""
    operation = replace(gemm("x", "moe", 1, 1, 1, "bf16"), kernel=kernel, in_situ=in_situ)
    found = InSituCost(Back(), 2.0).price(operation)
    assert found.seconds == pytest.approx(seconds)
    assert ("in situ" in found.source) == (seconds != 10e-3)

"""SGLang divides its chunk by the attention-DP ranks: how one prompt is then computed, step by step."""

from typing import Any

import numpy as np
import pytest

from sim.cluster.plan import cluster_plan
from sim.deployment.plan import deploy
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.step import PromptLoad
from sim.step.pricing import pool_step_cost


def scenario(engine: str, **pool: Any) -> Scenario:
    form = {
        "model": "deepseek-v3",
        "gpu": "h200_sxm",
        "engine": engine,
        "profile": "analytic",
        "deployment": {"serve": {"gpus": 8, "ep": 8, "max_batch_per_gpu": 8, **pool}},
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1.0}},
            "lengths": {"input": {"constant": 2500}, "output": {"constant": 2}},
            "requests": 1,
        },
    }
    return Scenario.model_validate(form)


@pytest.mark.parametrize(
    ("engine", "pool", "tokens"),
    [
        ("sglang", {}, 1024),  # 8,192 over eight ranks of one GPU
        ("sglang", {"tp": 4}, 4096),  # over two ranks
        ("sglang", {"tp": 8}, 8192),
        ("sglang", {"chunk_tokens": 8192}, 8192),  # --chunked-prefill-size 65536
        ("vllm", {}, 8192),  # max_num_batched_tokens is of every data-parallel engine
        ("trtllm", {}, 8192),  # and so is max_num_tokens
    ],
)
def test_the_chunk_of_a_rank(engine: str, pool: dict[str, int], tokens: int) -> None:
    one = scenario(engine, **pool)
    assert cluster_plan(deploy(one), seed=0).pools["serve"].chunk_tokens == tokens


def test_a_prompt_of_2500_tokens_takes_three_steps_of_its_rank() -> None:
    """1,024 tokens behind nothing, 1,024 behind 1,024, and 452 behind 2,048, while the seven other ranks wait."""
    one = scenario("sglang")
    cost = pool_step_cost(deploy(one), "serve")
    steps_s = 0.0
    for new, before in ((1024, 0), (1024, 1024), (452, 2048)):
        tokens, context = np.zeros(8), np.zeros(8)
        tokens[0], context[0] = new, before + (new + 1) / 2
        steps_s += cost.prefill_s(PromptLoad.alike(tokens, context))
    table = simulate(one, seed=0).requests
    assert table["prefill_end_s"][0] - table["prefill_start_s"][0] == pytest.approx(steps_s)

"""What `explain` says of a step: where its time goes, in V3 and V3.2, and what overlaps."""

import numpy as np
import pytest

from sim.explain import explain
from sim.scenario.schema import Scenario
from sim.step.assemble import pool_step_cost


def _scenario(model: str, **changes) -> Scenario:
    base = {
        "model": model,
        "gpu": "h200_sxm",
        "profile": "analytic",
        "deployment": {"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16}},
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1.0}},
            "lengths": {"input": {"constant": 1000}, "output": {"constant": 100}},
            "requests": 10,
        },
    }
    return Scenario.model_validate(base | changes)


def _bytes(model: str, context: int, name: str) -> float:
    operations = explain(_scenario(model), "decode", 64, context).json()["operations"]
    return next(o["bytes"] for o in operations if o["name"] == name)


@pytest.mark.parametrize(("context", "index_wins"), [(8_000, False), (13_000, True)])
def test_index_key_reads_pass_the_sparse_gather_beyond_10k(context: int, index_wins: bool) -> None:
    # 64 sequences x 61 layers; keys 132 B per token, gather 656 B x 2,048; both also move activations.
    keys = _bytes("deepseek-v3.2", context, "index logits") - 64 * 61 * (64 * 132 + context * 4)
    gather = _bytes("deepseek-v3.2", context, "sparse MLA core") - 64 * 61 * 128 * (2 * 512 + 64) * 2
    assert keys == pytest.approx(64 * 61 * 132 * context)
    assert gather == pytest.approx(64 * 61 * 656 * 2048)
    assert (keys > gather) == index_wins


def test_dense_attention_grows_with_the_context_and_sparse_attention_does_not() -> None:
    assert _bytes("deepseek-v3", 131_072, "MLA core, absorbed form") > 20 * _bytes(
        "deepseek-v3", 4096, "MLA core, absorbed form"
    )
    assert _bytes("deepseek-v3.2", 131_072, "sparse MLA core") == _bytes(
        "deepseek-v3.2", 4096, "sparse MLA core"
    )


def test_shares_sum_to_one_and_every_operation_says_what_priced_it() -> None:
    for phase in ("prefill", "decode"):
        data = explain(_scenario("deepseek-v3.2"), phase, 64, 4096).json()
        assert sum(o["share"] for o in data["operations"]) == pytest.approx(1)
        assert all(o["source"] and o["priced_by"] == "analytic" for o in data["operations"])
        assert {o["group"] for o in data["operations"]} == {
            "attention",
            "moe",
            "dense",
            "communication",
            "other",
        }


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("overlap", [{}, {"two_batch": True}, {"shared_expert": True}])
def test_the_step_is_the_one_that_the_simulation_runs(overlap: dict, phase: str) -> None:
    scenario = _scenario("deepseek-v3", overlap=overlap)
    if phase == "decode":
        explained = explain(scenario, "decode", 64, 4096)
        step_s = pool_step_cost(scenario, explained.plan).decode_s(np.full(16, 64.0), np.full(16, 4096.0))
    else:
        explained = explain(scenario, "prefill", 4096, 0)
        step_s = pool_step_cost(scenario, explained.plan).prefill_s(np.full(8, 4096.0), np.full(8, 2048.5))
    assert explained.step_s == pytest.approx(step_s, rel=0.02)
    assert (explained.hidden_s > 1e-6) == (bool(overlap) or phase == "decode")

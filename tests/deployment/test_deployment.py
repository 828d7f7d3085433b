"""The second stage of checking: what divides, what fits, and what is said when it does not."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sim import catalog
from sim.deployment.memory import memory_budget
from sim.deployment.plan import deploy, plan_pool
from sim.model import architecture
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario

PREFILL = {"workers": 4, "gpus": 8, "tp": 1, "ep": 8}
DECODE = {"workers": 2, "gpus": 16, "tp": 1, "ep": 16, "max_batch_per_gpu": 128}


def scenario(**changes: Any) -> Scenario:
    base: dict[str, Any] = {
        "model": "deepseek-v3.2",
        "gpu": "h200",
        "deployment": {"prefill": PREFILL, "decode": DECODE},
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 5.0}},
            "lengths": {"input": {"constant": 1000}, "output": {"constant": 100}},
        },
        "duration_s": 20.0,
    }
    return Scenario.model_validate(base | changes)


def problems(of: Scenario, **checks: Any) -> dict[str, str]:
    with pytest.raises(DeploymentError) as error:
        deploy(of, **checks)
    return {".".join(str(key) for key in p.path): p.message for p in error.value.problems}


def test_plan_of_a_disaggregated_deployment() -> None:
    deployment = deploy(scenario(experts={"redundant": 32}))
    assert deployment.gpus == 4 * 8 + 2 * 16
    assert deployment.gpu.name == "h200_sxm"
    prefill, decode = deployment.pools["prefill"], deployment.pools["decode"]
    assert (prefill.dp, prefill.layout.moe_tp, prefill.experts.redundant) == (8, 1, 32)
    assert prefill.chunk_tokens == 8192 // 8  # SGLang, 60 to 160 GB, over eight attention-DP ranks
    assert (decode.dp, decode.max_sequences) == (16, 128)


def test_tp_ranks_hold_one_copy_of_the_tokens() -> None:
    """TP8 is one attention rank with about the tokens of ONE rank of DP8, so an eighth of DP8's tokens."""
    serve = {"gpus": 8, "ep": 8, "max_batch_per_gpu": 128}
    whole = deploy(scenario(deployment={"serve": {**serve, "tp": 1}})).pools["serve"]
    sharded = deploy(scenario(deployment={"serve": {**serve, "tp": 8}})).pools["serve"]
    assert (whole.dp, sharded.dp) == (8, 1)
    assert sharded.max_sequences == 8 * whole.max_sequences
    assert sharded.memory.cache_bytes_per_token == whole.memory.cache_bytes_per_token == 48_068
    eighth = sharded.memory.kv_tokens * sharded.dp / (whole.memory.kv_tokens * whole.dp)
    assert 1 / 8 <= eighth < 1 / 4  # a little more than an eighth: the sharded weights leave more room


def test_memory_adds_up_by_hand() -> None:
    """V3.2 EP8 on H200, prefill: SGLang 0.5.14, of which the tables are, keeps 512 + 1.5 x 8192 + 128 x 8 MiB and 2 MiB
    for each of 128 sequences of all memory; the fraction that is left counts from what is free when 2.8 GiB are in use,
    and holds W^UK and W^UV twice."""
    memory = plan_pool(scenario(), "prefill").memory
    kept, total = (512 + 1.5 * 8192 + 128 * 8 + 2 * 128) * 2**20, 151_397_597_184
    fraction = 1 - kept / total
    reserve = kept + fraction * 3_006_477_107
    weights = sum(architecture.weight_bytes_per_gpu(catalog.model("deepseek-v3.2"), gpus=8).values())
    weights += 61 * 512 * 128 * (128 + 128) * 2
    assert memory.reserve_bytes == pytest.approx(reserve)
    assert memory.weights_bytes == pytest.approx(weights)
    assert memory.kv_cache_bytes == pytest.approx(fraction * (total - 3_006_477_107) - weights)
    assert memory.kv_tokens == int(memory.kv_cache_bytes // 48_068)
    assert memory.kv_blocks == memory.kv_tokens // 64
    assert memory.fits and memory.missing_gb == 0


def test_mtp_takes_weights_and_cache() -> None:
    off, on = (plan_pool(scenario(speculation={"draft_tokens": n}), "decode").memory for n in (0, 1))
    assert on.cache_bytes_per_token == off.cache_bytes_per_token + 788
    assert on.weights_bytes > off.weights_bytes
    assert on.kv_tokens < off.kv_tokens


def test_engine_fractions() -> None:
    budget = memory_budget(100.0, 20.0, 10.0, 1, 1, memory_fraction=0.9, kv_fraction_of_free=0.5)
    assert budget.kv_cache_bytes == pytest.approx(0.5 * (90 - 20 - 10))
    assert budget.reserve_bytes == pytest.approx(10 + 10)


@given(
    weights=st.floats(0, 200), reserve=st.floats(0, 50), fraction=st.floats(0.5, 1), cache=st.integers(1, 10)
)
def test_a_budget_never_exceeds_the_memory(
    weights: float, reserve: float, fraction: float, cache: int
) -> None:
    budget = memory_budget(100.0, weights, reserve, cache, 4, 1.0, fraction)
    assert budget.fits == (budget.kv_blocks >= 1) or budget.kv_cache_bytes == pytest.approx(4 * cache)
    if budget.fits:
        spent = budget.weights_bytes + budget.reserve_bytes + budget.kv_cache_bytes
        assert spent <= budget.memory_bytes * (1 + 1e-12)
    else:  # exactly the missing bytes more, and one block has room
        more = memory_budget(
            100.0 + budget.missing_bytes * (1 + 1e-9), weights, reserve, cache, 4, 1.0, fraction
        )
        assert more.fits


def test_everything_wrong_is_said_at_once() -> None:
    found = problems(
        scenario(
            deployment={"prefill": PREFILL, "decode": {"gpus": 16, "tp": 3, "ep": 7}},
            precision={"weights": "nvfp4"},
            price={"tier": "rent_3y"},
        )
    )
    assert set(found) == {"deployment.decode.tp", "deployment.decode.ep", "precision.weights", "price.tier"}
    assert "16" in found["deployment.decode.tp"] and "1, 2, 4, 8, 16" in found["deployment.decode.tp"]
    assert "rent_3yr" in found["price.tier"]


def test_unknown_names_offer_the_nearest() -> None:
    found = problems(scenario(model="deepseek-v33", gpu="h2000"))
    assert "deepseek-v3" in found["model"]
    assert "h200" in found["gpu"]


def test_unknown_profile() -> None:
    known = ("h200_sxm/sglang", "h100_sxm/sglang")
    assert "h200_sxm/sglang" in problems(scenario(profile="h200_sxm/sglan"), profiles=known)["profile"]
    assert deploy(scenario(profile="analytic"), profiles=known)
    assert deploy(scenario(profile="h200_sxm/sglang"), profiles=known)


def test_slots_that_do_not_divide_say_what_would_do() -> None:
    """256 experts on 144 ranks: 32 replicas make 288, two slots a rank."""
    wide = {"gpus": 144, "ep": 144}
    found = problems(scenario(deployment={"prefill": PREFILL, "decode": wide}))
    assert "redundant 32 would do" in found["deployment.decode.ep"]
    own = {**wide, "experts": {"redundant": 31}}
    found = problems(scenario(deployment={"prefill": PREFILL, "decode": own}))
    assert "287" in found["deployment.decode.experts.redundant"]
    assert deploy(scenario(deployment={"prefill": PREFILL, "decode": {**wide, "experts": {"redundant": 32}}}))


def test_heads_must_divide() -> None:
    found = problems(scenario(deployment={"serve": {"gpus": 12, "tp": 12, "ep": 4}}))
    assert "128 heads" in found["deployment.serve.tp"]


def test_a_shard_must_not_cut_an_fp8_block() -> None:
    """Qwen3's experts are 1536 wide: over 8 GPUs 192, which is no multiple of 128."""
    qwen = {"model": "qwen3-235b", "deployment": {"serve": {"gpus": 8, "tp": 4, "ep": 1}}}
    assert "1536" in problems(scenario(**qwen, precision={"weights": "fp8"}))["deployment.serve.ep"]
    assert deploy(scenario(**qwen))  # its checkpoint is BF16


def test_a_pool_that_does_not_fit_says_how_much_is_missing_and_what_would_fit() -> None:
    """V3.2 on one H100: 671.88e9 parameters in FP8, of which 1.96e9 in BF16, do not fit in 85.9 GB."""
    one = scenario(gpu="h100", deployment={"prefill": PREFILL, "decode": {"gpus": 1}})
    message = problems(one)["deployment.decode"]
    memory = plan_pool(one, "decode").memory
    assert not memory.fits
    assert f"{memory.missing_gb:.1f} GB missing" in message
    needed = memory.weights_bytes + memory.reserve_bytes + 64 * 48_068
    assert memory.missing_bytes == pytest.approx(needed - 85_899_345_920)
    assert "gpus 16, ep 16" in message
    assert plan_pool(
        scenario(gpu="h100", deployment={"prefill": PREFILL, "decode": {"gpus": 16, "ep": 16}}), "decode"
    ).memory.fits


def test_advice_holds() -> None:
    """Every change that the message offers fits when it is made."""
    tight = {"gpus": 8, "ep": 8, "chunk_tokens": 65536}
    message = problems(scenario(deployment={"serve": tight}))["deployment.serve"]
    assert "chunk_tokens" in message
    for offer in message.split("would fit: ")[1].split("; or "):
        if offer.startswith("gpu "):
            for name in offer.removeprefix("gpu ").split(" or "):
                assert deploy(
                    scenario(gpu=name, deployment={"serve": tight}, price={"usd_per_gpu_hour": 2.0})
                )
        else:
            change = {key: yaml.safe_load(n) for key, n in (part.split(" ") for part in offer.split(", "))}
            assert deploy(scenario(deployment={"serve": tight | change}))


def test_models_without_mtp_cannot_speculate() -> None:
    qwen = scenario(model="qwen3-235b", speculation={"draft_tokens": 1})
    assert "MTP" in problems(qwen)["speculation.draft_tokens"]


def test_acceptance_needs_one_chance_per_draft() -> None:
    found = problems(scenario(speculation={"draft_tokens": 3, "acceptance": [0.8, 0.5]}))
    assert "2 chances for 3" in found["speculation.acceptance"]


def test_node_limit_needs_groups() -> None:
    assert "8 group" in problems(scenario(experts={"node_limit": 9}))["experts.node_limit"]


def test_a_gpu_without_a_price_needs_one() -> None:
    wide = {"prefill": {"gpus": 16, "ep": 16}, "decode": {"gpus": 16, "ep": 16}}
    assert "price.usd_per_gpu_hour" in problems(scenario(gpu="h20", deployment=wide))
    assert deploy(scenario(gpu="h20", deployment=wide, price={"usd_per_gpu_hour": 1.2}))


def test_plan_pool_prices_what_does_not_fit_but_not_what_does_not_divide() -> None:
    assert not plan_pool(scenario(gpu="h100"), "prefill").memory.fits
    with pytest.raises(DeploymentError):
        plan_pool(scenario(deployment={"serve": {"gpus": 8, "tp": 3}}), "serve")

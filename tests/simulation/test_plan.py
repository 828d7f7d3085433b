"""What a scenario becomes for the cluster: pools and transfer by hand, from the catalog's published numbers."""

from dataclasses import replace
from typing import Any

import pytest

from sim import catalog
from sim.cluster.plan import cluster_plan, transfer_setup
from sim.cluster.setup import PoolSetup, TransferSetup
from sim.cluster.transfer import Handoff
from sim.deployment.plan import deploy
from sim.scenario.schema import Scenario
from sim.serving.routing import PoolLoads
from sim.simulation import simulate

NIC_B_PER_S = 50e9 * 0.8
"""A 400 Gb/s NIC per H200, of which transfers reach 80% (InferSim)."""
NVLINK_B_PER_S = 450e9 * 0.8


def split(model: str = "deepseek-v3", tp: int = 1, **changes: Any) -> Scenario:
    """Prefill and decode on 8 + 16 H200: three nodes, so the cache goes over the NICs."""
    form: dict[str, Any] = {
        "model": model,
        "gpu": "h200_sxm",
        "engine": "sglang",
        "precision": {"kv_cache": "bf16"},
        "deployment": {
            "prefill": {"gpus": 8, "ep": 8, "tp": tp, "chunk_tokens": 4096},
            "decode": {"gpus": 16, "ep": 16, "tp": tp, "max_batch_per_gpu": 32},
        },
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1.0}},
            "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
            "requests": 4,
        },
    }
    return Scenario.model_validate(form | changes)


def transfer(scenario: Scenario) -> TransferSetup:
    return transfer_setup(deploy(scenario))


def seconds_per_token(scenario: Scenario) -> float:
    """As the handoff of the cluster reckons it."""
    plan = cluster_plan(deploy(scenario), seed=0)
    decode = plan.pools["decode"]
    loads, chosen = PoolLoads(decode.workers, decode.dp), PoolLoads(decode.workers, 1)
    return Handoff(None, None, plan, "round_robin", loads, chosen, [], None)._token_s  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "tp", "token_s"),
    [
        # Keys and values of 4 heads of 128 in BF16 over 94 layers: 2 x 4 x 128 x 2 x 94 = 192,512 B.
        ("qwen3-235b-a22b", 1, 192_512 / NIC_B_PER_S),
        # One head per GPU, each over its own NIC.
        ("qwen3-235b-a22b", 4, 192_512 / 4 / NIC_B_PER_S),
        # A latent of 512 + 64 in BF16 over 61 layers: 1152 x 61 = 70,272 B.
        ("deepseek-v3", 1, 70_272 / NIC_B_PER_S),
        # Every GPU of the rank needs all of it: each of the 8 NICs takes an eighth, NVLink does the rest.
        ("deepseek-v3", 8, 70_272 / 8 / NIC_B_PER_S),
    ],
)
def test_a_token_crosses_the_nics_of_a_rank_once(model: str, tp: int, token_s: float) -> None:
    assert seconds_per_token(split(model, tp)) == pytest.approx(token_s)


def test_the_narrower_side_sets_the_pace() -> None:
    """Qwen3 from prefill ranks of one GPU to decode ranks of four: the whole token leaves through one NIC."""
    pools = {
        "prefill": {"gpus": 8, "ep": 8, "tp": 1},
        "decode": {"gpus": 16, "ep": 16, "tp": 4},
    }
    assert seconds_per_token(split("qwen3-235b-a22b", deployment=pools)) == pytest.approx(
        192_512 / NIC_B_PER_S
    )


def test_the_draft_module_has_a_cache_to_send() -> None:
    assert transfer(split(speculation={"draft_tokens": 1, "acceptance": (0.8,)})).bytes_per_token == 1152 * 62


@pytest.mark.parametrize(
    ("engine", "tail"), [("sglang", 1.0), ("vllm", 1.0), ("trtllm", 1.0), ("deepseek", 1 / 61)]
)
def test_what_is_left_to_send_after_the_prompt(engine: str, tail: float) -> None:
    """Layer by layer, the last of V3's 61 layers; else all of it."""
    assert transfer(split(engine=engine)).tail_fraction == pytest.approx(tail)


def test_links() -> None:
    """A latency of 10 us either way; NVLink where one node holds both pools."""
    far = transfer(split())
    assert (far.bytes_per_s, far.latency_s) == (pytest.approx(NIC_B_PER_S), pytest.approx(10e-6))
    pools = {"prefill": {"gpus": 4, "ep": 4}, "decode": {"gpus": 4, "ep": 4}}
    near = transfer(split("deepseek-v2-lite", deployment=pools))
    assert near.bytes_per_s == pytest.approx(NVLINK_B_PER_S)


def test_pools_as_the_scheduler_sees_them() -> None:
    """SGLang: pages of 64 tokens, prefill goes first. Two GPUs per rank have the seats of two."""
    deployment = deploy(split(tp=2))
    pools = cluster_plan(deployment, seed=0).pools
    blocks = {
        # 70,272 B per token on each GPU, a latent being whole on both.
        role: int(plan.memory.kv_cache_bytes // (70_272 * 64))
        for role, plan in deployment.pools.items()
    }
    prefill, decode = pools["prefill"], pools["decode"]
    assert prefill == PoolSetup(1, 8, 4, prefill.max_sequences, 4096, blocks["prefill"], 64, False)
    assert decode == PoolSetup(1, 16, 8, 64, decode.chunk_tokens, blocks["decode"], 64, False)


def test_block_tokens_and_mixing_are_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM mixes; an engine with pages of 16 tokens has four times as many blocks."""
    serve = split(engine="vllm", deployment={"serve": {"gpus": 16, "ep": 16}})
    small = replace(catalog.engine("vllm"), kv_block_tokens=16)
    coarse = cluster_plan(deploy(serve), seed=0).pools["serve"]
    monkeypatch.setattr(catalog, "engine", lambda *_: small)
    fine = cluster_plan(deploy(serve), seed=0).pools["serve"]
    assert coarse.mixed and fine.mixed
    assert (coarse.block_tokens, fine.block_tokens) == (64, 16)
    assert fine.kv_blocks // 4 == coarse.kv_blocks


@pytest.mark.parametrize("roles", [("prefill", "decode"), ("serve",)])
def test_requests_beyond_the_models_positions_are_rejected_and_said(roles: tuple[str, ...]) -> None:
    """Qwen3-235B has 40,960 positions (its config): 40,950 + 10 tokens fit, 40,951 + 10 do not."""
    pools = {role: {"gpus": 8, "ep": 8} for role in roles}
    lengths = {"input": {"uniform": [40_950, 40_951]}, "output": {"constant": 10}}
    workload = {"arrivals": {"poisson": {"rate_per_s": 1.0}}, "lengths": lengths, "requests": 6}
    result = simulate(
        split("qwen3-235b-a22b", profile="analytic", deployment=pools, workload=workload, precision={})
    )
    beyond = result.record.requests.input_tokens == 40_951
    assert 0 < beyond.sum() < 6
    assert result.record.requests.rejected.tolist() == beyond.tolist()
    (said,) = (note for note in result.notes if "40,960 positions" in note)
    assert said.startswith(f"{beyond.sum()} of 6 requests rejected")

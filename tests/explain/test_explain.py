"""What `explain` says of a step: where its time goes, in V3 and V3.2, and what overlaps."""

import numpy as np
import pytest

from sim.explain import explain
from sim.scenario.errors import DeploymentError
from sim.scenario.schema import Scenario
from sim.step import PromptLoad
from sim.step.pricing import pool_step_cost


def _scenario(model: str, **changes) -> Scenario:
    base = {
        "model": model,
        "gpu": "h200_sxm",
        "profile": "analytic",
        "deployment": {
            "prefill": {"gpus": 8, "ep": 8, "chunk_tokens": 8192},
            "decode": {"gpus": 16, "ep": 16},
        },
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1.0}},
            "lengths": {"input": {"constant": 1000}, "output": {"constant": 100}},
            "requests": 10,
        },
    }
    return Scenario.model_validate(base | changes)


def _cache_bytes(model: str, context: int, name: str, **changes) -> float:
    """Bytes that the named part reads from the cache, wherever it stands: a row of its own or inside a block."""
    rows = explain(_scenario(model, **changes), "decode", 64, context).json()["operations"]
    return next(o["cache_bytes"] for row in rows for o in (row, *row["parts"]) if o["name"] == name)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_context_beyond_the_models_positions_is_refused(phase) -> None:
    """V3 has 163,840 (max_position_embeddings of its config)."""
    assert explain(_scenario("deepseek-v3"), phase, 8, 163_840).json()
    with pytest.raises(DeploymentError, match=r"163,841 tokens; deepseek-v3 has 163,840 positions"):
        explain(_scenario("deepseek-v3"), phase, 8, 163_841)


@pytest.mark.parametrize("profile", ["analytic", None])
@pytest.mark.parametrize(("context", "index_wins"), [(10_000, False), (10_400, True)])
def test_index_key_reads_pass_the_sparse_gather_beyond_10k(
    context: int, index_wins: bool, profile: str | None
) -> None:
    # Per sequence and layer: keys 132 B x context, gather 656 B x 2,048: equal at 10,178 tokens.
    keys = _cache_bytes("deepseek-v3.2", context, "index logits", profile=profile)
    gather = _cache_bytes("deepseek-v3.2", context, "sparse MLA core", profile=profile)
    assert keys == pytest.approx(64 * 61 * 132 * context)
    assert gather == pytest.approx(64 * 61 * 656 * 2048)
    assert (keys > gather) == index_wins


def test_the_parts_of_a_block_share_out_its_seconds() -> None:
    rows = explain(_scenario("deepseek-v3.2", profile=None), "decode", 64, 4096).json()["operations"]
    block = next(row for row in rows if row["name"] == "attention block")
    assert block["priced_by"] != "analytic"
    assert sum(part["seconds"] for part in block["parts"]) == pytest.approx(block["seconds"])
    assert sum(part["flop"] for part in block["parts"]) == pytest.approx(block["flop"])


def test_dense_attention_grows_with_the_context_and_sparse_attention_does_not() -> None:
    dense = [_cache_bytes("deepseek-v3", context, "MLA core, absorbed form") for context in (4096, 131_072)]
    sparse = [_cache_bytes("deepseek-v3.2", context, "sparse MLA core") for context in (4096, 131_072)]
    assert dense[1] == pytest.approx(32 * dense[0])
    assert sparse[1] == sparse[0]


def test_a_batch_that_its_cache_cannot_hold_is_priced_and_said() -> None:
    memory = explain(_scenario("deepseek-v3.2"), "decode", 128, 131_072).json()["memory"]
    assert memory["kv_tokens_needed"] == 128 * 131_072 > memory["kv_tokens"]


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
        step_s = pool_step_cost(explained.deployment, explained.plan.role).decode_s(
            np.full(16, 64.0), np.full(16, 4096.0)
        )
    else:
        explained = explain(scenario, "prefill", 4096, 0)
        load = PromptLoad.alike(np.full(8, 4096.0), np.full(8, 2048.5))
        step_s = pool_step_cost(explained.deployment, explained.plan.role).prefill_s(load)
    assert explained.step_s == pytest.approx(step_s, rel=0.02)
    assert (explained.hidden_s > 1e-6) == (bool(overlap) or phase == "decode")


@pytest.mark.parametrize(
    ("batch", "drafts", "length"), [(8, 2, 1 + 0.8 + 0.8 * 0.5), (64, 1, 1.8), (65, 0, 1.0)]
)
def test_a_decode_step_says_how_many_tokens_it_yields(batch: int, drafts: int, length: float) -> None:
    levels = [{"up_to_batch": 8, "draft_tokens": 2}, {"up_to_batch": 64, "draft_tokens": 1}]
    speculation = {"draft_tokens": 2, "acceptance": [0.8, 0.5], "adaptive": levels}
    scenario = _scenario("deepseek-v3", speculation=speculation)
    step = explain(scenario, "decode", batch, 4096).json()
    assert step["tokens"] == batch * (1 + drafts)
    assert step["accept_length"] == pytest.approx(length)
    assert explain(scenario, "prefill", 512).json()["accept_length"] is None


def test_where_nobody_says_which_kernels_run_the_experts_every_measured_one_is_priced() -> None:
    """SGLang on H200 runs Triton's grouped GEMM unless told otherwise; CUTLASS's was measured under other engines."""

    def step(**pool) -> dict:
        serve = {"gpus": 8, "tp": 8, **pool}
        return explain(
            _scenario("deepseek-v3", profile=None, deployment={"serve": serve}), "decode", 32, 4096
        ).json()

    by_backend = step()["step_s_by_moe_backend"]
    assert set(by_backend) == {"cutlass", "triton"}
    assert by_backend["triton"] == pytest.approx(step()["step_s"])
    assert by_backend["cutlass"] == pytest.approx(step(moe_backend="cutlass")["step_s"])
    assert step(moe_backend="cutlass")["step_s_by_moe_backend"] == {}


@pytest.mark.parametrize("engine", ["sglang", "vllm", "trtllm"])
@pytest.mark.parametrize("ep", [1, 8])
def test_what_a_kernel_would_take_is_what_it_takes_once_named(engine: str, ep: int) -> None:
    """vLLM's Triton experts inside a TP group also touch other ranks' rows, which its CUTLASS kernels do not."""

    def step(**pool) -> dict:
        serve = {"gpus": 8, "tp": 8, "ep": ep, **pool}
        changes = {"profile": None, "engine": engine, "deployment": {"serve": serve}}
        return explain(_scenario("deepseek-v3", **changes), "prefill", 2048).json()

    for name, step_s in step()["step_s_by_moe_backend"].items():
        assert step_s == pytest.approx(step(moe_backend=name)["step_s"]), name


def test_an_all_to_all_decides_which_kernels_run_the_experts() -> None:
    assert explain(_scenario("deepseek-v3", profile=None)).json()["step_s_by_moe_backend"] == {}

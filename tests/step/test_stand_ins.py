"""Whose kernels price a step: the engine's own where they were measured, and a word where they were not."""

from dataclasses import replace
from typing import Any

import pytest

from sim.catalog.validated import Served, Validated
from sim.cost.measured import ProfileCost
from sim.deployment.plan import resolve
from sim.explain import explain
from sim.result import expected_error as room
from sim.scenario.schema import Scenario
from sim.step.operations import typical_prompts
from sim.step.pricing import priced_by, step_operations
from sim.step.stand_ins import experts_carried, pricing_notes

EXPERTS = ("routed experts", "rows of other ranks' experts")


def scenario(ep: int = 1, backend: str | None = "triton", sigma: float = 1.05, **changes: Any) -> Scenario:
    form = {
        "model": "deepseek-r1",
        "gpu": "h200",
        "engine": "vllm",
        "precision": {"weights": "fp8", "kv_cache": "bf16"},
        "deployment": {
            "serve": {"gpus": 8, "tp": 8, "ep": ep, "moe_backend": backend, "max_batch_per_gpu": 8}
        },
        "experts": {"popularity_sigma": sigma},
        "workload": {
            "arrivals": {"all_at_once": {}},
            "lengths": {"input": {"constant": 9}, "output": {"constant": 9}},
            "requests": 1,
        },
    }
    return Scenario.model_validate(form | changes)


def notes(of: Scenario) -> list[str]:
    return list(pricing_notes(resolve(of)))


def experts(of: Scenario) -> dict[str, Any]:
    rows = explain(of, "prefill", 8192).json()["operations"]
    return {row["name"]: row for row in rows if row["name"] in EXPERTS}


@pytest.mark.parametrize("gpu", ["h200", "h100"])
def test_vllms_own_triton_kernels_are_taken_where_they_are_named(gpu: str) -> None:
    """8,192 tokens behind the collectors' gate on 8 H200: 2.371 ms a layer with vLLM, 1.881 with SGLang (v3_moe)."""
    found = experts(scenario(gpu=gpu))["routed experts"]
    assert "vllm: triton" in found["source"] and "standing in" not in found["source"]
    if gpu == "h200":
        assert found["seconds"] / 58 == pytest.approx(2.371e-3, rel=0.06)


def test_expert_parallelism_does_not_speed_up_prefill_with_vllms_triton_kernels() -> None:
    """vLLM issue 28887, 8 H200, R1: with EP a layer of the prompt takes 3.4 ms, without 3.1, "mainly from MoE gemm
    (FC1, act, FC2)". Experts as unequal as real routers have them: the most loaded rank sets the time."""
    without, with_ep = (sum(row["seconds"] for row in experts(scenario(ep)).values()) for ep in (1, 8))
    assert 1.0 < with_ep / without < 3.4 / 3.1
    # Even experts would have said the opposite, as would leaving out the rows of other ranks.
    assert sum(row["seconds"] for row in experts(scenario(8, sigma=0.0)).values()) < without
    assert experts(scenario(8))["routed experts"]["seconds"] < without


def test_other_kernels_and_exchanges_run_over_their_own_rows_only() -> None:
    assert set(experts(scenario(8, backend=None))) == {"routed experts"}
    assert set(experts(scenario(1))) == {"routed experts"}
    sglang = scenario(8, engine="sglang")
    assert set(experts(sglang)) == {"routed experts"}


def test_a_result_says_whose_kernels_stand_in() -> None:
    """vLLM's FP8 GEMM table is left out (see qa_flags.csv); SGLang's quantisation too, which its products hold."""
    said, taken = notes(scenario())
    assert "launches showing or norms unfused" in taken
    assert said == "priced by kernels of another engine than vllm: matrix products (h200_sxm/trtllm)"
    assert not any("quantisation" in note for note in notes(scenario(engine="sglang", gpu="h200")))
    assert notes(scenario(profile="analytic", backend=None)) == []
    named, *_ = notes(scenario(engine="deepseek", backend=None))
    assert named == "deepseek is priced by the kernels of sglang"


def test_a_result_says_where_experts_are_carried_on_and_expects_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = notes(scenario(8))[-1]
    assert "measured with 256 experts on a GPU, not 32" in said and "not validated" in said
    pool = Served("deepseek-v3", "h200_sxm", "vllm", "fp8", "aggregated", False, gpus=8, tp=8, ep=1)
    known = Validated(pool, True, 10, 0.05, 0.2, None, None, 0.1, 0.3)
    monkeypatch.setattr(room, "validated", lambda: (known, replace(known, pool=replace(pool, ep=8))))
    assert room.expected_error(resolve(scenario(1))) is not None
    assert room.expected_error(resolve(scenario(8))) is None
    default = resolve(scenario(8, backend=None))
    assert not experts_carried(default)
    assert room.expected_error(default) is not None


def test_blocks_that_were_timed_with_unfused_norms_say_how_much_was_taken_out() -> None:
    """vLLM's V3.2 blocks on GB200: 166 us at one sequence of 16 heads as timed, 72 with SGLang's fused norms."""
    fused = scenario(gpu="b200", model="deepseek-r1", precision={"weights": "fp8", "kv_cache": "fp8"})
    assert not [note for note in notes(fused) if "launches showing" in note]
    found = notes(
        scenario(gpu="gb200", model="deepseek-v3.2", precision={"weights": "fp8", "kv_cache": "fp8"})
    )
    (said,) = [note for note in found if "launches showing" in note]
    assert "launches.csv" in said


def test_a_named_profile_prices_as_it_was_timed() -> None:
    """vLLM's MLA block on H200 at 128 sequences of 1,024: 264.5 us a layer in the module's own timing
    (aiconfigurator-core 0.12.0, v3_mla_module)."""
    fp8 = {"weights": "fp8", "kv_cache": "fp8"}
    layout = {"serve": {"gpus": 8, "tp": 1, "ep": 8, "max_batch_per_gpu": 128}}
    asked = {"model": "deepseek-v3", "gpu": "h200", "precision": fp8, "deployment": layout}
    served, timed = scenario(**asked), scenario(profile="h200_sxm/vllm", **asked)
    (block,) = step_operations(resolve(timed), "decode").decode_attention(128.0, 1024.0)
    as_served, as_timed = (priced_by(resolve(one)).price(block).seconds for one in (served, timed))
    assert as_timed == pytest.approx(264.5e-6, rel=0.01)
    assert as_served < as_timed
    (said,) = [note for note in notes(timed) if "launches showing" in note]
    assert "as timed" in said


def test_tables_that_stand_in_for_those_of_a_named_profile_price_as_timed_too() -> None:
    """TensorRT-LLM's prompts of V3.2 are priced by vLLM's blocks on H200, whose norms were timed unfused."""
    asked = {"gpu": "h200", "engine": "trtllm", "model": "deepseek-v3.2", "speculation": {}}
    asked["precision"] = {"weights": "fp8", "kv_cache": "fp8"}
    served, timed = scenario(**asked), scenario(profile="h200_sxm/trtllm", **asked)
    found = [priced_by(resolve(one)) for one in (served, timed)]
    assert [cost.as_timed for cost in found if isinstance(cost, ProfileCost)] == [False, True]
    blocks = step_operations(resolve(timed), "prefill").prefill_attention(*typical_prompts(64.0, 4096.0))
    as_served, as_timed = (sum(cost.price(block).seconds for block in blocks) for cost in found)
    assert as_served < as_timed


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_nothing_is_hidden_or_waited_for_by_rounding(phase: str) -> None:
    told = explain(scenario(), phase).json()
    total = sum(operation["seconds"] for operation in told["operations"])
    for name in ("hidden_s", "launch_wait_s"):
        assert told[name] == 0 or told[name] > 1e-6 * total


def test_a_layout_that_was_published_has_its_error_wherever_its_experts_were_measured() -> None:
    """TensorRT-LLM's MXFP4 experts were measured with 3 to 48 on a GPU; twelve published rows of V4-Pro have all 384 on
    each, sharded over eight. Four GPUs do not say how far off they are, nor do kernels of another name."""
    serve = {"gpus": 8, "tp": 8, "ep": 1, "max_batch_per_gpu": 8}
    form: dict[str, Any] = {
        "model": "deepseek-v4-pro",
        "gpu": "b200",
        "engine": "trtllm",
        "precision": {"kv_cache": "fp8"},
    }

    def expected(**changed: Any) -> dict[str, Any] | None:
        workload = scenario(1).workload.model_dump()
        one = Scenario.model_validate(form | {"deployment": {"serve": serve | changed}, "workload": workload})
        assert experts_carried(resolve(one))
        return room.expected_error(resolve(one))

    found = expected()
    assert found is not None and found["held_out"] and found["doublings"] == 0
    assert expected(moe_backend="trtllm_gen") is None
    assert expected(gpus=16, tp=8) is None

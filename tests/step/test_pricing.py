"""What a scenario is priced by, and what its engine does in a step."""

import pytest

from sim.cost.latency import price_all
from sim.deployment.plan import resolve
from sim.scenario.schema import Scenario
from sim.step.pricing import cost_model, step_operations


def _scenario(**changes) -> Scenario:
    pool = {"workers": 1, "gpus": 16, "ep": 16}
    lengths = {"input": {"constant": 1000}, "output": {"constant": 100}}
    base = {
        "model": "deepseek-v3.2",
        "gpu": "h200_sxm",
        "deployment": {"prefill": pool, "decode": pool},
        "workload": {"arrivals": {"poisson": {"rate_per_s": 1.0}}, "lengths": lengths, "requests": 10},
    }
    return Scenario.model_validate(base | changes)


@pytest.mark.parametrize(
    ("changes", "profile"),
    [
        ({}, "h200_sxm/sglang"),
        ({"engine": "vllm"}, "h200_sxm/vllm"),
        ({"engine": "deepseek", "gpu": "h800"}, "h100_sxm/sglang"),
        ({"gpu": "h20"}, "h100_sxm/sglang"),
        ({"profile": "analytic"}, None),
    ],
)
def test_default_profile(changes: dict, profile: str | None) -> None:
    assert resolve(_scenario(**changes)).profile == profile


@pytest.mark.parametrize(("gpu", "sources"), [("h200", {"measured", "fitted"}), ("h800", {"scaled"})])
def test_a_measured_block_is_priced_whole_and_says_so(gpu: str, sources: set[str]) -> None:
    scenario = _scenario(gpu=gpu)
    step = step_operations(resolve(scenario, "decode"), "decode")
    priced = price_all(step.decode_attention(64, 4096), cost_model(resolve(scenario), "decode"))
    assert [p.operation.name for p in priced] == ["attention block"]
    assert {p.latency.priced_by for p in priced} <= sources


def test_without_a_profile_every_part_is_priced_by_the_roofline() -> None:
    scenario = _scenario(profile="analytic")
    step = step_operations(resolve(scenario, "decode"), "decode")
    priced = price_all(step.decode_attention(64, 4096), cost_model(resolve(scenario), "decode"))
    assert len(priced) > 10
    assert {p.latency.priced_by for p in priced} == {"analytic"}


def test_what_the_scenario_says_takes_the_place_of_the_engines_habit() -> None:
    def overlap(**changes):
        scenario = _scenario(**changes)
        said = step_operations(resolve(scenario, "prefill"), "prefill").overlap
        return {"shared_expert": said.shared_expert, "two_batch": said.two_batch}

    assert overlap(engine="sglang") == {"shared_expert": False, "two_batch": False}
    assert overlap(engine="deepseek") == {"shared_expert": True, "two_batch": True}
    assert overlap(engine="deepseek", overlap={"two_batch": False}) == {
        "shared_expert": True,
        "two_batch": False,
    }
    assert overlap(engine="sglang", overlap={"two_batch": True})["two_batch"]


@pytest.mark.parametrize(("phase", "slowdown"), [("prefill", 132 / 112), ("decode", 1.0)])
def test_only_the_normal_mode_takes_sms_from_the_half_that_computes(phase: str, slowdown: float) -> None:
    # DeepSeek-V3 report, section 3.2.2: 20 of 132 SMs; the low-latency mode of decode leaves them all.
    scenario = _scenario(overlap={"two_batch": True})
    overlap = step_operations(resolve(scenario, phase), phase).overlap
    assert overlap.stretch("layers", overlap.parts(64)) == pytest.approx(slowdown)
    assert overlap.stretch("layers", overlap.parts(1)) == 1.0
    assert overlap.stretch("once", 2) == 1.0
    # What takes SMs from computing is slowed by it too; the NIC is not.
    assert (overlap.stretch("exchange", 2) > 1.0) == (phase == "prefill")


def test_inside_an_nvl72_rack_the_exchange_is_the_measured_one_over_nvlink_and_faster_than_over_nics() -> (
    None
):
    def exchange(gpu: str):
        scenario = _scenario(gpu=gpu)
        step = step_operations(resolve(scenario, "decode"), "decode")
        priced = price_all(step.decode_rest(64), cost_model(resolve(scenario), "decode"))
        return [p for p in priced if p.operation.kernel in ("dispatch", "combine")]

    rack, nics = exchange("gb200"), exchange("b200")
    assert all("nvlink" in p.latency.source and p.latency.priced_by in ("measured", "fitted") for p in rack)
    assert sum(p.total_s for p in rack) < sum(p.total_s for p in nics)

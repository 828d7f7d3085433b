"""The host's time in a step of a pool that only decodes."""

import pytest

from sim import catalog
from sim.deployment.plan import resolve
from sim.model.operations import HOST_STEP
from sim.scenario.loading import parse
from sim.step.pricing import step_operations

TWO_POOLS = "{prefill: {gpus: 8, ep: 8}, decode: {gpus: 16, ep: 16}}"


def host_s(engine: str, phase: str, deployment: str = TWO_POOLS, more: str = "") -> float:
    text = f"model: deepseek-v3\ngpu: h200_sxm\nengine: {engine}\ndeployment: {deployment}\n{more}"
    lengths = "{input: {constant: 100}, output: {constant: 9}}"
    workload = f"workload: {{arrivals: {{poisson: {{rate_per_s: 1}}}}, lengths: {lengths}, requests: 5}}\n"
    step = step_operations(resolve(parse(text + workload).scenario), phase)  # type: ignore[arg-type]
    operations = step.decode_rest(1.0) if phase == "decode" else step.prefill_rest(1.0)
    return sum(o.shape["seconds"] for o in operations if o.name == HOST_STEP)


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_it_is_more_than_where_prompts_are_computed_too(engine: str) -> None:
    rules = catalog.engine(engine, None, "fp8")
    assert rules.decode_pool_host_s > 0
    assert host_s(engine, "prefill") == rules.host_overhead_s
    assert host_s(engine, "decode", "{serve: {gpus: 8, ep: 8}}") == rules.host_overhead_s
    assert host_s(engine, "decode") == rules.host_overhead_s + rules.decode_pool_host_s


def test_a_scenario_says_the_rest_of_it() -> None:
    added_s = catalog.engine("sglang").decode_pool_host_s
    assert host_s("sglang", "decode", more="scheduling: {host_overhead_s: 0.004}\n") == pytest.approx(
        0.004 + added_s
    )

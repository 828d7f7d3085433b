"""A back-end that the scenario names: its table, or a word that there is none."""

from dataclasses import replace

import pytest

from sim.catalog import efficiency, gpu
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile
from sim.model.operations import routed_experts

B200 = gpu("b200")
COST = ProfileCost(load_profile("b200_sxm/trtllm"), AnalyticCost(B200, efficiency()), B200)
EXPERTS = routed_experts(512, 256, 192, 7168, 256, "fp8")


@pytest.mark.parametrize("name", ["trtllm_gen", "deepgemm"])
def test_the_named_table_prices_the_experts(name: str) -> None:
    priced = COST.price(replace(EXPERTS, options={"backend": name}))
    assert priced.priced_by != "analytic"
    assert f": {name} (" in priced.source


def test_a_back_end_without_a_table_is_told() -> None:
    priced = COST.price(replace(EXPERTS, options={"backend": "treeton"}))
    assert priced.priced_by == "analytic"
    assert priced.source.endswith("; no table of back-end 'treeton' for fp8 moe")

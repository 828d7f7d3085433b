"""Prompts that an engine holds until every attention rank has one: the estimate says that it does not follow that."""

from typing import Any

import pytest

from sim.scenario.schema import Scenario
from sim.steady import steady


def scenario(**scheduling: int) -> Scenario:
    form: dict[str, Any] = {
        "model": "deepseek-v4-pro",
        "gpu": "b200_sxm",
        "engine": "trtllm",
        "deployment": {
            "serve": {"gpus": 8, "tp": 1, "ep": 8, "exchange": "all_gather", "max_batch_per_gpu": 16}
        },
        "precision": {"kv_cache": "fp8"},
        "scheduling": scheduling,
        "workload": {
            "arrivals": {"closed_loop": {"concurrency": 64}},
            "lengths": {"input": {"uniform": [6553, 8192]}, "output": {"uniform": [819, 1024]}},
            "requests": 256,
        },
    }
    return Scenario.model_validate(form)


@pytest.mark.parametrize(
    ("scheduling", "told"), [({}, False), ({"wait_all_ranks_steps": 50, "gather_prompts_steps": 30}, True)]
)
def test_the_estimate_doubts_itself_where_prompts_are_held(scheduling: dict[str, int], told: bool) -> None:
    assert any("held for company" in doubt for doubt in steady(scenario(**scheduling)).doubts) == told

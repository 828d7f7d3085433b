"""What the drafts of a whole run yield."""

from typing import Any

import pytest

import sim
from sim.scenario.schema import Scenario


def accept_length(requests: int = 40, **speculation: Any) -> float:
    scenario = Scenario.model_validate(
        {
            "model": "deepseek-v3",
            "gpu": "h200_sxm",
            "profile": "analytic",
            "deployment": {"serve": {"gpus": 8, "tp": 8}},
            "speculation": {"draft_tokens": 2, "acceptance": [0.9, 0.5], **speculation},
            "workload": {
                "arrivals": {"closed_loop": {"concurrency": 8}},
                "lengths": {"input": {"constant": 100}, "output": {"constant": 1000}},
                "requests": requests,
            },
        }
    )
    return sim.simulate(scenario).json()["speculation"]["accept_length"]


def test_the_run_counts_what_the_chances_promise() -> None:
    """0.9 x 0.5 of the steps accept both drafts, 0.9 at least one: 1 + 0.9 + 0.45 tokens; 17,000 steps of sequences."""
    assert accept_length() == pytest.approx(2.35, rel=0.01)


def test_where_the_batch_decides_on_drafts_the_steps_of_each_level_count() -> None:
    """Twice eight answers of 999 tokens without drafts, then four with: 20 x 999 / (16 x 999 + 4 x 999 / 2.35)."""
    levels = [{"up_to_batch": 4, "draft_tokens": 2}]
    assert accept_length(20, adaptive=levels) == pytest.approx(20 / (16 + 4 / 2.35), rel=0.01)

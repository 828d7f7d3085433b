"""Formats left to the checkpoint become its own, however a scenario comes about: nothing behind knows `checkpoint`."""

from collections.abc import Callable
from typing import Any

import pytest

from sim.deployment.plan import deploy
from sim.scenario.schema import Deployment, Lengths, Pool, Precision, Scenario, Workload

PARTS: dict[str, Any] = {
    "model": "deepseek-v3",
    "gpu": "h200_sxm",
    "deployment": Deployment(serve=Pool(gpus=8, tp=8)),
    "workload": Workload(
        arrivals={"poisson": {"rate_per_s": 1.0}},
        lengths=Lengths(input={"constant": 1000}, output={"constant": 100}),
    ),
    "duration_s": 60.0,
}
KEPT = Precision(kv_cache="bf16")
WAYS: dict[str, Callable[[Precision], Scenario]] = {
    "parts": lambda precision: Scenario(**PARTS, precision=precision),
    "dictionary": lambda precision: Scenario(**PARTS, precision=precision.model_dump()),
    "validated": lambda precision: Scenario.model_validate({**PARTS, "precision": precision}),
    "copy": lambda precision: Scenario(**PARTS).model_copy(update={"precision": precision}),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_a_scenario_leaves_its_formats_open(way: str) -> None:
    """DeepSeek-V3 is published in FP8; 671 GB over 8 GPUs is 84 GB and some copies."""
    scenario = WAYS[way](KEPT)
    assert (scenario.precision.weights, scenario.precision.kv_cache) == ("fp8", "bf16")
    assert deploy(scenario).pools["serve"].memory.weights_bytes == pytest.approx(85e9, rel=0.02)


@pytest.mark.parametrize("way", WAYS)
def test_formats_that_are_said_stay(way: str) -> None:
    said = Precision(weights="bf16", dense="fp8")
    assert WAYS[way](said).precision == said


def test_a_copy_with_another_model_takes_that_ones_formats_if_asked() -> None:
    other = Scenario(**PARTS).model_copy(update={"model": "deepseek-v2-lite", "precision": Precision()})
    assert other.precision.weights == "bf16"


def test_a_model_that_nobody_knows_is_left_to_the_check_of_names() -> None:
    copy = Scenario(**PARTS).model_copy(update={"model": "nameless", "precision": KEPT})
    assert copy.precision == KEPT

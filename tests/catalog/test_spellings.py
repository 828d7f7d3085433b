"""A name that differs from the catalog's in case and separators alone means it, and gives the same bytes."""

import json

import pytest

import sim
import sim.deployment.plan
from sim import catalog
from sim.catalog.facts import respelt
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import parse

SCENARIO = """\
model: {model}
gpu: {gpu}
engine: {engine}
deployment: {{serve: {{gpus: 8, tp: 8}}}}
workload:
  requests: 4
  arrivals: {{poisson: {{rate_per_s: 2}}}}
  lengths: {{input: {{constant: 1000}}, output: {{constant: 50}}}}
price: {{tier: {tier}}}
"""
OURS = {"model": "deepseek-v3.2", "gpu": "h200_sxm", "engine": "trtllm", "tier": "rent_3yr"}


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("model", "DeepSeek_V3.2"),
        ("model", "DeepSeek V3.2"),
        ("model", "deepseekv3.2"),
        ("gpu", "h200sxm"),
        ("gpu", "H200SXM"),
        ("engine", "TensorRT LLM"),
        ("engine", "TRT_LLM"),
        ("tier", "Rent_3yr"),
        ("tier", "rent-3yr"),
        ("tier", "RENT3YR"),
    ],
)
def test_the_result_is_the_same_in_every_byte(key: str, written: str) -> None:
    def told(**names: str) -> str:
        data = sim.simulate(parse(SCENARIO.format(**{**OURS, **names})).scenario).json()
        return json.dumps({**data, "wall_s": None})

    assert told(**{key: written}) == told()


@pytest.mark.parametrize(
    ("key", "written"), [("model", "deepseek-v32"), ("gpu", "h2000"), ("engine", "trt"), ("tier", "rent_2yr")]
)
def test_one_letter_more_or_less_is_still_a_mistake(key: str, written: str) -> None:
    with pytest.raises(ScenarioError):
        loaded = parse(SCENARIO.format(**{**OURS, key: written}))
        with loaded.locating():
            sim.deployment.plan.deploy(loaded.scenario)


def test_what_two_names_could_mean_is_neither() -> None:
    assert respelt("A_B", ["ab", "a-b"], {}) is None
    assert respelt("A_B", ["ab"], {"a-b": "ab"}) == "ab"


@pytest.mark.parametrize("kind", ["model", "gpu", "engine", "tier"])
def test_no_two_of_the_catalogs_own_names_differ_by_separators_alone(kind: str) -> None:
    """Each of them keeps meaning itself."""
    names = {"model": catalog.model_names, "gpu": catalog.gpu_names, "engine": catalog.engine_names,
             "tier": catalog.tier_names}[kind]()  # fmt: skip
    for name in names:
        assert respelt(name.upper().replace("_", " ").replace("-", "_"), names, {}) == name
        assert catalog.spelling(kind, name) == name


@pytest.mark.parametrize(
    ("tier", "says"),
    [
        (
            "assumed_by_deepseek",
            "h200_sxm has no price of tier 'assumed_by_deepseek'; expected one of own_hyperscaler",
        ),
        ("rent_2yr", "unknown price tier of h200_sxm 'rent_2yr'; expected one of own_hyperscaler"),
    ],
)
def test_a_tier_that_this_gpu_has_not_is_answered_with_those_it_has(tier: str, says: str) -> None:
    loaded = parse(SCENARIO.format(**{**OURS, "tier": tier}))
    with pytest.raises(ScenarioError) as error, loaded.locating():
        sim.deployment.plan.deploy(loaded.scenario)
    assert says in str(error.value) and "rent_3yr ($2.05 per GPU-hour)" in str(error.value)
    assert ("did you mean 'rent_3yr'?" in str(error.value)) == (tier == "rent_2yr")


@pytest.mark.parametrize(("key", "near"), [("FP8", "fp8"), ("Bf16", "bf16")])
def test_a_choice_in_capitals_is_answered_with_the_one_that_is_meant(key: str, near: str) -> None:
    with pytest.raises(ScenarioError, match=f"did you mean '{near}'"):
        parse(SCENARIO.format(**OURS) + f"precision: {{kv_cache: {key}}}\n")

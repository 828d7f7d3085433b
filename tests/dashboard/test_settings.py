"""The state of What-if in its URL, and the scenario that it spells."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dashboard.settings import (
    CHOICES,
    DEFAULTS,
    LIMITS,
    UNTOUCHED,
    decode,
    encode,
    scenario_of,
    settings_of,
    valid,
    wrong,
)
from sim.catalog import popularity_sigma
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario

settings = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in CHOICES.items()}).map(
    lambda chosen: {**DEFAULTS, **chosen}
)


@given(settings)
def test_settings_survive_the_url(chosen) -> None:
    assert decode(encode(chosen)) == chosen


@given(st.sampled_from(sorted(LIMITS)), st.data())
def test_any_number_within_its_limits_survives_the_url(key: str, data: st.DataObject) -> None:
    least, most = LIMITS[key]
    numbers = st.integers if isinstance(least, int) else st.floats
    value = data.draw(numbers(least, most))
    assert decode(encode({**DEFAULTS, key: value}))[key] == value
    assert valid(key, str(value)) and not wrong(encode({**DEFAULTS, key: value}))


def test_what_the_sliders_offer_is_within_the_limits() -> None:
    for key, (least, most) in LIMITS.items():
        assert least <= DEFAULTS[key] <= most
        assert all(least <= value <= most for value in CHOICES.get(key, ()))
        assert type(least) is type(most) is type(DEFAULTS[key])


def test_untouched_settings_are_one_word() -> None:
    assert encode(DEFAULTS) == UNTOUCHED
    assert decode(UNTOUCHED) == DEFAULTS


@pytest.mark.parametrize(
    "junk", ["", ";;;", "r", "r:", "r:x", "r:inf", "nobody:3", "i:-4;o:1e99;o:7.5", "ep:maybe", "\0"]
)
def test_what_is_no_setting_is_left_out(junk: str) -> None:
    assert decode(junk) == DEFAULTS


@given(settings)
def test_every_setting_spells_a_scenario_of_the_right_form(chosen) -> None:
    scenario = parse(yaml.safe_dump(scenario_of(chosen))).scenario
    arrivals = scenario.workload.arrivals
    assert arrivals and arrivals.poisson and arrivals.poisson.rate_per_s == chosen["r"]
    assert scenario.duration_s and scenario.warmup_s < scenario.duration_s
    assert list(scenario.deployment.pools()) == (
        ["serve"] if chosen["k"] == "joint" else ["prefill", "decode"]
    )


def test_experts_are_as_uneven_as_recorded_unless_said() -> None:
    assert DEFAULTS["s"] == popularity_sigma()


def test_other_keys_below_one_that_is_no_section_are_left_out() -> None:
    spelled = scenario_of({**DEFAULTS, "z": "deployment=3,deployment.decode.max_batch_per_rank=4"})
    assert spelled["deployment"] == 3, "for the form to judge"


@pytest.mark.parametrize(
    ("model", "weights"),
    [("deepseek-v4-pro", "mxfp4"), ("deepseek-v3.2", "fp8"), ("qwen3-235b-a22b", "bf16")],
)
def test_weights_are_the_checkpoint_s_unless_said(model: str, weights: str) -> None:
    """A model that is picked, and one of a scenario that says nothing of formats, is not priced as FP8."""
    spelled = scenario_of(dict(DEFAULTS) | {"m": model})
    assert Scenario.model_validate(spelled).precision.weights == weights
    opened = settings_of(
        {"model": model, "gpu": "b200_sxm", "engine": "sglang", "deployment": {"serve": {"gpus": 8}}}
    )
    again = Scenario.model_validate(scenario_of(dict(DEFAULTS) | opened))
    assert again.precision.weights == weights

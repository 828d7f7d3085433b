"""What differs between scenarios side by side is said: ratios of unlike work are no ratios of two deployments."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import GOOD, Told

from sim.scenario.difference import differences, in_words
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario


def told(*overrides: str, base: str = GOOD) -> str:
    return in_words(differences(parse(base).scenario, parse(GOOD, overrides=overrides).scenario))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ((), ""),
        (("gpu=b200",), "gpu h200_sxm -> b200"),
        (("router=random",), "router least_loaded -> random"),
        (("workload.arrivals.poisson.rate_per_s=8",), "workload.arrivals.poisson.rate_per_s 5 -> 8"),
        (("workload.lengths.output.constant=500",), "workload.lengths.output.constant 50 -> 500"),
        (("duration_s=40",), "duration_s 20 -> 40"),
        (("deployment.decode.workers=2",), "deployment.decode.workers 1 -> 2"),
        (("price.usd_per_gpu_hour=3",), "price.usd_per_gpu_hour 2 -> 3"),
        (("price.tier=rent_3yr",), "price.tier - -> rent_3yr"),
    ],
)
def test_every_kind_of_difference_is_named_with_both_values(overrides: tuple[str, ...], says: str) -> None:
    found = told(*overrides)
    assert (says in found) if says else found == ""
    unlike = any(key.startswith(("workload", "duration")) for key in overrides)
    assert ("unlike work" in found) == unlike


def test_another_model_is_named() -> None:
    assert told("model=deepseek-v3.1").startswith("model deepseek-v3.2 -> deepseek-v3.1")


def test_a_default_that_is_written_out_is_no_difference() -> None:
    assert told("router=least_loaded", "deployment.decode.workers=1", "gpu=H200") == ""


def test_both_kinds_are_told_and_long_lists_are_cut() -> None:
    many = [
        f"deployment.{role}.{key}"
        for role in ("prefill", "decode")
        for key in ("workers", "gpus", "ep", "tp")
    ]
    found = told("duration_s=40", "gpu=b200", *(f"{key}={n}" for n, key in enumerate(many, 2)))
    assert found.startswith("another workload") and "; and also " in found and " more" in found


def test_what_weighs_most_is_named_though_the_list_is_cut() -> None:
    """The price, the GPU and keys that are new stand before those that only the first scenario has."""
    base = parse(GOOD).scenario
    other = base.model_dump(exclude_defaults=True)
    roles = {"serve": {"workers": 3, "gpus": 16, "tp": 8, "max_batch_per_gpu": 32}}
    other |= {"gpu": "b200_sxm", "engine": "vllm", "router": "random", "price": {"usd_per_gpu_hour": 3.0}}
    other["deployment"] = roles
    found = in_words(differences(base, Scenario.model_validate(other)))
    start = (
        "price.usd_per_gpu_hour 2 -> 3, gpu h200_sxm -> b200_sxm, engine sglang -> vllm, deployment.serve."
    )
    assert found.startswith(start) and " more" in found
    assert "deployment.prefill" not in found and "deployment.decode" not in found


@given(st.sampled_from(["gpu=b200", "duration_s=5", "router=random", "warmup_s=2", "workload.requests=7"]))
def test_what_differs_one_way_differs_the_other(override: str) -> None:
    one, other = parse(GOOD).scenario, parse(GOOD, overrides=[override]).scenario
    swapped = [(d.key, d.other, d.first) for d in differences(other, one)]
    assert [(d.key, d.first, d.other) for d in differences(one, other)] == swapped != []


def test_compare_says_so_and_has_it_in_its_json(scenario: Path) -> None:
    (scenario.parent / "b.yaml").write_text(
        GOOD.replace("rate_per_s: 5", "rate_per_s: 9").replace("h200_sxm", "b200")
    )
    out = scenario.parent / "out"
    said = Told(
        "compare", scenario, scenario.parent / "b.yaml", "--set", "duration_s=3", "--json", "--out", out
    )
    assert said.code == 0
    assert "b against s: another workload" in said.stderr and "and also gpu h200_sxm -> b200" in said.stderr
    [one] = said.json["differences"]
    assert [d["key"] for d in one["workload"]] == ["workload.arrivals.poisson.rate_per_s"]
    assert one["other"] == [{"key": "gpu", "first": "h200_sxm", "other": "b200"}]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "b against s: another workload" in page

"""The error that a run may be expected to have: which published deployment is asked, and what it says."""

from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog.validated import Served, Validated, in_words, near, validated, written
from sim.deployment.plan import Deployment, resolve
from sim.planner import margin as margins
from sim.result import expected_error as room
from sim.result.expected_error import expected_error, nearest, served
from sim.scenario.schema import Scenario

POOL = Served("deepseek-v3", "h200_sxm", "sglang", "fp8", "aggregated", False, gpus=8, tp=8, ep=1)


def entry(held_out: bool = True, cases: int = 10, throughput: float = 0.1, **layout: Any) -> Validated:
    return Validated(replace(POOL, **layout), held_out, cases, 0.05, 0.2, None, None, throughput, 0.3)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch):
    def use(*entries: Validated) -> None:
        monkeypatch.setattr(room, "validated", lambda: entries)

    return use


def resolved(deployment: dict[str, Any] | None = None, **changes: Any) -> Deployment:
    form = {
        "model": "deepseek-r1",
        "gpu": "h200",
        "experts": {"popularity_sigma": 1.05},
        "deployment": deployment or {"serve": {"gpus": 8, "tp": 8}},
        "workload": {
            "arrivals": {"all_at_once": {}},
            "lengths": {"input": {"constant": 9}, "output": {"constant": 9}},
            "requests": 1,
        },
    }
    return resolve(Scenario.model_validate(form | changes))


def test_distance_is_counted_in_doublings() -> None:
    # 8 GPUs TP8 EP1 has attention DP1; 32 GPUs TP1 EP32 has DP32: 2 + 5 + 5 doublings.
    assert POOL.doublings(replace(POOL, gpus=32, tp=1, ep=32)) == 12
    assert POOL.doublings(replace(POOL, ep=8)) == 3
    assert POOL.doublings(POOL) == 0


def test_the_names_are_the_catalogs() -> None:
    assert served(resolved(), "serve") == POOL
    two = resolved({"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "tp": 2, "ep": 16}},
                   speculation={"draft_tokens": 1})  # fmt: skip
    assert served(two, "prefill") == replace(POOL, serving="prefill", tp=1, ep=8)
    assert served(two, "decode") == replace(POOL, serving="decode", drafts=True, gpus=16, tp=2, ep=16)


def test_the_nearest_layout_that_was_held_out_is_asked(known) -> None:
    same, near, far = entry(held_out=False), entry(ep=8), entry(gpus=16, tp=16, ep=16)
    known(far, near, same)
    assert nearest(POOL) == near
    known(same)
    assert nearest(POOL) == same
    # As near: the one with more cases. EP2 lies one doubling from EP1 and from EP4.
    few, many = entry(ep=1, cases=3), entry(ep=4, cases=4)
    known(few, many)
    assert nearest(replace(POOL, ep=2)) == many


@pytest.mark.parametrize(
    "other",
    [{"model": "deepseek-v3.2"}, {"gpu": "h100"}, {"engine": "vllm"}, {"precision": {"weights": "bf16"}},
     {"speculation": {"draft_tokens": 1}}, {"deployment": {"prefill": {"gpus": 8}, "decode": {"gpus": 8}}},
     {"experts": {"popularity_sigma": 0}}, {"profile": "analytic"},
     {"profile": "h100_sxm/sglang", "allow_foreign_profile": True}],
)  # fmt: skip
def test_another_family_says_nothing(known, other: dict[str, Any]) -> None:
    known(entry())
    assert expected_error(resolved(**other)) is None
    assert expected_error(resolved()) is not None
    assert expected_error(resolved(profile="h200_sxm/sglang")) is not None


def test_one_pool(known) -> None:
    known(entry(ep=4, cases=12))
    assert expected_error(resolved()) == {
        "tpot": 0.05,
        "ttft": None,
        "throughput": 0.1,
        "p90": {"tpot": 0.2, "ttft": None, "throughput": 0.3},
        "family": "deepseek-v3 fp8 on h200_sxm, sglang, aggregated, 8 GPUs TP8 EP4",
        "cases": 12,
        "held_out": True,
        "doublings": 2,
    }


def test_of_two_pools_the_worse_counts_and_both_are_needed(known) -> None:
    prefill = entry(serving="prefill", gpus=8, tp=1, ep=8, throughput=0.2, cases=3)
    decode = entry(serving="decode", gpus=32, tp=1, ep=32, throughput=0.1, cases=4, held_out=False)
    two = resolved({"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16}})
    known(prefill)
    assert expected_error(two) is None
    known(prefill, decode)
    found = expected_error(two)
    assert found is not None
    # Decode: one doubling each of GPUs, EP and attention DP.
    assert (found["throughput"], found["cases"], found["held_out"], found["doublings"]) == (0.2, 7, False, 3)
    assert found["family"].split("; ") == [str(prefill.pool), str(decode.pool)]


def test_a_service_of_two_pools_is_asked_for_by_its_decode_workers(known) -> None:
    """16 GPUs EP16 that decode: 8 GPUs EP8 are 3 doublings away. Steps of both pools are asked, too, and win where they
    are nearer."""
    two = resolved({"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16}})
    whole = entry(serving="disaggregated", gpus=8, tp=1, ep=8, cases=9)
    known(whole, replace(whole, pool=replace(whole.pool, drafts=True), cases=5))
    found = expected_error(two)
    assert found is not None
    assert (found["tpot"], found["cases"], found["doublings"]) == (0.05, 9, 3)
    assert "disaggregated, 8 GPUs TP1 EP8" in found["family"]
    drafts = expected_error(
        resolved(
            {"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16}},
            speculation={"draft_tokens": 1},
        )
    )
    assert drafts is not None and drafts["cases"] == 5 and "with drafts" in drafts["family"]
    steps = entry(serving="prefill", gpus=8, tp=1, ep=8), entry(serving="decode", gpus=16, tp=1, ep=16)
    known(whole, *steps)
    assert "decode, 16 GPUs" in expected_error(two)["family"]
    assert expected_error(resolved(model="deepseek-v3.2", deployment={"serve": {"gpus": 8, "tp": 8}})) is None


def test_what_was_published_of_sglang_on_eight_h200_is_shipped() -> None:
    found = expected_error(resolved())
    assert found is not None
    assert (found["cases"], found["held_out"], found["doublings"]) == (116, True, 0)
    assert 0 < found["tpot"] < found["p90"]["tpot"] < 1


def test_the_shipped_table_reads_as_it_is_written() -> None:
    from importlib import resources  # noqa: PLC0415

    text = resources.files("sim.catalog").joinpath("validated.csv").read_text(encoding="utf-8")
    assert written(validated()) == text
    assert len({(one.pool, one.held_out) for one in validated()}) == len(validated())


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_distances_are_the_same_both_ways(gpus: int, tp: int, ep: int, other: int) -> None:
    a, b = replace(POOL, gpus=8 << gpus, tp=1 << tp, ep=1 << ep), replace(POOL, gpus=8, tp=1 << other, ep=8)
    assert a.doublings(b) == b.doublings(a) >= 0


def left_out(metric: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(error of a held-out layout, what the nearest other layout of its family says) where that is near, and far."""
    families = defaultdict(list)
    for one in validated():
        if one.held_out and getattr(one, metric) is not None:
            families[one.pool.family].append(one)
    close, far = [], []
    for family in families.values():
        for one in family:
            others = [other for other in family if other.pool != one.pool]
            if others:
                says = min(others, key=lambda o: (o.pool.doublings(one.pool), -o.cases))
                pair = getattr(one, metric), getattr(says, metric)
                (close if near({"doublings": says.pool.doublings(one.pool)}) else far).append(pair)
    return close, far


@pytest.mark.parametrize("metric", ["tpot", "ttft", "throughput"])
def test_a_layout_far_from_every_validated_one_is_farther_off(metric: str) -> None:
    """And what the far one says misses its error by nearly as much as that is."""
    close, far = left_out(metric)
    assert len(close) > 20 and len(far) > 20
    assert median(error for error, _ in far) > median(error for error, _ in close)
    assert median(abs(said - error) for error, said in far) > 0.6 * median(error for error, _ in far)


def test_where_nothing_near_was_measured_no_error_is_promised(known) -> None:
    """8 GPUs TP8 EP1: EP8 is 3 doublings away, 16 GPUs TP1 EP8 are 1 + 3 + 4."""
    known(entry(ep=8))
    close = expected_error(resolved())
    assert close is not None and near(close)
    assert in_words(close).startswith(
        "TPOT 5.0%, tokens/s 10.0% (median of 10 published cases, held out, 3 doublings"
    )
    known(entry(gpus=16, tp=1, ep=8))
    far = expected_error(resolved())
    assert far is not None and not near(far)
    assert in_words(far).startswith(
        "unknown: nothing near was measured; the nearest, 8 doublings of GPUs, EP and DP away, "
    )
    assert "was TPOT 5.0%, tokens/s 10.0% off" in in_words(far)


def test_a_plan_keeps_no_narrow_margin_for_a_layout_like_none(known, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from all that was validated at least the error of all families is kept; near it the family's own."""
    scenario = Scenario.model_validate({
        "model": "deepseek-r1", "gpu": "h200", "experts": {"popularity_sigma": 1.05},
        "deployment": {"serve": {"gpus": 8, "tp": 8}},
        "workload": {"arrivals": {"all_at_once": {}}, "requests": 1,
                     "lengths": {"input": {"constant": 9}, "output": {"constant": 9}}},
    })  # fmt: skip
    others = [entry(model="deepseek-v3.2", gpus=g, throughput=0.3) for g in (1, 2, 4)]
    for pool, throughput in ((entry(ep=8), 0.1), (entry(gpus=16, tp=1, ep=8), 0.3)):
        known(pool, *others)
        monkeypatch.setattr(margins, "validated", lambda pool=pool: [pool, *others])
        assert margins.margin_of(scenario).errors["throughput"] == throughput

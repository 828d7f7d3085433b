"""What is shipped of the validation: a readable file, and the errors by deployment that runs quote."""

import json
from dataclasses import replace
from statistics import median

import pytest

from sim.catalog.validated import Served, Validated, validated
from sim.report.validation import cases_table
from sim.validation.case import Case
from sim.validation.digest import (
    FILE,
    NAMES,
    brief,
    by_pool,
    cases_of,
    lines,
    pools,
    renewed,
    rounded,
    with_errors,
)
from sim.validation.points import points
from sim.validation.published import shipped
from sim.validation.services import entries
from sim.validation.table import Validation

POOL = Served("deepseek-v3", "h200_sxm", "sglang", "fp8", "aggregated", False, gpus=8, tp=8, ep=1)


def case(id: str, metric: str, simulated: float, split: str | None = "test") -> Case:
    return Case(
        id=id, metric=metric, published=1.0, simulated=simulated, split=split, layout="", point="", model="", gpu="",
        engine="", precision="", phase="service",
    )  # fmt: skip


def test_errors_by_pool_by_hand() -> None:
    cases = [
        case("A", "tpot", 0.9),
        case("A", "total_tput_per_gpu", 1.04),
        case("A", "output_tput_per_gpu", 9.0),  # runs quote all tokens
        case("B", "tpot", 1.3),
        case("C", "tpot", 1.5, "train"),
        case("C", "gain", 3.0, "train"),
    ]
    # |error| of TPOT: 0.1 and 0.3; the median is halfway, the 90% point at 0.1 + 0.9 x 0.2.
    assert by_pool(cases, dict.fromkeys("ABC", POOL)) == [
        Validated(POOL, True, 2, 0.2, 0.28, None, None, 0.04, 0.04),
        Validated(POOL, False, 1, 0.5, 0.5, None, None, None, None),
    ]


def test_published_steps_are_pools_of_their_phase() -> None:
    found = pools([])
    assert len(found) == len(points()["points"]) + len(list(entries()))
    assert found["P0574"].model == "deepseek-v3.2" and found["P0574"].serving == "aggregated"
    decode = Served("deepseek-v3", "h100_sxm", "sglang", "fp8", "decode", False, gpus=72, tp=1, ep=72)
    assert found["P0304"] == decode
    assert found["P0305"].drafts


def test_numbers_are_shipped_short() -> None:
    assert rounded({"a": [0.123456, 123456.0, 7, None]}) == {"a": [0.1235, 123500.0, 7, None]}


def test_a_case_takes_a_line() -> None:
    data = {"cases": [{"id": "A"}, {"id": "B"}], "seed": 0}
    assert lines(data).splitlines() == ["{", '"cases":[', '{"id":"A"},', '{"id":"B"}', "],", '"seed":0', "}"]
    assert json.loads(lines(data)) == data


def test_what_a_layout_has_in_common_is_told_once_and_read_back() -> None:
    mine = [replace(case(id, "tpot", 0.9), layout=layout, release=release, model="m") for id, layout, release in
            (("A", "x", "1"), ("B", "x", "2"), ("C", "y", None))]  # fmt: skip
    data = brief(Validation(mine, {}, {}, 10, 0))
    assert data["columns"]["x"]["model"] == "m" and "release" not in data["columns"]["x"]
    assert [one.get("release") for one in data["cases"]] == ["1", "2", None]
    assert cases_table(data).model.tolist() == ["m"] * 3


def test_cases_are_read_back_and_some_renewed() -> None:
    """A is simulated anew; B keeps the error that was taken before its figures were rounded."""
    banded = replace(
        case("A", "tpot", 0.912345), layout="x", model="m", band=(0.9, None), interval=(0.91, 0.92)
    )
    old = brief(
        Validation([banded, replace(case("B", "tpot", 0.98765432), layout="x", model="m")], {}, {}, 10, 0)
    )
    assert [one.id for one in cases_of(old)] == ["A", "B"]
    assert cases_of(old)[0].band == (0.9, None) and cases_of(old)[0].interval == (0.91, 0.92)
    new = renewed(old, Validation([replace(banded, simulated=1.5)], {}, {}, 99, 0))
    assert {one["id"]: one["error"] for one in new["cases"]} == {"A": 0.5, "B": -0.01235}
    assert new["max_prompts"] == 10 and new["columns"]["x"]["model"] == "m"


def test_a_table_that_was_not_there_adds_its_rows() -> None:
    """A is of the shipped table; C and D come new. Then C alone is simulated anew."""
    old = brief(
        Validation(
            [replace(case("A", "tpot", 0.9), layout="x")], {"X": "no layout: 3"}, {}, 10, 0, by_recipe=1
        )
    )
    more = [replace(one, layout="y") for one in (case("C", "tpot", 1.1), case("D", "tpot", 1.3, "train"))]
    new = renewed(old, Validation(more, {"Y": "no layout: 5"}, {}, 10, 0, by_recipe=2))
    assert new["rows"]["inferencex_flags"] == 3 and new["skipped"] == {"no layout": 2}
    again = renewed(new, Validation(more[:1], {}, {}, 10, 0, by_recipe=1))
    assert (again["rows"], again["skipped"]) == (new["rows"], new["skipped"])


def test_where_nothing_was_found_nothing_more_is_counted() -> None:
    """A row that is asked for again and left out again: it is no new table."""
    old = brief(Validation([replace(case("A", "tpot", 0.9), layout="x")], {"X": "no layout: 3"}, {}, 10, 0))
    new = renewed(old, Validation([], {"X": "no layout: 3"}, {}, 10, 0))
    assert (new["rows"], new["skipped"]) == (old["rows"], old["skipped"]) and new["skipped"] == {
        "no layout": 1
    }


def test_the_shipped_file_is_small_and_one_case_a_line() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < 250 * len(json.loads(text)["cases"])
    assert lines(json.loads(text)) == text


def test_the_shipped_table_says_what_the_shipped_cases_say() -> None:
    cases = json.loads(FILE.read_text(encoding="utf-8"))["cases"]
    h200 = [one for one in cases if one["layout"] == "h200 sglang fp8 8 GPUs EP1"]
    [entry] = [one for one in validated() if one.pool == POOL and one.held_out]
    assert entry.cases == len({one["id"] for one in h200})
    for metric, error in (
        ("tpot", entry.tpot),
        ("ttft", entry.ttft),
        ("total_tput_per_gpu", entry.throughput),
    ):
        errors = [abs(one["error"]) for one in h200 if one["metric"] == metric]
        assert error == pytest.approx(median(errors), rel=1e-3)
    # Case files only judge.
    scored = {one["id"] for one in cases if one["id"] not in shipped() and one["metric"] in NAMES}
    assert sum(one.cases for one in validated()) == len(scored)


def test_errors_outlive_the_rounding() -> None:
    """0.98765432 is shipped as 0.9877, and its error as -0.01235: the table takes the error."""
    data = brief(Validation([replace(case("A", "tpot", 0.98765432), layout="x", model="m")], {}, {}, 10, 0))
    [found] = with_errors(data)
    assert (cases_of(data)[0].error, found.error) == (pytest.approx(-0.0123), pytest.approx(-0.01235))

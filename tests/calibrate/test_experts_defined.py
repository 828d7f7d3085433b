"""Routed experts: kernels timed one by one become what the simulator prices under their name, in every mode."""

import pytest

from calibrate.experts import defined
from calibrate.grid import GPU_AXES, operations
from calibrate.tables import tables_from_records
from sim.catalog import model
from sim.cost.record import Record
from sim.kernels import FAMILIES

V32 = model("deepseek-v3.2")
SHAPE = {"experts": 32.0, "active": 32.0, "hidden": 7168.0, "inter": 2048.0}


def products(us, backend, rows=800.0, dtype="fp8"):
    return Record("moe", {**SHAPE, "rows": rows}, dtype, us, us_p10=us - 1, us_p90=us + 1, backend=backend)


def around(kernel, us_at, **shape):
    tokens = "m" if kernel == "quantize" else "tokens"
    return [
        Record(kernel, {**shape, tokens: float(t)}, "bf16", us, backend="x", us_p10=us, us_p90=us)
        for t, us in us_at.items()
    ]


AROUND = [
    *around("moe_gate", {1: 2.0, 100: 4.0}, experts=256.0, top_k=8.0),
    *around("quantize", {1: 1.0, 100: 3.0}, k=7168.0),
    *around("quantize", {1: 500.0, 100: 500.0}, k=2048.0),  # of another input
    *around("moe_permute", {1: 5.0, 200: 9.0}, experts=256.0, top_k=8.0, hidden=7168.0),
    *around("moe_finalise", {1: 3.0, 100: 7.0}, top_k=8.0, hidden=7168.0),
]


def by_mode(records):
    return {
        (r.options.get("mode", ""), r.backend): r for r in defined(records) if r.operation == "moe" and r.ok
    }


def test_each_mode_holds_what_it_does_by_hand():
    """800 pairs of 8 experts each are 100 tokens."""
    found = by_mode([products(50.0, "deep_gemm"), products(40.0, "deep_gemm_masked"), *AROUND])
    permute = 5 + (9 - 5) * 99 / 199
    assert {key: record.us_median for key, record in found.items()} == {
        ("", "deep_gemm"): pytest.approx(50 + 4 + 3 + permute + 7),
        ("normal", "deep_gemm"): pytest.approx(50 + permute + 7),
        ("low_latency", "deep_gemm_masked"): 40.0,
    }
    assert found["low_latency", "deep_gemm_masked"].us_p90 == 41.0
    assert "with moe_gate, quantize, moe_permute, moe_finalise" in found["", "deep_gemm"].source


def test_another_layout_stands_in_where_a_mode_has_none():
    found = by_mode([products(50.0, "triton"), *AROUND])
    assert set(found) == {("", "triton"), ("normal", "triton"), ("low_latency", "triton")}


def test_bf16_rows_are_not_quantised_and_what_was_not_measured_is_named():
    gate = [r for r in AROUND if r.operation == "moe_gate"]
    (record,) = [
        r
        for r in defined([products(50.0, "triton", dtype="bf16"), *gate])
        if r.operation == "moe" and not r.options
    ]
    assert record.us_median == 54.0
    assert "without moe_permute, moe_finalise, which was not measured" in record.source


def test_beyond_the_last_tokens_the_time_grows_with_them():
    (record,) = [
        r
        for r in defined([products(50.0, "triton", rows=8000.0), *AROUND])
        if r.options.get("mode") == "normal"
    ]
    assert record.us_median == pytest.approx(50 + 5 * 9 + 10 * 7)  # 1,000 tokens: 200 and 100 were measured


def test_a_profile_has_a_table_for_every_mode():
    grid = [products(50.0 + rows, "deep_gemm", rows) for rows in (32.0, 256.0, 2048.0)]
    options = [t.variant.options for t in tables_from_records([*grid, *AROUND]) if t.kernel == "moe"]
    assert sorted(o.get("mode", "") for o in options) == ["", "low_latency", "normal"]


def test_whatever_is_measured_is_priced_or_part_of_what_is():
    """Ceilings aside, no kernel takes measuring time that no price uses."""
    inside = {"moe_gate", "moe_permute", "moe_finalise"}
    kernels = {operation.kernel for _, operation in operations(V32, GPU_AXES)}
    assert kernels - set(FAMILIES) - {"copy"} == inside

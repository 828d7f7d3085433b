"""Few points of one's own scale a shipped table by one factor per family, whose spread is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate import prior
from calibrate.cases import QUICK_CASES, plan
from calibrate.cli import app
from calibrate.fit import fit_table
from calibrate.tables import tables_from_records
from sim.catalog import described_gpu, efficiency, gpu, model
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.priced_table import PricedTable
from sim.cost.profile import load_profile, read_profile
from sim.cost.record import CALIBRATION, Record, write_records
from sim.kernels.family import Dims
from sim.model.operations import gemm

H100 = gpu("h100_sxm")
DIMS = Dims.of(model("deepseek-v3.2"))


@pytest.fixture(scope="module")
def truth():
    """FP8 products as SGLang's were measured on an H100: what one's own GPU would show."""
    return next(t for t in load_profile("h100_sxm/sglang").tables("gemm") if t.variant.dtype == "fp8")


@pytest.fixture
def without_h100(monkeypatch):
    """As if no table of an H100 were shipped: the next is the H200, with the same matrix units and faster memory."""
    left = tuple(name for name in prior.shipped_profiles() if not name.startswith("h100"))
    monkeypatch.setattr(prior, "shipped_profiles", lambda: left)


def rows(table, wanted):
    return [
        r for r in range(len(table.seconds)) if wanted({a: float(v[r]) for a, v in table.columns.items()})
    ]


def records(table, chosen, name="NVIDIA H100 80GB HBM3"):
    for row in chosen:
        shape = {a: float(v[row]) for a, v in table.columns.items()}
        us = float(table.seconds[row]) * 1e6
        yield Record("gemm", shape, "fp8", us, backend="mine", source=CALIBRATION, environment={"name": name})


def fitted(folder, found):
    write_records(folder / "records.jsonl", found)
    done = CliRunner().invoke(app, ["fit", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    return read_profile(folder / "profile"), done


def errors(profile, truth, device=H100):
    cost = ProfileCost(profile, AnalyticCost(device, efficiency()), device)
    shapes = [{a: float(v[r]) for a, v in truth.columns.items()} for r in range(0, len(truth.seconds), 7)]
    told = [cost.price(gemm("", "dense", s["m"], s["n"], s["k"], "fp8")).seconds for s in shapes]
    return np.abs(np.array(told) / truth.seconds[::7] - 1)


def test_four_points_scale_the_table_of_the_nearest_gpu(tmp_path, truth, without_h100):
    chosen = rows(truth, lambda s: s["m"] in (1, 8192) and (s["n"], s["k"]) in ((2048, 7168), (7168, 16384)))
    assert len(chosen) == 4
    profile, done = fitted(tmp_path, list(records(truth, chosen)))
    (table,) = profile.tables("gemm")
    scaled = table.fit.prior
    assert scaled.profile.startswith("h200_sxm/")
    assert scaled.points == 4 and scaled.spread[0] <= scaled.factor <= scaled.spread[1]
    assert "Few points: gemm/fp8/mine is priced by h200_sxm" in done.stderr and "p10" in done.stderr
    with_prior = errors(profile, truth)
    (alone,) = tables_from_records(records(truth, chosen))
    alone = replace(alone, fit=fit_table(alone, DIMS, H100))
    shapes = [{a: float(v[r]) for a, v in truth.columns.items()} for r in range(0, len(truth.seconds), 7)]
    told = [PricedTable(alone, DIMS).seconds(shape)[0] for shape in shapes]
    without = np.abs(np.array(told) / truth.seconds[::7] - 1)
    for share in (0.5, 0.9):
        assert np.quantile(with_prior, share) < np.quantile(without, share) / 2


def test_the_price_is_ones_own_and_says_what_it_is_scaled_from(tmp_path, truth):
    chosen = rows(truth, lambda s: s["n"] == 7168 and s["m"] in (1, 8192))
    found = [replace(r, us_median=1.25 * r.us_median) for r in records(truth, chosen)]
    profile, _ = fitted(tmp_path, found)
    (table,) = profile.tables("gemm")
    assert table.fit.prior.profile == "h100_sxm/sglang"
    assert table.fit.prior.factor == pytest.approx(1.25, rel=1e-5)
    cost = ProfileCost(profile, AnalyticCost(H100, efficiency()), H100)
    shipped = ProfileCost(load_profile("h100_sxm/sglang"), AnalyticCost(H100, efficiency()), H100)
    asked = gemm("", "dense", 300, 2112, 7168, "fp8")
    priced = cost.price(asked)
    assert priced.seconds == pytest.approx(1.25 * shipped.price(asked).seconds, rel=1e-5)
    assert (priced.priced_by, priced.own) == ("scaled", True)
    assert "h100_sxm/sglang: gemm/fp8 x 1.25" in priced.source


def test_many_points_stand_for_themselves(tmp_path, truth):
    chosen = rows(truth, lambda s: s["k"] == 7168)
    profile, _ = fitted(tmp_path, list(records(truth, chosen)))
    assert profile.tables("gemm")[0].fit.prior is None


def test_a_cut_table_is_one_of_few_points(tmp_path, truth):
    """Three row counts of three widths, of ten planned widths: what lies between widths is the prior's to tell."""
    chosen = rows(truth, lambda s: s["n"] in (1536, 7168, 12288) and s["m"] in (1, 256, 8192))
    (tmp_path / "coverage.json").write_text(json.dumps({"gemm fp8": [len(chosen), 10 * len(chosen)]}))
    profile, done = fitted(tmp_path, list(records(truth, chosen)))
    assert profile.tables("gemm")[0].fit.prior is not None
    assert "Incomplete: gemm fp8" in done.stderr


def test_a_cpu_has_no_prior(tmp_path, truth):
    chosen = rows(truth, lambda s: s["n"] == 7168 and s["m"] in (1, 8192))
    found = [replace(r, environment={"name": "a CPU", "device": "cpu", "memory_bytes": 2.0**34})
             for r in records(truth, chosen)]  # fmt: skip
    found.append(Record("copy", {"bytes": 1e9}, "bf16", 1e5, environment=found[0].environment))
    bf16 = replace(found[0], dtype="bf16")
    profile, _ = fitted(tmp_path, [*found, bf16])
    assert all(t.fit.prior is None for t in profile.tables("gemm"))


def test_the_nearest_gpu_is_told_by_memory_and_matrix_units():
    like_h200 = described_gpu(
        "x", {"memory_bytes": 1e11, "memory_bytes_per_s": 4.5e12, "bf16_flop_per_s": 9e14}
    )
    assert prior.nearest_profiles(like_h200, "vllm")[0] == "h200_sxm/vllm"
    assert prior.nearest_profiles(gpu("h800_sxm"), "sglang")[0] == "h100_sxm/sglang"  # the catalog says which
    assert prior.nearest_profiles(gpu("b200_sxm"), "trtllm")[0] == "b200_sxm/trtllm"


def test_a_tie_of_errors_chooses_the_fitted_form(truth):
    """Two points can leave none out: nothing speaks for a straight line between one row and 8,192."""
    chosen = rows(truth, lambda s: (s["n"], s["k"]) == (4096, 7168) and s["m"] in (1, 8192))
    (table,) = tables_from_records(records(truth, chosen))
    fit = fit_table(table, DIMS, H100)
    assert fit.held_out == {}
    assert fit.method == "fitted"


def test_a_quick_plan_has_three_row_counts_of_every_width_that_it_begins():
    cases = plan(model("deepseek-v3.2"), "cuda", 150 * 10**9)[: QUICK_CASES["cuda"]]
    widths: dict[tuple[int, int], int] = {}
    for case in cases[6:]:
        if (case.operation.kernel, case.operation.dtype) == ("gemm", "fp8"):
            at = (case.size("n"), case.size("k"))
            widths[at] = widths.get(at, 0) + 1
    *begun, last = widths.values()
    assert len(begun) >= 4
    assert set(begun) == {3} and last <= 3

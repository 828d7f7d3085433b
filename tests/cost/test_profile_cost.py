"""Which table prices what, and what the price says about itself, on a profile small enough to compute by hand."""

from dataclasses import replace

import numpy as np
import pytest

from calibrate.store import save_fits, save_profile
from sim.catalog import efficiency, gpu, model
from sim.cost.fits import Fit, ProfileError
from sim.cost.form import Form
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Table, device_gpu, load_profile, read_profile
from sim.kernels.family import Dims, Variant
from sim.model.operations import Operation, mla_prefill

H100, H800, H20 = gpu("h100_sxm"), gpu("h800_sxm"), gpu("h20_96")
ROOFLINE = AnalyticCost(H100, efficiency())

DIMS = Dims.of(model("deepseek-v3.2"))


def operation(kernel, shape, dtype="fp8", options=None, parts=()):
    return Operation("x", "attention", kernel, shape, dtype, 1e9, 1e6, parts=parts, options=options or {})


def gemm(m, n=100, k=100):
    return operation("gemm", {"m": m, "n": n, "k": k})


def table(kernel, columns, us, method="linear", dtype="fp8", options=None, backend="", form=None):
    form = form or Form(1e-6, 1.0, (1e12,), (1e12,))
    columns = {axis: np.array(values, float) for axis, values in columns.items()}
    variant = Variant(dtype, options or {})
    return Table(kernel, variant, backend, "a test", columns, np.array(us) * 1e-6, Fit(form, method))


def profile_of(folder, tables, gpu_name="h100_sxm", **more):
    save_profile(folder, {"gpu": gpu_name, "engine": "lab", **more}, tables)
    save_fits(folder, {t.key: t.fit for t in tables})
    return read_profile(folder)


@pytest.fixture
def cost(tmp_path):
    grid = {"m": [100, 200, 400], "n": [100] * 3, "k": [100] * 3}
    return ProfileCost(profile_of(tmp_path, [table("gemm", grid, [10.0, 20.0, 60.0])]), ROOFLINE, H100)


def form_us(m):
    """The form by hand at (m, 100, 100): 1 us + (20,000 m FLOP + 200 m B of output + 100 m B of FP8 input, with a scale
    of 4 B per 128, + 10,000 B of weights, with one per 16,384) / 1e12 a second."""
    return 1 + (20_000 * m + 200 * m + 100 * m * 33 / 32 + 10_000 * 4097 / 4096) / 1e6


def test_a_measured_shape_costs_what_was_measured(cost):
    priced = cost.price(gemm(200))
    assert priced.seconds == pytest.approx(20e-6)
    assert priced.priced_by == "measured"
    assert "h100_sxm/lab" in priced.source
    assert "a test" in priced.source


def test_between_shapes_it_is_interpolated(cost):
    priced = cost.price(gemm(300))
    assert (priced.seconds, priced.priced_by) == (pytest.approx(40e-6), "measured")


def test_beyond_the_hull_the_form_carries_the_nearest_shape_on(cost):
    priced = cost.price(gemm(800))
    assert priced.priced_by == "extrapolated"
    assert priced.seconds == pytest.approx(60e-6 * form_us(800) / form_us(400))


def test_beyond_the_hull_another_engine_s_growth_carries_on_and_nothing_jumps_where_its_rows_end():
    grid = {"m": [100, 200, 400], "n": [100] * 3, "k": [100] * 3}
    further = {"m": [400, 800], "n": [100] * 2, "k": [100] * 2}
    peer = PricedTable(table("gemm", further, [50.0, 90.0]), DIMS)
    own = PricedTable(table("gemm", grid, [10.0, 20.0, 60.0]), DIMS, peer=peer)
    us = {m: own.seconds({"m": m, "n": 100, "k": 100})[0] * 1e6 for m in (800, 801, 1600)}
    assert us[800] == pytest.approx(60 + (90 - 50))
    assert us[1600] == pytest.approx(60 + 90 * form_us(1600) / form_us(800) - 50)
    assert us[801] - us[800] == pytest.approx(90 * (form_us(801) / form_us(800) - 1), rel=1e-6)


def test_the_fitted_method_interpolates_what_the_form_leaves_over(tmp_path):
    # measured = 2 x form at both ends, so 2 x form in between; two GPUs send all of a tensor to each other
    form = Form(1e-6, 1.0, (1.0,), (2e10,))
    seconds = [2 * (1 + size / 1e4) for size in (10_000, 30_000)]
    rows = {"gpus": [2, 2], "bytes": [20_000, 60_000]}
    tables = [table("all_reduce", rows, seconds, "fitted", "bf16", form=form)]
    cost = ProfileCost(profile_of(tmp_path, tables), ROOFLINE, H100)
    priced = cost.price(operation("all_reduce", {"gpus": 2, "bytes": 40_000}, "bf16"))
    assert (priced.seconds, priced.priced_by) == (pytest.approx(2 * (1 + 2.0) * 1e-6), "fitted")


def test_what_nothing_measured_goes_to_the_roofline(cost):
    norm = operation("elementwise", {"bytes": 1e6}, "bf16")
    assert cost.price(norm) == ROOFLINE.price(norm)
    assert cost.price(replace(gemm(200), dtype="bf16")).priced_by == "analytic"


def test_a_block_is_known_only_where_it_was_measured(tmp_path, cost):
    part = gemm(200)
    block = operation(
        "mla_decode_block",
        {"heads": 8, "batch": 1, "context": 10, "queries": 1},
        options={"kv_cache": "fp8"},
        parts=(part,),
    )
    assert not cost.knows(block)
    assert cost.knows(part)
    rows = {"heads": [8, 8], "batch": [1, 2], "context": [10, 10]}
    form = Form(1e-6, 1.0, (1e12, 1e12), (1e12, 1e12))
    tables = [table("mla_decode_block", rows, [5.0, 6.0], options={"kv_cache": "fp8"}, form=form)]
    measured = ProfileCost(profile_of(tmp_path / "b", tables), ROOFLINE, H100)
    assert measured.knows(block)
    assert measured.price(block).seconds == pytest.approx(5e-6)
    assert not measured.knows(replace(block, options={"kv_cache": "bf16"}))


def test_several_queries_are_told_apart_from_measured_ones(tmp_path):
    rows = {"heads": [8, 8], "batch": [1, 2], "context": [10, 10]}
    form = Form(1e-6, 1.0, (1e12, 1e12), (1e12, 1e12))
    tables = [table("mla_decode_block", rows, [5.0, 6.0], options={"kv_cache": "fp8"}, form=form)]
    cost = ProfileCost(profile_of(tmp_path, tables), ROOFLINE, H100)
    shape = {"heads": 8, "batch": 1, "context": 10, "queries": 2}
    priced = cost.price(operation("mla_decode_block", shape, options={"kv_cache": "fp8"}))
    assert 5e-6 < priced.seconds <= 6e-6  # cheaper than two sequences: the cache is read once
    shares = dict(priced.by_source())
    assert shares["extrapolated"] == pytest.approx(6e-6 - priced.seconds)  # what the form takes off for it
    assert shares["measured"] == pytest.approx(priced.seconds - shares["extrapolated"])


def test_a_backend_that_is_asked_for_is_taken(tmp_path):
    rows = {"m": [100, 200], "n": [100] * 2, "k": [100] * 2}
    tables = [
        table("gemm", rows, [10.0, 20.0], backend="fast"),
        table("gemm", rows, [30.0, 60.0], backend="slow"),
    ]
    cost = ProfileCost(profile_of(tmp_path, tables), ROOFLINE, H100)
    assert cost.price(gemm(100)).seconds == pytest.approx(10e-6)
    assert cost.price(replace(gemm(100), options={"backend": "slow"})).seconds == pytest.approx(30e-6)


def test_another_gpu_is_scaled_by_the_resource_that_binds(tmp_path):
    # Compute binds: 296 against 1979 TFLOP/s in FP8. With one row memory binds on the H100, and the tile of 64 rows on
    # the H20: 12.8 GFLOP in 43.2 us, where its 4.0 TB/s would take 25 (see test_tiles). Traffic: 4.0 against 3.35.
    rows = {"m": [1, 100_000], "n": [10_000] * 2, "k": [10_000] * 2}
    form = Form(1e-12, 16.0, (H100.fp8_flop_per_s,), (H100.memory_bytes_per_s,))
    us = [104.1 / H100.memory_bytes_per_s * 1e12, 2e13 / H100.fp8_flop_per_s * 1e6]
    moved = table("quantize", {"m": [1e4], "k": [1e4]}, [90.0], form=Form(1e-12, 1.0, (1.0,), (3.35e12,)))
    profile = profile_of(tmp_path, [table("gemm", rows, us, form=form), moved])
    on_h20 = ProfileCost(profile, ROOFLINE, H20)
    small, large = gemm(1, 10_000, 10_000), gemm(100_000, 10_000, 10_000)
    traffic = on_h20.price(operation("quantize", {"m": 1e4, "k": 1e4})).seconds
    assert traffic == pytest.approx(90e-6 * 3.35 / 4.0, rel=0.01)
    assert on_h20.price(small).priced_by == "scaled"
    tile_s, memory_s = 64 * 2e8 / 296e12, 100.03e6 / 3.35e12
    assert on_h20.price(small).seconds == pytest.approx(us[0] * 1e-6 * tile_s / memory_s, rel=0.01)
    assert on_h20.price(large).seconds == pytest.approx(us[1] * 1e-6 * 1979 / 296, rel=0.01)
    assert "scaled from h100_sxm" in on_h20.price(small).source


def test_nvlink_of_an_h800_is_the_only_thing_that_differs(tmp_path):
    rows = {"gpus": [8, 8], "bytes": [1e6, 1e8]}
    form = Form(1e-12, 1.0, (1.0,), (400e9,))
    tables = [table("all_reduce", rows, [2.0, 200.0], "linear", "bf16", form=form)]
    cost = ProfileCost(profile_of(tmp_path, tables), ROOFLINE, H800)
    priced = cost.price(operation("all_reduce", {"gpus": 8, "bytes": 1e8}, "bf16"))
    assert priced.seconds == pytest.approx(200e-6 * 450 / 200, rel=1e-3)


def test_leaving_the_measured_network_is_said(tmp_path):
    exchange = {"tokens": [1, 128], "nodes": [1, 1], "ep": [8, 8], "hidden": [7168] * 2, "top_k": [8] * 2}
    form = Form(1e-6, 1.0, (1.0, 1.0), (1e11, 1e10))
    tables = [table("dispatch", exchange, [10.0, 40.0], options={"mode": "low_latency"}, form=form)]
    cost = ProfileCost(profile_of(tmp_path, tables), ROOFLINE, H100)
    shape = {"tokens": 64, "ep": 16, "nodes": 2, "hidden": 7168, "top_k": 8}
    dispatch = Operation(
        "x", "communication", "dispatch", shape, "fp8", 0.0, 1e6, options={"mode": "low_latency"}
    )
    priced = cost.price(dispatch)
    assert priced.priced_by == "analytic"
    assert "not measured over several nodes" in priced.source


def test_a_header_may_describe_a_device_that_the_catalog_does_not_know(tmp_path):
    device = {"name": "lab", "memory_bytes": 1e10, "memory_bytes_per_s": 1e11, "bf16_flop_per_s": 1e12}
    rows = {"m": [100, 200], "n": [100] * 2, "k": [100] * 2}
    profile = profile_of(tmp_path, [table("gemm", rows, [10.0, 20.0])], "lab", device=device)
    lab = device_gpu(profile)
    assert (lab.memory_bytes, lab.bf16_flop_per_s) == (10**10, 1e12)
    assert ProfileCost(profile, ROOFLINE, lab).price(gemm(100)).priced_by == "measured"


def test_errors_say_what_was_expected(tmp_path):
    with pytest.raises(ProfileError, match=r"shipped are .*h200_sxm/vllm"):
        load_profile("h200_sxm/nothing")
    (tmp_path / "profile.yaml").write_text("gpu: h100_sxm\n")
    with pytest.raises(ProfileError, match="expected keys gpu, engine and tables"):
        read_profile(tmp_path)


def test_a_table_without_a_fit_is_not_used(tmp_path):
    rows = {"m": [100, 200], "n": [100] * 2, "k": [100] * 2}
    tables = [table("gemm", rows, [10.0, 20.0])]
    save_profile(tmp_path, {"gpu": "h100_sxm", "engine": "lab"}, tables)
    cost = ProfileCost(read_profile(tmp_path), ROOFLINE, H100)
    assert cost.price(gemm(100)).priced_by == "analytic"


def test_another_architecture_is_not_priced_by_what_was_measured_on_one(tmp_path):
    """GLM-5's heads are 192 + 64 wide with values of 256; the table holds DeepSeek's 128 + 64 and 128."""
    rows = {"heads": [16, 16], "batch": [1, 2], "new": [64, 64], "cached": [0, 0]}
    form = Form(1e-6, 1.0, (1e12,), (1e12,))
    tables = [table("mla_prefill", rows, [10.0, 20.0], dtype="bf16", form=form)]
    cost = ProfileCost(profile_of(tmp_path, tables), ROOFLINE, H100)
    deepseek, glm = (mla_prefill(16, 1, 64, 0, *dims, "bf16") for dims in ((192, 128), (256, 256)))
    assert cost.price(deepseek).priced_by == "measured"
    other = cost.price(glm)
    assert other.priced_by == "analytic"
    assert "measured with qk_dim 192, not 256" in other.source


def test_a_price_beyond_the_hull_says_how_much_of_it_was_measured(cost):
    # The form is 11.16 us at 500, against 9.13 at 400, measured 60 us.
    near, far = cost.price(gemm(500)), cost.price(gemm(800))
    grown = 60e-6 * form_us(500) / form_us(400)
    assert dict(near.by_source()) == pytest.approx({"measured": 60e-6, "extrapolated": grown - 60e-6})
    assert near.seconds == pytest.approx(grown)
    # 18% of the one is carried on, 47% of the other: what matters gives the name.
    assert (near.priced_by, far.priced_by) == ("measured", "extrapolated")
    assert sum(seconds for _, seconds in far.by_source()) == pytest.approx(far.seconds)
    assert near.times(2.0, "twice").by_source()[1][1] == pytest.approx(2 * (grown - 60e-6))


def test_experts_beyond_their_rows_are_fitted_up_to_the_last_and_carried_on_from_there():
    """H200, DeepEP's masked GEMM: 16 experts on a rank were measured with up to 64 rows each."""
    priced = load_profile("h200_sxm/sglang")
    [table] = [t for t in priced.tables("moe") if t.backend == "deepep_low_latency"]
    of = PricedTable(table, priced.dims)
    shape = {"experts": 16.0, "active": 16.0, "hidden": 7168.0, "inter": 2048.0}
    last, _ = of.seconds({**shape, "rows": 16 * 64.0})
    parts = dict(of.parts({**shape, "rows": 16 * 142.0}))
    assert parts["fitted"] == pytest.approx(last, rel=0.01)
    assert 0 < parts["extrapolated"] < 0.2 * last


def test_a_fit_on_other_counts_is_refused(tmp_path):
    """Its rates would be applied to FLOP and bytes that they do not belong to; fitting again mends it."""
    made = profile_of(tmp_path, [table("gemm", {"m": [1], "n": [1], "k": [1]}, [1.0])])
    fits = made.path / "fit.json"
    fits.write_text(fits.read_text().replace('"counted": 2', '"counted": 1'))
    with pytest.raises(ProfileError, match=r"fit\.json: .*`tokenworks calibrate fit .*` again"):
        read_profile(tmp_path)
    assert not read_profile(tmp_path, fitted=False).fits

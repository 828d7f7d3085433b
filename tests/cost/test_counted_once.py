"""What a row was timed with is not priced beside it: the quantisation of a product's input."""

from dataclasses import replace

import pytest

from calibrate.fit import fit_profile
from calibrate.store import save_fits, save_profile
from calibrate.tables import tables_from_records
from sim.catalog import efficiency, gpu
from sim.catalog.profiles import shipped_profiles
from sim.cost.fits import ProfileError
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile, read_profile
from sim.cost.record import CALIBRATION, Record
from sim.explain import explain
from sim.model.operations import gemm, quantize
from sim.scenario.loading import load

H200 = gpu("h200_sxm")
WIDTHS = {"k": 7168.0, "n": 512.0}


def shipped(name):
    device = gpu(name.split("/")[0])
    return ProfileCost(load_profile(name), AnalyticCost(device, efficiency()), device)


def own(folder, *kernels):
    """A calibrated profile: products of 30 us without anything else, quantisation of 5 us."""
    us = {"gemm": 30.0, "quantize": 5.0}
    found = [
        Record(kernel, {a: v for a, v in {**WIDTHS, "m": m}.items() if kernel == "gemm" or a != "n"}, "fp8",
               us[kernel], source=CALIBRATION, backend="mine")
        for kernel in kernels for m in (16.0, 64.0, 256.0)
    ]  # fmt: skip
    header = {"gpu": "h200_sxm", "engine": "sglang", "attribution": {"source": CALIBRATION}}
    save_profile(folder, header, tables_from_records(found))
    save_fits(folder, fit_profile(read_profile(folder, fitted=False), H200))
    return ProfileCost(read_profile(folder), AnalyticCost(H200, efficiency()), H200)


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_shipped_product_of_other_formats_holds_the_quantisation_of_its_input(name):
    """NVIDIA's collectors start the timed call from BF16, with each engine and both formats (aiconfigurator,
    collector/{sglang,trtllm,vllm}/collect_gemm.py, commit 095f58a)."""
    tables = load_profile(name).tables("gemm")
    for table in tables:
        assert table.includes == (() if table.variant.dtype == "bf16" else ("quantize",))
    cost = shipped(name)
    for dtype in {"fp8", *(table.variant.dtype for table in tables)} - {"bf16"}:
        fed = quantize("q", "dense", 64, 7168, feeds=dtype)
        assert cost.price(fed).seconds == 0
        assert "timed with quantisation" in cost.price(fed).source
        assert cost.price(replace(fed, feeds="")).seconds > 0  # of nobody knows what
        assert cost.price(replace(fed, feeds="bf16")).seconds > 0
        assert "timed with quantisation" in cost.price(gemm("x", "dense", 64, 512, 7168, dtype)).source


def test_ones_own_product_is_priced_with_ones_own_quantisation(tmp_path):
    """Recorded apart (`calibrate/grid.py`), 30 + 5 us; one of both from a shipped table counts once, too."""
    fed, product = quantize("q", "dense", 64, 7168, feeds="fp8"), gemm("x", "dense", 64, 512, 7168, "fp8")
    cost = own(tmp_path / "both", "gemm", "quantize")
    assert cost.price(fed).seconds + cost.price(product).seconds == pytest.approx(35e-6, rel=1e-3)
    alone = own(tmp_path / "gemm", "gemm")
    assert alone.price(product).seconds == pytest.approx(30e-6, rel=1e-3)
    assert alone.price(fed).seconds == shipped("h200_sxm/trtllm").price(replace(fed, feeds="")).seconds
    other = own(tmp_path / "quantize", "quantize")
    assert not other.price(product).own
    assert other.price(fed).seconds == 0


def every(operations):
    for operation in operations:
        yield operation
        yield from every(operation.parts)


@pytest.mark.parametrize("weights", ["fp8", "nvfp4"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_every_quantisation_of_a_step_names_the_product_that_reads_it(weights, phase):
    """The next product after it has its width; what is quantised is all that the product reads."""
    scenario = load("scenarios/chat.yaml", ["gpu=b200", f"precision.weights={weights}"]).scenario
    operations = list(every(priced.operation for priced in explain(scenario, phase).operations))
    found = 0
    for i, one in enumerate(operations):
        if one.kernel == "quantize":
            product = next(o for o in operations[i:] if o.kernel == "gemm")
            assert (one.feeds, one.shape["m"], one.shape["k"]) == (
                product.dtype, product.shape["m"], product.shape["k"],
            )  # fmt: skip
            found += 1
    assert found >= 4


def test_no_step_counts_it_twice():
    """V3.2 on eight H200: nothing of the quantisation is left in a step that shipped products price."""
    scenario = load("scenarios/chat.yaml", ["gpu=h200"]).scenario
    for phase in ("decode", "prefill"):
        told = explain(scenario, phase)
        fed = [o for o in told.operations if o.operation.kernel == "quantize"]
        assert fed and not any(o.total_s for o in fed)
        assert not any("quantise" in o["name"] for o in told.json()["operations"])


def test_a_profile_that_includes_what_no_family_is_called_is_refused(tmp_path):
    own(tmp_path, "gemm")
    header = tmp_path / "profile.yaml"
    text = header.read_text()
    header.write_text(text.replace("  kernel:", "  includes: [quantise]\n  kernel:"))
    with pytest.raises(ProfileError, match="quantise"):
        read_profile(tmp_path)
    header.write_text(text.replace("  kernel:", "  includes: quantize\n  kernel:"))
    with pytest.raises(ProfileError, match="includes: expected a list of kernel families"):
        read_profile(tmp_path)

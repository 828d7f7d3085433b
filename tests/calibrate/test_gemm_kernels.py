"""Dense products: block-scaled FP8 against dequantised inputs, absorb BMMs, quantisation."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.kernels.formats import by_columns, dequantize_blocks, dequantize_groups
from calibrate.kernels.gemm import ABSORB_BMM, GEMM, _scaled_mm, reference_absorb, reference_gemm
from calibrate.kernels.quantize import QUANTIZE
from sim.catalog import model
from sim.model import operations as ops

V3 = model("deepseek-v3")


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_the_fp8_reference_is_the_product_of_what_the_blocks_hold(cpu, generator):
    """Written out block by block: y = sum over blocks of (x_b w_b^T) x row scale x block scale."""
    case = Case(ops.gemm("", "dense", 3, 200, 256, "fp8"), V3)
    t = GEMM.make(case, cpu, generator)
    x, w = t["x"].double(), t["w"].double()
    expected = torch.zeros(3, 200, dtype=torch.float64)
    for block in range(2):
        k = slice(128 * block, 128 * block + 128)
        for column in range(2):
            n = slice(128 * column, min(128 * column + 128, 200))
            scale = t["x_scales"][:, block, None].double() * t["w_scales"][column, block].double()
            expected[:, n] += x[:, k] @ w[n, k].T * scale

    assert relative(reference_gemm(t, torch.arange(3)), expected) < 1e-6  # scales are rounded to float32


def test_an_fp8_product_in_float32_matches_dequantised_inputs(cpu, generator):
    case = Case(ops.gemm("", "dense", 17, 576, 1536, "fp8"), V3)
    t = GEMM.make(case, cpu, generator)

    single = dequantize_groups(t["x"], t["x_scales"]) @ dequantize_blocks(t["w"], t["w_scales"]).T

    assert relative(single, reference_gemm(t, torch.arange(17))) < 1e-5


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_torch_multiplies_as_the_reference(dtype, cpu, generator):
    case = Case(ops.gemm("", "dense", 20, 300, 384, dtype), V3)
    tensors = GEMM.make(case, cpu, generator)
    backend = next(b for b in GEMM.backends if b.name == "torch" and dtype in b.dtypes)

    output = backend.build(case, tensors)()

    assert GEMM.error(case, tensors, output) < 1e-5
    assert GEMM.error(case, tensors, output + output.abs().mean() * 0.02) > GEMM.tolerance


@pytest.mark.parametrize(("stage", "width", "out"), [("pre", 128, 512), ("post", 512, 128)])
def test_absorb_products_go_head_by_head(stage, width, out, cpu, generator):
    case = Case(ops.absorb_bmm(stage, 6, 3, 128, 512), V3)
    tensors = ABSORB_BMM.make(case, cpu, generator)

    output = ABSORB_BMM.backends[0].build(case, tensors)()

    assert tensors["x"].shape == (6, 3, width)
    assert output.shape == (6, 3, out)
    for head in range(3):
        expected = tensors["x"][:, head].double() @ tensors["w"][head].double()
        assert relative(reference_absorb(tensors, torch.arange(6))[:, head], expected) < 1e-12
    assert ABSORB_BMM.error(case, tensors, output) < ABSORB_BMM.tolerance


def test_quantisation_with_a_wrong_scale_is_found(cpu, generator):
    case = Case(ops.quantize("", "dense", 12, 256), V3)
    tensors = QUANTIZE.make(case, cpu, generator)
    values, scales = QUANTIZE.backends[-1].build(case, tensors)()

    assert QUANTIZE.error(case, tensors, (values, scales)) == 0
    assert QUANTIZE.error(case, tensors, (values, scales * 1.05)) > QUANTIZE.tolerance


@pytest.mark.parametrize(("rows", "aligned"), [(1, 4), (4, 4), (5, 8)])
def test_scales_by_columns_are_16_bytes_apart_and_the_same_numbers(rows, aligned):
    scales = torch.arange(1.0, 1 + 3 * rows).view(rows, 3)
    found = by_columns(scales)
    assert torch.equal(found, scales)
    assert found.stride() == (1, aligned)  # four FP32 rows are 16 bytes


def test_torchs_block_scaled_product_gets_the_layouts_that_cublaslt_asks_for(monkeypatch, cpu, generator):
    """Rows in fours, w by columns, x scales with stride (1, m), w scales [4 per column of blocks, n / 128] likewise."""

    def product(x, w, x_scales, x_kind, w_scales, w_kind, output_dtype):
        assert (x.shape, x.stride()) == ((8, 640), (640, 1))
        assert (w.shape, w.stride()) == ((640, 200), (1, 640))
        assert (x_scales.shape, x_scales.stride()) == ((8, 5), (1, 8))
        assert (w_scales.shape, w_scales.stride()) == ((8, 2), (1, 8))  # five blocks along k, padded to eight
        assert (x_kind.name, w_kind.name) == ("BlockWise1x128", "BlockWise128x128")
        return (dequantize_groups(x, x_scales) @ dequantize_blocks(w.T, w_scales.T[:, :5]).T).to(output_dtype)

    monkeypatch.setattr(torch.nn.functional, "scaled_mm", product)
    case = Case(ops.gemm("", "dense", 5, 200, 640, "fp8"), V3)
    t = GEMM.make(case, cpu, generator)
    output = _scaled_mm(case, t)()
    assert output.shape == (5, 200)
    assert GEMM.error(case, t, output) < GEMM.tolerance

"""Dense products: BF16 GEMM, block-scaled FP8 GEMM, the absorb BMMs of MLA.

A weight is [n, k] as in `y = x W^T`; FP8 activations carry one scale per 1 x 128, weights one per 128 x 128.
"""

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)

from typing import Any

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels.backend import (
    BLACKWELL,
    HOPPER,
    Backend,
    Call,
    Family,
    Tensors,
    difference,
    finite,
    on_blackwell,
    poisoned,
    randn,
    sample_rows,
)
from calibrate.kernels.formats import (
    FP8,
    by_columns,
    dequantize_blocks,
    dequantize_groups,
    pack_exponents,
    quantize_blocks,
    quantize_groups,
)
from calibrate.kernels.library import DEEP_GEMM, TRITON, Needs
from sim.kernels.formats import BLOCK


def make_gemm(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """x [m, k] and w [n, k]; for FP8 their values and `x_scales` [m, k / 128], `w_scales` [n / 128, k / 128].

    Scales are powers of two on Blackwell, whose tensor cores apply no others.
    """
    m, n, k = (case.size(axis) for axis in "mnk")
    x, w = randn(m, k, generator=generator), randn(n, k, generator=generator, scale=k**-0.5)
    if case.operation.dtype == "bf16":
        return {"x": x, "w": w}
    powers = device.capability[0] == BLACKWELL
    (x_values, x_scales), (w_values, w_scales) = quantize_groups(x, powers), quantize_blocks(w, powers)
    return {"x": x_values, "x_scales": x_scales, "w": w_values, "w_scales": w_scales}


def reference_gemm(tensors: Tensors, rows: Tensor) -> Tensor:
    """Rows of x w^T in float64, FP8 inputs dequantised first."""
    if "x_scales" not in tensors:
        return tensors["x"][rows].double() @ tensors["w"].double().T
    x = dequantize_groups(tensors["x"][rows], tensors["x_scales"][rows]).double()
    return x @ dequantize_blocks(tensors["w"], tensors["w_scales"]).double().T


def gemm_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled rows."""
    rows = sample_rows(case.size("m"), output.device)
    return difference(output[rows], reference_gemm(tensors, rows)) if finite(output) else float("inf")


def _torch_gemm(case: Case, tensors: Tensors) -> Call:
    """cuBLASLt on the GPU (FP8 with 1 x 128 by 128 x 128 scales is Hopper only); on the CPU FP8 is dequantised
    inside the call, because no CPU computes in it."""
    if case.operation.dtype == "bf16":
        return lambda: torch.nn.functional.linear(tensors["x"], tensors["w"])
    if tensors["x"].device.type == "cpu":
        return lambda: torch.nn.functional.linear(
            dequantize_groups(tensors["x"], tensors["x_scales"]).bfloat16(),
            dequantize_blocks(tensors["w"], tensors["w_scales"]).bfloat16(),
        )
    return _scaled_mm(case, tensors)


def _scaled_mm(case: Case, tensors: Tensors) -> Call:
    """cuBLASLt wants rows in multiples of 4 and both scale matrices with their outer dimension contiguous,
    the 128 x 128 ones padded to 4 along k."""
    functional: Any = torch.nn.functional
    kinds = functional.ScalingType
    padding = -case.size("m") % 4
    x = torch.nn.functional.pad(tensors["x"].view(torch.uint8), (0, 0, 0, padding)).view(FP8)
    x_scales = torch.nn.functional.pad(tensors["x_scales"], (0, 0, 0, padding), value=1.0).T.contiguous().T
    w_scales = torch.nn.functional.pad(tensors["w_scales"], (0, -tensors["w_scales"].shape[1] % 4)).T
    weight, rows = tensors["w"].T, case.size("m")
    return lambda: functional.scaled_mm(
        x,
        weight,
        x_scales,
        kinds.BlockWise1x128,
        w_scales,
        kinds.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )[:rows]


def _output(case: Case, tensors: Tensors) -> Tensor:
    return poisoned(case.size("m"), case.size("n"), dtype=torch.bfloat16, device=tensors["x"].device)


def deep_gemm_scales(scales: Tensor, rows: int | None = None) -> Tensor:
    """Scales as DeepGEMM's kernels read them, so that it rearranges none in a timed call.

    Of activations [.., m, k / 128], or of weights [.., n / 128, k / 128] with their `rows` n. Hopper takes FP32: those
    of activations by columns, those of weights as they are. Blackwell takes packed exponents, of weights one per row
    (DeepGEMM 2.6.1, `csrc/apis/layout.hpp`, `transform_sf_into_required_layout`).
    """
    if not on_blackwell(scales):
        return by_columns(scales) if rows is None else scales
    if rows is not None:
        scales = scales.repeat_interleave(BLOCK, -2)[..., :rows, :]
    return pack_exponents(scales)


_DEEP_BF16 = Needs(DEEP_GEMM, ("bf16_gemm_nt",))
_DEEP_FP8 = Needs(DEEP_GEMM, ("fp8_gemm_nt",))


def _deep_gemm_bf16(case: Case, tensors: Tensors) -> Call:
    (product,) = _DEEP_BF16.load()
    output = _output(case, tensors)

    def run() -> Tensor:
        product(tensors["x"], tensors["w"], output)
        return output

    return run


def _deep_gemm(case: Case, tensors: Tensors) -> Call:
    (product,) = _DEEP_FP8.load()
    output = _output(case, tensors)
    x = (tensors["x"], deep_gemm_scales(tensors["x_scales"]))
    w = (tensors["w"], deep_gemm_scales(tensors["w_scales"], case.size("n")))
    float_scales = not on_blackwell(output)

    def run() -> Tensor:
        product(x, w, output, disable_ue8m0_cast=float_scales)
        return output

    return run


_FLASHINFER = Needs(("flashinfer.gemm",), ("fp8_blockscale_gemm_sm90",))
_SGL = Needs(("sgl_kernel",), ("fp8_blockwise_scaled_mm",))


def _flashinfer_gemm(case: Case, tensors: Tensors) -> Call:
    (product,) = _FLASHINFER.load()
    output = _output(case, tensors)

    def run() -> Tensor:
        product(tensors["x"], tensors["w"], tensors["x_scales"], tensors["w_scales"], output, torch.bfloat16)
        return output

    return run


def _sgl_gemm(case: Case, tensors: Tensors) -> Call:
    del case
    (product,) = _SGL.load()
    # CUTLASS reads activation scales column by column and the weight as [k, n].
    x_scales = tensors["x_scales"].T.contiguous().T
    weight, w_scales = tensors["w"].T, tensors["w_scales"].T
    return lambda: product(tensors["x"], weight, x_scales, w_scales, torch.bfloat16)


def _triton_gemm(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_gemm import block_gemm

    output = _output(case, tensors)
    return lambda: block_gemm(tensors["x"], tensors["x_scales"], tensors["w"], tensors["w_scales"], output)


def _whole_blocks(case: Case) -> str | None:
    return f"n must be a multiple of {BLOCK}" if case.size("n") % BLOCK else None


GEMM = Family(
    kernel="gemm",
    make=make_gemm,
    error=gemm_error,
    tolerance=2e-5,
    backends=(
        Backend("deep_gemm", _deep_gemm_bf16, _DEEP_BF16, capabilities=(HOPPER, BLACKWELL), dtypes=("bf16",)),
        Backend("deep_gemm", _deep_gemm, _DEEP_FP8, capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",)),
        Backend("torch", _torch_gemm, cpu=True, dtypes=("bf16",)),
        Backend("torch", _torch_gemm, cpu=True, capabilities=(HOPPER,), dtypes=("fp8",)),
        Backend("flashinfer", _flashinfer_gemm, _FLASHINFER, capabilities=(HOPPER,), dtypes=("fp8",)),
        Backend(
            "sgl_kernel", _sgl_gemm, _SGL, capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",), limits=_whole_blocks
        ),
        Backend("triton", _triton_gemm, TRITON, capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",)),
    ),
)  # fmt: skip


def make_absorb(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """x [tokens, heads, width] and w [heads, width, out]: `pre` maps qk_nope to the latent, `post` the latent to v."""
    del device
    tokens, heads, model = case.size("tokens"), case.size("heads"), case.model
    pre = case.operation.options["stage"] == "pre"
    width, out = (model.qk_nope, model.kv_lora_rank) if pre else (model.kv_lora_rank, model.v_head_dim)
    return {
        "x": randn(tokens, heads, width, generator=generator),
        "w": randn(heads, width, out, generator=generator, scale=width**-0.5),
    }


def reference_absorb(tensors: Tensors, rows: Tensor) -> Tensor:
    """Rows of the per-head product in float64: [rows, heads, out]."""
    return torch.einsum("thd,hdo->tho", tensors["x"][rows].double(), tensors["w"].double())


def absorb_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled tokens; the output is [tokens, heads, out]."""
    rows = sample_rows(case.size("tokens"), output.device)
    return difference(output[rows], reference_absorb(tensors, rows)) if finite(output) else float("inf")


def _torch_absorb(case: Case, tensors: Tensors) -> Call:
    del case
    x = tensors["x"].transpose(
        0, 1
    )  # heads are the batch of the BMM; engines keep tokens outermost in memory
    return lambda: torch.bmm(x, tensors["w"]).transpose(0, 1)


ABSORB_BMM = Family(
    "absorb_bmm", make_absorb, absorb_error, 2e-5, (Backend("torch", _torch_absorb, cpu=True),)
)

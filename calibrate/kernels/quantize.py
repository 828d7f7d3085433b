"""Quantisation of activations to FP8, one scale per 1 x 128: what precedes every FP8 product.

Hopper's products take FP32 scales, Blackwell's powers of two; each backend writes those of its GPU, laid out as the
product that follows reads them.
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
    on_blackwell,
    poisoned,
    randn,
    sample_rows,
)
from calibrate.kernels.formats import (
    FP8,
    FP8_MAX,
    by_columns,
    dequantize_groups,
    pack_exponents,
    quantize_groups,
    unpack_exponents,
)
from calibrate.kernels.library import TRITON, Needs
from sim.kernels.formats import BLOCK

LAST_BIT = 1e-5
"""Scales of different kernels differ in their last bits: largest x (1 / 448) is not largest / 448."""


def make_quantize(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """x [m, k] in BF16."""
    del device
    return {"x": randn(case.size("m"), case.size("k"), generator=generator)}


def quantize_error(case: Case, tensors: Tensors, output: tuple[Tensor, Tensor]) -> float:
    """Error of the sampled rows against x rounded with the kernel's own scales [m, k / 128], FP32 or packed exponents.

    Infinite where a scale is not within 1 to 2 times the least that holds its group, the range that rounding up to a
    power of two leaves.
    """
    values, scales = output
    groups = case.size("k") // BLOCK
    scales = unpack_exponents(scales, groups) if scales.dtype == torch.int32 else scales
    rows = sample_rows(case.size("m"), values.device)
    x, values, scales = tensors["x"][rows].float(), values[rows], scales[rows].float()
    ratio = scales / quantize_groups(x)[1]
    if not bool(((ratio > 1 - LAST_BIT) & (ratio < 2 + LAST_BIT)).all()):
        return float("inf")
    expected = (
        (x.unflatten(-1, (-1, BLOCK)) / scales.unsqueeze(-1)).flatten(-2).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    )
    return difference(dequantize_groups(values, scales), dequantize_groups(expected, scales))


def _torch_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    powers = on_blackwell(tensors["x"])
    return lambda: quantize_groups(tensors["x"], powers)


def quantized(*shape: int, device: torch.device, powers: bool) -> tuple[Tensor, Tensor]:
    """Buffers for values e4m3 [.., m, k] and their scales as products read them: FP32 or packed, by columns."""
    scales = poisoned(*shape[:-1], shape[-1] // BLOCK, dtype=torch.float32, device=device)
    laid_out = pack_exponents(torch.ones_like(scales)) if powers else by_columns(scales)
    return torch.empty(*shape, dtype=FP8, device=device), laid_out


def _triton_quantize(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_quantize import quantize_rows

    shape, where = (case.size("m"), case.size("k")), tensors["x"].device
    values, scales = quantized(*shape, device=where, powers=on_blackwell(tensors["x"]))
    return lambda: quantize_rows(tensors["x"], values, scales)


_SMALLEST_SCALE = 1e-10
"""Guards a block of zeros; the value that vLLM and SGLang pass to these kernels."""
_SGL = Needs(("sgl_kernel",), ("sgl_per_token_group_quant_8bit|sgl_per_token_group_quant_fp8",))
"""Earlier releases have the second name, with the same arguments (`sgl-kernel/python/sgl_kernel/gemm.py`)."""
_SGLANG = Needs(("sglang.srt.layers.quantization.fp8_kernel",), ("sglang_per_token_group_quant_fp8",))
"""What the engine itself calls, wherever its release keeps the kernel (SGLang 0.5.14, `fp8_utils.py`)."""
_VLLM = Needs(("vllm.model_executor.layers.quantization.utils.fp8_utils",), ("per_token_group_quant_fp8",))


def _sgl_quantize(case: Case, tensors: Tensors) -> Call:
    (quantize,) = _SGL.load()
    powers = on_blackwell(tensors["x"])
    values, scales = quantized(case.size("m"), case.size("k"), device=tensors["x"].device, powers=powers)
    options: dict[str, Any] = {"scale_ue8m0": True} if powers else {}

    def run() -> tuple[Tensor, Tensor]:
        quantize(tensors["x"], values, scales, BLOCK, _SMALLEST_SCALE, -FP8_MAX, FP8_MAX, **options)
        return values, scales

    return run


def _sglang_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    (quantize,) = _SGLANG.load()
    options = {
        "column_major_scales": True,
        "scale_tma_aligned": True,
        "scale_ue8m0": on_blackwell(tensors["x"]),
    }
    return lambda: quantize(tensors["x"], BLOCK, **options)


def _vllm_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    (quantize,) = _VLLM.load()
    powers = on_blackwell(tensors["x"])
    return lambda: quantize(tensors["x"], BLOCK, column_major_scales=True, use_ue8m0=powers)


QUANTIZE = Family(
    kernel="quantize",
    make=make_quantize,
    error=quantize_error,
    # The rounding of a scale differs in its last bit between kernels, which moves a few values by one step of e4m3.
    tolerance=1e-4,
    backends=(
        Backend("sgl_kernel", _sgl_quantize, _SGL, capabilities=(HOPPER, BLACKWELL)),
        Backend("sglang", _sglang_quantize, _SGLANG, capabilities=(HOPPER, BLACKWELL)),
        Backend("vllm", _vllm_quantize, _VLLM, capabilities=(HOPPER, BLACKWELL)),
        Backend("triton", _triton_quantize, TRITON, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_quantize, cpu=True),
    ),
)

"""Dense products: BF16 GEMM, block-scaled FP8 GEMM, activation quantisation, the absorb BMMs of MLA.

A weight is [n, k] as in `y = x W^T`; FP8 activations carry one scale per 1 x 128, weights one per 128 x 128.
"""

# ruff: noqa: PLC0415 (other packages are imported only where their backend runs)

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
    poisoned,
    randn,
    sample_rows,
)
from calibrate.kernels.formats import (
    FP8,
    FP8_MAX,
    dequantize_blocks,
    dequantize_groups,
    quantize_blocks,
    quantize_groups,
)
from sim.model.operations import BLOCK


def make_gemm(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """x [m, k] and w [n, k]; for FP8 their values and `x_scales` [m, k / 128], `w_scales` [n / 128, k / 128]."""
    del device
    m, n, k = (case.size(axis) for axis in "mnk")
    x, w = randn(m, k, generator=generator), randn(n, k, generator=generator, scale=k**-0.5)
    if case.operation.dtype == "bf16":
        return {"x": x, "w": w}
    (x_values, x_scales), (w_values, w_scales) = quantize_groups(x), quantize_blocks(w)
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


def by_columns(scales: Tensor) -> Tensor:
    """Scales [m, k / 128] with rows next to each other in memory and columns 16 bytes aligned.

    What tensor-core kernels read through TMA; the quantisation kernels of engines write them so. DeepGEMM would
    rearrange others in a kernel of its own before every product.
    """
    rows = scales.shape[0]
    return torch.nn.functional.pad(scales, (0, 0, 0, -rows % 4), value=1.0).T.contiguous().T[:rows]


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


def _deep_gemm(case: Case, tensors: Tensors) -> Call:
    import deep_gemm

    output = _output(case, tensors)
    if case.operation.dtype == "bf16":

        def run_bf16() -> Tensor:
            deep_gemm.bf16_gemm_nt(tensors["x"], tensors["w"], output)
            return output

        return run_bf16
    # Hopper takes FP32 scales; Blackwell casts them to powers of two unless they already are.
    float_scales = torch.cuda.get_device_capability(output.device)[0] == HOPPER
    x_scales = by_columns(tensors["x_scales"]) if float_scales else tensors["x_scales"]
    x, w = (tensors["x"], x_scales), (tensors["w"], tensors["w_scales"])

    def run_fp8() -> Tensor:
        deep_gemm.fp8_gemm_nt(x, w, output, disable_ue8m0_cast=float_scales)
        return output

    return run_fp8


def _flashinfer_gemm(case: Case, tensors: Tensors) -> Call:
    from flashinfer.gemm import fp8_blockscale_gemm_sm90

    output = _output(case, tensors)

    def run() -> Tensor:
        fp8_blockscale_gemm_sm90(
            tensors["x"], tensors["w"], tensors["x_scales"], tensors["w_scales"], output, torch.bfloat16
        )
        return output

    return run


def _sgl_gemm(case: Case, tensors: Tensors) -> Call:
    del case
    from sgl_kernel import fp8_blockwise_scaled_mm

    # CUTLASS reads activation scales column by column and the weight as [k, n].
    x_scales = tensors["x_scales"].T.contiguous().T
    weight, w_scales = tensors["w"].T, tensors["w_scales"].T
    return lambda: fp8_blockwise_scaled_mm(tensors["x"], weight, x_scales, w_scales, torch.bfloat16)


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
        Backend("deep_gemm", _deep_gemm, package="deep_gemm", capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_gemm, cpu=True, dtypes=("bf16",)),
        Backend("torch", _torch_gemm, cpu=True, capabilities=(HOPPER,), dtypes=("fp8",)),
        Backend("flashinfer", _flashinfer_gemm, package="flashinfer.gemm", capabilities=(HOPPER,), dtypes=("fp8",)),
        Backend(
            "sgl_kernel", _sgl_gemm, package="sgl_kernel", capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",),
            limits=_whole_blocks,
        ),
        Backend("triton", _triton_gemm, package="triton", capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",)),
    ),
)  # fmt: skip


def make_quantize(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """x [m, k] in BF16."""
    del device
    return {"x": randn(case.size("m"), case.size("k"), generator=generator)}


def quantize_error(case: Case, tensors: Tensors, output: tuple[Tensor, Tensor]) -> float:
    """Error of the dequantised rows against the dequantised rows of the reference; scales [m, k / 128]."""
    values, scales = output
    rows = sample_rows(case.size("m"), values.device)
    expected = dequantize_groups(*quantize_groups(tensors["x"][rows]))
    return difference(dequantize_groups(values[rows], scales[rows]), expected)


def _torch_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    return lambda: quantize_groups(tensors["x"])


def _quantized(tensors: Tensors) -> tuple[Tensor, Tensor]:
    m, k = tensors["x"].shape
    device = tensors["x"].device
    return torch.empty(m, k, dtype=FP8, device=device), poisoned(
        m, k // BLOCK, dtype=torch.float32, device=device
    )


def _triton_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    from calibrate.kernels.triton_gemm import quantize_rows

    values, scales = _quantized(tensors)
    return lambda: quantize_rows(tensors["x"], values, scales)


_SMALLEST_SCALE = 1e-10
"""Guards a block of zeros; the value that vLLM and SGLang pass to these kernels."""


def _sgl_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    from sgl_kernel import sgl_per_token_group_quant_8bit

    values, scales = _quantized(tensors)

    def run() -> tuple[Tensor, Tensor]:
        sgl_per_token_group_quant_8bit(
            tensors["x"], values, scales, BLOCK, _SMALLEST_SCALE, -FP8_MAX, FP8_MAX
        )
        return values, scales

    return run


def _vllm_quantize(case: Case, tensors: Tensors) -> Call:
    del case
    from vllm.model_executor.layers.quantization.utils.fp8_utils import per_token_group_quant_fp8

    return lambda: per_token_group_quant_fp8(tensors["x"], BLOCK, use_ue8m0=False)


QUANTIZE = Family(
    kernel="quantize",
    make=make_quantize,
    error=quantize_error,
    # The rounding of a scale differs in its last bit between kernels, which moves a few values by one step of e4m3.
    tolerance=1e-4,
    backends=(
        Backend("sgl_kernel", _sgl_quantize, package="sgl_kernel", capabilities=(HOPPER, BLACKWELL)),
        Backend("vllm", _vllm_quantize, package="vllm", capabilities=(HOPPER, BLACKWELL)),
        Backend("triton", _triton_quantize, package="triton", capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_quantize, cpu=True),
    ),
)


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

"""Routed experts by DeepGEMM's grouped products, with our Triton kernel for the activation between them.

Signatures as read in DeepGEMM 2.6.1 (`csrc/apis/gemm.hpp`, `deep_gemm/__init__.py`). Scales of both products are
laid out as the kernels read them: those of x and of the weights before, of the middle by the activation kernel.
"""

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)

from typing import Final

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.kernels.backend import Call, Tensors, on_blackwell, poisoned
from calibrate.kernels.formats import FP8
from calibrate.kernels.gemm import deep_gemm_scales
from calibrate.kernels.library import DEEP_GEMM, Needs
from calibrate.kernels.quantize import quantized
from sim.kernels.formats import BLOCK

CONTIGUOUS: Final = Needs(
    DEEP_GEMM, ("m_grouped_fp8_gemm_nt_contiguous", "get_mk_alignment_for_contiguous_layout")
)
MASKED: Final = Needs(DEEP_GEMM, ("m_grouped_fp8_gemm_nt_masked|fp8_m_grouped_gemm_nt_masked",))


def expert_of_rows(counts: Tensor) -> Tensor:
    """Expert of each row, int64 [rows]."""
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def _weights(case: Case, tensors: Tensors) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    up = deep_gemm_scales(tensors["up_scales"], 2 * case.size("inter"))
    down = deep_gemm_scales(tensors["down_scales"], case.size("hidden"))
    return (tensors["up"], up), (tensors["down"], down)


def _spread(tensors: Tensors, place: tuple[Tensor, ...], *room: int) -> tuple[Tensor, Tensor]:
    """x and its scales with its rows at `place` of a larger array; the rest is zeros with scale 1."""
    x, scales = tensors["x"], tensors["x_scales"]
    values = torch.zeros(*room, x.shape[1], dtype=torch.uint8, device=x.device)
    values[place] = x.view(torch.uint8)
    spread = torch.ones(*room, scales.shape[1], device=x.device)
    spread[place] = scales
    return values.view(FP8), deep_gemm_scales(spread)


def deep_gemm_contiguous(case: Case, tensors: Tensors) -> Call:
    """DeepGEMM's contiguous layout (prefill): each expert's rows are padded to the kernel's alignment."""
    from calibrate.kernels.triton_quantize import gated_activation

    product, alignment = CONTIGUOUS.load()
    align, counts = int(alignment()), tensors["counts"]
    padded = (counts + align - 1) // align * align
    expert = expert_of_rows(counts)
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    position = torch.arange(len(expert), device=counts.device) + shift[expert]
    total, device = int(padded.sum()), counts.device
    groups = torch.full((total,), -1, dtype=torch.int32, device=device)
    groups[position] = expert.int()
    x, (up, down) = _spread(tensors, (position,), total), _weights(case, tensors)
    float_scales = not on_blackwell(counts)
    both = torch.zeros(total, 2 * case.size("inter"), dtype=torch.bfloat16, device=device)
    middle = quantized(total, case.size("inter"), device=device, powers=not float_scales)
    output = poisoned(total, case.size("hidden"), dtype=torch.bfloat16, device=device)

    def run() -> Call:
        product(x, up, both, groups, disable_ue8m0_cast=float_scales)
        gated_activation(both, *middle)
        product(middle, down, output, groups, disable_ue8m0_cast=float_scales)
        return lambda: output[position]

    return run


def deep_gemm_masked(case: Case, tensors: Tensors) -> Call:
    """DeepGEMM's masked layout (decode): every expert has room for the fullest one; `counts` says how much is real."""
    from calibrate.kernels.triton_quantize import gated_activation

    (product,) = MASKED.load()
    counts, device = tensors["counts"], tensors["counts"].device
    experts, expert = len(counts), expert_of_rows(counts)
    room = -(-int(counts.max()) // BLOCK) * BLOCK
    place = torch.arange(len(expert), device=device) - (counts.cumsum(0) - counts)[expert]
    x, (up, down) = _spread(tensors, (expert, place), experts, room), _weights(case, tensors)
    float_scales = not on_blackwell(counts)
    both = poisoned(experts, room, 2 * case.size("inter"), dtype=torch.bfloat16, device=device)
    middle = quantized(experts, room, case.size("inter"), device=device, powers=not float_scales)
    output = poisoned(experts, room, case.size("hidden"), dtype=torch.bfloat16, device=device)
    filled, expected = counts.int(), -(-case.size("rows") // case.size("active"))

    def run() -> Call:
        product(x, up, both, filled, expected, disable_ue8m0_cast=float_scales)
        gated_activation(both, *middle, filled)
        product(middle, down, output, filled, expected, disable_ue8m0_cast=float_scales)
        return lambda: output[expert, place]

    return run

"""Our own Triton kernel for quantisation: BF16 rows, or silu(gate) x up of them, to block-scaled FP8.

Scales are written where the product that follows reads them: FP32, or the exponents of powers of two, four in an
int32, at any strides (`formats.by_columns`, `formats.pack_exponents`).
"""

# The language of Triton has no annotations: a kernel's arguments are pointers and numbers by their use.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from calibrate.kernels.formats import EXPONENTS, FP8, FP8_MAX, MANTISSA_BITS
from calibrate.kernels.tune import Configurations, launch
from sim.kernels.formats import BLOCK

CONFIGURATIONS: Configurations = (
    {"ROWS": 1, "num_warps": 1},
    {"ROWS": 2, "num_warps": 2},
    {"ROWS": 4, "num_warps": 4},
    {"ROWS": 8, "num_warps": 4},
)
"""A row's four groups are 1 KB of BF16, 32 bytes of it for each thread of a warp."""


@triton.jit
def _quantize(
    x, values, scales, counts, rows, k, capacity, scale_array, scale_row, scale_column,
    GATED: tl.constexpr, SCALED: tl.constexpr, PACKED: tl.constexpr, MASKED: tl.constexpr, LIMIT: tl.constexpr,
    MANTISSA: tl.constexpr, BLOCK: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS rows of GROUPS groups: optionally silu(gate) x up first, then FP8 with each group's own scale, or BF16.

    Rows come in arrays of `capacity`. Masked: the first `counts` of each array are real, the others are skipped.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    array, place = row // capacity, row % capacity
    real = row < rows
    if MASKED:
        real = real & (place < tl.load(counts + array, mask=real, other=0))
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    c = tl.program_id(1) * GROUPS * BLOCK + tl.arange(0, GROUPS * BLOCK)
    mask = real[:, None] & (c < k)[None, :]
    if GATED:
        source = x + row[:, None] * 2 * k + c[None, :]
        gate = tl.load(source, mask=mask, other=0.0).to(tl.float32)
        value = gate / (1 + tl.exp(-gate)) * tl.load(source + k, mask=mask, other=0.0).to(tl.float32)
    else:
        value = tl.load(x + row[:, None] * k + c[None, :], mask=mask, other=0.0).to(tl.float32)
    if SCALED:
        cut = tl.reshape(value, [ROWS, GROUPS, BLOCK])
        largest = tl.max(tl.abs(cut), 2)
        scale = tl.where(largest > 0, largest / LIMIT, 1.0)
        where = scales + array * scale_array + place * scale_row
        if PACKED:
            bits = scale.to(tl.int32, bitcast=True)
            exponent = (bits >> MANTISSA) + ((bits & ((1 << MANTISSA) - 1)) != 0).to(tl.int32)
            scale = (exponent << MANTISSA).to(tl.float32, bitcast=True)
            exponent = tl.where((group * BLOCK < k)[None, :], exponent, 0)
            word = tl.sum(exponent << (8 * tl.arange(0, GROUPS))[None, :], 1)
            tl.store(where + tl.program_id(1) * scale_column, word, mask=real)
        else:
            inside = real[:, None] & (group * BLOCK < k)[None, :]
            tl.store(where[:, None] + group[None, :] * scale_column, scale, mask=inside)
        value = tl.reshape(cut / scale[:, :, None], [ROWS, GROUPS * BLOCK])
    tl.store(values + row[:, None] * k + c[None, :], value.to(values.dtype.element_ty), mask=mask)


def _launch(x: Tensor, values: Tensor, scales: Tensor | None, counts: Tensor | None, gated: bool) -> None:
    k, capacity = values.shape[-1], values.shape[-2]
    rows = values.numel() // k
    array = 0 if scales is None or scales.dim() == 2 else scales.stride(0)
    layout = (0, 0, 0) if scales is None else (array, *scales.stride()[-2:])

    def run(ROWS: int, num_warps: int) -> None:
        _quantize[(triton.cdiv(rows, ROWS), triton.cdiv(k, EXPONENTS * BLOCK))](
            x, values, x if scales is None else scales, x if counts is None else counts, rows, k, capacity, *layout,
            GATED=gated, SCALED=values.dtype == FP8, PACKED=scales is not None and scales.dtype == torch.int32,
            MASKED=counts is not None, LIMIT=FP8_MAX, MANTISSA=MANTISSA_BITS, BLOCK=BLOCK, GROUPS=EXPONENTS, ROWS=ROWS,
            num_warps=num_warps,
        )  # fmt: skip

    launch(("quantize", gated, counts is None, rows, k), CONFIGURATIONS, run, x.device)


def quantize_rows(x: Tensor, values: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """x [m, k] BF16 -> values e4m3 [m, k], scales [m, k / 128] float32 or, packed, [m, k / 512] int32."""
    _launch(x, values, scales, None, gated=False)
    return values, scales


def gated_activation(
    x: Tensor, values: Tensor, scales: Tensor | None, counts: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """silu(gate) x up of x [.., 2 k] (gate first) -> BF16 [.., k], or e4m3 [.., k] with scales as in `quantize_rows`.

    With `counts` int32 [groups], x is [groups, capacity, 2 k] and only the first rows of each group are computed.
    """
    _launch(x, values, scales, counts, gated=True)
    return values, scales

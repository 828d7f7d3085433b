"""Our own Triton kernels for block-scaled FP8: GEMM, grouped GEMM of the routed experts, quantisation.

Scales multiply the accumulator once per 128 along k, outside the tensor core, as DeepSeek-V3's report describes
(section 3.3.2). Under Triton's interpreter BF16 inputs are widened to float32 after the load (`WIDEN`).
"""

# The language of Triton has no annotations: a kernel's arguments are pointers and numbers by their use.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

import os
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from sim.model.operations import BLOCK

INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the kernels run on the CPU through Triton's interpreter (set before this module is imported)."""
FEWEST_ROWS: Final = 16
MOST_ROWS: Final = 64
"""Rows of one tile of the output."""


@triton.jit
def _gemm(
    x, x_scales, w, w_scales, output, tile_group, tile_start, tile_end, n, k,
    GROUPED: tl.constexpr, SCALED: tl.constexpr, WIDEN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One [ROWS, 128] tile of x w^T. Grouped: a tile's rows belong to one expert, given by three small tables."""
    tile, column = tl.program_id(0), tl.program_id(1)
    if GROUPED:
        group = tl.load(tile_group + tile).to(tl.int64)
        start, end = tl.load(tile_start + tile), tl.load(tile_end + tile)
    else:
        group = tl.program_id(2).to(tl.int64)  # the grid has two dimensions: always 0
        start, end = tile * ROWS, tile_end
    row = (start + tl.arange(0, ROWS)).to(tl.int64)
    col = column * BLOCK + tl.arange(0, BLOCK)
    step = tl.arange(0, BLOCK)
    blocks = tl.cdiv(k, BLOCK)
    weight = w + group * n * k + col[None, :].to(tl.int64) * k
    scale = w_scales + group * tl.cdiv(n, BLOCK) * blocks + column * blocks
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for block in range(0, blocks):
        inner = block * BLOCK + step
        a = tl.load(x + row[:, None] * k + inner[None, :], mask=(row < end)[:, None], other=0.0)
        b = tl.load(weight + inner[:, None], mask=(col < n)[None, :], other=0.0)
        if WIDEN:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        product = tl.dot(a, b)
        if SCALED:
            rows = tl.load(x_scales + row * blocks + block, mask=row < end, other=0.0)
            product = product * (rows * tl.load(scale + block))[:, None]
        total += product
    where = output + row[:, None] * n + col[None, :]
    tl.store(where, total.to(output.dtype.element_ty), mask=(row < end)[:, None] & (col < n)[None, :])


def _rows_per_tile(rows: int) -> int:
    return max(FEWEST_ROWS, min(MOST_ROWS, int(triton.next_power_of_2(rows))))


def block_gemm(x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, output: Tensor) -> Tensor:
    """x w^T of block-scaled FP8: x [m, k], x_scales [m, k / 128], w [n, k], w_scales [n / 128, k / 128] -> [m, n]."""
    (m, k), n = x.shape, w.shape[0]
    rows = _rows_per_tile(m)
    _gemm[(triton.cdiv(m, rows), triton.cdiv(n, BLOCK))](
        x, x_scales, w, w_scales, output, x, x, m, n, k,
        GROUPED=False, SCALED=True, WIDEN=INTERPRETED, ROWS=rows, BLOCK=BLOCK,
    )  # fmt: skip
    return output


def tiles(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Cut rows that lie sorted by expert into tiles that each belong to one expert.

    counts int64 [experts] -> expert, first row and last row + 1 of each tile, int32 [tiles], and rows per tile.
    """
    rows = _rows_per_tile(int(counts.max()))
    ends = counts.cumsum(0)
    per_expert = (counts + rows - 1) // rows
    group = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), per_expert)
    first = per_expert.cumsum(0) - per_expert
    rank = torch.arange(len(group), device=counts.device) - first[group]
    start = ends[group] - counts[group] + rank * rows
    end = torch.minimum(start + rows, ends[group])
    return group.int(), start.int(), end.int(), rows


def grouped_gemm(
    x: Tensor, x_scales: Tensor | None, w: Tensor, w_scales: Tensor | None, cut: tuple[Tensor, Tensor, Tensor, int],
    output: Tensor,
) -> Tensor:  # fmt: skip
    """Rows of each expert times its weight: x [rows, k] sorted by expert, w [experts, n, k], `cut` from `tiles`.

    FP8 with scales [rows, k / 128] and [experts, n / 128, k / 128], or BF16 with none -> [rows, n].
    """
    group, start, end, rows = cut
    experts, n, k = w.shape
    del experts
    _gemm[(len(group), triton.cdiv(n, BLOCK))](
        x, x if x_scales is None else x_scales, w, w if w_scales is None else w_scales, output, group, start, end,
        n, k, GROUPED=True, SCALED=x_scales is not None, WIDEN=INTERPRETED, ROWS=rows, BLOCK=BLOCK,
    )  # fmt: skip
    return output

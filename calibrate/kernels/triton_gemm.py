"""Our own Triton kernels for block-scaled FP8: GEMM, and grouped GEMM of the routed experts.

Scales multiply the accumulator once per 128 along k, outside the tensor core, as DeepSeek-V3's report describes
(section 3.3.2). Tiles of fewer than 64 rows are computed transposed, so that the weight's columns fill the 64 rows that
Hopper's and Blackwell's tensor cores work on. Under Triton's interpreter BF16 inputs are widened to float32 after the
load (`WIDEN`).
"""

# The language of Triton has no annotations: a kernel's arguments are pointers and numbers by their use.
# Its branches on constants are taken by the compiler.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: PLR0912, PLR5501, SIM108

import os
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from calibrate.kernels.tune import Configurations, launch
from sim.kernels.formats import BLOCK

INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the kernels run on the CPU through Triton's interpreter (set before this module is imported)."""
FEWEST_ROWS: Final = 16
MOST_ROWS: Final = 128
"""Rows of one tile of the output."""
SWAPPED_BELOW: Final = 64
"""Rows below which a tile is computed transposed."""
RASTER: Final = 8
"""Tiles of rows that share the columns in a group of programs that follow each other, so that both stay in the L2."""


def configurations(rows: int) -> Configurations:
    """How tiles of so many rows are cut into columns and pipelined; none of them spills on 9.0 or 10.0 (Triton 3.9)."""
    shapes: tuple[tuple[int, int, int], ...]
    if rows < SWAPPED_BELOW:
        shapes = ((64, 4, 6), (128, 4, 4), (128, 4, 6), (128, 8, 5))
    elif rows < MOST_ROWS:
        shapes = ((128, 4, 4), (128, 4, 6), (128, 8, 4))
    else:
        shapes = ((128, 8, 3), (128, 8, 4), (128, 8, 5))
    return [{"COLUMNS": c, "num_warps": warps, "num_stages": stages} for c, warps, stages in shapes]


@triton.jit
def _gemm(
    x, x_scales, w, w_scales, output, tile_group, tile_start, tile_end, tiles, n, k,
    GROUPED: tl.constexpr, SCALED: tl.constexpr, WIDEN: tl.constexpr, SWAP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, RASTER: tl.constexpr,
):  # fmt: skip
    """One [ROWS, COLUMNS] tile of x w^T. Grouped: a tile's rows belong to one expert, given by three small tables."""
    columns = tl.cdiv(n, COLUMNS)
    first = tl.program_id(0) // (RASTER * columns) * RASTER
    height = tl.minimum(tiles - first, RASTER)
    tile = first + tl.program_id(0) % (RASTER * columns) % height
    column = tl.program_id(0) % (RASTER * columns) // height
    if GROUPED:
        group = tl.load(tile_group + tile).to(tl.int64)
        start, end = tl.load(tile_start + tile), tl.load(tile_end + tile)
    else:
        group = tl.program_id(1).to(tl.int64)  # the grid has one dimension: always 0
        start, end = tile * ROWS, tile_end
    row = (start + tl.arange(0, ROWS)).to(tl.int64)
    col = column * COLUMNS + tl.arange(0, COLUMNS)
    step = tl.arange(0, INNER)
    blocks = tl.cdiv(k, BLOCK)
    rows = x + row[:, None] * k + step[None, :]
    weight = w + group * n * k + col[:, None].to(tl.int64) * k + step[None, :]
    scale = w_scales + group * tl.cdiv(n, BLOCK) * blocks + column * COLUMNS // BLOCK * blocks
    if SWAP:
        total = tl.zeros([COLUMNS, ROWS], tl.float32)
    else:
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for block in range(0, k // INNER):
        a = tl.load(rows + block * INNER, mask=(row < end)[:, None], other=0.0)
        b = tl.load(weight + block * INNER, mask=(col < n)[:, None], other=0.0)
        if WIDEN:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        if SCALED:
            factors = tl.load(x_scales + row * blocks + block, mask=row < end, other=0.0) * tl.load(
                scale + block
            )
            if SWAP:
                total += tl.dot(b, tl.trans(a)) * factors[None, :]
            else:
                total += tl.dot(a, tl.trans(b)) * factors[:, None]
        else:
            if SWAP:
                total = tl.dot(b, tl.trans(a), total)
            else:
                total = tl.dot(a, tl.trans(b), total)
    if SWAP:
        total = tl.trans(total)
    where = output + row[:, None] * n + col[None, :]
    tl.store(where, total.to(output.dtype.element_ty), mask=(row < end)[:, None] & (col < n)[None, :])


INNER: Final = {True: BLOCK, False: 64}
"""Step along k, by whether there are scales: 128 bytes of a row either way."""


def rows_per_tile(rows: int) -> int:
    """Rows of the tiles into which so many are cut."""
    return max(FEWEST_ROWS, min(MOST_ROWS, int(triton.next_power_of_2(rows))))


def block_gemm(x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, output: Tensor) -> Tensor:
    """x w^T of block-scaled FP8: x [m, k], x_scales [m, k / 128], w [n, k], w_scales [n / 128, k / 128] -> [m, n]."""
    rows = rows_per_tile(len(x))
    _launch(x, x_scales, w, w_scales, output, (x, x, len(x), rows), triton.cdiv(len(x), rows), False)
    return output


def _launch(
    x: Tensor, x_scales: Tensor | None, w: Tensor, w_scales: Tensor | None, output: Tensor,
    cut: tuple[Tensor, Tensor, Tensor | int, int], count: int, grouped: bool,
) -> None:  # fmt: skip
    group, start, end, rows = cut
    n, k = w.shape[-2:]
    scaled = x_scales is not None

    def run(COLUMNS: int, num_warps: int, num_stages: int) -> None:
        _gemm[(count * triton.cdiv(n, COLUMNS),)](
            x, x_scales if scaled else x, w, w_scales if scaled else w, output, group, start, end, count, n, k,
            GROUPED=grouped, SCALED=scaled, WIDEN=INTERPRETED, SWAP=rows < SWAPPED_BELOW, ROWS=rows, COLUMNS=COLUMNS,
            INNER=INNER[scaled], BLOCK=BLOCK, RASTER=RASTER, num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip

    launch(("gemm", grouped, scaled, rows, len(x), n, k), configurations(rows), run, x.device)


def tiles(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Cut rows that lie sorted by expert into tiles that each belong to one expert.

    counts int64 [experts] -> expert, first row and last row + 1 of each tile, int32 [tiles], and rows per tile.
    """
    rows = rows_per_tile(int(counts.max()))
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
    _launch(x, x_scales, w, w_scales, output, cut, len(cut[0]), True)
    return output

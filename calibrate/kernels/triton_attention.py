"""Our own Triton kernels for absorbed MLA: dense over a paged cache, sparse over selected entries.

Flash-decoding: the keys of a query are split over programs, each keeps a running softmax, and a second kernel
merges the parts. Triton's interpreter computes BF16 wrongly, so there everything is widened to float32 after the
load (`WIDEN`); on a GPU the tensor cores take BF16.
"""

# The language of Triton has no annotations: a kernel's arguments are pointers and numbers by their use.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

import os
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from calibrate.kernels.formats import (
    FP8,
    LATENT,
    LATENT_ENTRY_BYTES,
    PAGE_TOKENS,
    ROPE,
)
from calibrate.kernels.tune import Configurations, launch
from sim.kernels.formats import BLOCK

INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the kernels run on the CPU through Triton's interpreter (set before this module is imported)."""
FEWEST_ROWS: Final = 16
"""Smallest tile side of `tl.dot`."""
MOST_HEADS: Final = {False: 32, True: 16}
"""Heads that one program handles, by whether entries are packed: with twice as many beside a 512-wide accumulator, and
entries that are unpacked there, registers spill in every configuration."""
WAVES: Final = 2
"""Programs per multiprocessor that the split of the keys aims for."""
FEWEST_KEYS: Final = 256
"""Keys of one split at least."""


@triton.jit
def _attend(
    q, entries, scales, ropes, index, lengths, parts, logs, scale, queries, heads, width, chunk, splits,
    SPARSE: tl.constexpr, PACKED: tl.constexpr, WIDEN: tl.constexpr, HEADS: tl.constexpr, KEYS: tl.constexpr,
    PAGE: tl.constexpr, LATENT: tl.constexpr, ROPE: tl.constexpr, ENTRY: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One query row, a block of heads, one split of its keys: running softmax over KEYS keys at a time."""
    row, block, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    sequence, query = row // queries, row % queries
    visible = width if SPARSE else tl.load(lengths + sequence) - queries + query + 1
    h = block * HEADS + tl.arange(0, HEADS)
    c, r = tl.arange(0, LATENT), tl.arange(0, ROPE)
    DIM: tl.constexpr = LATENT + ROPE
    TILES: tl.constexpr = LATENT // GROUP
    q_row = q + (row * heads + h)[:, None] * DIM
    q_c = tl.load(q_row + c[None, :], mask=(h < heads)[:, None], other=0.0)
    q_r = tl.load(q_row + LATENT + r[None, :], mask=(h < heads)[:, None], other=0.0)
    if WIDEN:
        q_c = q_c.to(tl.float32)
        q_r = q_r.to(tl.float32)
    top = tl.full([HEADS], -1e30, tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    summed = tl.zeros([HEADS, LATENT], tl.float32)
    end = tl.minimum(visible, (split + 1) * chunk)
    for start in range(split * chunk, end, KEYS):
        n = start + tl.arange(0, KEYS)
        if SPARSE:
            found = tl.load(index + row * width + n, mask=n < end, other=-1)
            valid = found >= 0
            entry = tl.where(valid, found, 0).to(tl.int64)
        else:
            valid = n < end
            page = tl.load(index + sequence * width + start // PAGE)
            entry = page.to(tl.int64) * PAGE + start % PAGE + tl.arange(0, KEYS)
        if PACKED:
            k_c = tl.load(entries + entry[:, None] * ENTRY + c[None, :], mask=valid[:, None], other=0.0)
            factor = tl.load(
                scales + entry[:, None] * (ENTRY // 4) + LATENT // 4 + tl.arange(0, TILES)[None, :],
                mask=valid[:, None], other=0.0,
            )  # fmt: skip
            k_r = tl.load(
                ropes + entry[:, None] * (ENTRY // 2) + (ENTRY // 2 - ROPE) + r[None, :],
                mask=valid[:, None], other=0.0,
            )  # fmt: skip
            tiles = tl.reshape(k_c.to(tl.float32), [KEYS, TILES, GROUP]) * factor[:, :, None]
            k_c = tl.reshape(tiles, [KEYS, LATENT]).to(q_c.dtype)
            k_r = k_r.to(q_c.dtype)
        else:
            k_c = tl.load(entries + entry[:, None] * DIM + c[None, :], mask=valid[:, None], other=0.0).to(
                q_c.dtype
            )
            k_r = tl.load(
                entries + entry[:, None] * DIM + LATENT + r[None, :], mask=valid[:, None], other=0.0
            )
            k_r = k_r.to(q_c.dtype)
        score = (tl.dot(q_c, tl.trans(k_c)) + tl.dot(q_r, tl.trans(k_r))) * scale
        score = tl.where(valid[None, :], score, -float("inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp(score - higher[:, None])
        kept = tl.exp(top - higher)
        total = total * kept + tl.sum(weight, 1)
        summed = summed * kept[:, None] + tl.dot(weight.to(k_c.dtype), k_c)
        top = higher
    part = (row * heads + h) * splits + split
    safe = tl.where(total > 0, total, 1.0)
    tl.store(parts + part[:, None] * LATENT + c[None, :], summed / safe[:, None], mask=(h < heads)[:, None])
    tl.store(logs + part, tl.where(total > 0, top + tl.log(safe), -1e30), mask=h < heads)


@triton.jit
def _merge(parts, logs, output, splits, LATENT: tl.constexpr):
    """Merge the splits of one (query, head): softmax over their log-sum-exps."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, LATENT)
    top = tl.load(logs + row * splits)
    for split in range(1, splits):
        top = tl.maximum(top, tl.load(logs + row * splits + split))
    total = 0.0
    merged = tl.zeros([LATENT], tl.float32)
    for split in range(0, splits):
        weight = tl.exp(tl.load(logs + row * splits + split) - top)
        total += weight
        merged += weight * tl.load(parts + (row * splits + split) * LATENT + c)
    tl.store(output + row * LATENT + c, (merged / total).to(output.dtype.element_ty))


def _multiprocessors(device: torch.device) -> int:
    return 1 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count


CONFIGURATIONS: Final[Configurations] = tuple(
    {"KEYS": 32, "num_warps": 8, "num_stages": stages} for stages in (3, 2, 4)
)
"""How `_attend` is tiled and pipelined; none spills on 9.0 or 10.0 (Triton 3.9), where 64 keys or 4 warps do."""


def _launch(
    q: Tensor, views: tuple[Tensor, Tensor, Tensor], index: Tensor, lengths: Tensor, output: Tensor, scale: float,
    most_keys: int, sparse: bool,
) -> Tensor:  # fmt: skip
    batch, queries, heads, _ = q.shape
    rows = batch * queries
    packed = views[0].shape[-1] == LATENT_ENTRY_BYTES
    head_block = max(FEWEST_ROWS, min(MOST_HEADS[packed], triton.next_power_of_2(heads)))
    programs = rows * triton.cdiv(heads, head_block)
    wanted = max(1, WAVES * _multiprocessors(q.device) // programs)
    chunk = max(FEWEST_KEYS, triton.cdiv(triton.cdiv(most_keys, wanted), PAGE_TOKENS) * PAGE_TOKENS)
    splits = triton.cdiv(most_keys, chunk)
    parts = torch.empty(rows * heads, splits, LATENT, dtype=torch.float32, device=q.device)
    logs = torch.empty(rows * heads, splits, dtype=torch.float32, device=q.device)

    def run(KEYS: int, num_warps: int, num_stages: int) -> None:
        _attend[(rows, triton.cdiv(heads, head_block), splits)](
            q, *views, index, lengths, parts, logs, scale, queries, heads, index.shape[-1], chunk, splits,
            SPARSE=sparse, PACKED=packed, WIDEN=INTERPRETED, HEADS=head_block, KEYS=KEYS, PAGE=PAGE_TOKENS,
            LATENT=LATENT, ROPE=ROPE, ENTRY=LATENT_ENTRY_BYTES, GROUP=BLOCK, num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip

    key = ("attend", sparse, views[0].dtype, rows, heads, most_keys)
    launch(key, CONFIGURATIONS, run, q.device)
    _merge[(rows * heads,)](parts, logs, output, splits, LATENT=LATENT)
    return output


def decode(q: Tensor, cache: Tensor, pages: Tensor, lengths: Tensor, output: Tensor, scale: float) -> Tensor:
    """Dense absorbed attention over a paged cache, causal among the queries of a sequence.

    q [b, s, h, 576], cache [pages, 64, 576] BF16 or FP8, pages int32 [b, n], lengths int32 [b] -> [b, s, h, 512].
    """
    return _launch(
        q, (cache, cache, cache), pages, lengths, output, scale, pages.shape[1] * PAGE_TOKENS, False
    )


def sparse(q: Tensor, cache: Tensor, indices: Tensor, output: Tensor, scale: float) -> Tensor:
    """Absorbed attention over selected entries.

    q [b, s, h, 576]; cache BF16 [n, 576] or packed uint8 [n, 656]; indices int32 [b, s, k] into it, -1 for none
    -> [b, s, h, 512].
    """
    packed = cache.shape[-1] == LATENT_ENTRY_BYTES
    views = (
        (cache.view(FP8), cache.view(torch.float32), cache.view(torch.bfloat16)) if packed else (cache,) * 3
    )
    return _launch(q, views, indices, indices, output, scale, indices.shape[-1], True)

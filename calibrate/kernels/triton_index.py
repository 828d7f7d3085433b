"""Our own Triton kernels for the lightning indexer: index logits, and a radix selection of the best keys."""

# The language of Triton has no annotations: a kernel's arguments are pointers and numbers by their use.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from typing import Final

import triton
import triton.language as tl
from torch import Tensor

from calibrate.kernels.formats import INDEX_DIM, INDEX_ENTRY_BYTES, PAGE_TOKENS
from calibrate.kernels.tune import Configurations, launch

CONFIGURATIONS: Final[dict[bool, Configurations]] = {
    True: (
        {"QUERIES": 1, "PAGES": 4, "num_warps": 4, "num_stages": 3},
        {"QUERIES": 1, "PAGES": 8, "num_warps": 4, "num_stages": 4},
        {"QUERIES": 2, "PAGES": 8, "num_warps": 4, "num_stages": 3},
    ),
    False: (
        {"QUERIES": 16, "PAGES": 1, "num_warps": 4, "num_stages": 3},
        {"QUERIES": 32, "PAGES": 1, "num_warps": 4, "num_stages": 4},
        {"QUERIES": 16, "PAGES": 2, "num_warps": 4, "num_stages": 3},
    ),
}
"""By whether keys are paged (decode): a program there goes over several pages with one query, in prefill over many
queries with one tile of keys, so that what stays is loaded once."""


@triton.jit
def _index(
    q, keys, factors, weights, pages, logits, queries, context, width, stride,
    PAGED: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, KEYS: tl.constexpr, ENTRY: tl.constexpr,
    QUERIES: tl.constexpr, PAGES: tl.constexpr,
):  # fmt: skip
    """Logits of QUERIES queries of one sequence for PAGES pages of KEYS keys."""
    sequence, h, d, n = (
        tl.program_id(0).to(tl.int64),
        tl.arange(0, HEADS),
        tl.arange(0, DIM),
        tl.arange(0, KEYS),
    )
    first = tl.program_id(1) * QUERIES
    last = tl.minimum(first + QUERIES, queries)
    from_page = tl.program_id(2) * PAGES
    # Beyond the last key that the last of the queries sees there is nothing to do.
    end_page = tl.minimum(from_page + PAGES, tl.cdiv(context - queries + last, KEYS))
    for page in range(from_page, end_page):
        position = page * KEYS + n
        inside = position < context
        if PAGED:
            block = tl.load(pages + sequence * width + page).to(tl.int64)
            where = block * (KEYS * ENTRY) + n * DIM
            scale = tl.load(factors + block * (KEYS * ENTRY // 4) + KEYS * DIM // 4 + n)
        else:
            where = (sequence * context + position) * DIM
            scale = tl.load(factors + sequence * context + position, mask=inside, other=0.0)
        k = tl.load(keys + where[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        for query in range(first, last):
            row = sequence * queries + query
            heads = tl.load(q + (row * HEADS + h)[:, None] * DIM + d[None, :])
            score = tl.maximum(tl.dot(heads, tl.trans(k)), 0.0) * tl.load(weights + row * HEADS + h)[:, None]
            visible = position < context - queries + query + 1
            tl.store(logits + row * stride + position, tl.sum(score, 0) * scale, mask=visible)


def index_logits(
    q: Tensor,
    keys: Tensor,
    factors: Tensor,
    weights: Tensor,
    pages: Tensor | None,
    context: int,
    logits: Tensor,
) -> Tensor:
    """Indexer logits sum_h w_h relu(q_h . k) x key scale, for the keys that a query may see; the rest is untouched.

    q e4m3 [b, s, h, 128], weights float32 [b, s, h]. Contiguous: keys e4m3 [b, l, 128], factors float32 [b, l].
    Paged: keys and factors are two views of the packed uint8 [blocks, 64, 132], pages int32 [b, n].
    """
    batch, queries, heads, _ = q.shape
    paged = pages is not None

    def run(QUERIES: int, PAGES: int, num_warps: int, num_stages: int) -> None:
        grid = (batch, triton.cdiv(queries, QUERIES), triton.cdiv(context, PAGE_TOKENS * PAGES))
        _index[grid](
            q, keys, factors, weights, pages if paged else q, logits, queries, context,
            pages.shape[1] if pages is not None else 0, logits.shape[-1],
            PAGED=paged, HEADS=heads, DIM=INDEX_DIM, KEYS=PAGE_TOKENS, ENTRY=INDEX_ENTRY_BYTES, QUERIES=QUERIES,
            PAGES=PAGES, num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip

    launch(("index", paged, batch, queries, context), CONFIGURATIONS[paged], run, q.device)
    return logits


RADIX_BITS: Final = 8
TOPK_CONFIGURATIONS: Final[Configurations] = (
    {"CHUNK": 4096, "num_warps": 16},
    {"CHUNK": 2048, "num_warps": 8},
    {"CHUNK": 2048, "num_warps": 16},
)


@triton.jit
def _ordered(scores, where, mask):
    """Scores as unsigned numbers in the same order; 0, below every number's, where the mask is false."""
    bits = tl.load(scores + where, mask=mask, other=0.0).to(tl.uint32, bitcast=True)
    negative = (bits >> 31) != 0
    return tl.where(mask, tl.where(negative, ~bits, bits | 0x80000000), 0)


@triton.jit
def _select(scores, lengths, indices, stride, top_k, CHUNK: tl.constexpr, BITS: tl.constexpr):
    """Indices of the top_k largest scores of one row, in no order: the digits of the last one that is kept, from the
    highest, by counting how many scores share the digits found so far; then all above it, and ties until full."""
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    source = scores + row * stride
    n = tl.arange(0, CHUNK)
    BINS: tl.constexpr = 1 << BITS
    bins = tl.arange(0, 2 * BINS)
    wanted = tl.minimum(top_k, length)
    found = tl.zeros([], tl.uint32)
    for place in tl.static_range(32 // BITS):
        shift = 32 - BITS * (place + 1)
        counts = tl.zeros([2 * BINS], tl.int32)
        for start in range(0, length, CHUNK):
            mask = start + n < length
            value = _ordered(source, start + n, mask)
            digit = ((value >> shift) & (BINS - 1)).to(tl.int32)
            if place > 0:
                mask = mask & ((value >> (shift + BITS)) == found)
            counts += tl.histogram(tl.where(mask, digit, BINS), 2 * BINS)
        counts = tl.where(bins < BINS, counts, 0)
        above = tl.sum(counts, 0) - tl.cumsum(counts, 0)  # scores with a larger digit
        here = (above < wanted) & (above + counts >= wanted)
        wanted = wanted - tl.sum(tl.where(here, above, 0), 0)
        chosen = tl.sum(tl.where(here, bins, 0), 0)
        found = (found << BITS) | chosen.to(tl.uint32)
    target = indices + row * top_k
    kept = tl.minimum(top_k, length) - wanted
    larger = tl.zeros([], tl.int32)
    ties = tl.zeros([], tl.int32)
    for start in range(0, length, CHUNK):
        mask = start + n < length
        value = _ordered(source, start + n, mask)
        over = (mask & (value > found)).to(tl.int32)
        tie = (mask & (value == found)).to(tl.int32)
        tl.store(target + larger + tl.cumsum(over, 0) - 1, start + n, mask=over != 0)
        rank = ties + tl.cumsum(tie, 0) - 1
        tl.store(target + kept + rank, start + n, mask=(tie != 0) & (rank < wanted))
        larger += tl.sum(over, 0)
        ties += tl.sum(tie, 0)


def select_topk(scores: Tensor, lengths: Tensor, indices: Tensor) -> Tensor:
    """Indices of the largest scores of each row: scores float32 [r, l], of which the first lengths int32 [r] count
    -> indices int32 [r, k], those beyond a row's length untouched."""

    def run(CHUNK: int, num_warps: int) -> None:
        _select[(len(scores),)](
            scores,
            lengths,
            indices,
            scores.stride(0),
            indices.shape[1],
            CHUNK=CHUNK,
            BITS=RADIX_BITS,
            num_warps=num_warps,
        )

    launch(("topk", *scores.shape), TOPK_CONFIGURATIONS, run, scores.device)
    return indices

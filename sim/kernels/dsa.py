"""DeepSeek sparse attention: the indexer, its selection, the core over the selected keys, whole blocks."""

from typing import Any, Final

from sim.kernels import mla
from sim.kernels.family import Dims, Family, Phase, Shape, Stage, Variant
from sim.kernels.formats import causal_pairs, sparse_pairs

BLOCK_WIDTHS: Final = (*mla.BLOCK_WIDTHS, "index_heads", "index_dim", "index_topk")


def logits(batch: Any, new: Any, cached: Any, index_heads: Any, index_dim: Any, key_bytes: Any) -> Stage:
    """Lightning indexer: 2 index_heads index_dim FLOP per causal pair (16,384 for V3.2), FP32 logits written.

    Keys are read once per sequence: `key_bytes` is 132 for 128 FP8 values and one FP32 scale.
    """
    pairs = batch * causal_pairs(new, cached)
    moved = batch * (new + cached) * key_bytes + batch * new * index_heads * (index_dim + 4)
    return 2 * index_heads * index_dim * pairs, moved + pairs * 4


def topk(batch: Any, new: Any, cached: Any, top_k: Any) -> Stage:
    """Selection of the `top_k` best keys of each query: FP32 logits read once, int32 indices written."""
    return 0.0, batch * causal_pairs(new, cached) * 4 + batch * new * top_k * 4


def entries(phase: Phase, batch: Any, new: Any, cached: Any, top_k: Any) -> Any:
    """Entries of the cache that a sparse core reads from the GPU's memory.

    In decode every query gathers its own. In prefill the queries of a prompt pick from one cache, which each entry
    leaves once: the rest comes from the L2 (see `gathered`).
    """
    pairs = batch * sparse_pairs(new, cached, top_k)
    if phase == "decode":
        return pairs
    context = batch * (new + cached)
    return (pairs + context - abs(pairs - context)) / 2  # the smaller


def core(
    phase: Phase, heads: Any, batch: Any, new: Any, cached: Any, top_k: Any, kv_lora: Any, rope: Any, entry_bytes: Any
) -> Stage:  # fmt: skip
    """Absorbed MLA over the selected keys: the dense form's FLOP per pair, over min(position, top_k) keys per query;
    `entries` read, queries and outputs moved."""
    flop = 2 * heads * (2 * kv_lora + rope) * (batch * sparse_pairs(new, cached, top_k))
    read = entries(phase, batch, new, cached, top_k) * entry_bytes
    return flop, read + mla.latent_activations(batch * new, heads, kv_lora, rope)


def gathered(heads: Any, batch: Any, new: Any, cached: Any, v: Variant, d: Dims) -> Stage:
    """A sparse core and what passes the L2: every query fetches its own keys, in prefill too.

    FlashMLA's tests/lib.py counts these bytes. That they are not the memory's is in the tables of aiconfigurator
    0.12.0: on H100 they run at up to 1.56 times its peak, and H200, with 1.43 times the bandwidth, takes as long.
    """
    entry = v.sparse_entry_bytes(d)
    return core("decode", heads, batch, new, cached, d.index_topk, d.kv_lora, d.rope, entry)


def _read(heads: Any, batch: Any, new: Any, cached: Any, v: Variant, d: Dims) -> Any:
    """Bytes that the memory moves in prefill behind what is `gathered`."""
    entry = v.sparse_entry_bytes(d)
    return core("prefill", heads, batch, new, cached, d.index_topk, d.kv_lora, d.rope, entry)[1]


def _before(s: Shape) -> Any:
    """KV tokens before the new ones. A shape on the way from one knot to another may have more new ones than tokens."""
    seen = s["context"] - s["new"]
    return (seen + abs(seen)) / 2


def _logits(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    heads = s.get("index_heads", d.index_heads)
    return [logits(s["batch"], s["new"], _before(s), heads, d.index_dim, d.index_key_bytes)]


def _topk(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [topk(s["batch"], s["new"], _before(s), d.index_topk)]


def _sparse(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [gathered(s["heads"], s["batch"], s["new"], _before(s), v, d)]


def _decode_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    """Without the selection, which has no rate that a table could tell: see `_selection`."""
    batch, queries = s["batch"], s["queries"]
    seen = _before({**s, "new": queries})
    return [
        mla.projections(s["heads"], batch * queries, d, v.dtype, indexer=True),
        logits(batch, queries, seen, d.index_heads, d.index_dim, d.index_key_bytes),
        gathered(s["heads"], batch, queries, seen, v, d),
    ]


def _prefill_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    """Without the selection, as `_decode_block`."""
    heads, batch, new, cached = s["heads"], s["batch"], s["new"], s["cached"]
    if v.options.get("branch") == "dense":
        expanded = batch * (new + cached)
        return [
            mla.projections(heads, batch * new, d, v.dtype, expanded, indexer=True),
            mla.prefill(heads, batch, new, cached, d.qk_dim, d.v_head),
        ]
    return [
        mla.projections(heads, batch * new, d, v.dtype, indexer=True),
        logits(batch, new, cached, d.index_heads, d.index_dim, d.index_key_bytes),
        gathered(heads, batch, new, cached, v, d),
    ]


def _selection(batch: Any, new: Any, cached: Any, d: Dims) -> Any:
    """Bytes of a block's selection.

    In every shape that was measured they are the same multiple of the logits' own, but for the keys: 4 bytes a pair and
    8,192 a query, against 4 and 8,448. So the logits' rate takes up their time, and a rate of their own would be
    arbitrary.
    """
    return topk(batch, new, cached, d.index_topk)[1]


def _beside_core(s: Shape, v: Variant, d: Dims) -> Any:
    return _read(s["heads"], s["batch"], s["new"], _before(s), v, d)


def _beside_prefill(s: Shape, v: Variant, d: Dims) -> Any:
    if v.options.get("branch") == "dense":
        return 0.0
    heads, batch, new, cached = s["heads"], s["batch"], s["new"], s["cached"]
    return _read(heads, batch, new, cached, v, d) + _selection(batch, new, cached, d)


def _beside_decode(s: Shape, v: Variant, d: Dims) -> Any:
    return _selection(s["batch"], s["queries"], _before({**s, "new": s["queries"]}), d)


CONTEXT_AXES: Final = ("batch", "new", "context")
SPARSE_AXES: Final = ("heads", *CONTEXT_AXES)
BY_TOKENS: Final = ("tokens", "batch", "cached")
SPARSE_WIDTHS: Final = ("kv_lora", "rope", "index_topk")
FAMILIES = (
    Family(
        "index_logits",
        "index logits",
        CONTEXT_AXES,
        _logits,
        by_tokens=BY_TOKENS,
        free=("index_heads",),
        widths=("index_dim",),
        roles=("indexer",),
    ),
    Family(
        "index_topk",
        "index top-k",
        CONTEXT_AXES,
        _topk,
        by_tokens=BY_TOKENS,
        widths=("index_topk",),
        roles=("indexer",),
        arithmetic=False,
    ),
    Family(
        "sparse_mla_prefill",
        "attention",
        SPARSE_AXES,
        _sparse,
        widths=SPARSE_WIDTHS,
        carriers=("cache",),
        beside=_beside_core,
        roles=("core",),
    ),
    Family(
        "sparse_mla_decode",
        "attention",
        SPARSE_AXES,
        _sparse,
        widths=SPARSE_WIDTHS,
        roles=("core",),
    ),
    Family(
        "dsa_prefill_block",
        "attention",
        mla.PREFILL_AXES,
        _prefill_block,
        by_tokens=("heads", *BY_TOKENS),
        launched=True,
        widths=BLOCK_WIDTHS,
        stages=("gemm", "", "sparse_mla_prefill"),
        carriers=("memory", "memory", "cache"),
        beside=_beside_prefill,
    ),
    Family(
        "dsa_decode_block",
        "attention",
        mla.DECODE_AXES,
        _decode_block,
        free=("queries",),
        widths=BLOCK_WIDTHS,
        equivalent=mla.queries_as_sequences,
        stages=("gemm", "", "sparse_mla_decode"),
        beside=_beside_decode,
    ),
)

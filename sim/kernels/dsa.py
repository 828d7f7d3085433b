"""DeepSeek sparse attention: the indexer, its selection, the core over the selected keys, whole blocks."""

from typing import Any, Final, Literal

from sim.kernels import mla
from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import causal_pairs, sparse_pairs

Phase = Literal["prefill", "decode"]
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
    """Entries of the cache that a sparse core reads from memory.

    In decode every query gathers its own; in prefill neighbouring queries share them through the L2, so each counts
    once at most.
    """
    pairs = batch * sparse_pairs(new, cached, top_k)
    if phase == "decode":
        return pairs
    context = batch * (new + cached)
    return (pairs + context - abs(pairs - context)) / 2  # the smaller


def core(
    phase: Phase, heads: Any, batch: Any, new: Any, cached: Any, top_k: Any, kv_lora: Any, rope: Any, entry_bytes: Any
) -> Stage:  # fmt: skip
    """Absorbed MLA over the selected keys: the dense form's FLOP per pair, over min(position, top_k) keys per query."""
    flop = 2 * heads * (2 * kv_lora + rope) * (batch * sparse_pairs(new, cached, top_k))
    read = entries(phase, batch, new, cached, top_k) * entry_bytes
    return flop, read + mla.latent_activations(batch * new, heads, kv_lora, rope)


def _core(heads: Any, batch: Any, new: Any, cached: Any, v: Variant, d: Dims) -> Stage:
    # Differs from `core` in prefill: every query gathers its own entries there too.
    entry = v.sparse_entry_bytes(d)
    return core("decode", heads, batch, new, cached, d.index_topk, d.kv_lora, d.rope, entry)


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
    return [_core(s["heads"], s["batch"], s["new"], _before(s), v, d)]


def _decode_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    batch, queries = s["batch"], s["queries"]
    seen = _before({**s, "new": queries})
    return [
        mla.projections(s, v, d, batch * queries, batch * queries, True),
        # Differs from the sum of a block's parts, here and below: without the selection.
        logits(batch, queries, seen, d.index_heads, d.index_dim, d.index_key_bytes),
        _core(s["heads"], batch, queries, seen, v, d),
    ]


def _prefill_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    batch, new, cached = s["batch"], s["new"], s["cached"]
    tokens = batch * new
    if v.options.get("branch") == "dense":
        expanded = batch * (new + cached)
        core = mla.prefill(s["heads"], batch, new, cached, d.qk_dim, d.v_head)
        return [mla.projections(s, v, d, tokens, expanded, True), core]
    return [
        mla.projections(s, v, d, tokens, tokens, True),
        logits(batch, new, cached, d.index_heads, d.index_dim, d.index_key_bytes),
        _core(s["heads"], batch, new, cached, v, d),
    ]


CONTEXT_AXES: Final = ("batch", "new", "context")
FAMILIES = (
    Family(
        "index_logits",
        "index logits",
        CONTEXT_AXES,
        _logits,
        free=("index_heads",),
        widths=("index_dim",),
        roles=("indexer",),
    ),
    Family(
        "index_topk",
        "index top-k",
        CONTEXT_AXES,
        _topk,
        widths=("index_topk",),
        roles=("indexer",),
        arithmetic=False,
    ),
    *(
        Family(
            f"sparse_mla_{phase}",
            "attention",
            ("heads", *CONTEXT_AXES),
            _sparse,
            widths=("kv_lora", "rope", "index_topk"),
            roles=("core",),
        )
        for phase in ("prefill", "decode")
    ),
    Family(
        "dsa_prefill_block",
        "attention",
        mla.PREFILL_AXES,
        _prefill_block,
        widths=BLOCK_WIDTHS,
        stages=("gemm", "", "sparse_mla_prefill"),
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
    ),
)

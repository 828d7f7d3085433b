"""Attention over compressed entries (DeepSeek-V4 report, arXiv 2606.19348): a window of single tokens, and entries that
each stand for `ratio` tokens: all of them (HCA), or those that an indexer chooses (CSA). One entry is key and value of
all heads.
"""

from typing import Any, Final

from sim.kernels import gemm, mla
from sim.kernels.family import Carrier, Dims, Family, Phase, Shape, Stage, Variant, Work
from sim.kernels.formats import BF16, activation_bytes, causal_pairs, sparse_pairs, weight_bytes

BLOCK_WIDTHS: Final = ("hidden", "q_lora", "head_dim", "group_heads", "o_lora", "window")
CSA_WIDTHS: Final = (*BLOCK_WIDTHS, "csa_ratio", "index_heads", "index_dim", "index_topk")
HCA_WIDTHS: Final = (*BLOCK_WIDTHS, "hca_ratio")


def chosen_pairs(new: Any, cached: Any, window: Any, ratio: Any = 0, top_k: Any = 0) -> Any:
    """(query, entry) pairs of one sequence: the last `window` tokens and, with a `ratio`, one entry for that many of
    all tokens, at most `top_k` of them where it is given."""
    pairs = sparse_pairs(new, cached, window)
    if not ratio:
        return pairs
    return pairs + (sparse_pairs(new, cached, top_k * ratio) if top_k else causal_pairs(new, cached)) / ratio


def entries(
    phase: Phase, batch: Any, new: Any, cached: Any, window: Any, ratio: Any = 0, top_k: Any = 0
) -> Any:
    """Entries that a core reads from the GPU's memory: in decode every query's own, in prefill each once (queries of a
    prompt share them through the L2)."""
    pairs = batch * chosen_pairs(new, cached, window, ratio, top_k)
    if phase == "decode":
        return pairs
    once = batch * (new + window + ((new + cached) / ratio if ratio else 0.0))
    return (pairs + once - abs(pairs - once)) / 2  # the smaller


def core(
    phase: Phase, heads: Any, head_dim: Any, batch: Any, new: Any, cached: Any, window: Any, ratio: Any, top_k: Any,
    entry_bytes: Any,
) -> Stage:  # fmt: skip
    """4 heads head_dim FLOP per pair; entries read, queries and outputs moved."""
    flop = 4 * heads * head_dim * batch * chosen_pairs(new, cached, window, ratio, top_k)
    read = entries(phase, batch, new, cached, window, ratio, top_k) * entry_bytes
    return flop, read + batch * new * heads * 2 * head_dim * BF16


def logits(
    batch: Any, new: Any, cached: Any, ratio: Any, index_heads: Any, index_dim: Any, key_bytes: Any
) -> Stage:
    """The indexer over one key for `ratio` tokens: 2 index_heads index_dim FLOP per pair, FP32 logits written."""
    pairs = batch * causal_pairs(new, cached) / ratio
    moved = batch * (new + cached) / ratio * key_bytes + batch * new * index_heads * (index_dim + 4)
    return 2 * index_heads * index_dim * pairs, moved + pairs * 4


def topk(batch: Any, new: Any, cached: Any, ratio: Any, top_k: Any) -> Stage:
    """Selection of the `top_k` best entries of each query: FP32 logits read once, int32 indices written."""
    return 0.0, batch * causal_pairs(new, cached) / ratio * 4 + batch * new * top_k * 4


def output(
    tokens: Any, heads: Any, head_dim: Any, group_heads: Any, o_lora: Any, hidden: Any, dtype: str
) -> Stage:
    """The grouped output projection: each group of heads down to `o_lora`, then all groups together to `hidden`."""
    inputs, latents = heads * head_dim, heads / group_heads * o_lora
    flop = 2 * tokens * inputs * o_lora
    moved = activation_bytes(tokens * inputs, dtype) + weight_bytes(inputs * o_lora, dtype)
    down = (
        flop,
        moved + tokens * latents * BF16 + (0.0 if dtype == "bf16" else gemm.quantize(tokens, inputs)[1]),
    )
    return mla.together(down, gemm.linear(tokens, [(hidden, latents)], dtype))


def projections(heads: Any, tokens: Any, d: Dims, dtype: str, ratio: int, indexer: bool = False) -> Stage:
    """What a block runs on its tokens beside the core: projections with the quantisation of their inputs, norms and
    RoPE, and in BF16 the compressors (`ratio` 0: none)."""
    down = d.q_lora + d.head_dim
    matrices = [(down, d.hidden), (heads * d.head_dim, d.q_lora)]
    work = [
        (0.0, tokens * 2 * down * BF16),
        output(tokens, heads, d.head_dim, d.group_heads, d.o_lora, d.hidden, dtype),
    ]
    overlap = d.pool_overlap if indexer else 1
    if ratio:
        work.append(gemm.work(tokens, 2 * overlap * d.head_dim, d.hidden, "bf16"))
    if indexer:
        matrices.append((d.index_heads * d.index_dim, d.q_lora))
        work.append(gemm.work(tokens, d.index_heads + 2 * overlap * d.index_dim, d.hidden, "bf16"))
    return mla.together(gemm.linear(tokens, matrices, dtype), *work)


def _csa(heads: Any, batch: Any, new: Any, cached: Any, v: Variant, d: Dims) -> list[Stage]:
    """Without the selection, whose bytes are in proportion to the logits' own: see `sim.kernels.dsa`."""
    entry = v.compressed_entry_bytes(d)
    return [
        projections(heads, batch * new, d, v.dtype, d.csa_ratio, indexer=True),
        logits(batch, new, cached, d.csa_ratio, d.index_heads, d.index_dim, d.compressed_index_key_bytes),
        core("decode", heads, d.head_dim, batch, new, cached, d.window, d.csa_ratio, d.index_topk, entry),
    ]


def _hca(heads: Any, batch: Any, new: Any, cached: Any, v: Variant, d: Dims) -> list[Stage]:
    entry = v.compressed_entry_bytes(d)
    return [
        projections(heads, batch * new, d, v.dtype, d.hca_ratio),
        core("decode", heads, d.head_dim, batch, new, cached, d.window, d.hca_ratio, 0, entry),
    ]


def _prefill(block: Any) -> Work:
    return lambda s, v, d: block(s["heads"], s["batch"], s["new"], s["cached"], v, d)


def _decode(block: Any) -> Work:
    return lambda s, v, d: block(s["heads"], s["batch"], s["queries"], _seen(s), v, d)


def _seen(s: Shape) -> Any:
    """KV tokens before the queries, at least none."""
    seen = s["context"] - s["queries"]
    return (seen + abs(seen)) / 2


def _core(phase: Phase, ratio: str, chosen: bool) -> Work:
    def work(s: Shape, v: Variant, d: Dims) -> list[Stage]:
        top_k, per_entry = d.index_topk if chosen else 0, getattr(d, ratio) if ratio else 0
        over = (s["batch"], s["new"], s["context"] - s["new"], d.window, per_entry, top_k)
        return [core(phase, s["heads"], d.head_dim, *over, v.compressed_entry_bytes(d))]

    return work


def _logits(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    over = (s["batch"], s["new"], s["context"] - s["new"], d.csa_ratio)
    return [logits(*over, d.index_heads, d.index_dim, d.compressed_index_key_bytes)]


def _topk(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [topk(s["batch"], s["new"], s["context"] - s["new"], d.csa_ratio, d.index_topk)]


def _carriers(phase: str, before: int) -> tuple[Carrier, ...]:
    """Of the stages before the core, and of it: every query gathers its own entries, in prefill from the L2."""
    memory: Carrier = "memory"
    return (*(memory,) * before, "cache" if phase == "prefill" else memory)


CONTEXT_AXES: Final = ("batch", "new", "context")
CORES: Final = tuple(
    Family(
        f"{name}_{phase}",
        "attention",
        ("heads", *CONTEXT_AXES),
        _core(phase, ratio, chosen),
        widths=("head_dim", "window", *((ratio,) if ratio else ()), *(("index_topk",) if chosen else ())),
        roles=("core",),
    )
    for name, ratio, chosen in (("swa", "", False), ("hca", "hca_ratio", False), ("csa", "csa_ratio", True))
    for phase in ("prefill", "decode")
)
INDEXER: Final = (
    Family(
        "csa_logits",
        "index logits",
        CONTEXT_AXES,
        _logits,
        widths=("csa_ratio", "index_heads", "index_dim"),
        roles=("indexer",),
    ),
    Family(
        "csa_topk",
        "index top-k",
        CONTEXT_AXES,
        _topk,
        widths=("csa_ratio", "index_topk"),
        roles=("indexer",),
        arithmetic=False,
    ),
)
BLOCKS: Final = tuple(
    Family(
        f"{name}_{phase}_block",
        "attention",
        mla.PREFILL_AXES if phase == "prefill" else mla.DECODE_AXES,
        (_prefill if phase == "prefill" else _decode)(block),
        free=() if phase == "prefill" else ("queries",),
        widths=widths,
        equivalent=None if phase == "prefill" else mla.queries_as_sequences,
        stages=(*before, f"sparse_mla_{phase}"),
        carriers=_carriers(phase, len(before)),
    )
    for name, block, widths, before in (
        ("csa", _csa, CSA_WIDTHS, ("gemm", "")),
        ("hca", _hca, HCA_WIDTHS, ("gemm",)),
    )
    for phase in ("prefill", "decode")
)
FAMILIES: Final = (*CORES, *INDEXER, *BLOCKS)

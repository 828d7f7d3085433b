"""Multi-head latent attention: its core in the MHA and in the absorbed form, the BMMs that absorb, whole blocks."""

from typing import Any, Final

from sim.kernels import gemm
from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import BF16, causal_pairs
from sim.units import DTYPE_BYTES

BLOCK_WIDTHS: Final = ("hidden", "q_lora", "kv_lora", "nope", "rope", "v_head")


def prefill(heads: Any, batch: Any, new: Any, cached: Any, qk_dim: Any, v_dim: Any) -> Stage:
    """MHA form over expanded keys and values: 2 heads (qk_dim + v_dim) FLOP per causal pair (81,920 for V3).

    `batch` prompts of `new` tokens, each behind `cached` ones; queries, keys, values and outputs once, in BF16.
    """
    width = qk_dim + v_dim
    flop = 2 * heads * width * batch * causal_pairs(new, cached)
    return flop, batch * heads * (2 * new + cached) * width * BF16


def decode(
    heads: Any, batch: Any, context: Any, queries: Any, kv_lora: Any, rope: Any, entry_bytes: Any
) -> Stage:
    """Absorbed (MQA) form: 2 heads (2 kv_lora + rope) FLOP per pair (278,528 for V3); the latent is read once.

    `queries` tokens per sequence attend to `context` keys of `entry_bytes` each.
    """
    tokens = batch * queries
    flop = 2 * heads * (2 * kv_lora + rope) * tokens * context
    return flop, batch * context * entry_bytes + latent_activations(tokens, heads, kv_lora, rope)


def latent_activations(tokens: Any, heads: Any, kv_lora: Any, rope: Any) -> Any:
    """Bytes of the queries and outputs of an absorbed core: kv_lora + rope in, kv_lora out, in BF16."""
    return tokens * heads * (2 * kv_lora + rope) * BF16


def absorb(tokens: Any, heads: Any, head_dim: Any, kv_lora: Any, dtype: str = "bf16") -> Stage:
    """Per-head product between a head's own space and the KV latent: [tokens, head_dim] x [head_dim, kv_lora]."""
    flop = 2 * tokens * heads * head_dim * kv_lora
    weights = heads * head_dim * kv_lora * DTYPE_BYTES[dtype]
    return flop, weights + tokens * heads * (head_dim + kv_lora) * BF16


def _prefill(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [prefill(s["heads"], s["batch"], s["new"], s["cached"], d.qk_dim, d.v_head)]


def _decode(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    entry = v.entry_bytes(d)
    return [decode(s["heads"], s["batch"], s["context"], s["queries"], d.kv_lora, d.rope, entry)]


def _absorb(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    head_dim = d.v_head if v.options.get("stage") == "post" else d.nope
    return [absorb(s["tokens"], s["heads"], head_dim, d.kv_lora, v.dtype)]


def projections(
    heads: Any, tokens: Any, d: Dims, dtype: str, expanded: Any = None, indexer: bool = False
) -> Stage:
    """What a block runs on its tokens beside the core: each projection with the quantisation of its input, latent
    norms and RoPE; W^UK and W^UV on the `expanded` tokens of the MHA form, or as BMMs of the absorbed one; the
    indexer's projections.

    The BMMs are BF16, as `weight_dequant(wkv_b)` of DeepSeek's `inference/model.py` is, and as vLLM's attention keeps
    W_UK and W_UV. SGLang's deepseek_v2.py can keep them in FP8 with one scale (`block_quant_to_tensor_quant`): half of
    these bytes, which the rate fitted to its tables takes up.
    """
    latents = d.kv_lora + d.rope
    down, up = (d.q_lora + latents, d.hidden), (heads * d.qk_dim, d.q_lora or d.hidden)
    matrices = [down, up, (d.hidden, heads * d.v_head)]
    if indexer:
        matrices += [(d.index_heads * d.index_dim, d.q_lora), (d.index_dim, d.hidden)]
    norms = (0.0, tokens * 2 * (d.q_lora + latents) * BF16)
    work = [gemm.linear(tokens, matrices, dtype), norms]
    if indexer:
        work.append(gemm.work(tokens, d.index_heads, d.hidden, "bf16"))
    if expanded is None:
        work += [absorb(tokens, heads, d.nope, d.kv_lora), absorb(tokens, heads, d.v_head, d.kv_lora)]
    else:
        work.append(gemm.linear(expanded, [(heads * (d.nope + d.v_head), d.kv_lora)], dtype))
    return together(*work)


def together(*work: Stage) -> Stage:
    """Several pieces of work as one stage."""
    flop, moved = work[0]
    for more_flop, more_moved in work[1:]:
        flop, moved = flop + more_flop, moved + more_moved
    return flop, moved


def _prefill_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    tokens, expanded = s["batch"] * s["new"], s["batch"] * (s["new"] + s["cached"])
    return [projections(s["heads"], tokens, d, v.dtype, expanded), *_prefill(s, v, d)]


def _decode_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    tokens = s["batch"] * s["queries"]
    return [projections(s["heads"], tokens, d, v.dtype), *_decode(s, v, d)]


def queries_as_heads(s: Shape) -> Shape:
    """Queries count as heads of the core: they share the KV read."""
    return {**s, "heads": s["heads"] * s["queries"], "queries": 1.0}


def queries_as_sequences(s: Shape) -> Shape:
    """Queries count as sequences of a block: its projections see tokens."""
    return {**s, "batch": s["batch"] * s["queries"], "queries": 1.0}


PREFILL_AXES: Final = ("heads", "batch", "new", "cached")
DECODE_AXES: Final = ("heads", "batch", "context")
FAMILIES = (
    Family(
        "mla_prefill",
        "attention",
        PREFILL_AXES,
        _prefill,
        widths=("qk_dim", "v_head"),
        roles=("core",),
        any_cache=True,
    ),
    Family(
        "mla_decode",
        "attention",
        DECODE_AXES,
        _decode,
        widths=("kv_lora", "rope"),
        equivalent=queries_as_heads,
        roles=("core",),
    ),
    Family(
        "absorb_bmm", "weight absorption", ("heads", "tokens"), _absorb, widths=("nope", "v_head", "kv_lora")
    ),
    Family("mla_prefill_block", "attention", PREFILL_AXES, _prefill_block, widths=BLOCK_WIDTHS),
    Family(
        "mla_decode_block",
        "attention",
        DECODE_AXES,
        _decode_block,
        free=("queries",),
        widths=BLOCK_WIDTHS,
        equivalent=queries_as_sequences,
        stages=("gemm", "mla_decode"),
    ),
)

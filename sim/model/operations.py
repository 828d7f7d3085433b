"""Operations of a forward step: what runs, on what shape, with how many FLOP and bytes.

FLOP = 2 x MAC. Every number is for ONE GPU, ONE layer, ONE step; `layers` says how often the step repeats it.
The counts are those of the kernel families, `sim.kernels`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from sim.kernels import dsa, mega_moe, mla
from sim.kernels import gemm as products
from sim.kernels import gqa as grouped
from sim.kernels import hyper_connections as streams_of
from sim.kernels.experts import work as grouped_gemms
from sim.kernels.family import Phase
from sim.kernels.formats import activation_bytes as activation_bytes  # noqa: PLC0414 - for the layers

Group = Literal["attention", "moe", "dense", "communication", "other"]
Stream = Literal["layers", "experts", "shared", "exchange", "once"]
HOST_STEP = "host overhead"
"""Name of the engine's own time, once in every step."""
WHOLE_STEP = "whole_step"
"""What stands in the place of a kernel where a profile of whole steps prices attention, or all but it, at once."""
REST_OF_STEP = "rest of the step"
"""Name of all but attention there; like the engine's own time once in every step."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kernel, or one block of kernels that a profile may have measured as a whole.

    A block lists its `parts`; its FLOP and bytes are their sums. The cost model prices a block whole where
    the profile measured it whole, and part by part elsewhere.
    """

    name: str
    """What a reader of `explain` sees, such as `q_b projection`."""
    group: Group
    kernel: str
    """The kernel family that a profile measures, such as `gemm` or `mla_decode`."""
    shape: Mapping[str, float]
    """The family's coordinates, such as {m, n, k}; the names are those of the profile's table."""
    dtype: str
    """Precision that the arithmetic runs in: bf16, fp8 or nvfp4; int4 weights are unpacked and multiplied in bf16."""
    flop: float
    bytes: float
    """HBM traffic, read and written; for communication the bytes that one GPU sends."""
    layers: int = 1
    parts: tuple["Operation", ...] = ()
    stream: Stream = field(default="layers", kw_only=True)
    """What may overlap what: routed experts, the shared one, the exchange, the rest of the layers, once per step."""
    gathered: bool = field(default=False, kw_only=True)
    """Whether it runs on the gathered tokens of all attention-DP ranks, beside the routed experts, which always do."""
    options: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """What else selects a measured table: kv_cache, backend, distribution."""
    cache_bytes: float = field(default=0.0, kw_only=True)
    """Of `bytes`, what is read from the KV cache or the index keys."""
    in_situ: float = field(default=1.0, kw_only=True)
    """Seconds in a running engine over those of the kernel alone, where something is known of them."""
    widths: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    """Widths of the architecture that no axis of the table carries, by their names in `sim.kernels.family.Dims`: what
    was measured at other widths does not price this operation."""
    feeds: str = field(default="", kw_only=True)
    """Of `quantize`: format of the product that reads its output and nothing else. Where that product's rows were timed
    with the quantisation of their input (`Table.includes`), they price both."""


class Block(Operation):
    """A block that spells out its parts, and adds them up, when somebody asks.

    Where it was measured whole nobody does, and that takes as long as looking up its price.
    """

    _inside: Callable[[], Iterable[Operation]]

    @classmethod
    def of(
        cls, inside: Callable[[], Iterable[Operation]], kernel: str, shape: Mapping[str, float], dtype: str,
        layers: int, options: Mapping[str, str], widths: Mapping[str, float],
    ) -> "Block":  # fmt: skip
        """`inside` lists the parts; the rest as of an `Operation`."""
        block = cls(
            "attention block", "attention", kernel, shape, dtype, 0.0, 0.0, layers, options=options, widths=widths
        )  # fmt: skip
        for later in ("flop", "bytes", "parts"):
            del block.__dict__[later]
        block.__dict__["_inside"] = inside
        return block

    @cached_property
    def parts(self) -> tuple[Operation, ...]:  # type: ignore[override]
        """What runs inside."""
        return tuple(self._inside())

    @cached_property
    def flop(self) -> float:  # type: ignore[override]
        """Of its parts."""
        return sum(part.flop for part in self.parts)

    @cached_property
    def bytes(self) -> float:  # type: ignore[override]
        """Of its parts."""
        return sum(part.bytes for part in self.parts)


kept = lru_cache(maxsize=1024, typed=True)
"""For what a step has again at every context."""


@kept
def gemm(name: str, group: Group, m: float, n: float, k: float, dtype: str, layers: int = 1) -> Operation:
    """[m, k] x [k, n] -> BF16 [m, n]: 2 m n k FLOP; activations and weights read once, the result written."""
    return Operation(
        name, group, "gemm", {"m": m, "n": n, "k": k}, dtype, *products.work(m, n, k, dtype), layers
    )


@kept
def quantize(name: str, group: Group, m: float, k: float, layers: int = 1, feeds: str = "") -> Operation:
    """BF16 [m, k] -> FP8 with one scale per 1 x 128. No matrix FLOP. `feeds`: see `Operation.feeds`."""
    work = products.quantize(m, k)
    return Operation(name, group, "quantize", {"m": m, "k": k}, "fp8", *work, layers, feeds=feeds)


@kept
def elementwise(name: str, group: Group, traffic_bytes: float, layers: int = 1) -> Operation:
    """Norms, RoPE, activations, residuals: HBM traffic only."""
    return Operation(name, group, "elementwise", {"bytes": traffic_bytes}, "bf16", 0.0, traffic_bytes, layers)


@kept
def absorb_bmm(
    stage: Literal["pre", "post"], tokens: float, heads: int, head_dim: int, kv_lora: int, layers: int = 1
) -> Operation:
    """Per-head product between a head's own space and the KV latent: [tokens, head_dim] x [head_dim, kv_lora].

    `pre` absorbs W^UK into the query, `post` applies W^UV to the attention output.
    """
    work = mla.absorb(tokens, heads, head_dim, kv_lora)
    shape = {"tokens": tokens, "heads": heads}
    widths = {"nope" if stage == "pre" else "v_head": head_dim, "kv_lora": kv_lora}
    return Operation(
        f"absorb BMM ({stage})", "attention", "absorb_bmm", shape, "bf16", *work, layers,
        options={"stage": stage}, widths=widths,
    )  # fmt: skip


def mla_prefill(
    heads: int,
    batch: float,
    new: float,
    cached: float,
    qk_dim: int,
    v_dim: int,
    kv_cache: str,
    layers: int = 1,
) -> Operation:
    """MHA form of MLA over expanded keys and values: 2 heads (qk_dim + v_dim) FLOP per causal pair (81,920 for V3).

    `batch` prompts of `new` tokens, each behind `cached` ones.
    """
    shape = {"heads": heads, "batch": batch, "new": new, "cached": cached}
    return Operation(
        "MLA core, MHA form", "attention", "mla_prefill", shape, "bf16",
        *mla.prefill(heads, batch, new, cached, qk_dim, v_dim), layers, options={"kv_cache": kv_cache},
        widths={"qk_dim": qk_dim, "v_head": v_dim},
    )  # fmt: skip


def mla_decode(
    heads: int, batch: float, context: float, queries: float, kv_lora: int, rope: int,
    entry_bytes: float, kv_cache: str, layers: int = 1,
) -> Operation:  # fmt: skip
    """Absorbed (MQA) form of MLA: 2 heads (2 kv_lora + rope) FLOP per pair (278,528 for V3); the latent
    is read once.

    `queries` tokens per sequence attend to `context` keys of `entry_bytes` each.
    """
    shape = {"heads": heads, "batch": batch, "context": context, "queries": queries}
    return Operation(
        "MLA core, absorbed form", "attention", "mla_decode", shape, "bf16",
        *mla.decode(heads, batch, context, queries, kv_lora, rope, entry_bytes), layers,
        options={"kv_cache": kv_cache}, widths={"kv_lora": kv_lora, "rope": rope},
        cache_bytes=batch * context * entry_bytes,
    )  # fmt: skip


def index_logits(
    batch: float,
    new: float,
    cached: float,
    index_heads: int,
    index_dim: int,
    key_bytes: float,
    layers: int = 1,
) -> Operation:
    """Lightning indexer: 2 index_heads index_dim FLOP per causal pair (16,384 for V3.2), FP32 logits written.

    Keys are read once per sequence: `key_bytes` is 132 for 128 FP8 values and one FP32 scale.
    """
    shape = {"batch": batch, "new": new, "context": new + cached, "index_heads": index_heads}
    return Operation(
        "index logits", "attention", "index_logits", shape, "fp8",
        *dsa.logits(batch, new, cached, index_heads, index_dim, key_bytes), layers,
        widths={"index_dim": index_dim}, cache_bytes=batch * (new + cached) * key_bytes,
    )  # fmt: skip


def index_topk(batch: float, new: float, cached: float, top_k: int, layers: int = 1) -> Operation:
    """Selection of the `top_k` best keys of each query: FP32 logits read once, int32 indices written."""
    shape = {"batch": batch, "new": new, "context": new + cached}
    return Operation(
        "index top-k", "attention", "index_topk", shape, "fp32", *dsa.topk(batch, new, cached, top_k), layers,
        widths={"index_topk": top_k},
    )  # fmt: skip


def sparse_mla(
    phase: Phase, heads: int, batch: float, new: float, cached: float, top_k: int,
    kv_lora: int, rope: int, entry_bytes: float, kv_cache: str, layers: int = 1,
) -> Operation:  # fmt: skip
    """Absorbed MLA over the selected keys: the dense form's FLOP per pair, over min(position, top_k) keys per query.

    In decode every query gathers its own entries; in prefill neighbouring queries share them through the cache,
    so the whole context is counted once and the FLOP bind.
    """
    shape = {"heads": heads, "batch": batch, "new": new, "context": new + cached}
    return Operation(
        "sparse MLA core", "attention", f"sparse_mla_{phase}", shape, "bf16",
        *dsa.core(phase, heads, batch, new, cached, top_k, kv_lora, rope, entry_bytes), layers,
        options={"kv_cache": kv_cache}, widths={"kv_lora": kv_lora, "rope": rope, "index_topk": top_k},
        cache_bytes=dsa.entries(phase, batch, new, cached, top_k) * entry_bytes,
    )  # fmt: skip


def gqa(
    phase: Phase, heads: int, kv_heads: int, head_dim: int, batch: float, new: float,
    cached: float, kv_bytes: float, layers: int = 1,
) -> Operation:  # fmt: skip
    """Grouped-query attention: 4 heads head_dim FLOP per causal pair; 2 kv_heads head_dim cache elements per key."""
    shape = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "batch": batch,
        "new": new,
        "cached": cached,
    }
    return Operation(
        "GQA core", "attention", f"gqa_{phase}", shape, "bf16",
        *grouped.core(heads, kv_heads, head_dim, batch, new, cached, kv_bytes), layers,
        cache_bytes=grouped.cache(kv_heads, head_dim, batch, new + cached, kv_bytes),
    )  # fmt: skip


def routed_experts(
    rows: float, experts: float, active: float, hidden: int, inter: float, dtype: str, layers: int = 1
) -> Operation:
    """Gate, up and down projections of the routed experts on the most loaded rank: 6 hidden inter FLOP per row.

    `rows`: token-expert pairs there. `experts`: its slots, of which `active` are touched and so read.
    `inter`: intermediate width on this GPU, after MoE tensor parallelism.
    """
    (flop, weights), (_, moved) = grouped_gemms(rows, active, hidden, inter, dtype)
    shape = {"rows": rows, "experts": experts, "active": active, "hidden": hidden, "inter": inter}
    return Operation("routed experts", "moe", "moe", shape, dtype, flop, weights + moved, layers)


def mega_moe_experts(
    rows: float,
    experts: float,
    active: float,
    hidden: int,
    inter: float,
    dtype: str,
    ep: int,
    layers: int = 1,
) -> Operation:
    """The same with dispatch and combine inside: nothing else is exchanged."""
    shape = {"rows": rows, "experts": experts, "active": active, "ep": ep, "hidden": hidden, "inter": inter}
    work = mega_moe.work(rows, active, hidden, inter, dtype)
    return Operation("routed experts and exchange", "moe", "mega_moe", shape, dtype, *work, layers)


def hyper_connections(tokens: float, streams: int, hidden: int, layers: int = 1) -> list[Operation]:
    """Streams mixed into one before attention and FFN, and the output back into all after them; both sites of a layer
    in one operation each."""
    widths = {"hidden": hidden, "streams": streams}
    return [
        Operation(
            f"hyper-connections, {stage}", "other", f"mhc_{stage}", {"tokens": tokens}, "bf16",
            *work(tokens, streams, hidden), layers, widths=widths,
        )
        for stage, work in (("pre", streams_of.pre), ("post", streams_of.post))
    ]  # fmt: skip

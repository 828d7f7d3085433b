"""The fitted form of an operation's time: a launch cost and a few rooflines, one per stage of the kernel.

    t = c + sum over stages of ((F / e_f)^p + (B / e_b)^p)^(1/p)

F FLOP and B bytes of the stage (from the shape), e_f and e_b the rates that the measurements show, c the
seconds that remain at no work, p how sharply the larger of the two hides the smaller. A core kernel has one
stage; an attention block has one for its projections, one for its core, and so on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sim.catalog import Model, kv_layouts
from sim.model.operations import causal_pairs, sparse_pairs
from sim.units import DTYPE_BYTES

Shape = Mapping[str, Any]
"""Axis name to value: numbers, or numpy arrays of equal length."""


@dataclass(frozen=True, slots=True)
class Dims:
    """Widths of the architecture whose kernels a profile measured, and the bytes of its sparse cache's entries."""

    hidden: int
    q_lora: int
    kv_lora: int
    nope: int
    rope: int
    v_head: int
    index_heads: int
    index_dim: int
    index_topk: int
    index_key_bytes: int
    sparse_entry_bytes: int

    @classmethod
    def of(cls, model: Model) -> "Dims":
        """The widths of a model of the catalog."""
        layouts = kv_layouts()
        return cls(
            hidden=model.hidden,
            q_lora=model.q_lora_rank,
            kv_lora=model.kv_lora_rank,
            nope=model.qk_nope,
            rope=model.qk_rope,
            v_head=model.v_head_dim,
            index_heads=model.index_heads,
            index_dim=model.index_head_dim,
            index_topk=model.index_topk,
            index_key_bytes=layouts["dsa_index_key"],
            sparse_entry_bytes=layouts["dsa_fp8"],
        )

    @property
    def qk_dim(self) -> int:
        """Width per head of query and key in the MHA form."""
        return self.nope + self.rope


@dataclass(frozen=True, slots=True)
class Variant:
    """What selects a table beside the kernel family: arithmetic dtype and options."""

    dtype: str
    options: Mapping[str, str]

    def entry_bytes(self, dims: Dims) -> float:
        """Bytes of one latent KV entry: (kv_lora + rope) elements of the cache's format."""
        return (dims.kv_lora + dims.rope) * DTYPE_BYTES.get(self.options.get("kv_cache", "bf16"), 2.0)

    def sparse_entry_bytes(self, dims: Dims) -> float:
        """Bytes of one latent KV entry of a DSA model: 656 in FP8 (scales and BF16 RoPE part included)."""
        return dims.sparse_entry_bytes if self.options.get("kv_cache") == "fp8" else self.entry_bytes(dims)


Stage = tuple[Any, Any]
"""(FLOP, bytes) of one stage."""


def _projections(s: Shape, v: Variant, d: Dims, tokens: Any, expanded: Any, indexer: bool) -> Stage:
    """q_a, kv_a, q_b, o_proj on `tokens`; W^UK and W^UV on `expanded` tokens; the indexer's projections."""
    heads = s["heads"]
    fixed = d.hidden * (d.q_lora + d.kv_lora + d.rope)
    if indexer:
        fixed += d.q_lora * d.index_heads * d.index_dim + d.hidden * (d.index_dim + d.index_heads)
    per_head = d.q_lora * (d.nope + d.rope) + d.v_head * d.hidden
    latent = d.kv_lora * (d.nope + d.v_head)
    flop = 2 * (tokens * (fixed + heads * per_head) + expanded * heads * latent)
    weights = (fixed + heads * (per_head + latent)) * DTYPE_BYTES[v.dtype]
    width = d.hidden * 2 + heads * (d.nope + d.rope + 2 * d.v_head + 2 * d.kv_lora)
    return flop, weights + tokens * width * DTYPE_BYTES["bf16"]


def _mla_decode_core(s: Shape, v: Variant, d: Dims) -> Stage:
    tokens = s["batch"] * s["queries"]
    flop = 2 * s["heads"] * (2 * d.kv_lora + d.rope) * tokens * s["context"]
    moved = tokens * s["heads"] * (2 * d.kv_lora + d.rope) * DTYPE_BYTES["bf16"]
    return flop, s["batch"] * s["context"] * v.entry_bytes(d) + moved


def _mla_prefill_core(s: Shape, v: Variant, d: Dims) -> Stage:
    width = d.nope + d.rope + d.v_head
    flop = 2 * s["heads"] * width * s["batch"] * causal_pairs(s["new"], s["cached"])
    return flop, s["batch"] * s["heads"] * (2 * s["new"] + s["cached"]) * width * DTYPE_BYTES["bf16"]


def _indexer(batch: Any, new: Any, cached: Any, heads: Any, d: Dims) -> Stage:
    pairs = batch * causal_pairs(new, cached)
    moved = batch * (new + cached) * d.index_key_bytes + batch * new * heads * (d.index_dim + 4)
    return 2 * heads * d.index_dim * pairs, moved + pairs * 4


def _topk(batch: Any, new: Any, cached: Any, d: Dims) -> Stage:
    return 0.0, batch * causal_pairs(new, cached) * 4 + batch * new * d.index_topk * 4


def _sparse_core(heads: Any, batch: Any, new: Any, cached: Any, v: Variant, d: Dims) -> Stage:
    pairs = batch * sparse_pairs(new, cached, d.index_topk)
    moved = batch * new * heads * (2 * d.kv_lora + d.rope) * DTYPE_BYTES["bf16"]
    return 2 * heads * (2 * d.kv_lora + d.rope) * pairs, pairs * v.sparse_entry_bytes(d) + moved


def _before(s: Shape) -> Any:
    """KV tokens before the new ones. A shape on the way from one knot to another may have more new ones than tokens."""
    seen = s["context"] - s["new"]
    return (seen + abs(seen)) / 2


def _decode_tokens(s: Shape) -> Any:
    return s["batch"] * s["queries"]


def _mla_decode_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    tokens = _decode_tokens(s)
    return [_projections(s, v, d, tokens, tokens, False), _mla_decode_core(s, v, d)]


def _mla_prefill_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    tokens = s["batch"] * s["new"]
    expanded = s["batch"] * (s["new"] + s["cached"])
    return [_projections(s, v, d, tokens, expanded, False), _mla_prefill_core(s, v, d)]


def _dsa_decode_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    tokens, queries = _decode_tokens(s), s["queries"]
    seen = _before({**s, "new": queries})
    return [
        _projections(s, v, d, tokens, tokens, True),
        _indexer(s["batch"], queries, seen, d.index_heads, d),
        _sparse_core(s["heads"], s["batch"], queries, seen, v, d),
    ]


def _dsa_prefill_block(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    tokens = s["batch"] * s["new"]
    if v.options.get("branch") == "dense":
        expanded = s["batch"] * (s["new"] + s["cached"])
        return [_projections(s, v, d, tokens, expanded, True), _mla_prefill_core(s, v, d)]
    return [
        _projections(s, v, d, tokens, tokens, True),
        _indexer(s["batch"], s["new"], s["cached"], d.index_heads, d),
        _sparse_core(s["heads"], s["batch"], s["new"], s["cached"], v, d),
    ]


def _sparse_mla(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [_sparse_core(s["heads"], s["batch"], s["new"], _before(s), v, d)]


def _gemm(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    weights = s["n"] * s["k"] * DTYPE_BYTES[v.dtype]
    moved = s["m"] * s["k"] * DTYPE_BYTES[v.dtype] + s["m"] * s["n"] * DTYPE_BYTES["bf16"]
    return [(2 * s["m"] * s["n"] * s["k"], weights + moved)]


def _absorb_bmm(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    size = d.nope * d.kv_lora
    weights = s["heads"] * size * DTYPE_BYTES[v.dtype]
    moved = s["tokens"] * s["heads"] * (d.nope + d.kv_lora) * DTYPE_BYTES["bf16"]
    return [(2 * s["tokens"] * s["heads"] * size, weights + moved)]


def _moe(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    matrices = 3 * s["hidden"] * s["inter"]
    moved = s["rows"] * (2 * s["hidden"] + 3 * s["inter"]) * DTYPE_BYTES["bf16"]
    return [(2 * matrices * s["rows"], s["active"] * matrices * DTYPE_BYTES[v.dtype]), (0.0, moved)]


def _exchange(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    """Copies that leave a rank: over NVLink to its own node, over the network to the others.

    Low latency sends a copy per chosen expert, top_k (1 - 1/nodes) of them over the network. Normal mode sends
    one copy per other node touched, (nodes - 1) (1 - (1 - 1/nodes)^top_k), and forwards over NVLink.
    """
    wire = s["tokens"] * s["hidden"] * DTYPE_BYTES[v.dtype]
    ep, nodes, top_k = s["ep"], s["nodes"], s["top_k"]
    away = 1 - 1 / nodes
    remote = (
        top_k * away
        if v.options.get("mode", "low_latency") == "low_latency"
        else (nodes - 1) * (1 - away**top_k)
    )
    return [(0.0, wire * top_k * (1 / nodes - 1 / ep)), (0.0, wire * remote)]


def _collective(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [(0.0, s["bytes"] * (s["gpus"] - 1) / s["gpus"])]


STAGES: dict[str, Callable[[Shape, Variant, Dims], list[Stage]]] = {
    "gemm": _gemm,
    "quantize": lambda s, v, d: [(0.0, s["m"] * s["k"] * 3)],
    "absorb_bmm": _absorb_bmm,
    "mla_prefill": lambda s, v, d: [_mla_prefill_core(s, v, d)],
    "mla_decode": lambda s, v, d: [_mla_decode_core(s, v, d)],
    "mla_prefill_block": _mla_prefill_block,
    "mla_decode_block": _mla_decode_block,
    "dsa_prefill_block": _dsa_prefill_block,
    "dsa_decode_block": _dsa_decode_block,
    "index_logits": lambda s, v, d: [
        _indexer(s["batch"], s["new"], _before(s), s.get("index_heads", d.index_heads), d)
    ],
    "index_topk": lambda s, v, d: [_topk(s["batch"], s["new"], _before(s), d)],
    "sparse_mla_prefill": _sparse_mla,
    "sparse_mla_decode": _sparse_mla,
    "moe": _moe,
    "elementwise": lambda s, v, d: [(0.0, s["bytes"])],
    **dict.fromkeys(("dispatch", "combine"), _exchange),
    **dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter"), _collective),
}
"""Stages of each kernel family: FLOP and bytes from the shape."""

Resource = Literal["compute", "memory", "scale_up", "scale_out"]

LINKS: dict[str, tuple[Resource, ...]] = {
    **dict.fromkeys(("dispatch", "combine"), ("scale_up", "scale_out")),
    **dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter"), ("scale_up",)),
}
"""What carries the bytes of each stage where it is not the GPU's own memory."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fitted parameters of one table."""

    launch_s: float
    """c: seconds at no work."""
    sharpness: float
    """p of the norm that joins compute and traffic; 1 adds them, large takes the longer."""
    flop_per_s: tuple[float, ...]
    """e_f of each stage; unused where the stage has no FLOP."""
    bytes_per_s: tuple[float, ...]
    """e_b of each stage; unused where the stage moves no bytes."""

    def seconds(self, stages: Sequence[Stage]) -> float:
        """t of one shape, in seconds."""
        p, total = self.sharpness, self.launch_s
        for (flop, traffic), e_f, e_b in zip(stages, self.flop_per_s, self.bytes_per_s, strict=True):
            f, b = flop / e_f, traffic / e_b
            longer, shorter = (f, b) if f > b else (b, f)
            if longer > 0:
                total += longer * (1 + (shorter / longer) ** p) ** (1 / p)
        return total

    def seconds_each(self, stages: Sequence[Stage], rows: int) -> NDArray[np.float64]:
        """t of many shapes at once; the stages hold arrays."""
        p, total = self.sharpness, np.full(rows, self.launch_s)
        for (flop, traffic), e_f, e_b in zip(stages, self.flop_per_s, self.bytes_per_s, strict=True):
            f, b = np.broadcast_to(flop / e_f, rows), np.broadcast_to(traffic / e_b, rows)
            longer = np.maximum(np.maximum(f, b), np.finfo(float).tiny)
            total = total + longer * ((f / longer) ** p + (b / longer) ** p) ** (1 / p)
        return total

    def terms(self, kernel: str, stages: Sequence[Stage]) -> dict[str, float]:
        """Seconds by what takes them (launch and each resource), before the norm joins them."""
        terms = {"launch": self.launch_s}
        carriers: Sequence[str] = LINKS.get(kernel, ("memory",) * len(stages))
        for (flop, traffic), e_f, e_b, carrier in zip(
            stages, self.flop_per_s, self.bytes_per_s, carriers, strict=True
        ):
            terms["compute"] = terms.get("compute", 0.0) + flop / e_f
            terms[carrier] = terms.get(carrier, 0.0) + traffic / e_b
        return terms

    def scaled(self, kernel: str, speed: Mapping[str, float]) -> "Form":
        """The form on another GPU whose resources are `speed` times as fast; the launch cost stays."""
        count = len(self.flop_per_s)
        carriers: Sequence[str] = LINKS.get(kernel, ("memory",) * count)
        return Form(
            self.launch_s,
            self.sharpness,
            tuple(e * speed["compute"] for e in self.flop_per_s),
            tuple(e * speed[c] for e, c in zip(self.bytes_per_s, carriers, strict=True)),
        )

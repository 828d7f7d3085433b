"""Coordinates: where a shape lies in the measured grid of its kernel family.

Most axes are axes of the operation itself. Some shapes that a table does not hold are equivalent to one that it
does (two queries per sequence on 64 heads load the core like one query on 128), or differ from one in work only;
`reference` names that measured shape, and the fitted form accounts for the difference.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Shape = Mapping[str, Any]
"""Axis name to value: a number, or an array with one entry per row."""

AXES: Final[dict[str, tuple[str, ...]]] = {
    "gemm": ("k", "n", "m"),
    "quantize": ("k", "m"),
    "absorb_bmm": ("heads", "tokens"),
    "mla_prefill": ("heads", "batch", "new", "cached"),
    "mla_decode": ("heads", "batch", "context"),
    "mla_prefill_block": ("heads", "batch", "new", "cached"),
    "mla_decode_block": ("heads", "batch", "context"),
    "dsa_prefill_block": ("heads", "batch", "new", "cached"),
    "dsa_decode_block": ("heads", "batch", "context"),
    "index_logits": ("batch", "new", "context"),
    "index_topk": ("batch", "new", "context"),
    "sparse_mla_prefill": ("heads", "batch", "new", "context"),
    "sparse_mla_decode": ("heads", "batch", "new", "context"),
    "moe": ("inter", "experts", "load"),
    "dispatch": ("nodes", "ep", "tokens"),
    "combine": ("nodes", "ep", "tokens"),
    "all_reduce": ("gpus", "bytes"),
    "all_gather": ("gpus", "bytes"),
    "reduce_scatter": ("gpus", "bytes"),
    "elementwise": ("bytes",),
}
"""Axes of each family's grid, the outermost first; the innermost is the one measured most densely."""

DEFAULTS: Final[dict[str, float]] = {"queries": 1.0, "cached": 0.0}
"""Axes that an operation or a record may leave out."""

FREE: Final[dict[str, tuple[str, ...]]] = {
    "mla_decode_block": ("queries",),
    "dsa_decode_block": ("queries",),
    "index_logits": ("index_heads",),
    "moe": ("hidden",),
    "dispatch": ("hidden", "top_k"),
    "combine": ("hidden", "top_k"),
}
"""Axes outside the grid that a table holds at one value; the fitted form prices another, as an extrapolation."""


def _core_decode(s: Shape) -> Shape:
    return {**s, "heads": s["heads"] * s["queries"], "queries": 1.0}


def _block_decode(s: Shape) -> Shape:
    return {**s, "batch": s["batch"] * s["queries"], "queries": 1.0}


def _moe(s: Shape) -> Shape:
    return {**s, "load": s["rows"] / s["experts"]}


EQUIVALENT: Final[dict[str, Callable[[Shape], Shape]]] = {
    "mla_decode": _core_decode,
    "mla_decode_block": _block_decode,
    "dsa_decode_block": _block_decode,
    "moe": _moe,
}
"""The measured shape that stands for a shape: queries count as heads of the core (they share the KV read) and as
sequences of a block; experts are placed by token-expert pairs per expert."""


def reference(kernel: str, shape: Shape) -> Shape:
    """The shape whose grid coordinates are used for `shape`; the axes of `AXES` are all present in it."""
    equivalent = EQUIVALENT.get(kernel)
    return equivalent(shape) if equivalent else shape

"""All-to-all of the experts: dispatch brings tokens to them, combine brings the results back."""

from typing import Any, Final

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import activation_bytes
from sim.units import DTYPE_BYTES

WIRE: Final = {"dispatch": "fp8", "combine": "bf16"}
"""Format on the wire (DeepEP)."""


def sent(tokens: Any, copies: Any, hidden: Any, dtype: str) -> Any:
    """Bytes of `copies` of each token: FP8 with scales (7,392 per copy for V3) out, BF16 (14,336) back."""
    return tokens * copies * activation_bytes(hidden, dtype)


def _form(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    """Copies that leave a rank: over NVLink to its own node, over the network to the others.

    Low latency sends a copy per chosen expert, top_k (1 - 1/nodes) of them over the network. Normal mode sends
    one copy per other node touched, (nodes - 1) (1 - (1 - 1/nodes)^top_k), and forwards over NVLink.
    """
    # Differs from `sent`: without the scales.
    wire = s["tokens"] * s["hidden"] * DTYPE_BYTES[v.dtype]
    ep, nodes, top_k = s["ep"], s["nodes"], s["top_k"]
    away = 1 - 1 / nodes
    remote = (
        top_k * away
        if v.options.get("mode", "low_latency") == "low_latency"
        else (nodes - 1) * (1 - away**top_k)
    )
    return [(0.0, wire * top_k * (1 / nodes - 1 / ep)), (0.0, wire * remote)]


FAMILIES = tuple(
    Family(
        kind,
        kind,
        ("nodes", "ep", "tokens"),
        _form,
        free=("hidden", "top_k"),
        carriers=("scale_up", "scale_out"),
        roles=("outward",) if kind == "dispatch" else (),
        arithmetic=False,
    )
    for kind in WIRE
)

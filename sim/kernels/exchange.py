"""All-to-all of the experts: dispatch brings tokens to them, combine brings the results back."""

from typing import Any, Final, Literal

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import activation_bytes

Kind = Literal["dispatch", "combine"]
KINDS: Final[tuple[Kind, ...]] = ("dispatch", "combine")
WIRE: Final[dict[str, str]] = {"dispatch": "fp8", "combine": "bf16"}
"""Format on the wire (DeepEP)."""


def sent(tokens: Any, copies: Any, hidden: Any, dtype: str) -> Any:
    """Bytes of `copies` of each token: FP8 with scales (7,392 per copy for V3) out, BF16 (14,336) back.

    Source: DeepEP, tests/test_low_latency.py counts hidden + hidden / 128 x 4 (and 16 bytes of header, left out here).
    """
    return tokens * copies * activation_bytes(hidden, dtype)


def copies(ep: Any, nodes: Any, top_k: Any, mode: str) -> tuple[Any, Any]:
    """Copies of a token that leave a GPU over NVLink and over the network, where each of its `top_k` experts may be on
    any of the `ep` ranks: how the tables were measured. A deployment's own come from its routing.

    low_latency: one copy per expert, straight to its GPU. normal: one copy to each other node touched,
    (nodes - 1) (1 - (1 - 1/nodes)^top_k), which is passed on to each other GPU touched of the node,
    (ep - nodes) (1 - (1 - 1/ep)^top_k) in all, the own node's included (README of deepseek-ai/DeepEP).
    """
    if mode == "low_latency":
        return top_k * (1 / nodes - 1 / ep), top_k * (1 - 1 / nodes)
    return (ep - nodes) * (1 - (1 - 1 / ep) ** top_k), (nodes - 1) * (1 - (1 - 1 / nodes) ** top_k)


def _exchange(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    mode = v.options.get("mode", "low_latency")
    each = copies(s["ep"], s["nodes"], s["top_k"], mode)
    return [(0.0, sent(s["tokens"], copied, s["hidden"], v.dtype)) for copied in each]


FAMILIES = tuple(
    Family(
        kind,
        kind,
        ("nodes", "ep", "tokens"),
        _exchange,
        free=("hidden", "top_k"),
        carriers=("scale_up", "scale_out"),
        roles=("outward",) if kind == "dispatch" else (),
        arithmetic=False,
    )
    for kind in KINDS
)

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
    """Copies of a token that leave a GPU for its own node, over NVLink, and for the others, over the network.

    Each of its `top_k` experts may be on any of the `ep` ranks, as where the tables were measured; a deployment's own
    copies come from its routing. low_latency: one per expert, straight to its GPU. normal: one to each other GPU of the
    own node that is touched, 1 - (1 - 1/ep)^top_k each, and one to each other node, 1 - (1 - 1/nodes)^top_k each
    (README of deepseek-ai/DeepEP).
    """
    if mode == "low_latency":
        return top_k * (1 / nodes - 1 / ep), top_k * (1 - 1 / nodes)
    return (ep / nodes - 1) * _touched(ep, top_k), (nodes - 1) * _touched(nodes, top_k)


def _touched(places: Any, top_k: Any) -> Any:
    """Chance that a token has an expert in one of so many places."""
    return 1 - (1 - 1 / places) ** top_k


def _mode(v: Variant) -> str:
    return v.options.get("mode", "low_latency")


def _exchange(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    each = copies(s["ep"], s["nodes"], s["top_k"], _mode(v))
    return [(0.0, sent(s["tokens"], copied, s["hidden"], v.dtype)) for copied in each]


def _forwarded(s: Shape, v: Variant, d: Dims) -> Any:
    """What a GPU passes on within its node of what others send it over the network, while more of it arrives: one copy
    to each other GPU touched. In low latency nothing."""
    if _mode(v) == "low_latency":
        return 0.0
    ep, nodes = s["ep"], s["nodes"]
    passed = (nodes - 1) * (ep / nodes - 1) * _touched(ep, s["top_k"])
    return sent(s["tokens"], passed, s["hidden"], v.dtype)


FAMILIES = tuple(
    Family(
        kind,
        kind,
        ("nodes", "ep", "tokens"),
        _exchange,
        free=("hidden", "top_k"),
        carriers=("scale_up", "scale_out"),
        behind=_forwarded,
        roles=("outward",) if kind == "dispatch" else (),
        arithmetic=False,
    )
    for kind in KINDS
)

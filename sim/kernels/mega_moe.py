"""Routed experts with dispatch and combine in one kernel (DeepGEMM's Mega MoE): nothing else is exchanged."""

from typing import Any

from sim.kernels import experts
from sim.kernels.exchange import WIRE, sent
from sim.kernels.family import Dims, Family, Shape, Stage, Variant


def work(rows: Any, active: Any, hidden: Any, inter: Any, dtype: str) -> Stage:
    """The two grouped products of `sim.kernels.experts`, as one stage."""
    (flop, weights), (_, moved) = experts.work(rows, active, hidden, inter, dtype)
    return flop, weights + moved


def link_bytes(rows: Any, ep: Any, hidden: Any) -> Any:
    """Bytes that a rank sends while its experts compute: pairs of other ranks out and back."""
    return sum(sent(rows, 1 - 1 / ep, hidden, dtype) for dtype in WIRE.values())


def _stages(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [work(s["rows"], s["active"], s["hidden"], s["inter"], v.dtype)]


def _placed(s: Shape) -> Shape:
    """Experts are placed by token-expert pairs per expert, as `sim.kernels.experts`."""
    return {**s, "load": s["rows"] / s["experts"]}


FAMILIES = (
    Family(
        "mega_moe",
        "routed experts",
        ("ep", "load"),
        _stages,
        free=("hidden", "inter"),
        counted=("rows", "active", "experts"),
        equivalent=_placed,
        computed=("load",),
        follows={"rows": lambda s: s["load"] * s["experts"]},
        stages=("moe",),
        beside=lambda s, v, d: link_bytes(s["rows"], s["ep"], s["hidden"]),
    ),
)

"""Routed experts: gate, up and down projections over rows sorted by expert."""

from typing import Any

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import BF16, activation_bytes, weight_bytes


def work(rows: Any, active: Any, hidden: Any, inter: Any, dtype: str) -> list[Stage]:
    """6 hidden inter FLOP per row beside the weights of the `active` experts; then what the rows themselves move.

    rows: token-expert pairs. Each operand of the two grouped products once: rows and activations in `dtype`, with
    scales, as DeepGEMM's `m_grouped_fp8_gemm_nt_*` take them; gate, up and the result in BF16.
    """
    weights = weight_bytes(active * 3 * hidden * inter, dtype)
    moved = activation_bytes(rows * (hidden + inter), dtype) + rows * (2 * inter + hidden) * BF16
    return [(6 * hidden * inter * rows, weights), (0.0, moved)]


def _placed(s: Shape) -> Shape:
    """Experts are placed by token-expert pairs per expert."""
    return {**s, "load": s["rows"] / s["experts"]}


def _moe(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return work(s["rows"], s["active"], s["hidden"], s["inter"], v.dtype)


FAMILIES = (
    Family(
        "moe",
        "routed experts",
        ("inter", "experts", "load"),
        _moe,
        free=("hidden",),
        counted=("rows", "active"),
        equivalent=_placed,
        computed=("load",),
        follows={"rows": lambda s: s["load"] * s["experts"]},
        stages=("moe", ""),
        blocked=("hidden", "inter"),
    ),
)

"""Norms, RoPE, activations, residuals: HBM traffic only."""

from sim.kernels.family import Dims, Family, Shape, Stage, Variant


def _stages(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [(0.0, s["bytes"])]


FAMILIES = (Family("elementwise", "elementwise", ("bytes",), _stages, arithmetic=False),)

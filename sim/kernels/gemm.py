"""Matrix products, and the quantisation of their inputs."""

from typing import Any

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import BF16, activation_bytes, weight_bytes
from sim.units import DTYPE_BYTES


def work(m: Any, n: Any, k: Any, dtype: str) -> Stage:
    """[m, k] x [k, n] -> BF16 [m, n]: 2 m n k FLOP; activations and weights read once, the result written."""
    return 2 * m * n * k, activation_bytes(m * k, dtype) + weight_bytes(n * k, dtype) + m * n * BF16


def quantize(m: Any, k: Any) -> Stage:
    """BF16 [m, k] -> FP8 with one scale per 1 x 128. No matrix FLOP."""
    return 0.0, m * k * BF16 + activation_bytes(m * k, "fp8")


def _form_gemm(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    # Differs from `work`: without the scales of the formats.
    weights = s["n"] * s["k"] * DTYPE_BYTES[v.dtype]
    moved = s["m"] * s["k"] * DTYPE_BYTES[v.dtype] + s["m"] * s["n"] * BF16
    return [(2 * s["m"] * s["n"] * s["k"], weights + moved)]


def _form_quantize(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    # Differs from `quantize`: without the scales.
    return [(0.0, s["m"] * s["k"] * 3)]


FAMILIES = (
    Family("gemm", "matrix products", ("k", "n", "m"), _form_gemm, blocked=("k",)),
    Family("quantize", "quantisation", ("k", "m"), _form_quantize, arithmetic=False, blocked=("k",)),
)

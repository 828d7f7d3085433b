"""Matrix products, and the quantisation of their inputs. The scales of the formats travel with their elements, as
DeepGEMM's kernels take both (`fp8_gemm_nt`: one FP32 scale per 1 x 128 of the input, per 128 x 128 of the weights)."""

from collections.abc import Sequence
from typing import Any

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import BF16, activation_bytes, weight_bytes


def work(m: Any, n: Any, k: Any, dtype: str) -> Stage:
    """[m, k] x [k, n] -> BF16 [m, n]: 2 m n k FLOP; activations and weights read once, the result written."""
    return 2 * m * n * k, activation_bytes(m * k, dtype) + weight_bytes(n * k, dtype) + m * n * BF16


def quantize(m: Any, k: Any) -> Stage:
    """BF16 [m, k] -> FP8 with one scale per 1 x 128. No matrix FLOP."""
    return 0.0, m * k * BF16 + activation_bytes(m * k, "fp8")


def linear(m: Any, matrices: Sequence[tuple[Any, Any]], dtype: str) -> Stage:
    """[m, k] through several matrices (n, k): the sum of their `work`, and of the `quantize` of each input where the
    format is not BF16."""
    outputs, inputs, elements = 0, 0, 0
    for n, k in matrices:
        outputs, inputs, elements = outputs + n, inputs + k, elements + n * k
    moved = activation_bytes(m * inputs, dtype) + weight_bytes(elements, dtype) + m * outputs * BF16
    return 2 * m * elements, moved if dtype == "bf16" else moved + quantize(m, inputs)[1]


def _gemm(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [work(s["m"], s["n"], s["k"], v.dtype)]


def _quantize(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [quantize(s["m"], s["k"])]


FAMILIES = (
    Family("gemm", "matrix products", ("k", "n", "m"), _gemm, blocked=("k",)),
    Family("quantize", "quantisation", ("k", "m"), _quantize, arithmetic=False, blocked=("k",)),
)

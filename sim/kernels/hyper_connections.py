"""Manifold-constrained hyper-connections (DeepSeek-V4 report, arXiv 2606.19348): several residual streams, mixed into
one before a layer's attention and its FFN, and its output mixed back into all after each.
"""

from typing import Any, Final

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import BF16
from sim.units import DTYPE_BYTES

SITES: Final = 2
"""Attention and FFN: a layer's two, which the tables time together (num_sites)."""


def parameters(streams: int, hidden: int) -> int:
    """Of one layer: at each site a matrix of all streams' elements x (2 + streams) streams coefficients, their biases
    and three scales (DeepseekV4HyperConnection of transformers 5.23.0)."""
    coefficients = (2 + streams) * streams
    return SITES * (coefficients * streams * hidden + coefficients + 3)


def pre(tokens: Any, streams: Any, hidden: Any) -> Stage:
    """Coefficients of a token from all of its streams, in FP32, and their mix: the streams read, one written."""
    coefficients = SITES * (2 + streams) * streams
    weights = coefficients * streams * hidden * DTYPE_BYTES["fp32"]
    return 2 * tokens * coefficients * streams * hidden, weights + SITES * tokens * (
        streams + 1
    ) * hidden * BF16


def post(tokens: Any, streams: Any, hidden: Any) -> Stage:
    """Streams and output read, streams written."""
    return 0.0, SITES * tokens * (2 * streams + 1) * hidden * BF16


def _pre(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [pre(s["tokens"], d.streams, d.hidden)]


def _post(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    return [post(s["tokens"], d.streams, d.hidden)]


FAMILIES = tuple(
    Family(
        f"mhc_{stage}",
        "hyper-connections",
        ("tokens",),
        work,
        widths=("hidden", "streams"),
        arithmetic=stage == "pre",
    )
    for stage, work in (("pre", _pre), ("post", _post))
)

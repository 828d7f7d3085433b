"""What a kernel computes on another GPU than it was measured on: whole tiles, and how fast.

Tiles that are not full are computed all the same; `catalog/tiles.yaml` has them with their sources. A block's
projections are GEMMs in the block's own format, its core is BF16.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Final

from sim.catalog import Gpu, tiles
from sim.cost.form import Form
from sim.kernels import FAMILIES
from sim.kernels.family import Shape, Stage


def padded(kernel: str, backend: str, dtype: str, shape: Shape, stages: Sequence[Stage]) -> list[Stage]:
    """The stages with the FLOP of whole tiles, the bytes as they are."""
    return [
        (flop * _growth(family, backend, dtype, shape), traffic)
        for family, (flop, traffic) in zip(FAMILIES[kernel].tiled_as(len(stages)), stages, strict=True)
    ]


def at_least(
    form: Form, kernel: str, backend: str, dtype: str, gpu: Gpu, reached: Mapping[str, float]
) -> Form:
    """The form with no stage slower in FLOP/s than was measured on the GPU: `reached` of its peak, by family."""

    def rate(family: str, scaled: float) -> float:
        core = family == "mla_decode"
        # The GEMMs that were measured are DeepGEMM's, in FP8.
        ours = core or (dtype == "fp8" and not (family == "moe" and backend == "triton"))
        if not ours or family not in reached:
            return scaled
        return max(scaled, reached[family] * (gpu.bf16_flop_per_s if core else gpu.fp8_flop_per_s))

    families = FAMILIES[kernel].tiled_as(len(form.flop_per_s))
    return replace(form, flop_per_s=tuple(map(rate, families, form.flop_per_s)))


def _growth(family: str, backend: str, dtype: str, shape: Shape) -> float:
    """Computed rows over useful ones, for one family at a shape."""
    rules = tiles().get(family, {})
    rule = rules.get(backend) or rules.get(dtype) or rules.get("other")
    rows = ROWS[rule["of"]](shape) if rule else 0.0
    return computed_rows(rows, rule["rows"]) / rows if rule and rows > 0 else 1.0


def computed_rows(rows: float, sizes: Sequence[int]) -> float:
    """Rows of the smallest tile that holds `rows`, or of as many of the largest as they take."""
    holding = [size for size in sizes if size >= rows]
    return float(holding[0]) if holding else float(sizes[-1] * ceil(rows / sizes[-1]))


def _tokens(shape: Shape) -> float:
    if "m" in shape:
        return float(shape["m"])
    return float(shape["batch"] * shape.get("queries", shape.get("new", 1.0)))


ROWS: Final[Mapping[str, Callable[[Shape], float]]] = {
    "tokens": _tokens,
    "experts": lambda s: float(s["rows"] / s["active"]) if s["active"] else 0.0,
    "packed": lambda s: float(s["heads"] * s.get("queries", 1.0)),
    "heads": lambda s: float(s["heads"]),
}
"""What the rows of a tile are, from the shape."""

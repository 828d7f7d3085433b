"""Small cases of every family: each backend must agree with its reference on them before it is worth timing.

`tests/calibrate/test_gpu_kernels.py` runs them under pytest, `calibrate.bare` without it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

from calibrate.cases import Case
from calibrate.grid import moved
from calibrate.kernels.families import FAMILIES
from calibrate.trial import Point
from sim.catalog import model
from sim.model import operations as ops

V32: Final = model("deepseek-v3.2")
_SPARSE: Final[tuple[tuple[Literal["prefill", "decode"], int, int, str], ...]] = (
    ("decode", 4, 1, "fp8"),
    ("decode", 4, 4, "fp8"),
    ("prefill", 1, 100, "fp8"),
    ("prefill", 1, 100, "bf16"),
)
CASES: Final = [
    Case(moved("launch", {"bytes": 4}, 4), V32),
    Case(moved("copy", {"bytes": 2**24}, 2**24), V32),
    Case(ops.elementwise("", "other", 2**24), V32),
    Case(moved("elementwise", {"bytes": 2**24}, 2**24, function="silu_mul"), V32),
    *(
        Case(ops.gemm("", "dense", m, 2112, 7168, dtype), V32)
        for m in (1, 100, 512)
        for dtype in ("bf16", "fp8")
    ),
    *(Case(ops.gemm("", "dense", 128, 4096, 7168, "fp8"), V32),),
    *(Case(ops.quantize("", "dense", m, 7168), V32) for m in (1, 300)),
    *(Case(ops.absorb_bmm(stage, 33, 128, 128, 512), V32) for stage in ("pre", "post")),
    *(
        Case(ops.mla_decode(heads, 3, 1000, queries, 512, 64, 1152, kv_cache), V32)
        for heads in (16, 128)
        for queries in (1, 2, 4)
        for kv_cache in ("bf16", "fp8")
    ),
    *(Case(ops.mla_prefill(16, 2, 300, cached, 192, 128, "bf16"), V32) for cached in (0, 500)),
    *(
        Case(ops.index_logits(b, new, 2000, 64, 128, 132), V32)
        for b, new in ((4, 1), (4, 2), (3, 3), (4, 4), (1, 300))
    ),
    *(Case(ops.index_topk(b, new, 5000, 2048), V32) for b, new in ((4, 1), (1, 100))),
    *(Case(replace(ops.index_topk(4, 1, 5000, 2048), options={"distribution": "concentrated"}), V32),),
    *(
        Case(ops.sparse_mla(phase, heads, b, new, 5000, 2048, 512, 64, 656, kv_cache), V32)
        for phase, b, new, kv_cache in _SPARSE
        for heads in (16, 128)
    ),
    *(
        Case(ops.routed_experts(rows, 8, 8, 7168, 2048, dtype), V32)
        for rows in (64, 700)
        for dtype in ("bf16", "fp8")
    ),
    Case(moved("moe_gate", {"tokens": 100, "experts": 256, "top_k": 8}, 1), V32),
    Case(moved("moe_permute", {"tokens": 100, "experts": 256, "top_k": 8, "hidden": 7168}, 1), V32),
    Case(moved("moe_finalise", {"tokens": 100, "top_k": 8, "hidden": 7168}, 1), V32),
]


def points() -> Iterator[Point]:
    """Every case with every backend of its family that takes its dtype."""
    for case in CASES:
        for backend in FAMILIES[case.operation.kernel].backends:
            if case.operation.dtype in backend.dtypes:
                yield Point(case, backend)


def name(point: Point) -> str:
    """A point in one word."""
    operation = point.case.operation
    sizes = "-".join(f"{axis}{value:g}" for axis, value in operation.shape.items())
    return f"{operation.kernel}-{operation.dtype}-{point.backend.name}-{sizes}"

"""Which points are worth measuring, the most valuable first.

A case is an operation of the simulator on a shape of the model's grid. The corners of every grid come first, then
the middles between them, and so on: stopping early leaves a coarser grid over the same range, not a hole in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

from calibrate.grid import CPU_AXES, GPU_AXES, Axes, Level, ceilings, communication, operations
from sim.catalog import Model, kv_layouts
from sim.kernels import FAMILIES
from sim.kernels.formats import BLOCK
from sim.model.operations import Operation


@dataclass(frozen=True)
class Case:
    """An operation to measure, and the model whose widths its axes leave out."""

    operation: Operation
    model: Model

    def size(self, axis: str) -> int:
        """An axis of the shape as a whole number."""
        return round(self.operation.shape[axis])

    @property
    def softmax_scale(self) -> float:
        """1 / sqrt(qk_nope + qk_rope): the scale of MLA scores, in the MHA and in the absorbed form."""
        return 1 / math.sqrt(self.model.qk_nope + self.model.qk_rope)

    @property
    def footprint_bytes(self) -> float:
        """Memory of the inputs, roughly: the traffic, and for sparse attention the whole cache that it picks from."""
        if not self.operation.kernel.startswith("sparse_mla"):
            return self.operation.bytes
        entries = self.size("batch") * self.size("context")
        return self.operation.bytes + entries * kv_layouts()["mla_bf16"]


QUICK_CASES: Final = {"cpu": 80, "cuda": 100}
"""Cases of `--quick`, by device: a minute on a CPU, two on a GPU."""

GEMM_TURNS: Final = 4
"""FP8 products to each case of another table."""

MEMORY_SHARE: Final = 0.2
"""Largest footprint of a case, of the device's memory: backends keep copies in their own layouts."""


def reduced(model: Model) -> Model:
    """A model small enough for one CPU thread: a quarter of its widths, an eighth of its heads.

    The widths that packed caches fix stay: latent, RoPE key, index keys, and the keys that DSA keeps.
    """

    def quarter(width: int) -> int:
        return max(BLOCK, round(width / 4 / BLOCK) * BLOCK) if width else 0

    return replace(
        model,
        hidden=quarter(model.hidden),
        q_lora_rank=quarter(model.q_lora_rank),
        moe_inter=quarter(model.moe_inter),
        dense_inter=quarter(model.dense_inter),
        vocab=quarter(model.vocab),
        heads=max(1, model.heads // 8),
        kv_heads=max(1, model.kv_heads // 8),
    )


def plan(model: Model, kind: str, memory_bytes: int, gpus: int = 1, quick: bool = False) -> list[Case]:
    """Cases of a model for a device (`cpu` or `cuda`), ceilings first, then by value.

    On a CPU the model is reduced. Communication only between several `gpus`. Cases that the memory cannot hold, and
    FP8 widths that blocks do not divide, are left out. With `quick` only the first `QUICK_CASES`.
    """
    axes = CPU_AXES if kind == "cpu" else GPU_AXES
    shown = reduced(model) if kind == "cpu" else model
    first = [Case(op, shown) for op in ceilings(axes) if _possible(Case(op, shown), memory_bytes)]
    cases = first + of_axes(axes, model, kind, memory_bytes, gpus)
    return cases[: QUICK_CASES[kind]] if quick else cases


def of_axes(axes: Axes, model: Model, kind: str, memory_bytes: int, gpus: int = 1) -> list[Case]:
    """The cases of a grid without the ceilings, by value; see `plan`."""
    shown = reduced(model) if kind == "cpu" else model
    points = [*operations(shown, axes), *communication(shown, axes, gpus if kind == "cuda" else 1)]
    possible = [(level, op) for level, op in points if _possible(Case(op, shown), memory_bytes)]
    return [Case(op, shown) for op in _by_value(possible)]


def _possible(case: Case, memory_bytes: int) -> bool:
    return _whole_blocks(case.operation) and case.footprint_bytes <= MEMORY_SHARE * memory_bytes


def _by_value(points: Sequence[tuple[Level, Operation]]) -> list[Operation]:
    """Each table of a profile (family, dtype, options) level by level, and the tables take turns.

    So every table has about as many points as the others whenever the measuring stops, but for FP8 products: most of a
    step, with ten times the shapes of other tables, they come first in every turn and with `GEMM_TURNS` of them. An
    operation that two parts of a grid ask for is kept once.
    """
    tables: dict[tuple[Any, ...], dict[tuple[Any, ...], Operation]] = {}
    for _, op in sorted(points, key=lambda point: point[0]):
        table = tables.setdefault((op.kernel, op.dtype, *sorted(op.options.items())), {})
        table.setdefault(tuple(sorted(op.shape.items())), op)
    early = [list(table.values()) for name, table in tables.items() if name[:2] == ("gemm", "fp8")]
    strides = [ops[start::GEMM_TURNS] for ops in early for start in range(GEMM_TURNS)]
    others = [table.values() for name, table in tables.items() if name[:2] != ("gemm", "fp8")]
    turns = zip_longest(*strides, *others)
    return [op for turn in turns for op in turn if op is not None]


def _whole_blocks(op: Operation) -> bool:
    """Whether FP8 blocks divide the reduced widths of an operation."""
    family = FAMILIES.get(op.kernel)
    widths = family.blocked if family else ()
    return op.dtype != "fp8" or all(op.shape[axis] % BLOCK == 0 for axis in widths)

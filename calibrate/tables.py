"""Measured records -> the tables of a profile, and the device that they describe."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from calibrate.experts import defined
from sim.catalog import UnknownName, gpu
from sim.cost.profile import Table
from sim.cost.record import Record
from sim.kernels import FAMILIES
from sim.kernels.family import DEFAULTS, Variant

MICROSECOND_S: Final = 1e-6
FAST_MATRIX: Final = {"bf16": "bf16_flop_per_s", "fp8": "fp8_flop_per_s", "nvfp4": "fp4_flop_per_s"}


WEIGHT: Final = "weight"
"""Column of a table whose rows do not all count the same in its fit."""
DISTRUSTED: Final = frozenset({"unstable", "throttled"})
FLAGGED_WEIGHT: Final = 0.25
"""Weight of a flagged row among rows of weight 1: an assumption; it still counts where there is nothing better."""


class NoRecords(ValueError):
    """Records that hold nothing the simulator can price; says what was there."""


def tables_from_records(records: Iterable[Record]) -> list[Table]:
    """One table per kernel family, dtype and options, its shapes each from the best back-end that measured it.

    The best is the one closest to the fastest time of each shape, of those that cover at least half as many shapes as
    the widest; shapes that it lacks come from the next one. Routed experts become what the simulator prices under their
    name (`calibrate.experts`). Failed points and families that the simulator does not price (launches, copies) are left
    out.

    Raises:
        NoRecords: nothing is left.
    """
    variants: dict[tuple[Any, ...], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    seen = set()
    for record in defined(records):
        seen.add(record.operation)
        if record.ok and record.us_median and _placed(record):
            for options in _options(record):
                variants[record.operation, record.dtype, options][record.backend].append(record)
    if not variants:
        raise NoRecords(
            f"no record that can be priced; operations found: {', '.join(sorted(seen)) or 'none'}"
        )
    return [
        _table(kernel, dtype, dict(options), _merged(variants[kernel, dtype, options]))
        for kernel, dtype, options in sorted(variants)
    ]


def _options(record: Record) -> list[tuple[tuple[str, str], ...]]:
    """Options of the tables that a record belongs to: beside every cache where the kernel reads none."""
    if not FAMILIES[record.operation].any_cache:
        return [tuple(sorted(record.options.items()))]
    return [tuple(sorted({**record.options, "kv_cache": cache}.items())) for cache in ("bf16", "fp8")]


def _merged(rivals: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Each shape once, from the first back-end in order of preference that has it."""
    fastest: dict[tuple[Any, ...], float] = defaultdict(lambda: np.inf)
    for row in (row for rows in rivals.values() for row in rows):
        fastest[_case(row)] = min(fastest[_case(row)], row.us_median or np.inf)
    widest = max(len(rows) for rows in rivals.values())

    def preference(backend: str) -> tuple[bool, float, str]:
        rows = rivals[backend]
        slowness = np.median([(row.us_median or np.inf) / fastest[_case(row)] for row in rows])
        return 2 * len(rows) < widest, float(slowness), backend

    chosen: dict[tuple[Any, ...], Record] = {}
    for backend in sorted(rivals, key=preference):
        for row in rivals[backend]:
            chosen.setdefault(_case(row), row)
    return list(chosen.values())


def _case(record: Record) -> tuple[Any, ...]:
    return tuple(sorted(record.shape.items()))


def _placed(record: Record) -> bool:
    """Whether the shape has every axis that its family's grid needs."""
    family = FAMILIES.get(record.operation)
    needs = set(family.axes) - set(family.computed) if family else {""}
    return needs <= set(record.shape) | set(DEFAULTS)


def _table(kernel: str, dtype: str, options: Mapping[str, str], rows: Sequence[Record]) -> Table:
    axes = sorted(set.intersection(*(set(r.shape) for r in rows)))
    us = np.array([r.us_median for r in rows], dtype=np.float64)
    spread = [
        (r.us_p90 - r.us_p10) / 2 / r.us_median
        for r in rows
        if r.us_median and r.us_p10 and r.us_p90 is not None
    ]
    columns = {axis: np.array([float(r.shape[axis]) for r in rows]) for axis in axes}
    if any(set(r.flags) & DISTRUSTED for r in rows):
        columns[WEIGHT] = np.array([FLAGGED_WEIGHT if set(r.flags) & DISTRUSTED else 1.0 for r in rows])
    backends = "+".join(dict.fromkeys(r.backend for r in rows if r.backend))
    return Table(
        kernel, Variant(dtype, dict(options)), backends, rows[0].source or "measured records", columns,
        us * MICROSECOND_S, noise=float(np.median(spread)) if spread else None,
    )  # fmt: skip


def device_name(records: Sequence[Record]) -> str:
    """The `known_as` of the device that the records come from."""
    return known_as(str(records[0].environment.get("name", "device")) if records else "device")


def known_as(name: str) -> str:
    """Catalog name of a GPU by the name that its driver gives, or that name in lower case.

    Only a name of the catalog's counts (see the aliases of gpus.yaml): an H100 PCIe or an H200 NVL is no SXM module.
    """
    try:
        return gpu(name).name
    except UnknownName:
        return "_".join(name.lower().replace("-", " ").split())


def device_ceilings(records: Sequence[Record]) -> dict[str, float]:
    """What the device reached: memory size, best copy in bytes/s (read + written), best GEMM in FLOP/s by dtype, of
    those that a device is described by."""
    environment = records[0].environment if records else {}
    ceilings = {"memory_bytes": float(environment.get("memory_bytes", 0))}
    for record in records:
        if not record.ok or not record.us_median:
            continue
        seconds = record.us_median * MICROSECOND_S
        if record.operation in ("copy", "elementwise"):
            rate = record.shape["bytes"] / seconds
            ceilings["memory_bytes_per_s"] = max(rate, ceilings.get("memory_bytes_per_s", 0.0))
        elif record.operation == "gemm" and (peak := FAST_MATRIX.get(record.dtype)):
            rate = 2 * record.shape["m"] * record.shape["n"] * record.shape["k"] / seconds
            ceilings[peak] = max(rate, ceilings.get(peak, 0.0))
    return ceilings

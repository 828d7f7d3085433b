"""Measured records -> the tables of a profile, and the device that they describe."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from sim.catalog import UnknownName, gpu
from sim.cost.axes import AXES, DEFAULTS
from sim.cost.form import Variant
from sim.cost.profile import Table
from sim.cost.record import Record

MICROSECOND_S: Final = 1e-6
FAST_MATRIX: Final = {"bf16": "bf16_flop_per_s", "fp8": "fp8_flop_per_s", "nvfp4": "fp4_flop_per_s"}


class NoRecords(ValueError):
    """Records that hold nothing the simulator can price; says what was there."""


def tables_from_records(records: Iterable[Record]) -> list[Table]:
    """One table per kernel family, dtype, options and back-end; of those that cover at least half as many shapes as
    the widest, the one closest to the fastest time of each shape comes first and so prices the family.

    Failed points and families that the simulator does not price (launches, copies) are left out.

    Raises:
        NoRecords: nothing is left.
    """
    grouped: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    seen = set()
    for record in records:
        seen.add(record.operation)
        if record.ok and record.us_median and _placed(record):
            options = tuple(sorted(record.options.items()))
            grouped[record.operation, record.dtype, options, record.backend].append(record)
    if not grouped:
        raise NoRecords(
            f"no record that can be priced; operations found: {', '.join(sorted(seen)) or 'none'}"
        )
    ordered = sorted(grouped.items(), key=lambda item: (item[0][:3], *_preference(item[0], grouped)))
    return [_table(kernel, dtype, dict(options), rows) for (kernel, dtype, options, _), rows in ordered]


def _preference(
    key: tuple[Any, ...], grouped: Mapping[tuple[Any, ...], Sequence[Record]]
) -> tuple[bool, float, str]:
    """Sorts a back-end among those of the same family and variant: narrow ones last, then by how slow it is."""
    rivals = {other: rows for other, rows in grouped.items() if other[:3] == key[:3]}
    fastest: dict[tuple[Any, ...], float] = defaultdict(lambda: np.inf)
    for rows in rivals.values():
        for row in rows:
            fastest[_case(row)] = min(fastest[_case(row)], row.us_median or np.inf)
    narrow = 2 * len(grouped[key]) < max(len(rows) for rows in rivals.values())
    slowness = float(np.median([(row.us_median or np.inf) / fastest[_case(row)] for row in grouped[key]]))
    return narrow, slowness, key[3]


def _case(record: Record) -> tuple[Any, ...]:
    return tuple(sorted(record.shape.items()))


def _placed(record: Record) -> bool:
    """Whether the shape has every axis that its family's grid needs."""
    axes = set(AXES.get(record.operation, ("",))) - {"load"}
    return axes <= set(record.shape) | set(DEFAULTS)


def _table(kernel: str, dtype: str, options: Mapping[str, str], rows: Sequence[Record]) -> Table:
    axes = sorted(set.intersection(*(set(r.shape) for r in rows)))
    us = np.array([r.us_median for r in rows], dtype=np.float64)
    spread = [
        (r.us_p90 - r.us_p10) / 2 / r.us_median
        for r in rows
        if r.us_median and r.us_p10 and r.us_p90 is not None
    ]
    columns = {axis: np.array([float(r.shape[axis]) for r in rows]) for axis in axes}
    return Table(
        kernel, Variant(dtype, dict(options)), rows[0].backend, rows[0].source or "measured records", columns,
        us * MICROSECOND_S, noise=float(np.median(spread)) if spread else None,
    )  # fmt: skip


def device_name(records: Sequence[Record]) -> str:
    """Catalog name of the GPU that the records come from, or the device's own name in lower case.

    Only a name of the catalog's counts (see the aliases of gpus.yaml): an H100 PCIe or an H200 NVL is no SXM module.
    """
    name = str(records[0].environment.get("name", "device")) if records else "device"
    try:
        return gpu(name).name
    except UnknownName:
        return "_".join(name.lower().replace("-", " ").split())


def device_ceilings(records: Sequence[Record]) -> dict[str, float]:
    """What the device reached: memory size, best copy in bytes/s (read + written), best GEMM in FLOP/s by dtype."""
    environment = records[0].environment if records else {}
    ceilings = {"memory_bytes": float(environment.get("memory_bytes", 0))}
    for record in records:
        if not record.ok or not record.us_median:
            continue
        seconds = record.us_median * MICROSECOND_S
        if record.operation in ("copy", "elementwise"):
            rate = record.shape["bytes"] / seconds
            ceilings["memory_bytes_per_s"] = max(rate, ceilings.get("memory_bytes_per_s", 0.0))
        elif record.operation == "gemm":
            peak = FAST_MATRIX[record.dtype]
            rate = 2 * record.shape["m"] * record.shape["n"] * record.shape["k"] / seconds
            ceilings[peak] = max(rate, ceilings.get(peak, 0.0))
    return ceilings

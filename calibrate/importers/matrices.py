"""Dense GEMM, absorb BMMs and FP8 quantisation."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibrate.importers.attention import MILLISECOND_S
from calibrate.importers.source import DTYPES, ENGINES, Source, groups, included, label, table
from sim.cost.profile import Table

AXES: Final = ["m", "n", "k"]


def gemms(source: Source) -> Iterator[Table]:
    """[m, k] x [k, n] on the DeepSeek grid of widths."""
    for (dtype,), rows in groups(source.rows("v3_gemm"), ["gemm_dtype"]):
        axes = {axis: rows[axis] for axis in AXES}
        name, ms = f"{label(rows)}, v3_gemm", rows.latency_ms
        if DTYPES[dtype] == "bf16" and (agreed := three_engines(source, rows)) is not None:
            name, ms = f"{name}, median of three engines", agreed
        with_it = included("v3_gemm", rows)
        yield from table("gemm", DTYPES[dtype], {}, "", name, axes, ms * MILLISECOND_S, with_it)


def three_engines(source: Source, rows: pd.DataFrame) -> "NDArray[np.float64] | None":
    """Milliseconds of a BF16 product by the three engines' timings of it; None where an engine has none.

    All three call torch's linear layer, so that cuBLAS picks the kernel (`collector/*/collect_gemm.py` of
    aiconfigurator; SGLang's in FP16): what they differ by is noise, but for their releases' 0 to 4%, which one factor
    takes off. The median of a row's three leaves out what interrupted one of them; a row that one lacks stays as it is.
    """
    own = rows.latency_ms.to_numpy(float)
    timed = [own]
    for engine in (name for name in ENGINES if name != source.engine):
        other = source.rows("v3_gemm", engine)
        other = other[other.gemm_dtype.map(DTYPES) == "bf16"].groupby(AXES)["latency_ms"].median()
        found = other.reindex(pd.MultiIndex.from_frame(rows[AXES])).to_numpy(float)
        if np.isnan(found).all():
            return None
        timed.append(found * np.nanmedian(own / found))
    return np.asarray(np.where(np.isnan(timed).any(axis=0), own, np.median(timed, axis=0)))


def absorb_bmms(source: Source) -> Iterator[Table]:
    """Weight-absorption products before (`pre`) and after (`post`) the core."""
    for (stage, dtype), rows in groups(source.rows("v3_mla_bmm"), ["op_name", "bmm_dtype"]):
        axes = {"tokens": rows.num_tokens, "heads": rows.num_heads}
        options = {"stage": str(stage).removeprefix("mla_gen_")}
        name = f"{label(rows)}, v3_mla_bmm"
        yield from table(
            "absorb_bmm", DTYPES[dtype], options, "", name, axes, rows.latency_ms * MILLISECOND_S
        )


def quantisation(source: Source) -> Iterator[Table]:
    """One pass over [m, k] from BF16 to FP8."""
    rows = source.rows("v3_quantize", op_name="scale_matrix")
    if len(rows):
        axes = {"m": rows.m, "k": rows.k}
        name = f"{label(rows)}, v3_quantize"
        yield from table("quantize", "fp8", {}, "", name, axes, rows.latency_ms * MILLISECOND_S)

"""Dense GEMM, absorb BMMs and FP8 quantisation."""

from collections.abc import Iterator

from calibrate.importers.attention import MILLISECOND_S
from calibrate.importers.source import DTYPES, Source, groups, label, table
from sim.cost.profile import Table


def gemms(source: Source) -> Iterator[Table]:
    """[m, k] x [k, n] on the DeepSeek grid of widths."""
    for (dtype,), rows in groups(source.rows("v3_gemm"), ["gemm_dtype"]):
        axes = {"m": rows.m, "n": rows.n, "k": rows.k}
        name = f"{label(rows)}, v3_gemm"
        yield from table("gemm", DTYPES[dtype], {}, "", name, axes, rows.latency_ms * MILLISECOND_S)


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

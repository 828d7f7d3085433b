"""MLA kernels and modules, DSA modules, and the bare indexer kernels."""

from collections.abc import Iterator

import pandas as pd

from calibrate.importers.source import DTYPES, Source, groups, label, table
from sim.cost.profile import Table

MILLISECOND_S = 1e-3
KV = {"fp8": "fp8", "bfloat16": "bf16", "fp8_e4m3": "fp8"}
RAGGED = "TRTLLM_RAGGED"
"""vLLM's second prefill back-end on Blackwell; measured beside the default one."""
GLM_INDEX_HEADS = 32
"""Index heads of GLM-5, whose logits kernel stands in for V3.2's (transformers, GlmMoeDsaConfig)."""


def mla_kernels(source: Source) -> Iterator[Table]:
    """Bare MLA cores. Generation counts the new token: KV length = step + 1."""
    for (kv,), rows in groups(source.rows("v3_mla_kernel", op_name="mla_generation"), ["kv_cache_dtype"]):
        axes = {"heads": rows.num_heads, "batch": rows.batch_size, "context": rows.step + 1}
        yield from _core("mla_decode", KV[kv], rows, axes)
    for (kv,), rows in groups(source.rows("v3_mla_kernel", op_name="mla_context"), ["kv_cache_dtype"]):
        axes = {"heads": rows.num_heads, "batch": rows.batch_size, "new": rows.isl}
        yield from _core("mla_prefill", KV[kv], rows, axes)


def _core(kernel: str, kv: str, rows: pd.DataFrame, axes: dict[str, pd.Series]) -> Iterator[Table]:
    backend = "+".join(sorted(set(rows.kernel_source))).replace("default", "")
    yield from table(
        kernel,
        "bf16",
        {"kv_cache": kv},
        backend,
        f"{label(rows)}, v3_mla_kernel",
        axes,
        rows.latency_ms * MILLISECOND_S,
    )


def mla_modules(source: Source) -> Iterator[Table]:
    """Whole attention blocks of TensorRT-LLM and vLLM, and SGLang's of its wide-EP path."""
    frame = source.rows("v3_mla_module")
    frame = frame.assign(backend=frame.kernel_source.where(frame.kernel_source == RAGGED, "").str.lower())
    for (phase, dtype, kv, backend), rows in groups(
        frame, ["op_name", "gemm_type", "kv_cache_dtype", "backend"]
    ):
        decode = phase == "mla_generation_module"
        kernel = "mla_decode_block" if decode else "mla_prefill_block"
        axes = {"heads": rows.num_heads, "batch": rows.batch_size}
        axes |= {"context": rows.step} if decode else {"new": rows.isl}
        name = f"{label(rows)}, v3_mla_module"
        yield from table(
            kernel, DTYPES[dtype], {"kv_cache": KV[kv]}, backend, name, axes, rows.latency_ms * MILLISECOND_S
        )
    yield from _wide_ep_mla(source)


def _wide_ep_mla(source: Source) -> Iterator[Table]:
    """SGLang's module: decode with a BF16 cache (see the flags); prefill does not depend on the cache's format."""
    for (phase, backend), rows in groups(source.rows("v3_wideep_mla"), ["op_name", "kernel_source"]):
        decode = phase == "mla_generation"
        axes = {"heads": rows.num_heads, "batch": rows.batch_size}
        axes |= {"context": rows.isl} if decode else {"new": rows.isl}
        yield from table(
            "mla_decode_block" if decode else "mla_prefill_block", "fp8", {"kv_cache": "bf16"} if decode else {},
            backend, f"{label(rows)}, v3_wideep_mla", axes, rows.latency_ms * MILLISECOND_S,
        )  # fmt: skip


def dsa_modules(source: Source) -> Iterator[Table]:
    """Whole V3.2 attention blocks; SGLang's prefill has a dense branch (masked MHA) for short prompts."""
    for (dtype, kv), rows in groups(source.rows("v32_dsa_generation"), ["gemm_type", "kv_cache_dtype"]):
        axes = {"heads": rows.num_heads, "batch": rows.batch_size, "context": rows.step}
        yield from table(
            "dsa_decode_block", DTYPES[dtype], {"kv_cache": KV[kv]}, "", f"{label(rows)}, v32_dsa_generation",
            axes, rows.latency_ms * MILLISECOND_S,
        )  # fmt: skip
    frame = source.rows("v32_dsa_context")
    dense = frame.kernel_source.str.contains("dense_mha")
    frame = frame.assign(branch=dense.map({True: "dense", False: "sparse"}))
    for (dtype, kv, branch), rows in groups(frame, ["gemm_type", "kv_cache_dtype", "branch"]):
        axes = {"heads": rows.num_heads, "batch": rows.batch_size, "new": rows.isl, "cached": rows.step}
        options = {"kv_cache": KV[kv]} | ({"branch": branch} if dense.any() else {})
        yield from table(
            "dsa_prefill_block", DTYPES[dtype], options, "", f"{label(rows)}, v32_dsa_context",
            axes, rows.latency_ms * MILLISECOND_S,
        )  # fmt: skip


def index_kernels(source: Source) -> Iterator[Table]:
    """The bare indexer kernels and sparse core of GLM-5: the nearest to V3.2's that were measured on their own.

    Top-k was timed on flat scores and on scores whose best come last (a causal model's recent tokens): the first are
    the rule, the second the option `distribution=concentrated`, as `calibrate run` names it.
    """
    frame = source.rows("proxy_glm5_dsa_kernels")
    frame = frame.assign(concentrated=frame.score_mode == "top_last")
    for (operation, concentrated), rows in groups(frame, ["op_name", "concentrated"]):
        axes = {"batch": rows.batch_size, "new": rows.isl, "context": rows.isl + rows.step}
        name = f"{label(rows)}, proxy_glm5_dsa_kernels"
        seconds = rows.latency_ms * MILLISECOND_S
        if operation == "glm5_mqa_logits_module":
            fixed = {**axes, "index_heads": GLM_INDEX_HEADS}
            yield from table("index_logits", "fp8", {}, "deepgemm", name, fixed, seconds)
        elif operation == "glm5_topk_module":
            options = {"distribution": "concentrated"} if concentrated else {}
            yield from table("index_topk", "fp32", options, "fast_topk", name, axes, seconds)
        else:
            yield from _sparse_cores(rows, name)


def _sparse_cores(frame: pd.DataFrame, name: str) -> Iterator[Table]:
    for (dtype,), rows in groups(frame, ["mla_dtype"]):
        axes = {"heads": rows.num_heads, "batch": rows.batch_size, "new": rows.isl}
        axes |= {"context": rows.isl + rows.step}
        yield from table(
            "sparse_mla_prefill", "bf16", {"kv_cache": KV[dtype]}, "flashmla", name, axes,
            rows.latency_ms * MILLISECOND_S,
        )  # fmt: skip

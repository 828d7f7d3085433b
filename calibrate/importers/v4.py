"""DeepSeek-V4: attention blocks over compressed entries, hyper-connections, and routed experts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from calibrate.importers.attention import KV, MILLISECOND_S
from calibrate.importers.selection import equal_scores_ms
from calibrate.importers.source import DTYPES, Source, groups, label, table
from sim.catalog import Model, model
from sim.cost.profile import Table

MODELS: Final = ("deepseek-v4-flash", "deepseek-v4-pro")
NAMED: Final = {
    "sgl-project/DeepSeek-V4-Flash-FP8": "deepseek-v4-flash",
    "sgl-project/DeepSeek-V4-Pro-FP8": "deepseek-v4-pro",
    "deepseek-ai/DeepSeek-V4-Pro": "deepseek-v4-pro",
}
"""Whose blocks the tables time; the experts' format, all that differs, is no part of them."""
CHANGES: Final = (
    "rows filtered to DeepSeek-V4 shapes with FP8 projections and balanced experts; every second prompt length, prefix "
    "and batch of large prefill tables kept; what SGLang's selection of entries takes longer on equal scores "
    "subtracted; repeated shapes replaced by their median; units, axis names and back-end names changed; MoE rows "
    "converted from global tokens to token-expert pairs on a rank"
)
"""For the attribution: what was changed in the rows."""
RATIOS: Final = {4: "csa", 128: "hca"}
FP8_WEIGHTS: Final = "fp8_block"
"""The published checkpoints' projections; BF16 ones were timed too and are left out."""
FORMATS: Final = {**DTYPES, "w4a8_mxfp4_mxfp8": "mxfp4"}
BACKENDS: Final = {
    "sglang_fused_moe_triton": "triton",
    "sglang_mxfp4_flashinfer_trtllm_moe": "trtllm_gen",
    "deepgemm": "deepgemm",
    "moe_torch_flow": "trtllm_gen",
    "moe_torch_flow_cutlass": "cutlass",
    "vllm_compressedtensorsw4a4nvfp4moe_flashinfer_trtllm_trtllmnvfp4expertsmodular": "trtllm_gen",
    "vllm_fp8moe_flashinfer_trtllm_trtllmfp8expertsmodular": "trtllm_gen",
    "vllm_mxfp4moe_flashinfer_trtllm_mxfp4_mxfp8_trtllmmxfp4expertsmodular": "trtllm_gen",
    "vllm_fp8moe_flashinfer_cutlass_flashinferexperts": "cutlass",
    "vllm_fp8moe_triton_tritonexperts": "triton",
}
MOST_ROWS: Final = 4000
"""Rows of a prefill table that are all kept; of a larger one every second value of these axes is."""
THINNED: Final = ("isl", "step", "batch_size")


def blocks(source: Source, of: Model) -> Iterator[Table]:
    """Whole attention blocks with an FP8 cache; the KV length of generation is `step`. CSA's less what its selection
    takes longer on equal scores, where that was timed."""
    for phase, file in (("decode", "v4_attn_generation"), ("prefill", "v4_attn_context")):
        frame = source.rows(file, gemm_type=FP8_WEIGHTS)
        frame = frame[frame.model.map(NAMED) == of.name]
        for (ratio, named, kv), rows in groups(frame, ["compress_ratio", "model", "kv_cache_dtype"]):
            kept = rows if phase == "decode" or len(rows) <= MOST_ROWS else thinned(rows)
            told, ms = f"{label(kept)}, {file}", kept.latency_ms
            if RATIOS[int(str(ratio))] == "csa":
                equal_ms = equal_scores_ms(source, str(named), phase, kept)
                told, ms = f"{told}, scores unequal" if equal_ms.any() else told, ms - equal_ms
            axes = {"heads": kept.num_heads, "batch": kept.batch_size}
            axes |= {"context": kept.step} if phase == "decode" else {"new": kept.isl, "cached": kept.step}
            yield from table(
                f"{RATIOS[int(str(ratio))]}_{phase}_block", "fp8", {"kv_cache": KV[str(kv)]}, "",
                told, axes, ms * MILLISECOND_S,
            )  # fmt: skip


def thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """Every second value of each axis, the first and the last among them."""
    for axis in THINNED:
        values = np.sort(rows[axis].unique())
        kept = {*values[::2], values[-1]}
        rows = rows[rows[axis].isin(kept)]
    return rows


def hyper_connections(source: Source, of: Model) -> Iterator[Table]:
    """Both sites of a layer (num_sites 2); TensorRT-LLM takes the fastest of its kernels for `pre`."""
    frame = source.rows("v4_mhc", hidden_size=of.hidden, hc_mult=of.streams)
    for (stage,), rows in groups(frame, ["op_name"]):
        fastest = rows.groupby("num_tokens", as_index=False)["latency_ms"].min()
        axes = {"tokens": fastest.num_tokens}
        name = f"{label(rows)}, v4_mhc"
        yield from table(f"mhc_{stage}", "bf16", {}, "", name, axes, fastest.latency_ms * MILLISECOND_S)


def spread(pairs: Any, experts: Any) -> Any:
    """Touched experts of a rank where every expert is equally loaded: each pair touches one of its own first."""
    return np.minimum(pairs, experts)


def experts(source: Source, of: Model) -> Iterator[Table]:
    """Routed experts by back-end, balanced. V4's gate has no groups: tokens x 6 / EP pairs on every rank."""
    frame = source.rows(
        "v4_moe", distribution="balanced", hidden_size=of.hidden, num_experts=of.n_routed, topk=of.top_k
    )
    frame = frame.assign(backend=frame.kernel_source.map(BACKENDS))
    for (backend, dtype), rows in groups(frame, ["backend", "moe_dtype"]):
        newest = rows[rows.ver == rows.ver.max()]
        held = of.n_routed / newest.moe_ep_size.to_numpy()
        pairs = np.maximum(1.0, newest.num_tokens.to_numpy() * of.top_k / newest.moe_ep_size.to_numpy())
        axes = {
            "rows": pairs, "experts": held, "active": spread(pairs, held),
            "hidden": of.hidden, "inter": of.moe_inter / newest.moe_tp_size.to_numpy(),
        }  # fmt: skip
        name = f"{label(newest)}, v4_moe"
        yield from table(
            "moe", FORMATS[str(dtype)], {}, str(backend), name, axes, newest.latency_ms * MILLISECOND_S
        )


def mega_moe(source: Source, of: Model) -> Iterator[Table]:
    """Experts with the exchange in one kernel, balanced; tokens are those of a rank."""
    frame = source.rows(
        "v4_megamoe", distribution="balanced", hidden_size=of.hidden, num_experts=of.n_routed, topk=of.top_k
    )
    for (dtype,), rows in groups(frame, ["moe_dtype"]):
        pairs, held = rows.num_tokens.to_numpy() * of.top_k, of.n_routed / rows.moe_ep_size.to_numpy()
        axes = {
            "rows": pairs, "experts": held, "active": spread(pairs, held), "ep": rows.moe_ep_size,
            "hidden": of.hidden, "inter": of.moe_inter,
        }  # fmt: skip
        name = f"{label(rows)}, v4_megamoe"
        yield from table(
            "mega_moe", FORMATS[str(dtype)], {}, "mega_moe", name, axes, rows.latency_ms * MILLISECOND_S
        )


READERS: Final[tuple[Callable[[Source, Model], Iterator[Table]], ...]] = (
    blocks,
    hyper_connections,
    experts,
    mega_moe,
)


def read_tables(folder: Path, gpu: str, engine: str, name: str) -> list[Table]:
    """Every table of one model on one GPU with one engine. Raises MissingTable where the folder lacks a file."""
    source = Source(folder, gpu, engine)
    return [table for reader in READERS for table in reader(source, model(name))]

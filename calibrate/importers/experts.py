"""Grouped GEMM of the routed experts: table rows by global tokens -> rows and touched experts of one rank.

The tables give the tokens of the whole EP group; an operation is priced by what lands on the hottest rank. The
conversion depends on how the measuring program drew the routing; `qa_flags.csv` holds the evidence.
"""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pandas as pd

from calibrate.importers.attention import MILLISECOND_S
from calibrate.importers.source import DTYPES, Source, groups, label, table
from sim.catalog import model
from sim.cost.profile import Table

V3 = model("deepseek-v3")
"""The gate and the expert width that every row of these tables has."""

Load = Callable[[int, int], tuple[float, float]]
"""(tokens of the EP group, EP size) -> token-expert pairs and touched experts of rank 0."""

BACKENDS = {
    "moe_torch_flow_cutlass": "cutlass",
    "moe_torch_flow_min_latency": "trtllm_gen",
    "deepgemm": "deepgemm",
    "sglang_flashinfer_trtllm_moe": "trtllm_gen",
    "sglang_fused_moe_triton": "triton",
    "vllm_compressedtensorsw4a4nvfp4moe_flashinfer_trtllm_trtllmnvfp4expertsmonolithic": "trtllm_gen",
    "vllm_fp8moe_flashinfer_trtllm_trtllmfp8expertsmonolithic": "trtllm_gen",
    "vllm_fp8moe_flashinfer_cutlass_flashinferexperts": "cutlass",
    "vllm_fp8moe_triton_tritonexperts": "cutlass",
}
"""The tables' names -> ours. vLLM's default on Hopper is Triton without EP and FlashInfer CUTLASS with it: one back-end
here, and Triton alone in a table of its own."""
TRITON_ALONE = "vllm_fp8moe_triton_tritonexperts"
PLAIN_GATE = ("moe_torch_flow_cutlass", "deepgemm")
"""Kernels that were measured behind a gate without expert groups."""


def spread(tokens: int, ep: int) -> tuple[float, float]:
    """Every expert equally loaded: tokens x 8 / ep pairs, at least one; each touches an expert of its own first."""
    pairs = max(1.0, tokens * V3.top_k / ep)
    return pairs, min(pairs, V3.n_routed / ep)


@cache
def grouped(tokens: int, ep: int) -> tuple[float, float]:
    """Balanced scores behind DeepSeek's group-limited gate, as the collectors ran it.

    The scores are one-hot, one expert in each of the 8 groups. Only the first 4 groups survive, and the other 4
    choices fall on tied scores: the lowest-numbered experts of the first group.
    """
    width = V3.n_routed // V3.n_group
    step = 1.0 if tokens >= width else width / tokens
    offsets = (np.arange(tokens) * step).astype(int) % width
    chosen = [[group * width + offset for group in range(V3.topk_group)] for offset in range(width)]
    load = np.zeros(V3.n_routed)
    for offset, times in zip(*np.unique(offsets, return_counts=True), strict=True):
        ties = [expert for expert in range(width) if expert != offset][: V3.top_k - V3.topk_group]
        load[chosen[offset] + ties] += times
    rank = load[: V3.n_routed // ep]
    return max(1.0, float(rank.sum())), max(1.0, float((rank > 0).sum()))


def grouped_gemms(source: Source) -> Iterator[Table]:
    """Fused MoE kernels, by back-end."""
    frame = source.rows("v3_moe", distribution="balanced")
    frame = frame.assign(backend=frame.kernel_source.map(BACKENDS))
    for (backend, dtype), rows in groups(frame, ["backend", "moe_dtype"]):
        plain = rows.kernel_source.isin(PLAIN_GATE).all()
        yield from _table(str(backend), str(dtype), rows, spread if plain else grouped, "v3_moe")
    for (dtype,), rows in groups(frame[frame.kernel_source == TRITON_ALONE], ["moe_dtype"]):
        yield from _table("triton", str(dtype), rows, grouped, "v3_moe, without EP")


def deepep_gemms(source: Source) -> Iterator[Table]:
    """DeepGEMM behind DeepEP: contiguous rows (normal mode) and masked per-expert batches (low latency)."""
    for (name, dtype), rows in groups(source.rows("v3_wideep_moe"), ["table", "moe_dtype"]):
        mode = {"wideep_context_moe": "deepep_normal", "wideep_generation_moe": "deepep_low_latency"}[
            str(name)
        ]
        yield from _table(mode, str(dtype), rows, spread, "v3_wideep_moe")


def _table(backend: str, dtype: str, rows: pd.DataFrame, load: Load, name: str) -> Iterator[Table]:
    loads = [load(int(t), int(ep)) for t, ep in zip(rows.num_tokens, rows.moe_ep_size, strict=True)]
    pairs, active = np.array(loads).T
    axes = {
        "rows": pairs, "experts": V3.n_routed / rows.moe_ep_size.to_numpy(), "active": active,
        "hidden": rows.hidden_size, "inter": V3.moe_inter / rows.moe_tp_size.to_numpy(),
    }  # fmt: skip
    yield from table(
        "moe", DTYPES[dtype], {}, backend, f"{label(rows)}, {name}", axes, rows.latency_ms * MILLISECOND_S
    )

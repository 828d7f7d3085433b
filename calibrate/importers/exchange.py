"""All-to-all of the experts (DeepEP, NVLink) and collectives."""

from collections.abc import Iterator

import pandas as pd

from calibrate.importers.attention import MILLISECOND_S
from calibrate.importers.source import Source, groups, label, table
from sim.cost.profile import Table
from sim.kernels.collectives import KINDS
from sim.kernels.exchange import WIRE

MICROSECOND_S = 1e-6
GPUS_PER_NODE = 8
HALF_BYTES = 2
"""message_size counts elements of two bytes."""
DEEPEP_SMS = 20
"""SMs that normal mode may use; DeepEP's default and the one that both campaigns measured."""
TABLE_FORMAT = {"fp8": "fp8", "bf16": "bfloat16"}


def deepep(source: Source) -> Iterator[Table]:
    """DeepEP by nodes of 8 GPUs: low latency (one kernel each way) and normal (transmit + notify)."""
    rows = source.rows("v3_deepep")
    fast = rows[rows.table == "wideep_deepep_ll"]
    for kind in WIRE:
        yield from _deepep(kind, "low_latency", fast, fast[f"{kind}_avg_t_us"])
    normal = rows[(rows.table == "wideep_deepep_normal") & (rows.dispatch_sms == DEEPEP_SMS)]
    for kind in WIRE:
        spent = normal[f"{kind}_transmit_us"] + normal[f"{kind}_notify_us"]
        yield from _deepep(kind, "normal", normal, spent)


def _deepep(kind: str, mode: str, rows: pd.DataFrame, us: pd.Series) -> Iterator[Table]:
    axes = {
        "tokens": rows.num_token, "nodes": rows.node_num, "ep": GPUS_PER_NODE * rows.node_num,
        "hidden": rows.hidden_size, "top_k": rows.num_topk,
    }  # fmt: skip
    name = f"{label(rows)}, v3_deepep"
    yield from table(kind, WIRE[kind], {"mode": mode}, "deepep", name, axes, us * MICROSECOND_S)


def single_node_exchange(source: Source) -> Iterator[Table]:
    """The 2026 all-to-all campaign on one node: DeepEP as TensorRT-LLM and vLLM drive it."""
    frame = source.rows("v3_moe_a2a")
    modes = {"deepep_ll": "low_latency", "deepep_ht": "normal"}
    for (backend, kind), formats in groups(frame, ["comm_backend", "phase"]):
        mode = modes.get(str(backend).removeprefix("trtllm_"))
        wire = WIRE[str(kind)]
        rows = formats[formats.comm_dtype.isin(["default", TABLE_FORMAT[wire]])]
        if mode is None or rows.empty:
            continue
        axes = {
            "tokens": rows.num_tokens, "nodes": 1, "ep": rows.ep_size,
            "hidden": rows.hidden_size, "top_k": rows.topk,
        }  # fmt: skip
        name = f"{label(rows)}, v3_moe_a2a"
        yield from table(
            str(kind), wire, {"mode": mode}, str(backend), name, axes, rows.latency_us * MICROSECOND_S
        )


def nvlink_exchange(source: Source) -> Iterator[Table]:
    """TensorRT-LLM's all-to-all inside an NVL72 rack, EP 2 to 64; its preparation counts with the dispatch."""
    frame = source.rows("v3_nvlink_alltoall", kernel_source="NVLinkTwoSided")
    if frame.empty:
        return
    keys = ["num_tokens", "moe_ep_size", "hidden_size", "topk", "moe_dtype"]
    out = frame[frame.op_name.isin(["alltoall_dispatch", "alltoall_prepare"]) & (frame.moe_dtype == "fp8")]
    back = frame[frame.op_name == "alltoall_combine"]
    for kind, rows in (("dispatch", out), ("combine", back)):
        total = rows.groupby(keys)["latency_ms"].sum().reset_index()
        axes = {
            "tokens": total.num_tokens, "nodes": 1, "ep": total.moe_ep_size,
            "hidden": total.hidden_size, "top_k": total.topk,
        }  # fmt: skip
        name = f"{label(rows)}, v3_nvlink_alltoall"
        yield from table(
            kind, WIRE[kind], {}, "nvlink_two_sided", name, axes, total.latency_ms * MILLISECOND_S
        )


def collectives(source: Source) -> Iterator[Table]:
    """The engine's own all-reduce, and NCCL for what it does not replace."""
    rows = source.rows("comm_custom_allreduce")
    yield from _collective("all_reduce", "custom", rows, "comm_custom_allreduce")
    for kind in KINDS:
        rows = source.rows("comm_nccl", engine="nccl", op_name=kind, nccl_dtype="half")
        yield from _collective(kind, "nccl", rows, "comm_nccl")


def _collective(kind: str, backend: str, rows: pd.DataFrame, name: str) -> Iterator[Table]:
    axes = {"gpus": rows.num_gpus, "bytes": rows.message_size * HALF_BYTES}
    yield from table(
        kind, "bf16", {}, backend, f"{label(rows)}, {name}", axes, rows.latency_ms * MILLISECOND_S
    )

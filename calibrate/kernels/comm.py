"""Communication between the GPUs of this machine: collectives, and the dispatch and combine of expert parallelism.

These families run inside a group of processes, one per GPU (`calibrate.group`). Every rank can make the inputs of
all ranks from their seeds, so each checks its own output. Inputs of collectives are small whole numbers, which BF16
adds exactly.
"""

from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels.backend import (
    BLACKWELL,
    HOPPER,
    Backend,
    Call,
    Family,
    Tensors,
    difference,
    randn,
)
from calibrate.kernels.formats import dequantize_groups, quantize_groups
from calibrate.kernels.library import Needs
from sim.units import DTYPE_BYTES

LARGEST_NUMBER: Final = 8
"""Inputs of collectives lie in -8 to 8: BF16 holds every sum of up to 32 of them exactly."""

# torch renamed both; the old names warn, older versions lack the new ones.
_ALL_GATHER: Final[Any] = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_REDUCE_SCATTER: Final[Any] = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)

_groups: dict[int, Any] = {}


def subgroup(size: int) -> Any:
    """The first `size` ranks of the world as a process group; every rank must ask in the same order."""
    if size not in _groups:
        _groups[size] = dist.new_group(list(range(size)))
    return _groups[size]


def _numbers(elements: int, rank: int, device: torch.device) -> Tensor:
    """Input of a rank: whole numbers in BF16, from the rank's own seed."""
    generator = torch.Generator(device)
    generator.manual_seed(rank)
    span = (-LARGEST_NUMBER, LARGEST_NUMBER + 1)
    return torch.randint(*span, (elements,), generator=generator, device=device).bfloat16()


def make_collective(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """`mine` of the whole tensor's size (all_reduce, reduce_scatter) or of one rank's share (all_gather), and `out`."""
    del device
    gpus, where = case.size("gpus"), generator.device
    whole = round(case.operation.shape["bytes"] / DTYPE_BYTES["bf16"] / gpus) * gpus
    gather = case.operation.kernel == "all_gather"
    scatter = case.operation.kernel == "reduce_scatter"
    mine = _numbers(whole // gpus if gather else whole, dist.get_rank(), where)
    out = torch.full((whole // gpus if scatter else whole,), float("nan"), dtype=torch.bfloat16, device=where)
    return {"mine": mine, "out": out}


def collective_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of this rank's output against the inputs of all ranks, computed here."""
    gpus, rank = case.size("gpus"), dist.get_rank()
    inputs = [_numbers(len(tensors["mine"]), other, output.device).double() for other in range(gpus)]
    if case.operation.kernel == "all_gather":
        return difference(output, torch.cat(inputs))
    total = torch.stack(inputs).sum(0)
    return difference(output, total.chunk(gpus)[rank] if case.operation.kernel == "reduce_scatter" else total)


def _torch_collective(case: Case, tensors: Tensors) -> Call:
    """NCCL through torch, or gloo on CPUs. An all-reduce works in place: the input is copied before each call."""
    group, mine, out = subgroup(case.size("gpus")), tensors["mine"], tensors["out"]
    kind = case.operation.kernel

    def run() -> Tensor:
        if kind == "all_gather":
            _ALL_GATHER(out, mine, group=group)
        elif kind == "reduce_scatter":
            _REDUCE_SCATTER(out, mine, group=group)
        else:
            out.copy_(mine)
            dist.all_reduce(out, group=group)
        return out

    return run


_COLLECTIVE = (Backend("nccl", _torch_collective), Backend("gloo", _torch_collective, cpu=True, gpu=False))
ALL_REDUCE = Family("all_reduce", make_collective, collective_error, 1e-6, _COLLECTIVE)
ALL_GATHER = Family("all_gather", make_collective, collective_error, 1e-6, _COLLECTIVE)
REDUCE_SCATTER = Family("reduce_scatter", make_collective, collective_error, 1e-6, _COLLECTIVE)


def make_exchange(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Tokens x [tokens, hidden], the experts that each chose, int64 [tokens, top_k], and their weights, sum 1."""
    del device
    tokens, top_k, where = case.size("tokens"), case.size("top_k"), generator.device
    generator.manual_seed(dist.get_rank())
    scores = torch.rand(tokens, case.model.n_routed, generator=generator, device=where)
    chosen = scores.topk(top_k, -1)
    return {
        "x": randn(tokens, case.size("hidden"), generator=generator),
        "chosen": chosen.indices,
        "weights": chosen.values / chosen.values.sum(-1, keepdim=True),
    }


def exchange_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Dispatch: share of (token, expert) pairs that did not arrive anywhere. Combine: error of the tokens, which come
    back unchanged because every expert is the identity and a token's weights sum to 1."""
    if case.operation.kernel == "combine":
        return difference(output, tensors["x"])
    arrived = output.sum().double()
    dist.all_reduce(arrived)
    sent = tensors["chosen"].numel() * dist.get_world_size()
    return abs(float(arrived) - sent) / sent


_DEEP_EP: Final = Needs(("deep_ep",), ("Buffer",))


def _buffer(case: Case) -> Any:
    """DeepEP's buffer for a case's mode and size."""
    (buffer_type,) = _DEEP_EP.load()
    group, experts = subgroup(case.size("ep")), case.model.n_routed
    if case.operation.options["mode"] == "low_latency":
        size = buffer_type.get_low_latency_rdma_size_hint(
            case.size("tokens"), case.size("hidden"), group.size(), experts
        )
        return buffer_type(group, 0, size, low_latency_mode=True, num_qps_per_rank=experts // group.size())
    configs = (buffer_type.get_dispatch_config(group.size()), buffer_type.get_combine_config(group.size()))
    row_bytes = round(case.size("hidden") * DTYPE_BYTES["bf16"])
    return buffer_type(group, max(c.get_nvl_buffer_size_hint(row_bytes, group.size()) for c in configs), 0)


def _deep_ep_low_latency(case: Case, tensors: Tensors) -> Call:
    """DeepEP's low-latency mode: FP8 out, BF16 back, one copy per chosen expert."""
    buffer, tokens, experts = _buffer(case), case.size("tokens"), case.model.n_routed
    x, chosen, weights = tensors["x"], tensors["chosen"], tensors["weights"]

    def dispatch(use_fp8: bool) -> Any:
        return buffer.low_latency_dispatch(x, chosen, tokens, experts, use_fp8=use_fp8)

    if case.operation.kernel == "dispatch":
        return lambda: dispatch(True)[1]
    received, _, handle, *_ = dispatch(False)
    return lambda: buffer.low_latency_combine(received, chosen, weights, handle)[0]


def _deep_ep_normal(case: Case, tensors: Tensors) -> Call:
    """DeepEP's normal mode: one copy per rank touched; the layout is computed once, as in prefill."""
    buffer, chosen, experts = _buffer(case), tensors["chosen"], case.model.n_routed
    per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(chosen, experts)
    plan = {
        "topk_idx": chosen,
        "topk_weights": tensors["weights"].float(),
        "num_tokens_per_rank": per_rank,
        "is_token_in_rank": in_rank,
        "num_tokens_per_expert": per_expert,
    }
    if case.operation.kernel == "dispatch":
        packed = quantize_groups(tensors["x"])

        def send() -> Call:
            arrived = buffer.dispatch(packed, **plan)[3]
            return lambda: torch.tensor(arrived, device=chosen.device)

        return send
    received, *_, handle, _ = buffer.dispatch(quantize_groups(tensors["x"]), **plan)
    rows = dequantize_groups(*received).bfloat16()
    touched = in_rank.sum(-1, keepdim=True)

    def run() -> Call:
        combined = buffer.combine(rows, handle)[0]
        return lambda: combined / touched  # every rank sent the token back whole

    return run


def _low_latency(case: Case) -> str | None:
    return None if case.operation.options["mode"] == "low_latency" else "is the low-latency mode"


def _normal(case: Case) -> str | None:
    return None if case.operation.options["mode"] == "normal" else "is the normal mode"


_EXCHANGE = (
    Backend("deep_ep", _deep_ep_low_latency, _DEEP_EP, capabilities=(HOPPER, BLACKWELL), limits=_low_latency),
    Backend("deep_ep", _deep_ep_normal, _DEEP_EP, capabilities=(HOPPER, BLACKWELL), limits=_normal),
)
# The combine of tokens that travelled in FP8 is off by its rounding.
DISPATCH = Family("dispatch", make_exchange, exchange_error, 0.0, _EXCHANGE)
COMBINE = Family("combine", make_exchange, exchange_error, 1e-3, _EXCHANGE)

"""Routed experts: gate and up projection, activation, down projection over rows sorted by expert.

DeepSeekMoE (DeepSeek-V3 report, section 2.1.2): y = W^down (silu(W^gate x) . W^up x) for each expert that a token
chose. A row is one (token, expert) pair; the gate weights and the sum over experts belong to the combine step.
In FP8 the activation between the two products is quantised again, which is most of a correct kernel's error.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu

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
    finite,
    poisoned,
    randn,
    sample_rows,
)
from calibrate.kernels.formats import (
    FP8,
    dequantize_blocks,
    dequantize_groups,
    quantize_blocks,
    quantize_groups,
)
from calibrate.kernels.library import TRITON
from calibrate.kernels.moe_adapters import (
    CONTIGUOUS,
    MASKED,
    deep_gemm_contiguous,
    deep_gemm_masked,
    expert_of_rows,
)
from sim.kernels.formats import BLOCK

# ruff: noqa: PLC0415 (Triton is imported only where its backend runs)


def make_moe(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Rows x [rows, hidden] sorted by expert, `counts` int64 [experts], up [e, 2 i, hidden], down [e, hidden, i].

    `active` random experts share the rows at random, at least one each. FP8: `_scales` beside each tensor,
    powers of two on Blackwell.
    Raises ValueError when there are fewer rows than active experts.
    """
    rows, experts, active, hidden, inter = (
        case.size(axis) for axis in ("rows", "experts", "active", "hidden", "inter")
    )
    if rows < active or active > experts:
        raise ValueError(f"{rows} rows cannot touch {active} of {experts} experts")
    where = generator.device
    chosen = torch.randperm(experts, generator=generator, device=where)[:active]
    extra = torch.randint(active, (rows - active,), generator=generator, device=where)
    counts = torch.zeros(experts, dtype=torch.int64, device=where)
    counts[chosen] = 1 + torch.bincount(extra, minlength=active)
    x = randn(rows, hidden, generator=generator)
    up = [randn(2 * inter, hidden, generator=generator, scale=hidden**-0.5) for _ in range(experts)]
    down = [randn(hidden, inter, generator=generator, scale=inter**-0.5) for _ in range(experts)]
    if case.operation.dtype == "bf16":
        return {"x": x, "counts": counts, "up": torch.stack(up), "down": torch.stack(down)}
    tensors = {"counts": counts}
    powers = device.capability[0] == BLACKWELL
    tensors["x"], tensors["x_scales"] = quantize_groups(x, powers)
    for name, weights in (("up", up), ("down", down)):
        packed = [quantize_blocks(weight, powers) for weight in weights]
        tensors[name] = torch.stack([values for values, _ in packed])
        tensors[f"{name}_scales"] = torch.stack([scales for _, scales in packed])
    return tensors


def _weight(tensors: Tensors, name: str, expert: int) -> Tensor:
    if f"{name}_scales" not in tensors:
        return tensors[name][expert]
    return dequantize_blocks(tensors[name][expert], tensors[f"{name}_scales"][expert])


def _inputs(tensors: Tensors, rows: Tensor) -> Tensor:
    if "x_scales" not in tensors:
        return tensors["x"][rows]
    return dequantize_groups(tensors["x"][rows], tensors["x_scales"][rows])


def gated_ffn(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """W^down (silu(W^gate x) . W^up x): x [.., hidden], up [2 inter, hidden] (gate first), down [hidden, inter]."""
    gate, linear = (x @ up.T).chunk(2, -1)
    return (silu(gate) * linear) @ down.T


def reference_moe(tensors: Tensors, rows: Tensor) -> Tensor:
    """Rows of the output in float64, one at a time: [rows, hidden]."""
    experts = expert_of_rows(tensors["counts"])[rows].tolist()
    inputs = _inputs(tensors, rows).double()
    weights = {
        e: (_weight(tensors, "up", e).double(), _weight(tensors, "down", e).double()) for e in set(experts)
    }
    return torch.stack([gated_ffn(x, *weights[e]) for x, e in zip(inputs, experts, strict=True)])


def moe_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled rows; the output is [rows, hidden] in the order of the inputs."""
    rows = sample_rows(case.size("rows"), output.device)
    return difference(output[rows], reference_moe(tensors, rows)) if finite(output) else float("inf")


def _torch_moe(case: Case, tensors: Tensors) -> Call:
    """torch's grouped product in BF16."""
    del case
    offsets = tensors["counts"].cumsum(0).int()
    up, down = tensors["up"].transpose(1, 2), tensors["down"].transpose(1, 2)
    product = torch.nn.functional.grouped_mm

    def run() -> Tensor:
        gate, linear = product(tensors["x"], up, offs=offsets).chunk(2, -1)
        return product(silu(gate) * linear, down, offs=offsets)

    return run


def _torch_dequantized_moe(case: Case, tensors: Tensors) -> Call:
    """FP8 on a CPU, which does not compute in it: expert after expert, dequantised inside the call."""
    del case
    counts = tensors["counts"].tolist()
    rows = torch.arange(len(tensors["x"])).split(counts)
    active = [expert for expert, count in enumerate(counts) if count]

    def run() -> Tensor:
        weights = (
            (_weight(tensors, "up", e).bfloat16(), _weight(tensors, "down", e).bfloat16()) for e in active
        )
        parts = (_inputs(tensors, rows[e]).bfloat16() for e in active)
        return torch.cat([gated_ffn(x, *pair) for x, pair in zip(parts, weights, strict=True)])

    return run


def _triton_moe(case: Case, tensors: Tensors) -> Call:
    from calibrate.kernels.triton_gemm import grouped_gemm, tiles
    from calibrate.kernels.triton_quantize import gated_activation

    rows, hidden, inter = (case.size(axis) for axis in ("rows", "hidden", "inter"))
    device, cut = tensors["x"].device, tiles(tensors["counts"])
    fp8 = case.operation.dtype == "fp8"
    both = poisoned(rows, 2 * inter, dtype=torch.bfloat16, device=device)
    middle = torch.empty(rows, inter, dtype=FP8 if fp8 else torch.bfloat16, device=device)
    scales = poisoned(rows, inter // BLOCK, dtype=torch.float32, device=device) if fp8 else None
    output = poisoned(rows, hidden, dtype=torch.bfloat16, device=device)
    x_scales, up_scales, down_scales = (tensors.get(f"{name}_scales") for name in ("x", "up", "down"))

    def run() -> Tensor:
        grouped_gemm(tensors["x"], x_scales, tensors["up"], up_scales, cut, both)
        gated_activation(both, middle, scales)
        return grouped_gemm(middle, scales, tensors["down"], down_scales, cut, output)

    return run


def _whole_blocks(case: Case) -> str | None:
    if case.size("inter") % BLOCK or case.size("hidden") % BLOCK:
        return f"hidden and inter must be multiples of {BLOCK}"
    return None


def _with_triton(case: Case) -> str | None:
    """The activation between DeepGEMM's products is our Triton kernel."""
    return TRITON.missing or _whole_blocks(case)


MOE = Family(
    kernel="moe",
    make=make_moe,
    error=moe_error,
    # Quantising the activation to e4m3 again costs 2 to 3% per element; DeepGEMM's tests allow the same 1e-3.
    tolerance=1e-3,
    backends=(
        Backend(
            "deep_gemm", deep_gemm_contiguous, CONTIGUOUS, capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",),
            limits=_with_triton,
        ),
        Backend(
            "deep_gemm_masked", deep_gemm_masked, MASKED, capabilities=(HOPPER, BLACKWELL), dtypes=("fp8",),
            limits=_with_triton,
        ),
        Backend(
            "triton", _triton_moe, TRITON, capabilities=(HOPPER, BLACKWELL), dtypes=("bf16", "fp8"),
            limits=_whole_blocks,
        ),
        Backend("torch", _torch_moe, cpu=True, dtypes=("bf16",)),
        Backend("torch", _torch_dequantized_moe, cpu=True, gpu=False, dtypes=("fp8",)),
    ),
)  # fmt: skip

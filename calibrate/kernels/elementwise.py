"""What moves bytes and computes little: norms and activations, a plain copy, and an empty kernel.

The copy gives the memory ceiling, the empty kernel the floor under every launch.
"""

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

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
    sample_rows,
)
from calibrate.kernels.library import Needs
from sim.units import DTYPE_BYTES

EPSILON = 1e-6
"""Epsilon of RMSNorm in DeepSeek-V3's configuration (`rms_norm_eps`)."""


def _function(case: Case) -> str:
    return case.operation.options.get("function", "add_rms_norm")


def make_elementwise(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """Rows that move the case's bytes.

    add_rms_norm (default): x, residual [rows, hidden] are read, both results written, 4 x hidden elements per row.
    silu_mul: x [rows, 2 hidden] is read and [rows, hidden] written, 3 x hidden.
    """
    del device
    hidden = case.model.hidden
    elements = case.size("bytes") / DTYPE_BYTES["bf16"] / hidden
    if _function(case) == "silu_mul":
        return {"x": randn(max(1, round(elements / 3)), 2 * hidden, generator=generator)}
    rows = max(1, round(elements / 4))
    return {
        "x": randn(rows, hidden, generator=generator),
        "residual": randn(rows, hidden, generator=generator),
        "weight": randn(hidden, generator=generator),
    }


def reference_elementwise(case: Case, tensors: Tensors, rows: Tensor) -> Tensor:
    """Rows of the result in float64: norm(x + residual) x weight, or silu(gate) x up."""
    x = tensors["x"][rows].double()
    if _function(case) == "silu_mul":
        gate, up = x.chunk(2, -1)
        return silu(gate) * up
    x = x + tensors["residual"][rows].double()
    return rms_norm(x, x.shape[-1:], tensors["weight"].double(), EPSILON)


def elementwise_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """Error of the sampled rows."""
    rows = sample_rows(len(output), output.device)
    return difference(output[rows], reference_elementwise(case, tensors, rows))


def _torch_elementwise(case: Case, tensors: Tensors) -> Call:
    x = tensors["x"]
    if _function(case) == "silu_mul":
        gate, up = x.chunk(2, -1)
        return lambda: silu(gate) * up
    residual, weight, width = tensors["residual"], tensors["weight"], x.shape[-1:]
    return lambda: rms_norm(x + residual, width, weight, EPSILON)


_FLASHINFER = Needs(("flashinfer",), ("silu_and_mul", "fused_add_rmsnorm"))


def _flashinfer_elementwise(case: Case, tensors: Tensors) -> Call:
    silu_and_mul, fused_add_rmsnorm = _FLASHINFER.load()
    if _function(case) == "silu_mul":
        return lambda: silu_and_mul(tensors["x"])
    # The kernel works in place: it runs on copies, restored only for the first, compared call.
    x, residual = tensors["x"].clone(), tensors["residual"].clone()

    def run() -> Tensor:
        fused_add_rmsnorm(x, residual, tensors["weight"], EPSILON)
        return x

    return run


ELEMENTWISE = Family(
    kernel="elementwise",
    make=make_elementwise,
    error=elementwise_error,
    tolerance=2e-5,
    backends=(
        Backend("flashinfer", _flashinfer_elementwise, _FLASHINFER, capabilities=(HOPPER, BLACKWELL)),
        Backend("torch", _torch_elementwise, cpu=True),
    ),
)


def make_copy(case: Case, device: Device, generator: torch.Generator) -> Tensors:
    """A source of half the case's bytes (each byte is read and written) and where it goes."""
    del device
    elements = max(1, round(case.size("bytes") / 2 / DTYPE_BYTES["bf16"]))
    source = randn(elements, generator=generator)
    return {"source": source, "target": torch.full_like(source, float("nan"))}


def copy_error(case: Case, tensors: Tensors, output: Tensor) -> float:
    """0 for an exact copy, else 1."""
    del case
    return 0.0 if torch.equal(output, tensors["source"]) else 1.0


def _torch_copy(case: Case, tensors: Tensors) -> Call:
    del case
    return lambda: tensors["target"].copy_(tensors["source"])


def _torch_launch(case: Case, tensors: Tensors) -> Call:
    """A product with 1: a kernel, where torch's copy of contiguous memory would be the copy engine's work."""
    del case
    return lambda: torch.mul(tensors["source"], 1, out=tensors["target"])


COPY = Family("copy", make_copy, copy_error, 0.0, (Backend("torch", _torch_copy, cpu=True),))
LAUNCH = Family("launch", make_copy, copy_error, 0.0, (Backend("torch", _torch_launch, cpu=True),))
"""The smallest kernel: what one costs that does nothing."""

"""What a kernel family and a backend are: how a case is made, checked and run.

A family makes the inputs of a case and judges an output against a float64 reference; a backend turns the inputs
into a call that can be timed. Everything that an engine does once per weight or per batch (layouts, schedules,
page tables) belongs into `build`, outside the timed call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels.library import Needs

Tensors = Mapping[str, Tensor]
Call = Callable[[], Any]

HOPPER: Final = 9
BLACKWELL: Final = 10
"""Major compute capabilities of the data-centre GPUs: H100, H800, H20 and H200 are 9.0, B200 and GB200 10.0."""

CHECKED_ROWS: Final = 8
"""Rows of an output that are compared with the reference; all of it must be finite."""


def anything(case: Case) -> str | None:
    """A backend without limits on shapes."""
    del case
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of a kernel family."""

    name: str
    build: Callable[[Case, Tensors], Call]
    """Inputs -> the call that is timed. Called once per copy of the inputs.

    The call returns the output or, where that must be rearranged to be compared, a function that does so.
    """
    needs: Needs | None = None
    """Functions of another package that it calls; None needs torch alone."""
    capabilities: tuple[int, ...] = ()
    """Major compute capabilities that it runs on; empty means any GPU."""
    cpu: bool = False
    """Whether it also runs without a GPU."""
    gpu: bool = True
    """Whether it is worth running on one."""
    dtypes: tuple[str, ...] = ("bf16", "fp8", "fp32")
    limits: Callable[[Case], str | None] = anything
    """Why the case is outside what the kernel takes, or None."""
    loses: Callable[[Case], float] = lambda case: 0.0
    """Error that the kernel's own arithmetic may add to the family's tolerance."""

    def refuses(self, case: Case, device: Device) -> str | None:
        """Why this backend cannot run the case on the device, or None if it can."""
        if device.kind == "cpu" and not self.cpu:
            return "needs a GPU"
        if device.kind == "cuda" and not self.gpu:
            return "is meant for the CPU"
        if device.kind == "cuda" and self.capabilities and device.capability[0] not in self.capabilities:
            majors = ", ".join(f"{major}.x" for major in self.capabilities)
            return f"needs compute capability {majors}, this is {device.capability[0]}.{device.capability[1]}"
        if self.needs is not None and (reason := self.needs.missing):
            return reason
        if case.operation.dtype not in self.dtypes:
            return f"takes {', '.join(self.dtypes)}, not {case.operation.dtype}"
        return self.limits(case)


@dataclass(frozen=True)
class Family:
    """A kernel family of the profile: inputs, judgement and backends, the preferred one first."""

    kernel: str
    make: Callable[[Case, Device, torch.Generator], Tensors]
    """Random inputs of a case, never zeros."""
    error: Callable[[Case, Tensors, Any], float]
    """How far an output is from the reference, 0 when equal; see `difference`."""
    tolerance: float
    """Largest error of a correct kernel."""
    backends: tuple[Backend, ...]


def on_blackwell(tensor: Tensor) -> bool:
    """Whether a tensor lies on a data-centre Blackwell GPU, whose tensor cores apply power-of-two scales."""
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device)[0] == BLACKWELL


def difference(output: Tensor, reference: Tensor) -> float:
    """1 - 2 <x, y> / (<x, x> + <y, y>): half the squared relative error for small errors, 0 when equal.

    The measure of DeepGEMM's tests (`deep_gemm/testing/numeric.py`). Infinite where the output is not finite.
    """
    x, y = output.double(), reference.double()
    if x.shape != y.shape:
        raise ValueError(f"output has shape {tuple(x.shape)}, the reference {tuple(y.shape)}")
    if not torch.isfinite(x).all():
        return float("inf")
    norm = (x * x).sum() + (y * y).sum()
    return max(0.0, float(1 - 2 * (x * y).sum() / norm)) if norm > 0 else 0.0


def finite(output: Tensor) -> bool:
    """Whether all of an output is finite; unwritten rows hold NaN because outputs start as NaN."""
    return bool(torch.isfinite(output).all())


def sample_rows(rows: int, device: torch.device) -> Tensor:
    """Indices of the rows that are checked: the first, the last and evenly spaced ones between; int64."""
    evenly: Tensor = torch.linspace(0, rows - 1, min(rows, CHECKED_ROWS), device=device)
    rows_checked: Tensor = evenly.round().long().unique()
    return rows_checked


def poisoned(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An output buffer full of NaN, so that an element that the kernel forgets is found."""
    return torch.full(shape, float("nan"), dtype=dtype, device=device)


def randn(*shape: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
    """Normal random numbers in bfloat16 on the generator's device."""
    values = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.bfloat16)
    return values.mul_(scale)

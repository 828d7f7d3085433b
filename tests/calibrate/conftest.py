"""Kernels are tested on the CPU: Triton's through its interpreter, which must be chosen before they are imported."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from calibrate.environment import Device

HAS_GPU = Path("/dev/nvidiactl").exists()

if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def generator():
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    return torch.Generator().manual_seed(7)


@pytest.fixture
def cpu():
    """A CPU as the calibration sees it, whatever this machine has."""
    return Device("cpu", "a CPU", 1, 2**34, 2**20)


H200 = Device("cuda", "H200", 1, 2**37, 2**26, (9, 0), 132)
B200 = Device("cuda", "B200", 1, 2**37, 2**26, (10, 0), 132)


@pytest.fixture
def install(monkeypatch):
    """Stand in for a module; what was looked up before is forgotten, and again afterwards."""

    def add(name, **symbols):
        parts = name.split(".")
        for depth in range(1, len(parts)):
            parent = ".".join(parts[:depth])
            if parent not in sys.modules:
                monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        module = ModuleType(name)
        vars(module).update(symbols)
        monkeypatch.setitem(sys.modules, name, module)
        forget()

    def forget():
        from calibrate.kernels import library  # noqa: PLC0415 (torch is optional)

        library._locate.cache_clear()
        library._import.cache_clear()

    yield add
    monkeypatch.undo()
    forget()


@pytest.fixture(params=["hopper", "blackwell"])
def gpu(request, monkeypatch):
    """A GPU whose tensors lie on the CPU: they pass for its own as far as scales go."""
    blackwell = request.param == "blackwell"
    for name in ("backend", "gemm", "quantize", "moe_adapters", "dsa_adapters"):
        monkeypatch.setattr(f"calibrate.kernels.{name}.on_blackwell", lambda tensor: blackwell)
    return B200 if blackwell else H200


@pytest.fixture
def backend():
    """The backend of a family by its name that takes a case."""

    def find(kernel, name, case):
        from calibrate.kernels.families import FAMILIES  # noqa: PLC0415 (torch is optional)

        return next(
            b
            for b in FAMILIES[kernel].backends
            if b.name == name and case.operation.dtype in b.dtypes and not b.limits(case)
        )

    return find

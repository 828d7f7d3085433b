"""Kernels are tested on the CPU: Triton's through its interpreter, which must be chosen before they are imported."""

import os
from pathlib import Path

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

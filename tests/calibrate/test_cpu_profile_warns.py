"""A profile that was measured on a CPU warns where it prices a GPU, and not where it prices that CPU."""

import warnings

import pytest

from calibrate.fit import fit_profile
from calibrate.store import save_fits, save_profile
from calibrate.tables import tables_from_records
from sim.catalog import described_gpu, gpu
from sim.cost.profile import read_profile
from sim.cost.record import Record
from sim.step import pricing

CPU = {"memory_bytes": 2.0**34, "memory_bytes_per_s": 1e10, "bf16_flop_per_s": 1e11}


def profile(folder, device):
    shapes = [{"m": float(m), "n": 256.0, "k": 256.0} for m in (1, 16, 64)]
    tables = tables_from_records([Record("gemm", shape, "bf16", 100.0, backend="torch") for shape in shapes])
    header = {"gpu": "a_cpu", "engine": "sglang", "device": CPU, "environment": {"device": device}}
    save_profile(folder, header, tables)
    save_fits(folder, fit_profile(read_profile(folder, fitted=False), described_gpu("a_cpu", CPU)))
    return str(folder)


def test_a_cpu_profile_on_a_gpu_warns(tmp_path):
    with pytest.warns(UserWarning, match="measured on a CPU: its times say nothing about a h200_sxm"):
        pricing._cost(gpu("h200_sxm"), profile(tmp_path / "p", "cpu"), "", as_timed=True)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_does_not_on_that_cpu_nor_does_a_gpus(device, tmp_path):
    priced = described_gpu("a_cpu", CPU) if device == "cpu" else gpu("h200_sxm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pricing._cost(priced, profile(tmp_path / device, device), "", as_timed=True)

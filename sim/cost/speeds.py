"""How much faster one GPU is than another by their datasheets, resource by resource."""

from sim.catalog import Gpu


def datasheet_rate(gpu: Gpu, dtype: str) -> float:
    """FLOP/s by the datasheet; that of BF16 where it gives none."""
    return gpu.flop_per_s(dtype) or gpu.bf16_flop_per_s


def speeds(gpu: Gpu, measured: Gpu) -> dict[str, float]:
    """How many times as fast each resource of `gpu` is as that of `measured`."""
    arithmetic = {
        dtype: (gpu.flop_per_s(dtype) or 0.0) / (measured.flop_per_s(dtype) or 1.0)
        for dtype in ("bf16", "fp8", "int4", "mxfp4", "nvfp4")
    }
    memory = gpu.memory_bytes_per_s / measured.memory_bytes_per_s
    return {
        **{dtype: ratio or 1.0 for dtype, ratio in arithmetic.items()},
        "fp32": arithmetic["bf16"],
        "memory": memory,
        "cache": memory,  # no datasheet tells: taken as the memory's
        "scale_up": gpu.scale_up_bytes_per_s / measured.scale_up_bytes_per_s,
        "scale_out": gpu.scale_out_bytes_per_s / measured.scale_out_bytes_per_s,
    }

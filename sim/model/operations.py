"""Operations of a forward step: what runs, on what shape, with how many FLOP and bytes.

FLOP = 2 x MAC. Every number is for ONE GPU, ONE layer, ONE step; `layers` says how often the step repeats it.
The simulator, the calibration and the reports count FLOP and bytes with these functions and no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Group = Literal["attention", "moe", "dense", "communication", "other"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One kernel, or one block of kernels that a profile may have measured as a whole.

    A block lists its `parts`; its FLOP and bytes are their sums. The cost model prices a block whole where
    the profile measured it whole, and part by part elsewhere.
    """

    name: str
    """What a reader of `explain` sees, such as `q_b projection`."""
    group: Group
    kernel: str
    """The kernel family that a profile measures, such as `gemm` or `mla_decode`."""
    shape: Mapping[str, float]
    """The family's coordinates, such as {m, n, k}; the names are those of the profile's table."""
    dtype: str
    """Precision that the arithmetic runs in: bf16, fp8 or nvfp4."""
    flop: float
    bytes: float
    """HBM traffic, read and written; for communication the bytes that one GPU sends."""
    layers: int = 1
    parts: tuple["Operation", ...] = ()
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What else selects a measured table: kv_cache, backend, distribution."""

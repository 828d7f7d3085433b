"""Bytes of matrices and activations in the formats that kernels read, and the pairs that attention works on."""

from typing import Any, Final

from sim.units import DTYPE_BYTES

BLOCK: Final = 128
"""Width of an FP8 block: activations 1 x 128, weights 128 x 128 (DeepSeek-V3 report, section 3.3.2)."""
SCALE_BYTES: Final = 4
"""One FP32 scale per FP8 block."""
NVFP4_BLOCK: Final = 16
"""Elements that share one one-byte scale in NVFP4."""
MXFP4_BLOCK: Final = 32
"""Elements that share one one-byte scale in MXFP4, and in MXFP8, the activations beside it (OCP Microscaling 1.0)."""
INT4_BLOCK: Final = 32
"""Elements that share one BF16 scale in INT4 (Kimi K2 Thinking's quantization_config: group_size)."""
BF16: Final = DTYPE_BYTES["bf16"]


_WEIGHT: Final = DTYPE_BYTES | {
    "fp8": DTYPE_BYTES["fp8"] + SCALE_BYTES / BLOCK**2,
    "nvfp4": DTYPE_BYTES["nvfp4"] + 1 / NVFP4_BLOCK,
    "mxfp4": DTYPE_BYTES["mxfp4"] + 1 / MXFP4_BLOCK,
    "int4": DTYPE_BYTES["int4"] + BF16 / INT4_BLOCK,
}
_ACTIVATION: Final = DTYPE_BYTES | {
    "fp8": DTYPE_BYTES["fp8"] + SCALE_BYTES / BLOCK,
    "nvfp4": DTYPE_BYTES["nvfp4"] + 1 / NVFP4_BLOCK,
    "mxfp4": DTYPE_BYTES["fp8"] + 1 / MXFP4_BLOCK,
    "int4": BF16,
}


def weight_bytes(elements: Any, dtype: str) -> Any:
    """Bytes of a weight matrix with the scales of its format: FP8 one per 128 x 128 block, NVFP4 one per 16, MXFP4
    and INT4 one per 32. A number, or an array, as everywhere in `sim.kernels`."""
    return elements * _WEIGHT[dtype]


def activation_bytes(elements: Any, dtype: str) -> Any:
    """Bytes of activations with the scales of their format: FP8 one per 1 x 128 group, NVFP4 one per 16. Beside MXFP4
    weights they are MXFP8, beside INT4 ones they stay BF16."""
    return elements * _ACTIVATION[dtype]


def causal_pairs(new: Any, cached: Any) -> Any:
    """(query, key) pairs of `new` tokens behind `cached` ones under the causal mask:
    new x cached + new (new + 1) / 2. Numbers or arrays, as in `sparse_pairs`.
    """
    return new * cached + new * (new + 1) / 2


def sparse_pairs(new: Any, cached: Any, top_k: float) -> Any:
    """(query, key) pairs when each query keeps at most `top_k` keys: sum over queries of min(position + 1, top_k)."""
    room = (top_k - cached + abs(top_k - cached)) / 2  # max(top_k - cached, 0)
    dense = (room + new - abs(room - new)) / 2  # min(room, new)
    return causal_pairs(dense, cached) + (new - dense) * top_k

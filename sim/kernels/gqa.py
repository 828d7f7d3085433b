"""Grouped-query attention."""

from typing import Any, Final

from sim.kernels.family import Dims, Family, Shape, Stage, Variant
from sim.kernels.formats import BF16, causal_pairs
from sim.units import DTYPE_BYTES

AXES: Final = ("heads", "kv_heads", "head_dim", "batch", "new", "cached")


def cache(kv_heads: Any, head_dim: Any, batch: Any, context: Any, kv_bytes: float) -> Any:
    """Bytes read from the cache: 2 kv_heads head_dim elements of `kv_bytes` per key."""
    return batch * context * 2 * kv_heads * head_dim * kv_bytes


def core(
    heads: Any, kv_heads: Any, head_dim: Any, batch: Any, new: Any, cached: Any, kv_bytes: float
) -> Stage:
    """4 heads head_dim FLOP per causal pair; the cache read once, queries and outputs moved."""
    read = cache(kv_heads, head_dim, batch, new + cached, kv_bytes)
    flop = 4 * heads * head_dim * (batch * causal_pairs(new, cached))
    return flop, read + batch * 2 * new * heads * head_dim * BF16


def _stages(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    kv_bytes = DTYPE_BYTES.get(v.options.get("kv_cache", "bf16"), BF16)
    heads, kv_heads, head_dim, batch, new, cached = (s[axis] for axis in AXES)
    return [core(heads, kv_heads, head_dim, batch, new, cached, kv_bytes)]


FAMILIES = tuple(
    Family(f"gqa_{phase}", "attention", AXES, _stages, roles=("core",)) for phase in ("prefill", "decode")
)

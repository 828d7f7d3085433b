"""Collectives of a tensor among GPUs."""

from typing import Any, Final, Literal

from sim.kernels.family import Family, Role, Work

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]
KINDS: Final[tuple[Kind, ...]] = ("all_reduce", "all_gather", "reduce_scatter")
ROLES: Final[dict[str, tuple[Role, ...]]] = {"all_gather": ("collective", "outward")}


def ring_bytes(kind: str, size_bytes: Any, gpus: Any) -> Any:
    """Bytes that each of `gpus` sends on a ring for a collective of a tensor of `size_bytes`: (gpus - 1) / gpus of it,
    twice that for an all-reduce (NCCL's bus bandwidth: nccl-tests, doc/PERFORMANCE.md)."""
    return size_bytes * (gpus - 1) / gpus * (2 if kind == "all_reduce" else 1)


def _ring(kind: str) -> Work:
    return lambda s, v, d: [(0.0, ring_bytes(kind, s["bytes"], s["gpus"]))]


FAMILIES = tuple(
    Family(
        kind,
        "collectives",
        ("gpus", "bytes"),
        _ring(kind),
        carriers=("scale_up",),
        roles=ROLES.get(kind, ("collective",)),
        arithmetic=False,
    )
    for kind in KINDS
)

"""Collectives of a tensor among GPUs."""

from typing import Any, Final

from sim.kernels.family import Dims, Family, Role, Shape, Stage, Variant

KINDS: Final = ("all_reduce", "all_gather", "reduce_scatter")
ROLES: Final[dict[str, tuple[Role, ...]]] = {"all_gather": ("collective", "outward")}


def ring_bytes(kind: str, size_bytes: Any, gpus: Any) -> Any:
    """Bytes that each of `gpus` sends on a ring for a collective of a tensor of `size_bytes`: (gpus - 1) / gpus of it,
    twice that for an all-reduce."""
    return size_bytes * (gpus - 1) / gpus * (2 if kind == "all_reduce" else 1)


def _form(s: Shape, v: Variant, d: Dims) -> list[Stage]:
    # Differs from `ring_bytes`: once for an all-reduce.
    return [(0.0, s["bytes"] * (s["gpus"] - 1) / s["gpus"])]


FAMILIES = tuple(
    Family(
        kind,
        "collectives",
        ("gpus", "bytes"),
        _form,
        carriers=("scale_up",),
        roles=ROLES.get(kind, ("collective",)),
        arithmetic=False,
    )
    for kind in KINDS
)

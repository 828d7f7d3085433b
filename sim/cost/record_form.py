"""The form of a measured record, checked: anybody may have written the file."""

from collections.abc import Mapping
from typing import Any, Final

from sim.cost.bounds import AT_MOST, LEAST_US, MOST_OF_AXIS, MOST_US, OF_A_ROW, least_of
from sim.cost.words import check_name, check_variant, short
from sim.kernels import FAMILIES

KINDS: Final = {
    **dict.fromkeys(("shape", "options", "environment"), (dict, "an object")),
    "ok": (bool, "true or false"),
    "flags": (list, "a list of words"),
}
NAMES: Final = ("operation", "source", "backend")
TIMES: Final = ("us_median", "us_p10", "us_p90")
NEEDS: Final[Mapping[str, frozenset[str]]] = {
    **{name: family.needs for name, family in FAMILIES.items()},
    **dict.fromkeys(("copy", "launch"), frozenset({"bytes"})),
    "moe_gate": frozenset({"tokens"}),
    **dict.fromkeys(("moe_permute", "moe_finalise"), frozenset({"tokens", "top_k"})),
}
"""Axes that a shape has to have, by operation: the families', and what `calibrate run` times beside them. A record of
another operation prices nothing, and may have any."""
ENVIRONMENT_NAMES: Final = ("device", "model", "name")
"""What is looked up of an environment beside its memory."""
DEEPEST: Final = 4
"""Sections in one another of an environment, which becomes part of a profile's header; `calibrate run` writes two."""


def check_record(raw: Any) -> None:
    """Raises ValueError where this is no record: a value of it is not of its kind, or cannot be."""
    if not isinstance(raw, dict):
        raise ValueError("expected an object")
    if lacking := {"operation", "shape", "us_median"} - raw.keys():
        raise ValueError(f"lacks {', '.join(sorted(lacking))}")
    for key in NAMES:
        check_name(key, raw.get(key, ""))
    for key, (kind, words) in KINDS.items():
        if key in raw and not isinstance(raw[key], kind):
            raise ValueError(f"{key}: expected {words}, got {short(raw[key])}")
    check_variant(raw.get("dtype", "bf16"), raw.get("options", {}))
    _check_shape(raw["operation"], raw["shape"])
    for flag in raw.get("flags", ()):
        check_name("flags", flag)
    for key in TIMES:
        value = raw.get(key)
        if value is not None and not _between(value, LEAST_US, MOST_US):
            raise ValueError(f"{key}: expected {LEAST_US:g} to {MOST_US:g} microseconds, got {short(value)}")
    _check_environment(raw.get("environment", {}))


def _check_shape(operation: str, shape: Mapping[str, Any]) -> None:
    if lacking := NEEDS.get(operation, frozenset()) - shape.keys():
        raise ValueError(f"shape: {operation} lacks {', '.join(sorted(lacking))}")
    for axis, value in shape.items():
        check_name("shape", axis)
        if axis in OF_A_ROW:
            raise ValueError(f"shape: no axis is called {axis}")
        least = least_of(axis) if operation in NEEDS else 0.0
        if not _between(value, least, MOST_OF_AXIS):
            raise ValueError(
                f"shape.{axis}: expected a number from {least:g} to {MOST_OF_AXIS:g}, got {short(value)}"
            )
    for part, whole in AT_MOST.items():
        if {part, whole} <= shape.keys() and shape[part] > shape[whole]:
            raise ValueError(
                f"shape.{part}: expected at most {whole}, {short(shape[whole])}, got {short(shape[part])}"
            )


def _check_environment(environment: Mapping[str, Any]) -> None:
    for key in ENVIRONMENT_NAMES:
        if environment.get(key) is not None:
            check_name(f"environment.{key}", environment[key])
    memory_bytes = environment.get("memory_bytes")
    if memory_bytes is not None and not _between(memory_bytes, 1.0, MOST_OF_AXIS):
        raise ValueError(
            f"environment.memory_bytes: expected a number from 1 to {MOST_OF_AXIS:g}, got {short(memory_bytes)}"
        )
    if _deeper(environment, DEEPEST):
        raise ValueError(f"environment: nested more than {DEEPEST} levels deep")


def _deeper(node: object, levels: int) -> bool:
    """Whether a value has sections in one another beyond so many."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
    return parts is not None and (not levels or any(_deeper(part, levels - 1) for part in parts))


def _between(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

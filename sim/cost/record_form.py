"""The form of a measured record, checked: anybody may have written the file."""

from typing import Any, Final

from sim.cost.bounds import LEAST_US, MOST_OF_AXIS, MOST_US

KINDS: Final = {
    **dict.fromkeys(("operation", "dtype", "source", "backend"), (str, "text")),
    **dict.fromkeys(("shape", "options", "environment"), (dict, "an object")),
    "ok": (bool, "true or false"),
    "flags": (list, "a list of words"),
}
TIMES: Final = ("us_median", "us_p10", "us_p90")


def check_record(raw: Any) -> None:
    """Raises ValueError where this is no record: a value of it is not of its kind, or cannot be."""
    if not isinstance(raw, dict):
        raise ValueError("expected an object")
    if lacking := {"operation", "shape", "us_median"} - raw.keys():
        raise ValueError(f"lacks {', '.join(sorted(lacking))}")
    for key, (kind, words) in KINDS.items():
        if key in raw and not isinstance(raw[key], kind):
            raise ValueError(f"{key}: expected {words}, got {_short(raw[key])}")
    for axis, value in raw["shape"].items():
        if not _between(value, 0.0, MOST_OF_AXIS):
            raise ValueError(
                f"shape.{axis}: expected a number from 0 to {MOST_OF_AXIS:g}, got {_short(value)}"
            )
    for key, texts in (("options", raw.get("options", {}).values()), ("flags", raw.get("flags", ()))):
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{key}: expected text, got {_short(texts)}")
    for key in TIMES:
        value = raw.get(key)
        if value is not None and not _between(value, LEAST_US, MOST_US):
            raise ValueError(f"{key}: expected {LEAST_US:g} to {MOST_US:g} microseconds, got {_short(value)}")


def _between(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _short(value: object) -> str:
    return repr(value)[:40]

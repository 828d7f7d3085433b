"""The words that select a measured table, of a record and of a profile's header. Each is looked up, so each is known
before that, whoever wrote the file."""

from collections.abc import Mapping
from typing import Any, Final

from sim.units import DTYPE_BYTES

DTYPES: Final = tuple(DTYPE_BYTES)
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "branch": ("dense", "sparse"),
    "distribution": ("concentrated",),
    "function": ("add_rms_norm", "silu_mul"),
    "kv_cache": ("bf16", "fp8", "fp8_fp4"),
    "mode": ("low_latency", "normal"),
    "stage": ("pre", "post"),
}
"""What an option may be, by its name. One of another name selects a table that no operation asks for."""
LONGEST: Final = 200
"""Characters of a name: twice the longest that ships."""


def check_variant(dtype: object, options: Any) -> None:
    """Raises ValueError where no table has such a dtype or options."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected {_either(DTYPES)}, got {short(dtype)}")
    for key, value in options.items():
        check_name("options", key)
        check_name(f"options.{key}", value)
        if key in OPTIONS and value not in OPTIONS[key]:
            raise ValueError(f"options.{key}: expected {_either(OPTIONS[key])}, got {short(value)}")


def check_name(key: str, name: object) -> None:
    """Raises ValueError where this is no text that can be a name."""
    if not isinstance(name, str) or len(name) > LONGEST:
        raise ValueError(f"{key}: expected text of at most {LONGEST} characters, got {short(name)}")


def short(value: object) -> str:
    """The beginning of a value, for a message."""
    return repr(value)[:40]


def _either(words: tuple[str, ...]) -> str:
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]

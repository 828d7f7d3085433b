"""Which tables may price an operation: the rules of `selection.yaml`, and what a table must share with it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from sim.catalog import facts
from sim.cost.profile import Profile, Table
from sim.model.operations import Operation

SELECTION: Final = Path(__file__).parent / "selection.yaml"


@cache
def selection() -> Mapping[str, Any]:
    """The rules of `selection.yaml`: which back-end is the default where, and who stands in for whom."""
    return facts.parse(SELECTION.read_text(encoding="utf-8"))


def other_widths(profile: Profile, operation: Operation) -> str:
    """Why a profile says nothing about an operation: it measured another architecture. Empty where it did not."""
    for name, width in operation.widths.items():
        measured = getattr(profile.dims, name)
        if measured != width:
            return f"{operation.kernel} was measured with {name} {measured}, not {width:g}"
    return ""


def applies(
    rule: Mapping[str, Any], kernel: str, dtype: str, engine: str, gpu: str, wanted: Mapping[str, str]
) -> bool:
    """Whether a rule of `prefer` is about such an operation, priced for an engine on a GPU."""
    return (
        rule["kernel"] == kernel
        and engine in rule.get("engines", [engine])
        and gpu in rule.get("gpus", [gpu])
        and dtype == rule.get("dtype", dtype)
        and all(wanted.get(name) == value for name, value in rule.get("options", {}).items())
    )


def generality(table: Table) -> int:
    """Tables for a special case (such as concentrated scores) come before those for any."""
    return -len(table.variant.options)


def fits(table: Table, dtype: str, wanted: Mapping[str, str], backend: str) -> bool:
    """Whether a table holds such operations; an empty back-end is any."""
    options = table.variant.options
    return (
        table.variant.dtype == dtype
        and table.fit is not None
        and (not backend or table.backend == backend)
        and all(wanted.get(name) == value for name, value in options.items())
    )

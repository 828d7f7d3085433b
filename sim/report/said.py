"""What is said of a run in words, by its JSON."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from sim.result.objectives import judged
from sim.units import MILLISECOND_S

Json = Mapping[str, Any]


class Promise(NamedTuple):
    """One objective, and whether it was kept."""

    text: str
    kept: bool


def seconds(value: float | None) -> str:
    """A duration in the unit that reads best."""
    if value is None:
        return "-"
    return f"{value:.3g} s" if value >= 1 else f"{value / MILLISECOND_S:.3g} ms"


def promises(run: Json, written: Callable[[float | None], str] = seconds) -> Iterator[Promise]:
    """Each objective of the scenario. `written`: how seconds are."""
    for one in judged(run):
        what, found = "kept" if one.kept else "missed", one.why or written(one.found_s)
        yield Promise(f"objective {one.label} p99 <= {written(one.bound_s)}: {what} ({found})", one.kept)


def fills_first(run: Json) -> str:
    """The pool that limits, and what of it."""
    role, limit = run.get("limited_by"), (run.get("capacity") or {}).get("limit")
    if role is None:
        return "-"
    return f"{'serving' if role == 'serve' else role} pool" + (
        f", {limit}" if limit not in (None, role) else ""
    )


def basis(run: Json) -> str:
    """What the price rests on."""
    cost = run.get("cost") or {}
    return (
        f"GPU price as of {cost.get('as_of') or 'the scenario'}, {share(cost.get('overhead_fraction'))} overhead, "
        f"{share(cost.get('margin'))} margin; {cost.get('source')}"
    )


def share(value: float | None) -> str:
    """A share as per cent."""
    return "-" if value is None else f"{value:.1%}"

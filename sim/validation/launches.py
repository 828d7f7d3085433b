"""How published disaggregated services were launched: `data/launches.csv` and `launches_v4.csv`, one recipe a line.

Read from the recipes that InferenceX names by layout, lengths and load; see `data/README.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Final

import pandas as pd

from sim.validation.rows import Row

FILE: Final = Path(__file__).parent / "data" / "launches.csv"
FILES: Final = {"deepseek-v4-pro": FILE.with_name("launches_v4.csv")}
"""Of models whose services have recipes of their own."""
LAYOUT: Final = ("hardware", "framework", "precision", "spec", "isl", "osl", "prefill", "decode")
"""Columns that tell which services a recipe is of, beside the load."""
READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "drafts": int, "chunk_tokens": int, "memory_fraction": float, "seats": int, "redundant": int,
    "whole_prompts": {"yes": True, "no": False}.__getitem__,
}  # fmt: skip
"""Settings that are no names."""
ROLES: Final = ("prefill", "decode")
SETTINGS: Final = ("drafts", "kv_cache", "whole_prompts", "router")
"""Of the whole service; those of a pool follow its role."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe: for which loads it ran, when, and what it says."""

    loads: frozenset[int]
    first: date
    last: date
    said: Mapping[str, Any]
    """Settings of the service, and by role those of its pools."""

    def days_from(self, ran: date | None) -> int:
        """Days between its time and a run, whose day may not be known."""
        return 0 if ran is None else max((self.first - ran).days, (ran - self.last).days, 0)


@cache
def launches(file: Path = FILE) -> Mapping[tuple[str, ...], list[Recipe]]:
    """All recipes of a file, by `LAYOUT`."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    found: dict[tuple[str, ...], list[Recipe]] = {}
    for line in table.to_dict("records"):
        key = tuple(line[name] for name in LAYOUT)
        loads = frozenset(int(load) for load in line["conc"].split())
        days = date.fromisoformat(line["first"]), date.fromisoformat(line["last"])
        found.setdefault(key, []).append(Recipe(loads, *days, _said(line)))
    return found


def launched(row: Row, role: str = "") -> Mapping[str, Any]:
    """What the recipe of a row says of its service and of the pool of that role (default: of the one that decodes).

    Of several recipes of the row's layout and load that of the nearest time. Where none was for its load, what those of
    its layout say if they agree. Nothing where there is none.
    """
    if not row.disaggregated or not row.by_recipe:
        return {}
    shapes = {r: f"{row.pools[r].workers}x{row.pools[r].gpus} {row.pools[r]}" for r in ROLES}
    key = (row.hardware, row.framework, row.precision, row.spec, str(row.isl), str(row.osl), *shapes.values())
    own = FILES.get(row.model)
    same = (launches(own) if own else launches()).get(key, [])
    of_load = [launch for launch in same if row.conc in launch.loads]
    if of_load:
        said = min(of_load, key=lambda launch: launch.days_from(row.ran)).said
    elif same and all(launch.said == same[0].said for launch in same):
        said = same[0].said
    else:
        return {}
    pool: Mapping[str, Any] = said[role or "decode"]
    return {**{k: v for k, v in said.items() if k not in ROLES}, **pool}


def _said(line: Mapping[str, str]) -> dict[str, Any]:
    def read(name: str, text: str) -> Any:
        return READERS.get(name, str)(text)

    own = {name: read(name, line[name]) for name in SETTINGS if line[name]}
    pools = {
        role: {
            short: read(short, text)
            for name, text in line.items()
            if name.startswith(f"{role}_") and text and (short := name.removeprefix(f"{role}_"))
        }
        for role in ROLES
    }
    return {**own, **pools}

"""Results of `tokenworks sweep`: found beside the server or uploaded, as a table, charts and addresses of What-if."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import streamlit as st
import yaml
from pyarrow import parquet

from dashboard.data import addresses
from dashboard.data.problems import BadInput, harmless, said
from dashboard.data.scenarios import SETTINGS, confined
from sim.report import sweep as drawn
from sim.report.look import Chart
from sim.scenario.loading import apply, parse

FILE: Final = "sweep.parquet"
PLACES: Final = (f"out/{FILE}", f"out/*/{FILE}", f"out/*/*/{FILE}")
"""Where `tokenworks sweep` leaves results, from the folder in which the dashboard was started."""
MOST_POINTS, MOST_COLUMNS = 20_000, 2_000
MOST_BYTES: Final = 200_000_000
"""Unpacked."""
NEEDED: Final = ("point", "seed", "error")
AGAINST: Final = ("TPOT p99, s", "TTFT p99, s", "output tokens/s", "output tokens/s per GPU")


@dataclass(frozen=True)
class SweepResult:
    """A sweep, as its file has it."""

    points: pd.DataFrame
    base: str | None
    """The scenario that every point starts from, as YAML; None in files of old versions."""

    @property
    def keys(self) -> list[str]:
        """What was varied."""
        return drawn.varied(self.points)


def found() -> dict[str, Path]:
    """Results in the folder of the server, by where they lie."""
    here = Path.cwd()
    return {str(f.relative_to(here)): f for place in PLACES for f in sorted(here.glob(place)) if f.is_file()}


@st.cache_resource(max_entries=8, show_spinner="Reading")
@said
def read(raw: bytes) -> SweepResult:
    """The sweep of a Parquet file. Raises BadInput for what is none, or too large for a page."""
    with parquet.ParquetFile(io.BytesIO(raw)) as file:
        shape = file.metadata
        unpacked = sum(shape.row_group(i).total_byte_size for i in range(shape.num_row_groups))
        names = set(file.schema_arrow.names)
    if shape.num_rows > MOST_POINTS or shape.num_columns > MOST_COLUMNS or unpacked > MOST_BYTES:
        raise BadInput(
            f"{shape.num_rows:,} points of {shape.num_columns:,} columns, {unpacked / 1e6:,.0f} MB; a page shows up to "
            f"{MOST_POINTS:,} of {MOST_COLUMNS:,}, {MOST_BYTES / 1e6:,.0f} MB"
        )
    if missing := [name for name in NEEDED if name not in names]:
        raise BadInput(f"no column {missing[0]!r}; expected the {FILE} of `tokenworks sweep`")
    points = pd.read_parquet(io.BytesIO(raw))
    columns = list(points.columns)
    if columns.index("point") >= columns.index("seed"):
        raise BadInput(f"column 'seed' before 'point'; expected the {FILE} of `tokenworks sweep`")
    base = points.attrs.get("base")
    return SweepResult(points, base if isinstance(base, str) else None)


def table(sweep: SweepResult) -> pd.DataFrame:
    """One row a point: its overrides and its figures."""
    return drawn.sweep_table(sweep.points)


def charts(sweep: SweepResult, by: str | None, figures: Sequence[str]) -> list[Chart]:
    """Price against some figures, the points coloured `by` one of the keys. None of a figure that no point has."""
    shown = harmless(table(sweep))
    have = [figure for figure in figures if {figure, drawn.PRICE} <= set(shown.columns)]
    return [drawn.against_chart(shown, sweep.keys, by, figure) for figure in have]


@said
def what_if(sweep: SweepResult, row: int) -> addresses.Address:
    """Where What-if has a point, counted in rows. Raises BadInput where it cannot be shown there."""
    if sweep.base is None:
        raise BadInput(
            "the file does not say what the points start from; run the sweep again with this version"
        )
    start = parse(confined(sweep.base, SETTINGS), SETTINGS)
    values = sweep.points.iloc[row][sweep.keys]
    overrides = {key: _value(value) for key, value in values.items() if not pd.isna(value)}
    confined(yaml.safe_dump(_nested(overrides)), SETTINGS)  # before a name is looked for
    return addresses.what_if(apply(start, overrides).scenario)


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    sections: dict[str, Any] = {}
    for key, value in overrides.items():
        inside, path = sections, key.split(".")
        for name in path[:-1]:
            inside = inside.setdefault(name, {})
        inside[path[-1]] = value
    return sections


def _value(cell: Any) -> Any:
    """What a cell stands for: numbers are numbers, and texts may be lists or flags."""
    if not isinstance(cell, str):
        number = float(cell)
        return int(number) if number.is_integer() else number
    return yaml.safe_load(cell) if cell[:1] in ("[", "{") or cell in ("true", "false") else cell

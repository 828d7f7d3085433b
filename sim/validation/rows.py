"""Rows of a table of published serving measurements, read. The columns are those of `inferencex_r1.csv`."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from statistics import median_low
from typing import Any, Final

import pandas as pd

from sim import catalog
from sim.catalog.facts import UnknownName
from sim.files import read_regular
from sim.scenario.errors import brief
from sim.validation.cells import Cells, TableError
from sim.validation.recipes import recipes
from sim.validation.shapes import Shape, aggregated, disaggregated
from sim.validation.split import split_of

NEEDED: Final = ("hardware", "framework", "precision", "isl", "osl", "conc")
SIZES: Final = ("total_gpu", "decode_tp")
"""Columns of which a table has one at least."""
SAID: Final = ("kv_cache", "chunk_tokens", "memory_fraction", "moe_backend", "exchange")
"""Columns that a table may have, which a scenario has by the same names; they win over a recipe."""
MEASURES: Final = {
    "tpot": (("median_tpot_ms", "p50", 1e-3), ("mean_tpot_ms", "mean", 1e-3)),
    "ttft": (("median_ttft_ms", "p50", 1e-3), ("mean_ttft_ms", "mean", 1e-3)),
    "output_tput_per_gpu": (("output_tput_per_gpu", "rate", 1.0),),
    "total_tput_per_gpu": (("tput_per_gpu_total", "rate", 1.0),),
}
"""Metric -> columns that hold it, the first one filled counts: (column, statistic, factor to SI)."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure of a row."""

    value: float
    """Seconds, or tokens per second and GPU."""
    statistic: str
    """`p50`, `mean` or `rate`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of a deployment."""

    id: str
    hardware: str
    framework: str
    """Engine, without its version."""
    version: str
    precision: str
    spec: str
    pools: Mapping[str, Shape]
    """By role: `serve`, or `prefill` and `decode`."""
    isl: int
    osl: int
    conc: int
    published: Mapping[str, Published]
    """Metric -> what is scored."""
    figures: Mapping[str, float]
    """Every figure of the row, by column: what tells one run from another."""
    ran: date | None
    """Day of the run; for a median over many runs that of the layout's dated ones; None where there are none."""
    deployment_id: str
    verbatim: bool
    """Copied as published; otherwise the layout was recovered from other data."""
    little_ratio: float | None
    model: str = recipes()["model"]
    """Catalog name, or what stands in the table where the catalog has none."""
    by_recipe: bool = True
    """Started by the launch scripts that `recipes.yaml` was read from."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the row itself tells: see `SAID`."""
    source: str = ""

    @property
    def engine(self) -> str:
        """The engine's name in the table, without what stands in front of it (`dynamo-`)."""
        return self.framework.removeprefix(recipes()["router"])

    @property
    def disaggregated(self) -> bool:
        """Whether other workers compute the prompts."""
        return "serve" not in self.pools

    @property
    def decoding(self) -> Shape:
        """The workers that generate the tokens."""
        return self.pools["decode" if self.disaggregated else "serve"]

    @property
    def layout(self) -> str:
        """Deployment with its layout, such as `b200 trtllm fp4 8 GPUs EP8 DP8`; sweeps over load share it."""
        named = {"serve": ""} if not self.disaggregated else {"prefill": "P ", "decode": "D "}
        sizes = {
            r: f"{s.workers} x {s.gpus}" if self.disaggregated else str(s.gpus) for r, s in self.pools.items()
        }
        told = " + ".join(f"{name}{sizes[role]} GPUs {self.pools[role]}" for role, name in named.items())
        drafts = "" if self.spec == "none" else f" {self.spec.upper()}"
        other = "" if self.model.startswith(recipes()["model"]) else f" {self.model}"
        return f"{self.hardware} {self.framework} {self.precision} {told}{drafts}{other}"

    def columns(self, role: str = "") -> dict[str, Any]:
        """What the rules of a recipe may ask for, of the pool of that role; default: of the one that decodes."""
        shape = self.pools.get(role, self.decoding)
        names = ("model", "hardware", "framework", "precision", "spec", "isl", "osl", "conc")
        sizes = {name: getattr(shape, name) for name in ("gpus", "ep", "dp_attention")}
        return {"role": role, **{name: getattr(self, name) for name in names}, **sizes}


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of a table, and the columns of it that say nothing to the simulation."""

    rows: list[Row]
    ignored: tuple[str, ...]


def read_rows(path: Path) -> list[Row]:
    """As `read_table`, the rows alone."""
    return read_table(path).rows


def read_table(path: Path) -> TableRows:
    """The rows of a table, in its order; empty lines are left out.

    Raises TableError, with line and column, where columns or rows are missing or a value makes no sense.
    """
    try:
        # Text as it stands: what a column holds is for `Cells` to say.
        parquet = path.suffix == ".parquet"
        raw = io.BytesIO(read_regular(path))
        table = pd.read_parquet(raw) if parquet else pd.read_csv(raw, dtype=str, skip_blank_lines=False)
    except (OSError, ValueError) as error:
        says = brief(getattr(error, "strerror", None) or str(error))
        raise TableError(f"{path}: cannot be read as a table: {says}") from None
    missing = [name for name in NEEDED if name not in table.columns]
    if not any(name in table.columns for name in SIZES):
        missing.append(" or ".join(SIZES))
    if missing:
        raise TableError(
            f"{path}:1: expected the columns of inferencex_r1.csv; missing: {', '.join(missing)}"
        )
    rows: dict[str, Row] = {}
    asked: set[str] = set()
    for number, record in enumerate(table.to_dict("records"), start=2):
        if cells := Cells({str(column): value for column, value in record.items()}):
            try:
                row = row_of(cells, number)
                asked |= cells.asked
                if row.id in rows:
                    raise TableError(f"row_id: {row.id!r} stands in an earlier line too")
            except TableError as error:
                raise TableError(f"{path}:{number}: {error}") from None
            rows[row.id] = row
    if not rows:
        raise TableError(f"{path}: no row below the names of the columns")
    ignored = tuple(str(column) for column in table.columns if column not in asked)
    return TableRows(_dated(list(rows.values())), ignored)


def _dated(rows: Sequence[Row]) -> list[Row]:
    """Medians over many runs are dated by the middle of the dated runs of their layout: that tells the release."""
    days: dict[str, list[date]] = {}
    for row in rows:
        if row.ran:
            days.setdefault(row.layout, []).append(row.ran)
    dated = []
    for row in rows:
        runs = days.get(row.layout)
        dated.append(replace(row, ran=median_low(runs)) if runs and not row.ran else row)
    return dated


def row_of(cells: Cells, line: int) -> Row:
    """The row that the cells of a line tell. Raises TableError, which names the column."""
    framework, _, version = cells.text("framework").lower().partition(" ")
    published: dict[str, Published] = {}
    figures: dict[str, float] = {}
    for metric, columns in MEASURES.items():
        for column, statistic, factor in columns:
            if column in cells:
                figures[column] = cells.number(column)
                published.setdefault(metric, Published(figures[column] * factor, statistic))
    try:
        ran = date.fromisoformat(cells.text("date", "")[:10])
    except ValueError:
        ran = None
    return Row(
        id=cells.text("row_id", f"line-{line}"),
        hardware=cells.text("hardware"),
        framework=framework,
        version=version or cells.text("image", "").rpartition(":")[2],
        precision=cells.text("precision").lower(),
        spec=cells.text("spec", "none"),
        pools=disaggregated(cells) if cells.flag("disagg", False) else aggregated(cells),
        isl=cells.count("isl"),
        osl=cells.count("osl"),
        conc=cells.count("conc"),
        published=published,
        figures=figures,
        ran=ran,
        deployment_id=cells.text("deployment_id", ""),
        verbatim="decoded" not in cells.text("quality", ""),
        little_ratio=cells.number("little_ratio") if "little_ratio" in cells else None,
        model=catalog_model(cells.text("model", recipes()["model"])),
        by_recipe=_by_recipe(cells),
        said=_said(cells),
        source=cells.text("source", ""),
    )


def catalog_model(name: str) -> str:
    """The catalog's name of a model or of a checkpoint of it; the name as it stands where the catalog has none."""
    short = name.rpartition("/")[2].lower()
    while True:
        try:
            catalog.model(short)
            return short
        except (UnknownName, ValueError):
            ending = next((e for e in recipes()["checkpoint_endings"] if short.endswith(e)), None)
        if ending is None:
            return name
        short = short.removesuffix(ending)


def _by_recipe(cells: Cells) -> bool:
    """Whether the launch scripts that the recipes were read from started this row."""
    about = " ".join(cells.text(name, "") for name in ("source", "source_path", "run_url", "image")).lower()
    return split_of(cells.text("deployment_id", "")) is not None or any(
        name in about for name in recipes()["started"]
    )


def _said(cells: Cells) -> dict[str, Any]:
    """What the row tells of its launch."""
    readers: dict[str, Callable[[str], Any]] = {"chunk_tokens": cells.count, "memory_fraction": cells.number}
    said = {name: readers.get(name, cells.text)(name) for name in SAID if name in cells}
    choices = {"kv_cache": ("bf16", "fp8"), "exchange": ("all_to_all", "all_gather")}
    for name, names in choices.items():
        if name in said and said[name] not in names:
            raise TableError(f"{name}: expected {' or '.join(names)}, got {said[name]!r}")
    if said.get("memory_fraction", 1) > 1 or said.get("chunk_tokens", 1) < 1:
        raise TableError("memory_fraction: expected at most 1; chunk_tokens: at least 1")
    return said

"""Rows of a table of published serving measurements: reading them, and which of them can be simulated.

The columns are those of `inferencex_r1.csv`. A row that cannot be simulated, or should not be scored, is skipped
with the reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median_low
from typing import Any, Final

import pandas as pd

from sim import catalog
from sim.catalog.facts import UnknownName
from sim.cost.profile import shipped_profiles
from sim.validation.cells import Cells, TableError
from sim.validation.recipes import recipes

NEEDED: Final = (
    "row_id", "hardware", "framework", "precision", "spec", "disagg", "decode_tp", "decode_ep",
    "decode_dp_attn", "total_gpu", "isl", "osl", "conc",
)  # fmt: skip
MEASURES: Final = {
    "tpot": (("median_tpot_ms", "p50", 1e-3), ("mean_tpot_ms", "mean", 1e-3)),
    "ttft": (("median_ttft_ms", "p50", 1e-3), ("mean_ttft_ms", "mean", 1e-3)),
    "output_tput_per_gpu": (("output_tput_per_gpu", "rate", 1.0),),
    "total_tput_per_gpu": (("tput_per_gpu_total", "rate", 1.0),),
}
"""Metric -> columns that hold it, the first one filled counts: (column, statistic, factor to SI)."""
MOST_LITTLE_RATIO: Final = 1.1
"""Above it a row contradicts Little's law: its throughput, TPOT and concurrency do not belong together."""
SAME_RUN: Final = 0.01
"""Throughput and TPOT this close under two labels are one run."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure of a row."""

    value: float
    """Seconds, or tokens per second and GPU."""
    statistic: str
    """`p50`, `mean` or `rate`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of an aggregated deployment. Counts are of the whole deployment."""

    id: str
    hardware: str
    framework: str
    """Engine, without its version."""
    version: str
    precision: str
    spec: str
    disaggregated: bool
    gpus: int
    ep: int
    dp_attention: bool
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

    @property
    def tp(self) -> int:
        """Tensor parallelism of the attention: all GPUs, or one with attention data parallelism."""
        return 1 if self.dp_attention else self.gpus

    @property
    def layout(self) -> str:
        """Deployment with its layout, such as `b200 trtllm fp4 TP4 EP4 DP4`; sweeps over load share it."""
        dp = f" DP{self.gpus}" if self.dp_attention else ""
        return f"{self.hardware} {self.framework} {self.precision} {self.gpus} GPUs EP{self.ep}{dp}"

    @property
    def columns(self) -> dict[str, Any]:
        """What the rules of a recipe may ask for."""
        names = ("hardware", "framework", "precision", "gpus", "ep", "dp_attention", "isl", "osl", "conc")
        return {name: getattr(self, name) for name in names}


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, in its order; empty lines are left out.

    Raises TableError, with line and column, where columns or rows are missing or a value makes no sense.
    """
    try:
        # Text as it stands: what a column holds is for `Cells` to say.
        parquet = path.suffix == ".parquet"
        table = pd.read_parquet(path) if parquet else pd.read_csv(path, dtype=str, skip_blank_lines=False)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read as a table: {error}") from None
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise TableError(
            f"{path}:1: expected the columns of inferencex_r1.csv; missing: {', '.join(missing)}"
        )
    rows: dict[str, Row] = {}
    for number, record in enumerate(table.to_dict("records"), start=2):
        if cells := Cells({str(column): value for column, value in record.items()}):
            try:
                row = _row(cells)
                if row.id in rows:
                    raise TableError(f"row_id: {row.id!r} stands in an earlier line too")
            except TableError as error:
                raise TableError(f"{path}:{number}: {error}") from None
            rows[row.id] = row
    if not rows:
        raise TableError(f"{path}: no row below the names of the columns")
    return _dated(list(rows.values()))


def _dated(rows: Sequence[Row]) -> list[Row]:
    """Medians over many runs are dated by the middle of the dated runs of their layout: that tells the release."""
    days: dict[tuple[str, str, bool], list[date]] = {}
    for row in rows:
        if row.ran:
            days.setdefault((row.layout, row.spec, row.disaggregated), []).append(row.ran)
    dated = []
    for row in rows:
        runs = days.get((row.layout, row.spec, row.disaggregated))
        dated.append(replace(row, ran=median_low(runs)) if runs and not row.ran else row)
    return dated


def _row(cells: Cells) -> Row:
    framework, _, version = cells.text("framework").partition(" ")
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
        id=cells.text("row_id"),
        hardware=cells.text("hardware"),
        framework=framework,
        version=version or cells.text("image", "").rpartition(":")[2],
        precision=cells.text("precision"),
        spec=cells.text("spec"),
        disaggregated=cells.flag("disagg"),
        gpus=cells.count("total_gpu", cells.count("decode_tp", 0)),
        ep=max(1, cells.count("decode_ep", 1)),
        dp_attention=cells.flag("decode_dp_attn", False),
        isl=cells.count("isl"),
        osl=cells.count("osl"),
        conc=cells.count("conc"),
        published=published,
        figures=figures,
        ran=ran,
        deployment_id=cells.text("deployment_id", ""),
        verbatim="decoded" not in cells.text("quality", ""),
        little_ratio=cells.number("little_ratio") if "little_ratio" in cells else None,
    )


def skipped(rows: Sequence[Row]) -> dict[str, str]:
    """Row id -> why it is not simulated; rows that are do not appear."""
    reasons = {row.id: reason for row in rows if (reason := next(_faults(row), ""))}
    return reasons | _duplicates([row for row in rows if row.id not in reasons])


def _faults(row: Row) -> Iterator[str]:
    """Why a row cannot be simulated by itself, what decides first; nothing where it can."""
    known = recipes()
    if row.disaggregated:
        yield "prefill and decode are disaggregated: aggregated rows only so far"
    if row.spec != "none":
        yield f"speculation ({row.spec}) with unknown acceptance"
    if row.framework not in known["engines"]:
        yield f"engine '{row.framework}' is not modelled; modelled: {', '.join(known['engines'])}"
    if row.precision not in known["precisions"]:
        yield f"precision '{row.precision}' is not modelled; modelled: {', '.join(known['precisions'])}"
    try:
        profile = f"{catalog.gpu(row.hardware).name}/{known['engines'].get(row.framework)}"
        if profile not in shipped_profiles():
            yield f"no measured profile {profile}"
    except UnknownName as unknown:
        yield f"no measured profile: {unknown}"
    if row.little_ratio is not None and row.little_ratio > MOST_LITTLE_RATIO:
        yield (
            f"inconsistent: little_ratio {row.little_ratio:g} is above {MOST_LITTLE_RATIO:g}, so throughput, "
            "TPOT and concurrency contradict each other"
        )
    labelled = known["labels_recorded_from"].get(row.hardware)
    if labelled and row.ran and row.ran < labelled and row.ep == 1:
        yield f"ran before {labelled}, when EP and attention DP were not recorded yet"
    if not row.published:
        yield "no metric that is scored"
    if min(row.isl, row.osl, row.conc, row.gpus) < 1 or row.gpus % row.ep:
        yield f"{row.gpus} GPUs, EP{row.ep}, isl {row.isl}, osl {row.osl}, conc {row.conc} is no layout"


def _duplicates(rows: Sequence[Row]) -> dict[str, str]:
    """Rows that repeat another one: one run told twice, under two labels, or a median beside its own runs."""
    points: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        points.setdefault((row.deployment_id, row.isl, row.osl, row.conc), []).append(row)
    reasons: dict[str, str] = {}
    for point in points.values():
        # What is kept first: verbatim rows, then the ones that say how the experts are laid out.
        kept: list[Row] = []
        for row in sorted(point, key=lambda r: (not r.verbatim, -r.ep, -r.dp_attention, r.id)):
            if reason := next((r for other in kept if (r := _repeats(row, other))), ""):
                reasons[row.id] = reason
            else:
                kept.append(row)
    return reasons


def _repeats(row: Row, other: Row) -> str:
    """Why `row` repeats `other`, which is kept; empty where it does not."""
    shared = [c for c in row.figures if c in other.figures and not c.endswith("ttft_ms")]
    same = bool(shared) and all(abs(row.figures[c] / other.figures[c] - 1) <= SAME_RUN for c in shared)
    if (row.ep, row.dp_attention) != (other.ep, other.dp_attention):
        return f"the run of {other.id} under another label (figures within {SAME_RUN:.0%})" if same else ""
    if other.verbatim and not row.verbatim:
        return f"a median over runs such as {other.id}"
    return f"the run of {other.id} in another source" if same and row.ran == other.ran else ""

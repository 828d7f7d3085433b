"""An imported profile without what its blocks measured beside their kernels, and a list of what was found.

`launches.csv` beside the profiles lists every table concerned: what was seen, how large, by what it was told, and what
stands there instead. The rows concerned carry `taken_out_us`, so that no price calls itself measured that is not.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.importers import attention, launches
from calibrate.importers.kernel_sums import kernel_seconds
from calibrate.importers.launches import Excess
from calibrate.importers.source import Source
from calibrate.importers.unfused import LATENCY_TOKENS, UnfusedNorms, unfused_norms
from sim.catalog import Gpu
from sim.cost.latency import CostModel
from sim.cost.profile import TAKEN_OUT, Table
from sim.saving import whole_file

Floats = NDArray[np.float64]

LIST: Final = "launches.csv"
DECODE: Final = ("mla_decode_block", "dsa_decode_block")
PREFILL: Final = ("mla_prefill_block", "dsa_prefill_block")
INDEXED_BY: Final = "sglang"
"""Whose captured and fused DSA blocks tell what unfused norms cost beside an indexer: with the same cores (trtllm-gen
on Blackwell, FlashMLA on Hopper, both over an FP8 cache)."""


@dataclass(frozen=True)
class Finding:
    """One table that measured something beside its kernels. Times in microseconds."""

    gpu: str
    engine: str
    table: str
    kind: str
    """`launches`, `unfused`, or `kernels` (slow ones, which stay)."""
    floor_us: float
    """Level of the plateau, or excess where there are few tokens."""
    spread_us: float
    rows: int
    """Rows that were changed or left out."""
    told_by: str
    instead: str


@dataclass(frozen=True)
class Mending:
    """What is needed to judge the tables of one GPU and engine."""

    folder: Path
    device: Gpu
    engine: str
    cost: CostModel
    """Prices the kernels of a block one by one."""

    def mended(self, tables: Sequence[Table]) -> tuple[list[Table], list[Finding]]:
        """The tables as they should price, in their order, and what was found in them."""
        found: list[Finding] = []
        norms = unfused_norms(self.folder)
        indexer = self._with_indexer(norms)
        decode = {t.key: self._decode(t, norms, indexer, found) for t in tables if t.kernel in DECODE}
        unfused = {finding.table.split("/")[0][:3] for finding in found if finding.kind == "unfused"}
        prefill = {
            t.key: self._prefill(t, norms, t.kernel[:3] in unfused, found)
            for t in tables
            if t.kernel in PREFILL
        }
        return [(decode | prefill).get(table.key, table) for table in tables], found

    def _decode(
        self,
        table: Table,
        norms: UnfusedNorms | None,
        indexer: tuple[Floats, Floats] | None,
        found: list[Finding],
    ) -> Table:
        eager = launches.uncaptured(table)
        if eager.rows.any():
            told = "far more than in proportion to the next smaller batch"
            instead = (
                "left out; carried on from smaller batches, by another engine's growth where it was measured"
            )
            found.append(self._finding(table, "launches", eager, int(eager.rows.sum()), told, instead))
            table = only(table, ~eager.rows)
        kernels = kernel_seconds(self.cost, table)
        kind, beside, other = self._judged(table, kernels)
        if not kind or beside is None:
            return table
        tokens = table.shape["batch"]
        rows, instead = 0, "as measured: the kernels of this engine"
        taken = np.zeros(len(tokens))
        if kind == "unfused" and norms is not None:
            taken = self._norms(norms, table, kernels)
            instead = "less unfused norms as timed in two releases of vLLM on GB300"
            if table.kernel.startswith("dsa") and indexer is not None:
                taken = np.interp(tokens, *indexer)
                instead = f"less what vLLM's block takes longer than {INDEXED_BY}'s, by tokens"
            rows = len(tokens)
        told = f"against {other} and the sum of the kernels, whatever heads and context"
        found.append(
            Finding(
                self.device.name, self.engine, table.key, kind, _us(beside.floor_s), _us(beside.spread_s), rows,
                told, instead,
            )
        )  # fmt: skip
        return less(table, taken)

    def _prefill(
        self, table: Table, norms: UnfusedNorms | None, unfused: bool, found: list[Finding]
    ) -> Table:
        kernels = kernel_seconds(self.cost, table)
        host = launches.plateau(table, kernels)
        taken = np.zeros(len(kernels))
        if host.rows.any():
            told = "flat where there is little work, many times the sum of the kernels"
            instead = "sum of the kernels, and by tokens what the first row beyond takes longer"
            found.append(self._finding(table, "launches", host, int(host.rows.sum()), told, instead))
            taken = table.seconds - launches.without_launches(table, kernels, host)
        kind, beside, other = self._judged(table, kernels) if not host.rows.any() else ("", None, "")
        if norms is not None and (kind == "unfused" or (unfused and host.rows.any())):
            chains = self._norms(norms, table, kernels)
            taken = np.where(host.rows, taken, chains)
            floor, spread = (beside.floor_s, beside.spread_s) if beside else (float(np.median(chains)), 0.0)
            told = (
                f"against {other} and the sum of the kernels"
                if beside
                else "as the decode block of this release"
            )
            instead = "less unfused norms as timed in two releases of vLLM on GB300"
            rows = int((~host.rows).sum())
            found.append(
                Finding(
                    self.device.name, self.engine, table.key, "unfused", _us(floor), _us(spread), rows, told,
                    instead,
                )
            )  # fmt: skip
        return less(table, taken)

    def _norms(self, norms: UnfusedNorms, table: Table, kernels: Floats) -> Floats:
        """Seconds of the unfused norms in every row; on another generation than they were timed on no more than the
        row exceeds its kernels by."""
        heads, tokens = (
            table.shape["heads"],
            table.shape["batch"] * table.shape.get("new", np.ones(len(kernels))),
        )
        chains = norms.on(self.device, heads, tokens)
        if self.device.generation == norms.timed_on.generation:
            return chains
        return np.minimum(chains, np.maximum(table.seconds - kernels, 0.0))

    def _judged(self, table: Table, kernels: Floats) -> tuple[str, Excess | None, str]:
        """Verdict, excess and whose block it was measured against: the leanest of the others'."""
        seen = [
            (found, other)
            for other, rows in self._others(table.kernel)
            if _comparable(table, rows) and (found := launches.excess(table, rows))
        ]
        if not seen:
            return "", None, ""
        beside, other = max(seen, key=lambda pair: pair[0].floor_s)
        return launches.verdict(table, kernels, beside), beside, other

    def _others(self, kernel: str) -> Iterator[tuple[str, Table]]:
        """The same family of the other engines on this GPU, as they were measured inside graphs."""
        for engine in ("sglang", "trtllm", "vllm"):
            if engine != self.engine:
                for table in _blocks(Source(self.folder, self.device.name, engine), kernel):
                    yield engine, only(table, ~launches.uncaptured(table).rows) if kernel in DECODE else table

    def _with_indexer(self, norms: UnfusedNorms | None) -> tuple[Floats, Floats] | None:
        """(tokens, seconds) that a DSA block takes longer where nothing is fused; beyond the sequences that both
        engines measured, as the norms without an indexer grow."""
        mine = _blocks(Source(self.folder, self.device.name, self.engine), "dsa_decode_block")
        own = next((t for t in mine if _is_fp8(t)), None)
        other = next(
            (t for who, t in self._others("dsa_decode_block") if who == INDEXED_BY and _is_fp8(t)), None
        )
        beside = launches.excess(own, other) if own and other and norms else None
        if beside is None or norms is None:
            return None
        tokens, seconds = beside.by_tokens.index.to_numpy(float), beside.by_tokens.to_numpy(float)
        known = tokens <= LATENCY_TOKENS
        tokens, seconds = tokens[known], np.maximum.accumulate(seconds[known])
        further = LATENCY_TOKENS * np.array([2.0, 4.0, 8.0, 16.0, 32.0])
        heads = np.full(5, 16.0)
        growth = norms.on(self.device, heads, further) / norms.on(
            self.device, heads[:1], np.array([LATENCY_TOKENS])
        )
        return np.append(tokens, further), np.append(seconds, seconds[-1] * growth)

    def _finding(
        self, table: Table, kind: str, host: launches.Plateau, rows: int, told: str, instead: str
    ) -> Finding:
        name = self.device.name
        return Finding(
            name, self.engine, table.key, kind, _us(host.seconds), _us(host.spread), rows, told, instead
        )


def _blocks(source: Source, kernel: str) -> Iterator[Table]:
    reader = attention.dsa_modules if kernel.startswith("dsa") else attention.mla_modules
    return (table for table in reader(source) if table.kernel == kernel)


def _comparable(table: Table, other: Table) -> bool:
    """Same cache, and the same weights or FP8 ones."""
    mine, theirs = table.variant.options, other.variant.options
    return mine.get("kv_cache") == theirs.get("kv_cache") and other.variant.dtype in (
        table.variant.dtype,
        "fp8",
    )


def _is_fp8(table: Table) -> bool:
    return table.variant.dtype == "fp8" and table.variant.options.get("kv_cache") == "fp8"


def less(table: Table, taken: Floats) -> Table:
    """The table with seconds taken out of its rows, which then say so."""
    if not taken.any():
        return table
    columns = {**table.columns, TAKEN_OUT: np.round(taken * 1e6, 3)}
    return replace(table, columns=columns, seconds=table.seconds - taken)


def only(table: Table, kept: NDArray[np.bool_]) -> Table:
    """Some of the rows of a table."""
    columns = {axis: values[kept] for axis, values in table.columns.items()}
    return replace(table, columns=columns, seconds=table.seconds[kept])


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 1)


def write_list(path: Path, gpu: str, engine: str, found: Iterable[Finding]) -> None:
    """The list of findings, those of one GPU and engine replaced."""
    names = [field.name for field in fields(Finding)]
    kept = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as lines:
            kept = [row for row in csv.DictReader(lines) if (row["gpu"], row["engine"]) != (gpu, engine)]
    rows = sorted(
        [*kept, *map(asdict, found)], key=lambda row: (row["gpu"], row["engine"], row["table"], row["kind"])
    )
    with whole_file(path) as file, file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

"""Which rows of a block's table measured launches rather than kernels, and what takes their place.

Two kinds, each told from what the GPU does by how the time answers to the work:

- `launches`: the block was timed outside a CUDA graph, and the host was slower than the GPU. Time = max(host, GPU), so
  prompts of little work all take the same, many times what their kernels take. They are replaced by the sum of the
  kernels, and, in proportion to the tokens, by what the first row beyond the plateau takes longer than its own. In
  decode, engines capture batches up to some size: where twice the sequences take far more than twice as long, the
  larger batch was not captured. Its rows are left out; smaller batches and other engines carry the price on.
- `unfused`: every operator ran as a kernel of its own (see `calibrate.importers.unfused`). The block exceeds the sum
  of its kernels, and another engine's block, by an amount that neither heads nor context nor the cache's format
  change, and that hardly grows with the sequences. It is taken out.

What exceeds both but grows with every GPU-full of sequences as much as with the first is a slow kernel: it stays
(`kernels`; TensorRT-LLM's sparse attention on Hopper).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.cost.profile import Table

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

IDLE = 3.0
"""Times its kernels' sum that a row on the plateau takes at least where there is least work."""
FLAT = 0.25
"""How far the fastest tenth of a plateau lies below its median at most; interrupted hosts scatter above it."""
NEAR = 1.2
"""Times the plateau up to which a row lies on it."""
JUMP = 1.5
"""Times in proportion to the sequences that a larger batch takes at most; its weights are read once."""
ABOVE = 1.3
"""Times its kernels' sum from which a block is suspected. Captured and fused, blocks take 0.8 to 1.2 times it."""
WEIGHTY = 0.25
"""Share of the block from which an excess is looked at."""
FEW, FULL = 16.0, 128.0
"""Tokens at which an excess is judged, and those of a GPU-full of sequences (132 to 160 SMs)."""
LEAST_ROWS = 8


@dataclass(frozen=True)
class Plateau:
    """Rows that took the host's time."""

    rows: Bools
    seconds: float
    spread: float


def plateau(table: Table, kernels: Floats) -> Plateau:
    """The rows of a prefill table that took the host's time; none where time follows work.

    kernels: seconds of the rows' own kernels.
    """
    least = kernels <= np.quantile(kernels, 0.25)
    low, level = np.quantile(table.seconds[least], (0.1, 0.5))
    if least.sum() < LEAST_ROWS or level < IDLE * np.median(kernels[least]) or level - low > FLAT * level:
        return Plateau(np.zeros(len(kernels), bool), 0.0, 0.0)
    on = (table.seconds <= NEAR * level) & (table.seconds >= ABOVE * kernels)
    return Plateau(_up_to_the_last(table, on), float(level), float(level - low))


def uncaptured(table: Table) -> Plateau:
    """The rows of a decode table whose batch takes far more than in proportion to the next smaller one that was
    captured."""
    rows = np.zeros(len(table.seconds), bool)
    shape = table.shape
    order = np.lexsort((shape["batch"], shape["context"], shape["heads"]))
    line, last = None, 0
    for i in order:
        here = shape["heads"][i], shape["context"][i]
        in_proportion = table.seconds[last] * shape["batch"][i] / shape["batch"][last]
        rows[i] = here == line and table.seconds[i] > JUMP * in_proportion
        if not rows[i]:
            line, last = here, i
    if not rows.any():
        return Plateau(rows, 0.0, 0.0)
    low, level, high = np.quantile(table.seconds[rows], (0.25, 0.5, 0.75))
    return Plateau(rows, float(level), float((high - low) / 2))


def _up_to_the_last(table: Table, on: Bools) -> Bools:
    """Every row that has a row of the plateau at as many tokens of a prompt or more, all else equal."""
    frame = pd.DataFrame({axis: table.shape[axis] for axis in ("heads", "batch", "cached", "new")})
    last = frame.assign(last=np.where(on, frame.new, -1)).groupby(["heads", "batch", "cached"])["last"]
    return np.asarray(frame.new <= last.transform("max"))


def without_launches(table: Table, kernels: Floats, found: Plateau) -> Floats:
    """Seconds of every row of a prefill table, those of the plateau replaced."""
    line = ["heads", "batch", "cached"]
    frame = pd.DataFrame({axis: table.shape[axis] for axis in line}).assign(
        new=table.shape["new"], longer=np.maximum(table.seconds - kernels, 0.0)
    )
    first = frame[~found.rows].sort_values("new").groupby(line)[["new", "longer"]].first()
    beside = frame[line].merge(first.reset_index(), on=line, how="left")
    carried = np.nan_to_num((beside.longer / beside.new).to_numpy()) * frame.new.to_numpy()
    instead = np.minimum(kernels + carried, table.seconds)
    return np.where(found.rows, instead, table.seconds)


@dataclass(frozen=True)
class Excess:
    """By how much a block takes longer than another engine's, or another GPU's of the same engine."""

    by_tokens: pd.Series
    """Median seconds over heads, contexts and batches, by tokens."""
    floor_s: float
    """Median where there are few tokens."""
    spread_s: float
    """Half the interquartile range there, over what the chains do not depend on."""
    per_gpu_full_s: float
    """What it grows by with a GPU-full of sequences, from the widest batches that both measured."""


def excess(table: Table, other: Table) -> Excess | None:
    """The difference of two tables at the shapes that both hold, without cached prefix; None where they share few."""
    axes = ["heads", "batch", "context" if "context" in table.shape else "new"]
    both = _rows(table, axes).merge(_rows(other, axes), on=axes, suffixes=("", "_other"))
    both = both.assign(more=both.seconds - both.seconds_other)
    few = both[both.tokens <= FEW]
    if len(few) < LEAST_ROWS:
        return None
    by_tokens = both.groupby("tokens")["more"].agg(["median", "size"])
    by_tokens = by_tokens[by_tokens["size"] >= LEAST_ROWS]["median"]
    apart = few.more - few.tokens.map(few.groupby("tokens")["more"].median())
    spread = (apart.quantile(0.75) - apart.quantile(0.25)) / 2
    wide = by_tokens[by_tokens.index <= 8 * FULL].tail(2)
    slope = float(np.diff(wide)[0] / np.diff(wide.index)[0]) if len(wide) == 2 else 0.0
    return Excess(by_tokens, float(few.more.median()), float(spread), FULL * slope)


def _rows(table: Table, axes: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame({axis: table.shape[axis] for axis in axes}).assign(seconds=table.seconds)
    frame = frame[table.shape["cached"] == 0] if "cached" in table.shape else frame
    return frame.assign(tokens=frame.batch * frame.get("new", 1.0))


def verdict(table: Table, kernels: Floats, beside: Excess) -> str:
    """`unfused`, `kernels` (slow ones; they stay) or nothing, for a table that nothing else explains."""
    tokens = table.shape["batch"] * table.shape.get("new", np.ones(len(kernels)))
    few = tokens <= FEW
    block_s = float(np.median(table.seconds[few]))
    suspected = np.median(table.seconds[few] / kernels[few]) >= ABOVE
    if not suspected or beside.floor_s < WEIGHTY * block_s or beside.spread_s > beside.floor_s / 3:
        return ""
    return "kernels" if beside.per_gpu_full_s >= beside.floor_s / 2 else "unfused"

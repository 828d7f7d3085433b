"""What norms and rotary embeddings cost where nothing fuses them.

vLLM's modules were first timed operator by operator: each norm a chain of small PyTorch kernels, which an engine fuses
into one (aiconfigurator, collector/vllm/utils.py, `enable_engine_fused_ops`, commit 12f74a3 of 2026-07). Captured in
a CUDA graph the chains launch no more, but each of their kernels still lasts as long as a kernel lasts at least. Two
releases of one engine on one GPU, timed before and after that was mended, give what they cost.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibrate.importers.source import SYSTEMS, read_frame
from sim.catalog import Gpu, gpu

Floats = NDArray[np.float64]

TABLE, ENGINE = "v3_mla_module", "vllm"
PAIR_GPU, BEFORE, AFTER = "gb300_nvl72", "0.24.0", "0.27.0"
"""Where both were timed: vLLM on GB300. On B200 the same release was timed again: from 40 us at one token to 80 at
1,024 and 31.8 ns a token beyond, at 16 heads; here 41, 76 and 32.7."""
LATENCY_TOKENS = 64.0
"""Up to here the chains last as long as their kernels last at least; beyond, they move memory."""


@dataclass(frozen=True)
class UnfusedNorms:
    """Seconds that the chains take in one layer of latent attention, by heads and tokens."""

    heads: Floats
    tokens: Floats
    seconds: Floats
    """Shape (heads, tokens)."""
    timed_on: Gpu

    def on(self, device: Gpu, heads: Floats, tokens: Floats) -> Floats:
        """The same on another GPU; shape of the rows.

        On the generation that they were timed on, what grows with the tokens goes by the memory's speed. On another
        one only the latency is known: Hopper's blocks exceed the sum of their kernels by as much at 8,192 tokens as
        at 64.
        """
        latency = self._at(heads, np.minimum(tokens, LATENCY_TOKENS))
        if device.generation != self.timed_on.generation:
            return latency
        faster = self.timed_on.memory_bytes_per_s / device.memory_bytes_per_s
        return latency + np.maximum(self._at(heads, tokens) - latency, 0.0) * faster

    def _at(self, heads: Floats, tokens: Floats) -> Floats:
        """Between the timed tokens linear, beyond the last in proportion; the nearest timed number of heads."""
        found = np.zeros(len(tokens))
        nearest = np.abs(np.log(heads[:, None] / self.heads)).argmin(axis=1)
        for row, curve in enumerate(self.seconds):
            mine = nearest == row
            inside = np.interp(tokens[mine], self.tokens, curve)
            found[mine] = inside * np.maximum(tokens[mine] / self.tokens[-1], 1.0)
        return found


def unfused_norms(folder: Path) -> UnfusedNorms | None:
    """The difference between the two releases; None where the folder does not hold both.

    Medians over formats, batches and back-ends: the chains depend on none of them.
    """
    frame = read_frame(folder / f"{TABLE}.parquet")
    system = SYSTEMS.get(PAIR_GPU, PAIR_GPU)
    frame = frame[(frame.system == system) & (frame.fw == ENGINE) & (frame.op_name == "mla_context_module")]
    keys = ["num_heads", "batch_size", "isl", "step", "kv_cache_dtype", "gemm_type", "kernel_source"]
    before, after = (
        frame[frame.ver == version].groupby(keys)["latency_ms"].median() for version in (BEFORE, AFTER)
    )
    both = pd.concat([before, after], axis=1, keys=["before", "after"], join="inner").reset_index()
    if both.empty:
        return None
    both["ms"], both["tokens"] = both.before - both.after, both.batch_size * both.isl
    grid = both.pivot_table(index="num_heads", columns="tokens", values="ms", aggfunc="median").dropna(axis=1)
    return UnfusedNorms(
        grid.index.to_numpy(float),
        grid.columns.to_numpy(float),
        grid.to_numpy(float) * 1e-3,
        gpu(PAIR_GPU),
    )

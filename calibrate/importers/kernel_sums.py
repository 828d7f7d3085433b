"""What an attention block's own kernels take: the sum of the parts that were measured one by one.

Blocks of SGLang and TensorRT-LLM that were captured in a CUDA graph agree with it within a tenth (multi-head latent
attention, 1 to 1,024 sequences). A block far above it holds something else: see `calibrate.importers.launches`.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sim import catalog
from sim.cost.latency import CostModel, price_all
from sim.cost.profile import Table
from sim.model.attention import Batch, attention_operations
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation

Floats = NDArray[np.float64]

MODELS = {"mla": "deepseek-v3", "dsa": "deepseek-v3.2"}
"""The models whose blocks the tables hold, by the first word of the kernel family."""
GPUS_PER_NODE = 8
ALWAYS, NEVER = 1 << 30, 0
"""Longest prompt that a sparse model attends to densely, where the table is of that branch, or of the other."""


def kernel_seconds(cost: CostModel, table: Table) -> Floats:
    """Sum of the separately measured kernels of every row of a block's table, in seconds; shape (rows,)."""
    model, phase, *_ = table.kernel.split("_")
    price = _remembered(cost)
    rows = {axis: values.tolist() for axis, values in table.shape.items()}
    found = []
    for i in range(len(table.seconds)):
        layout = _layout(model, int(rows["heads"][i]), table)
        if phase == "decode":
            new, cached = 1.0, rows["context"][i] - 1
        else:
            new, cached = rows["new"][i], rows["cached"][i]
        phase_name: Phase = "decode" if phase == "decode" else "prefill"
        batch = Batch(phase_name, rows["batch"][i], new, max(0.0, cached))
        block = attention_operations(layout, layout.model.attention, batch)[0]
        found.append(sum(price(part) for part in block.parts))
    return np.array(found)


def _layout(model: str, heads: int, table: Table) -> Layout:
    described = catalog.model(MODELS[model])
    tp = described.heads // heads
    options = table.variant.options
    return Layout(
        model=described,
        gpus=max(tp, GPUS_PER_NODE),
        tp=tp,
        ep=1,
        gpus_per_node=GPUS_PER_NODE,
        weights="fp8",
        attention_weights=table.variant.dtype,
        dense_weights="fp8",
        kv_cache=options.get("kv_cache", "bf16"),
        dense_prefill_max_kv=ALWAYS if options.get("branch") == "dense" else NEVER,
    )


def _remembered(cost: CostModel) -> Callable[[Operation], float]:
    """Prices of operations, each shape once: most parts depend on heads and tokens alone."""
    known: dict[tuple[object, ...], float] = {}

    @cache
    def items(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(names))

    def price(operation: Operation) -> float:
        shape = tuple(operation.shape[name] for name in items(tuple(operation.shape)))
        key = (operation.kernel, operation.dtype, operation.bytes, tuple(operation.options.values()), *shape)
        if key not in known:
            known[key] = sum(priced.latency.seconds for priced in price_all([operation], cost))
        return known[key]

    return price

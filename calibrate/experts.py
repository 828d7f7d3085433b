"""Routed experts as the simulator prices them, from the kernels that are measured: one definition, whoever measured it.

`moe` is what a rank computes between what it is given and what it gives back:

- without a mode: from hidden states and the router's logits to each token's weighted sum. Selection, quantisation of
  the tokens, rows to their experts, both products with the quantised activation between them, the sum.
- normal mode of an all-to-all: from FP8 tokens with their experts to each token's sum: rows, products, sum.
- low-latency mode: from FP8 rows of each expert to its rows: the products.

So were the shipped tables timed (aiconfigurator 095f58a): `collector/*/collect_moe.py` calls the engine's layer with
the logits (SGLang's BF16 kernels after the selection; TensorRT-LLM's min-latency kernels without the sum), and
`collector/wideep/sglang/collect_deepep_moe.py` calls `run_moe_core` with what DeepEP's dispatch returns. `calibrate
run` times the kernels one by one; a record of the products becomes one of each mode here, with the others added at as
many tokens as its rows are pairs of.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from sim.cost.record import Record

MASKED: Final = "deep_gemm_masked"
"""Back-end of the layout that low-latency dispatch delivers, and no other exchange does."""
BESIDE: Final[Mapping[str, Sequence[str]]] = {
    "": ("moe_gate", "quantize", "moe_permute", "moe_finalise"),
    "normal": ("moe_permute", "moe_finalise"),
    "low_latency": (),
}
"""Mode -> kernels around the products."""
TOP_K: Final = 8
"""Experts of a token where no record of the kernels around them says how many."""

Times = tuple[np.ndarray, np.ndarray]
"""Tokens, rising, and microseconds."""


def defined(records: Iterable[Record]) -> Iterator[Record]:
    """The records, those of the products of `moe` as one of each mode; the kernels around them as they are."""
    found = list(records)
    beside = {kernel: _times(found, kernel) for kernels in BESIDE.values() for kernel in kernels}
    top_k = next((r.shape["top_k"] for r in found if r.operation == "moe_permute"), TOP_K)
    products = [record for record in found if _is_product(record)]
    yield from (record for record in found if not _is_product(record))
    for mode in BESIDE:
        for record in _of_mode(mode, products):
            yield _with(record, mode, beside, record.shape["rows"] / top_k)


def _is_product(record: Record) -> bool:
    return record.operation == "moe" and record.ok and bool(record.us_median) and not record.options


def _of_mode(mode: str, products: Sequence[Record]) -> Iterator[Record]:
    """The products in the layout that a mode has; in any where that was not measured for the dtype."""
    for record in products:
        alike = [r for r in products if r.dtype == record.dtype]
        wanted = (mode == "low_latency") == (record.backend == MASKED)
        if wanted or not any((mode == "low_latency") == (r.backend == MASKED) for r in alike):
            yield record


def _with(record: Record, mode: str, beside: Mapping[str, Times | None], tokens: float) -> Record:
    kernels = [kernel for kernel in BESIDE[mode] if kernel != "quantize" or record.dtype == "fp8"]
    added, lacking = 0.0, []
    for kernel in kernels:
        times = beside[kernel]
        if times is None:
            lacking.append(kernel)
        else:
            added += _at(times, tokens)
    source = record.source or "measured records"
    if kernels:
        told = [kernel for kernel in kernels if kernel not in lacking]
        source += f", with {', '.join(told)}" if told else ""
        source += f", without {', '.join(lacking)}, which was not measured" if lacking else ""
    assert record.us_median is not None
    return replace(
        record,
        options={"mode": mode} if mode else {},
        source=source,
        us_median=record.us_median + added,
        us_p10=None if record.us_p10 is None else record.us_p10 + added,
        us_p90=None if record.us_p90 is None else record.us_p90 + added,
    )


def _times(records: Sequence[Record], kernel: str) -> Times | None:
    """The fastest back-end's microseconds by tokens; None where the kernel was not measured.

    Of `quantize` the width of the experts' input.
    """
    mine = [r for r in records if r.operation == kernel and r.ok and r.us_median]
    if kernel == "quantize":
        widths = {r.shape["hidden"] for r in records if r.operation == "moe"}
        mine = [r for r in mine if r.shape["k"] in widths]
    fastest: dict[float, float] = defaultdict(lambda: float("inf"))
    for record in mine:
        tokens = record.shape["m" if kernel == "quantize" else "tokens"]
        fastest[tokens] = min(fastest[tokens], record.us_median or float("inf"))
    if not fastest:
        return None
    tokens_us = sorted(fastest.items())
    return np.array([t for t, _ in tokens_us]), np.array([us for _, us in tokens_us])


def _at(times: Times, tokens: float) -> float:
    """Microseconds at so many tokens: linear between those measured, as the last one's share beyond them."""
    measured, us = times
    most = float(measured[-1])
    return float(np.interp(tokens, measured, us)) * max(1.0, tokens / most)

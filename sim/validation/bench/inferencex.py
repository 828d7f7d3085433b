"""InferenceX's aggregated results: a benchmark's figures beside the deployment that they are of."""

import re
from typing import Any, Final

from sim.validation.bench.clients import NAMES
from sim.validation.bench.numbers import Values
from sim.validation.bench.run import BenchError, BenchLengths, BenchRun, Figures, Load, formats
from sim.validation.cells import Cells, TableError
from sim.validation.recipes import recipes
from sim.validation.rows import Row, row_of

KEY: Final = re.compile(r"(mean|median|p\d+)_(\w+)")
SPLIT: Final = re.compile(r"(?:prefill_|decode_)?(?:pp|dcp_size|pcp_size)")
"""Ways of sharing a worker that no scenario has."""
COLUMNS: Final = {
    "hw": "hardware",
    "spec_decoding": "spec",
    "mtp": "spec",
    "tp": "total_gpu",
    "ep": "decode_ep",
    "dp_attention": "decode_dp_attn",
    "decode_dp_attention": "decode_dp_attn",
    "prefill_dp_attention": "prefill_dp_attn",
    "decode_num_workers": "decode_workers",
    "prefill_num_workers": "prefill_workers",
}
"""Its names -> those of a table of rows, where they are others."""


def tool_of(values: Values) -> str | None:
    """`inferencex`; None for another file."""
    return "inferencex" if {"hw", "conc", "framework", "tput_per_gpu"} <= values.data.keys() else None


def read_agg(id: str, tool: str, values: Values) -> BenchRun:
    """The run that an object holds."""
    for key in ("isl", "osl"):
        if key not in values:
            raise BenchError(
                f"{values.place}: expected {key}, which InferenceX's later files have; it tells the lengths"
            )
    concurrency, row = values.count("conc"), _row(id, values)
    bench = recipes()["benchmark"]
    share = bench["length_from"]["value"]
    ranges = [{"uniform": [max(1, int(n * share)), n]} for n in (values.count("isl"), values.count("osl"))]
    return BenchRun(
        id=id,
        tool=tool,
        load=Load(concurrency),
        lengths=BenchLengths(input=ranges[0], output=ranges[1]),
        requests=concurrency * bench["prompts_per_seat"]["value"],
        measured=_figures(values, sum(s.workers * s.gpus for s in row.pools.values())),
        model=str(values.data.get("model", "")),
        notes=(
            f"lengths and number of prompts as InferenceX's scripts ask for them: {share:.0%} to all of isl and osl",
        ),
        row=row,
    )


def _figures(values: Values, gpus: int) -> Figures:
    """Seconds, and tokens per second of the whole service."""
    found: dict[str, dict[str, float]] = {}
    for key in values.data:
        named = KEY.fullmatch(key)
        metric = formats()["metrics"].get(named[2]) if named else None
        if named and metric and values.data[key]:
            found.setdefault(metric, {})[NAMES.get(named[1], named[1])] = values.positive(key)
    found["total_tokens_per_s"] = {"rate": values.positive("tput_per_gpu") * gpus}
    decoding = values.count("num_decode_gpu") if values.data.get("num_decode_gpu") else gpus
    if values.data.get("output_tput_per_gpu"):
        found["output_tokens_per_s"] = {"rate": values.positive("output_tput_per_gpu") * decoding}
    return found


def _row(id: str, values: Values) -> Row:
    """The deployment, as a row of a table tells it."""
    cells: dict[str, Any] = {COLUMNS.get(key, key): value for key, value in values.data.items()}
    cells["row_id"], cells["spec"] = id, cells.get("spec") or "none"
    # A runner's name goes on behind the GPU: h200-cw, b200-nvd, gb200-nv.
    cells["hardware"] = re.split(r"[-_]", str(cells["hardware"]))[0]
    cells["disagg"] = bool(values.data.get("disagg"))
    if not cells["disagg"] and "decode_tp" in cells and "total_gpu" not in cells:
        cells["total_gpu"] = cells["decode_tp"]
    # The figures are read here, in seconds; a table has milliseconds.
    plain = {key: value for key, value in cells.items() if isinstance(value, str | int | float | bool)}
    try:
        row = row_of(Cells({k: v for k, v in plain.items() if not k.endswith("tput_per_gpu")}), 1)
    except TableError as error:
        raise BenchError(f"{values.place}: {error}") from None
    _check(values, row)
    return row


def _check(values: Values, row: Row) -> None:
    """Raises BenchError for a deployment that no scenario has."""
    known = recipes()
    formats = known["precisions_of_models"].get(row.model, known["precisions"])
    names = {
        "framework": (row.engine, known["engines"]),
        "precision": (row.precision, formats),
        "spec_decoding": (row.spec, ("none", *known["drafts"])),
    }
    for key, (name, able) in names.items():
        if name not in able:
            raise values.wrong(key, f"one of {', '.join(able)}")
    for key, size in values.data.items():
        if SPLIT.fullmatch(key) and size not in (None, 0, 1):
            raise BenchError(
                f"{values.place}: {key} {size}: pipelines and context parallelism are not simulated"
            )
    for role, shape in row.pools.items():
        if not shape.divides:
            sizes = f"{shape.workers} workers of {shape.gpus} GPUs, EP {shape.ep}"
            raise BenchError(
                f"{values.place}: {role}: {sizes}: expected whole workers, and EP that divides their GPUs"
            )

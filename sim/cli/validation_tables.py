"""What `tokenworks validate` shows to a person."""

from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sim.cli.terminal import number, percent, seconds
from sim.validation.blame import GROUPS, PROMPTS
from sim.validation.case import BOUND, Band
from sim.validation.errors import grouped, score, score_by_layout
from sim.validation.skips import general
from sim.validation.table import Validation

LABELS: Final = {
    "tpot": "TPOT",
    "ttft": "TTFT",
    "output_tput_per_gpu": "output tokens/s per GPU",
    "total_tput_per_gpu": "tokens/s per GPU",
    "prefill_tput_per_node": "prefill tokens/s per node",
    "decode_tput_per_node": "decode tokens/s per node",
    "gain": "gain of a mechanism",
    "speedup": "tokens/s with drafts over without",
    "slope": "USD per M tokens and M positions",
    "tokens_per_s_per_user": "tokens/s of a user",
    "input_tokens_per_s_per_prefill_node": "input tokens/s per prefill node",
    "output_tokens_per_s_per_decode_node": "output tokens/s per decode node",
    "usd_per_day": "USD a day",
    "bound_nodes": "limit: fewest nodes of the hour",
    "bound_tpot": "limit: TPOT",
    "bound_input_tokens_per_s_per_prefill_node": "limit: input tokens/s per prefill node",
    "bound_output_tokens_per_s_per_decode_node": "limit: output tokens/s per decode node",
}
SERVED: Final = ("tpot", "ttft", "total_tput_per_gpu")
"""Metrics of a service by layout."""
LARGEST: Final = 10
"""Differences that are explained."""
TARGET: Final = 0.07
"""Median error of TPOT that is aimed at."""
PLAUSIBLE: Final = (0.5, 2.0)
"""Factors on one operation group that could explain a difference."""

ERRORS: Final = (
    "Error: simulated / published - 1; median and p90 of its size, bias: median with its sign. train: deployments that "
    "constants were fitted on, test: the other half. A layout is one deployment at all its loads."
)
LAYOUTS: Final = (
    "Layout: GPU, engine, weights, then expert parallelism (EP) and attention data parallelism (DP; without it tensor "
    "parallelism over all GPUs). trt: TensorRT-LLM; fp4: NVFP4. Load: tokens in/out, conc requests in flight."
)
BANDS: Final = (
    "Interval: of a sample that stands for the whole. Range: over inputs that were not told. A limit has one end, and "
    "its error is not scored. Why a band is as wide as it is: the case's file, bands.yaml, VALIDATION.md."
)
FEW: Final = 60
"""Cases with a band that are all shown."""
PARTS: Final = (
    "attention: the whole block; moe: gate and routed experts; dense: shared expert, dense FFNs, output head; "
    "communication: collectives and all-to-all; other: host, norms; prompts: other requests' prompts in the same "
    "steps. x0.8 of one part, all others as they are, would give what was published."
)


def validation(found: Validation) -> Iterator[RenderableType]:
    """Errors per metric and layout, the largest differences by operation, and what was left out."""
    yield from _headline(found)
    yield from _banded(found)
    yield from _steps(found)
    yield from _layouts(found)
    yield from _missing(found)
    yield from _largest(found)
    yield from _skipped(found)
    yield from _read(found)


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    """A table; `caption` says what its columns mean."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.caption, table.caption_justify, table.caption_style = caption, "left", "dim"
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _headline(found: Validation) -> Iterator[RenderableType]:
    if not found.cases:
        yield Text("Nothing was simulated.", style="bold")
        return
    table = _table(
        "Absolute error, simulated against published",
        "metric", "split", "cases", "median", "p90", "bias", "layouts", "median, each layout once",
        caption=ERRORS,
    )  # fmt: skip
    scored = [c for c in found.cases if not c.metric.startswith(BOUND)]
    for metric, cases in grouped(scored, lambda c: c.metric).items():
        for split in (None, "train", "test"):
            some = [c for c in cases if split in (None, c.split)]
            every, layouts = score(some), score_by_layout(some)
            if every is None or layouts is None or (split and len(some) == len(cases)):
                continue
            table.add_row(
                LABELS.get(metric, metric), split or "all", str(every.cases), percent(every.median),
                percent(every.p90), _signed(every.bias), str(layouts.cases), percent(layouts.median),
            )  # fmt: skip
    yield table


def _banded(found: Validation) -> Iterator[RenderableType]:
    """Cases with a band: all of a few, those outside of many."""
    banded = [c for c in found.cases if c.band]
    shown = banded if len(banded) <= FEW else [c for c in banded if not c.holds]
    if not shown:
        return
    table = _table(
        f"\nCases with a band: {sum(not c.holds for c in banded)} of {len(banded)} outside",
        "case", "metric", "load", "published", "simulated", "95% interval", "range", "error", "band", "known",
        caption=BANDS,
    )  # fmt: skip
    for case in shown:
        table.add_row(
            case.id, LABELS.get(case.metric, case.metric), case.point, number(case.published), number(case.simulated),
            _ends(case.interval), _ends(case.simulated_range), _signed(case.error),
            f"{_ends(case.band)}{'' if case.holds else ' outside'}", case.missed or "-",
        )  # fmt: skip
    yield table


def _ends(pair: Band | None) -> str:
    return "-" if pair is None else " to ".join("" if end is None else number(end) for end in pair).strip()


def _steps(found: Validation) -> Iterator[RenderableType]:
    """Published single steps and gains, one by one."""
    steps = [c for c in found.cases if c.phase != "service"]
    if not steps:
        return
    table = _table(
        "\nSingle steps: throughputs, gains and slopes",
        "case",
        "layout",
        "load",
        "published",
        "simulated",
        "error",
    )
    for case in steps:
        shown = [_signed(v) if case.metric == "gain" else number(v) for v in (case.published, case.simulated)]
        table.add_row(case.id, case.layout, case.point, *shown, _signed(case.error))
    yield table


def _layouts(found: Validation) -> Iterator[RenderableType]:
    served = [c for c in found.cases if c.phase == "service" and c.metric in SERVED]
    if not served:
        return
    table = _table(
        "\nMedian error by layout",
        "layout", "split", "cases", "TPOT", "bias", "TTFT", "bias", "tokens/s per GPU", "bias",
        caption=LAYOUTS,
    )  # fmt: skip
    for layout, cases in sorted(grouped(served, lambda c: c.layout).items()):
        cells = []
        for metric in SERVED:
            one = score([c for c in cases if c.metric == metric])
            cells += [percent(one.median), _signed(one.bias)] if one else ["-", "-"]
        table.add_row(layout, cases[0].split or "-", str(len({c.id for c in cases})), *cells)
    yield table


def _missing(found: Validation) -> Iterator[RenderableType]:
    """Layouts above the target: the factor on one group of operations, all others as they are, that each would need."""
    table = _table(
        f"\nLayouts above {percent(TARGET)} of TPOT: the factor that one part alone would need (median)",
        "layout", "split", "rows", "error", "bias",
        *GROUPS, PROMPTS,
    )  # fmt: skip
    cases = [c for c in found.cases if c.metric == "tpot" and c.id in found.compositions]
    for layout, group in sorted(grouped(cases, lambda c: c.layout).items()):
        one = score(group)
        if one is None or one.median <= TARGET:
            continue
        needed: dict[str, list[float]] = {}
        for case in group:
            for name, factor in found.compositions[case.id].factors(case.published).items():
                needed.setdefault(name, []).append(factor)
        factors = (needed.get(name) for name in (*GROUPS, PROMPTS))
        told = (f"x{median(f):.2f}" if f and median(f) > 0 else "-" for f in factors)
        table.add_row(
            layout, group[0].split or "-", str(len(group)), percent(one.median), _signed(one.bias), *told
        )
    if table.row_count:
        yield table


def _largest(found: Validation) -> Iterator[RenderableType]:
    """Largest TPOT differences, one per layout and point, with the step's composition."""
    shown = set(found.simulations())
    explained = [c for c in found.cases if c.metric == "tpot" and c.id in shown]
    explained = sorted(explained, key=lambda c: -abs(c.error))[:LARGEST]
    if not explained:
        return
    table = _table(
        "\nLargest TPOT differences, by part of the step (share of the simulated TPOT)",
        "row", "layout", "load", "published", "simulated", "error",
        *GROUPS, PROMPTS, "alone would explain it",
        caption=PARTS,
    )  # fmt: skip
    for case in explained:
        made = found.compositions[case.id]
        total = sum(made.seconds.values())
        table.add_row(
            case.id, case.layout, case.point, seconds(case.published), seconds(case.simulated), _signed(case.error),
            *(percent(s / total) for s in made.seconds.values()), _suspects(made.factors(case.published)),
        )  # fmt: skip
    yield table


def _suspects(factors: dict[str, float]) -> str:
    """Groups whose price, wrong by a plausible factor, would explain the difference."""
    low, high = PLAUSIBLE
    return ", ".join(f"{name} x{f:.2f}" for name, f in factors.items() if low <= f <= high) or "none"


def _skipped(found: Validation) -> Iterator[RenderableType]:
    if not found.skipped:
        return
    table = _table("\nSkipped", "reason", "rows")
    for reason, count in Counter(general(r) for r in found.skipped.values()).most_common():
        table.add_row(reason, number(count))
    yield table


def _read(found: Validation) -> Iterator[RenderableType]:
    """How the rows were started, and which of their columns nobody read."""
    if found.by_default:
        yield Text(
            f"\nRows with the engine's defaults and what their own columns say: {found.by_default:,}; with the flags "
            f"of InferenceX's launch scripts: {found.by_recipe:,}.",
            style="dim",
        )
    if found.ignored:
        yield Text(f"Columns that say nothing to the simulation: {', '.join(found.ignored)}.", style="dim")


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}%"

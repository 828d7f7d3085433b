"""Writes VALIDATION.md: how far off every published case is, from what is shipped of the last validation.

    python -m sim.validation.report [FILE]

It simulates nothing; `python -m sim.validation.digest` does, and writes `digest.json`, from which all of this is made.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sim.validation.case import BOUND, Case
from sim.validation.digest import FILE as DIGEST
from sim.validation.digest import cases_of
from sim.validation.errors import grouped, score
from sim.validation.predictions import COLUMNS as EXPECTED_COLUMNS
from sim.validation.predictions import compared

FILE: Final = Path("VALIDATION.md")
SCORED: Final = ("tpot", "ttft", "total_tput_per_gpu")
"""Metrics of a service that the tables by group show."""
NAMES: Final = {"tpot": "TPOT", "ttft": "TTFT", "total_tput_per_gpu": "tokens/s per GPU"}
SPLIT: Final = {"train": "fitted on", "test": "held out", None: "not split"}
PER: Final = 100
HEAD: Final = (
    "Written by `python -m sim.validation.report` from `sim/validation/digest.json`; do not edit. Error: "
    "simulated / published - 1. Median and p90 of its size; bias: its median with the sign. How rows become "
    "scenarios, and what was fitted: [docs/validation.md](docs/validation.md)."
)
BANDED: Final = (
    "Outside it: **bold**. In brackets the 95% interval where a sample stands for the whole, after `..` the "
    "range over inputs that were not told."
)
EXPECTED: Final = (
    "Median of the signed errors of a family's rows: where it was expected to lie, written down on the day that is "
    "named (`sim/validation/data/predictions-*.yaml`), and what was found since."
)
WORST: Final = (
    "Of each layout its worst TPOT or throughput of a step. The largest operation of the decode step; and "
    "which group of operations alone, at what factor, would give what was published, where that is plausible "
    "(0.5 to 2)."
)


def text(data: Mapping[str, Any]) -> str:
    """The whole file, from a digest."""
    cases = cases_of(data)
    return "\n".join([*_head(cases), *_groups(cases), *_expected(cases), *_banded(cases), *_limits(cases),
                      *_worst(data), *_every(cases), *_skipped(data)]) + "\n"  # fmt: skip


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    yield ""


def percent(value: float) -> str:
    """Without a sign."""
    return f"{PER * value:.1f}%"


def signed(value: float) -> str:
    """With its sign."""
    return f"{PER * value:+.1f}%"


def number(value: float) -> str:
    """Four digits."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _scores(cases: Iterable[Case]) -> list[str]:
    found = score(cases)
    return (
        [str(found.cases), percent(found.median), percent(found.p90), signed(found.bias)]
        if found
        else ["-"] * 4
    )


def _head(cases: Sequence[Case]) -> Iterator[str]:
    yield "# Validation, case by case"
    yield ""
    yield HEAD
    yield ""
    yield "## By metric"
    yield ""
    rows = []
    for metric, group in grouped(
        (c for c in cases if not c.metric.startswith(BOUND)), lambda c: c.metric
    ).items():
        for split, some in grouped(group, lambda c: c.split).items():
            rows.append([NAMES.get(metric, metric), SPLIT[split], *_scores(some)])
    yield from _table(["metric", "half", "cases", "median", "p90", "bias"], rows)


def _groups(cases: Sequence[Case]) -> Iterator[str]:
    by: Mapping[str, Callable[[Case], Any]] = {
        "GPU": lambda c: c.gpu,
        "engine": lambda c: c.engine,
        "phase": lambda c: c.phase,
        "GPU, engine, format and phase": lambda c: f"{c.gpu} {c.engine} {c.precision} {c.phase}",
    }
    scored = [c for c in cases if c.metric in (*SCORED, "prefill_tput_per_node", "decode_tput_per_node")]
    for title, key in by.items():
        yield f"## By {title}"
        yield ""
        rows = [
            [str(name), NAMES.get(metric, metric), SPLIT[split], *_scores(some)]
            for name, group in sorted(grouped(scored, key).items(), key=lambda item: str(item[0]))
            for (metric, split), some in grouped(group, lambda c: (c.metric, c.split)).items()
        ]
        yield from _table([title, "metric", "half", "cases", "median", "p90", "bias"], rows)
    yield "## By layout"
    yield ""
    rows = []
    for layout, group in sorted(grouped(scored, lambda c: c.layout).items()):
        cells = []
        for metric in SCORED:
            found = score(c for c in group if c.metric == metric)
            cells.append(f"{percent(found.median)} / {percent(found.p90)}" if found else "-")
        if any(cell != "-" for cell in cells):
            rows.append([layout, SPLIT[group[0].split], str(len({c.id for c in group})), *cells])
    yield from _table(["layout", "half", "points", *(f"{NAMES[m]}, median / p90" for m in SCORED)], rows)


def _expected(cases: Sequence[Case]) -> Iterator[str]:
    """What was said of families before any of their rows was simulated."""
    yield "## Expected before it was simulated"
    yield ""
    yield EXPECTED
    yield ""
    yield from _table(EXPECTED_COLUMNS, compared(cases))


def _banded(cases: Sequence[Case]) -> Iterator[str]:
    """Cases that somebody said how far off they may be."""
    yield "## Cases with a band"
    yield ""
    yield BANDED
    yield ""
    mine = [c for c in cases if c.band and not c.metric.startswith(BOUND)]
    rows = []
    for c in mine:
        error = signed(c.error) if c.holds else f"**{signed(c.error)}**"
        low, high = c.band or (None, None)
        rows.append([
            c.id, f"{c.layout}; {c.point}", c.metric, f"{number(c.published)} {c.unit}".strip(), _simulated(c), error,
            f"{number(low or 0)} to {number(high or 0)}", c.why, c.quality, f"{c.source} {c.date}".strip(),
        ])  # fmt: skip
    columns = [
        "case",
        "layout and load",
        "metric",
        "published",
        "simulated",
        "error",
        "band",
        "why so wide",
        "quality",
        "source",
    ]
    yield from _table(columns, rows)
    steps = score(c for c in mine if c.phase != "service")
    if steps:
        yield (
            f"Single steps, what mechanisms gain, and slopes: {steps.cases} cases, median {percent(steps.median)}, "
            f"p90 {percent(steps.p90)}."
        )
        yield ""
    yield "### Outside their band"
    yield ""
    out = [c for c in mine if not c.holds]
    rows = [[c.id, c.metric, signed(c.error), c.missed or "not explained yet"] for c in out]
    yield f"{len(out)} of {len(mine)}."
    yield ""
    yield from _table(["case", "metric", "error", "what is known"], rows)


def _simulated(case: Case) -> str:
    shown = number(case.simulated)
    if case.interval and case.interval[0] != case.interval[1]:
        shown += f" [{number(case.interval[0])}, {number(case.interval[1])}]"
    if case.simulated_range:
        shown += f" .. {number(case.simulated_range[0])} to {number(case.simulated_range[1])}"
    return shown


def _limits(cases: Sequence[Case]) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "The simulation must lie on the side that is named; how far is not scored."
    yield ""
    rows = []
    for c in cases:
        if c.metric.startswith(BOUND) and c.band:
            side = "above" if c.band[1] is None else "below"
            shown = side if c.holds else f"**not {side}**"
            rows.append(
                [c.id, f"{c.layout}; {c.point}", c.metric, number(c.published), _simulated(c), shown, c.why]
            )
    yield from _table(["case", "layout and load", "metric", "published", "simulated", "side", "why"], rows)


def _worst(data: Mapping[str, Any]) -> Iterator[str]:
    yield "## The worst"
    yield ""
    yield WORST
    yield ""
    rows = []
    for one in data.get("worst", ()):
        alone = (
            ", ".join(f"{group} x{factor:.2f}" for group, factor in one["factors"].items())
            or "no group alone"
        )
        rows.append(
            [
                one["id"],
                one["layout"],
                one["point"],
                one["metric"],
                signed(one["error"]),
                one["operation"],
                alone,
            ]
        )
    yield from _table(
        ["case", "layout", "load", "metric", "error", "largest operation", "alone would explain it"], rows
    )


def _every(cases: Sequence[Case]) -> Iterator[str]:
    yield "## Every case"
    yield ""
    rows = []
    for layout, group in sorted(grouped(cases, lambda c: c.layout).items()):
        for (id_, point), mine in grouped(group, lambda c: (c.id, c.point)).items():
            told = "; ".join(
                f"{c.metric} {number(c.published)} > {number(c.simulated)} ({signed(c.error)})" for c in mine
            )
            rows.append([layout, id_, point, told])
    yield "Published > simulated (error)."
    yield ""
    yield from _table(["layout", "case", "load", "figures"], rows)


def _skipped(data: Mapping[str, Any]) -> Iterator[str]:
    yield "## Rows that are left out"
    yield ""
    yield from _table(["reason", "rows"], [[why, str(rows)] for why, rows in data["skipped"].items()])


def main(arguments: Sequence[str]) -> None:
    """Write the file."""
    path = Path(arguments[0]) if arguments else FILE
    path.write_text(text(json.loads(DIGEST.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

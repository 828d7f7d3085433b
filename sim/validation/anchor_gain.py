"""What one measured point of a deployment gains on its other points: published rows, all simulated.

    python -m sim.validation.anchor_gain [--half test] [--most 6] [--kind aggregated] [--workers 2] [LAYOUT ...]

The anchor is made from the point in the middle of the loads, as `tokenworks validate --anchor` makes it, and every
other point simulated with it. A deployment is a layout with a release of its engine: an anchor is of one. A point is
one load and one pair of lengths: of rows that repeat one the last stays, since to meet a load again is no gain
elsewhere; with `--repeats` all stay. `--most`: points of a deployment at most, evenly over its loads. LAYOUT: only
layouts with this text in their names.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Final

from sim.scenario.anchor import written
from sim.validation.anchor_fit import METRICS
from sim.validation.anchors import NoAnchor, figures, make_anchor, measured
from sim.validation.errors import grouped
from sim.validation.rows import Row, read_rows
from sim.validation.runs import Benchmark, answers
from sim.validation.scenarios import settings_of
from sim.validation.skips import skipped
from sim.validation.split import split_of
from sim.validation.table import SHIPPED, benchmark_of

KINDS: Final[Mapping[str, Callable[[Row], bool]]] = {
    "all": lambda row: True,
    "aggregated": lambda row: not row.disaggregated and row.spec == "none",
    "disaggregated": lambda row: row.disaggregated,
    "drafts": lambda row: row.spec != "none",
}
MAX_PROMPTS: Final = 2000


@dataclass(frozen=True)
class Gain:
    """Absolute errors of the other rows of a deployment, by metric: without the anchor, and with it."""

    deployment: str
    rows: int
    before: Mapping[str, Sequence[float]]
    after: Mapping[str, Sequence[float]]


def deployments(
    half: str, kind: str, most: int, names: Sequence[str], repeats: bool = False
) -> dict[str, list[Row]]:
    """Rows by layout and release, one of each point, in the order of their loads; those of one point are left out.

    repeats: keep rows of a point that others are of too.
    """
    rows = read_rows(SHIPPED)
    left_out = skipped(rows)
    kept = [
        row
        for row in rows
        if row.id not in left_out
        and split_of(row.deployment_id) == half
        and KINDS[kind](row)
        and "tpot" in row.published
        and (not names or any(name in row.layout for name in names))
    ]
    found = {}
    for name, group in grouped(kept, deployment).items():
        by_day = sorted(group, key=lambda row: (row.ran or date.min, row.id))
        last = {(*point(row), row.id if repeats else ""): row for row in by_day}
        ordered = [row for _, row in sorted(last.items())]
        if len(ordered) > 1:
            found[name] = [ordered[i] for i in evenly(len(ordered), most)]
    return found


def deployment(row: Row) -> str:
    """What an anchor is of: the layout of a row, and the release where it is not the newest that is described."""
    release = settings_of(row).get("engine_version")
    return f"{row.layout}, {release}" if release else row.layout


def point(row: Row) -> tuple[int, int, int]:
    """What tells a point of a deployment from its others: requests in flight, and the longest prompt and answer."""
    return row.conc, row.isl, row.osl


def evenly(count: int, most: int) -> list[int]:
    """`most` of `count` places, the first, the last and evenly between; all where there are no more."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def gain(name: str, rows: Sequence[Row], workers: int = 1) -> Gain:
    """The errors of all rows but the one in the middle, without and with an anchor made from that one.

    Raises NoAnchor where a row cannot be simulated.
    """
    points = [benchmark_of(row, MAX_PROMPTS, 0) for row in rows]
    middle = len(points) // 2
    made = make_anchor([points[middle]], workers)
    others = [point for i, point in enumerate(points) if i != middle]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "anchor.json"
        file.write_text(written(made.form), encoding="utf-8")

        def anchored(row: Row) -> Benchmark:
            return benchmark_of(row, MAX_PROMPTS, 0, lambda s: s.model_copy(update={"anchor": str(file)}))

        changed = [anchored(row) for i, row in enumerate(rows) if i != middle]
        trials = [point.trials[0] for point in (*others, *changed)]
        found = [
            figures(point, answer)
            for point, answer in zip((*others, *others), answers(trials, workers, None), strict=True)
        ]
    count = len(others)
    return Gain(name, count, _errors(others, found[:count]), _errors(others, found[count:]))


def _errors(points: Sequence[Benchmark], found: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {
        name: [
            abs(one[name] / told[name] - 1)
            for point, one in zip(points, found, strict=True)
            if name in (told := measured(point)) and name in one
        ]
        for name in METRICS
    }


def table(gains: Iterable[Gain]) -> str:
    """Median errors by deployment, without -> with the anchor, as a Markdown table; medians of these below."""
    lines = ["| layout, release | other points | TPOT | TTFT | tokens/s |", "|---|---|---|---|---|"]
    every: dict[str, list[tuple[float, float]]] = {name: [] for name in METRICS}
    for one in gains:
        cells = []
        for name in METRICS:
            if one.before[name]:
                pair = median(one.before[name]), median(one.after[name])
                every[name].append(pair)
                cells.append(f"{pair[0]:.1%} -> {pair[1]:.1%}")
            else:
                cells.append("-")
        lines.append(f"| {one.deployment} | {one.rows} | {' | '.join(cells)} |")
    medians = [
        f"{median(b for b, _ in pairs):.1%} -> {median(a for _, a in pairs):.1%}" if pairs else "-"
        for pairs in every.values()
    ]
    lines.append(f"| median of {len(lines) - 2} | | {' | '.join(medians)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="LAYOUT")
    parser.add_argument("--half", default="test", choices=("train", "test"))
    parser.add_argument("--kind", default="aggregated", choices=tuple(KINDS))
    parser.add_argument("--most", type=int, default=6)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args(arguments)
    gains = []
    for name, rows in deployments(asked.half, asked.kind, asked.most, asked.names, asked.repeats).items():
        try:
            gains.append(gain(name, rows, asked.workers))
        except NoAnchor as reason:
            print(f"left out: {name}: {reason}", flush=True)
    print(table(gains))


if __name__ == "__main__":
    main()

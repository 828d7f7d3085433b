"""`tokenworks sweep`: many points of one scenario."""

import os
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sim.cli.files import prepare, print_json
from sim.cli.terminal import DID_NOT_HOLD, Screen, number, seconds, show_error, usd

if TYPE_CHECKING:
    import pandas as pd

MOST_SHOWN = 50
"""Rows of the table on the terminal; the file has all."""
FIGURES = {
    "USD per M tokens": ("cost.usd_per_million.blended", usd),
    "output tokens/s": ("throughput.output_tokens_per_s", number),
    "TTFT p99": ("latency.ttft_s.p99", seconds),
    "TPOT p99": ("latency.tpot_s.p99", seconds),
}
"""Heading -> the column of the file, and how it is written."""
PLACE = r"^(?:.*?:\d+:\d+|override [\w.]+|--set [\w.]+): "
NUMBER = r"\d[\d.,]*"
"""Of an error: where it is written, and what else differs from point to point."""


def sweep(
    file: Annotated[
        Path, typer.Argument(help="base, grid and cases, YAML", metavar="SWEEP.yaml", show_default=False)
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a key of the base, such as gpu=b200"),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; default: one per core")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="run on this Ray cluster; `local` starts one here")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the points and leave")] = False,
    seed: Annotated[int, typer.Option(min=0, help="all chance is drawn from it")] = 0,
    out: Annotated[
        Path,
        typer.Option(
            file_okay=False, metavar="DIR", help="folder of sweep.parquet; what it holds is not run again"
        ),
    ] = Path("out/sweep"),
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object as the last line of stdout")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, no notes")] = False,
) -> None:
    """Simulate every combination of a grid, and every case of a list; stopped and started again it goes on."""
    from sim.planner.points import load_sweep, notes
    from sim.planner.sweep import TABLE, run_sweep

    screen = Screen(as_json, quiet)
    plan = load_sweep(file, sets or ())
    told = list(notes(plan))
    for note in told:
        screen.note(note)
    if dry_run:
        for point in plan.points:
            screen.out.print(
                f"{point.number}: " + ", ".join(f"{key}={value}" for key, value in point.values.items())
            )
        if as_json:
            print_json(
                {
                    "points": len(plan.points),
                    "values": [{key: str(value) for key, value in p.values.items()} for p in plan.points],
                    "notes": told,
                }
            )
        return
    prepare(out)
    with screen.progress(file.stem) as tick:
        table = run_sweep(plan, out, seed, workers or os.cpu_count() or 1, ray, tick)
    screen.show([_shown(table, [key for point in plan.points for key in point.overrides])])
    failed = table[table.error.notna()]
    for point in failed.itertuples():
        screen.note(f"point {point.point}: {point.error}")
    screen.out.print(f"{len(table):,} points, {len(failed):,} failed: {out / TABLE}")
    if as_json:
        print_json({"points": len(table), "failed": len(failed), "table": str(out / TABLE), "notes": told})
    if len(failed) == len(table):
        show_error(f"every point failed; {commonest(failed)}")
        raise typer.Exit(DID_NOT_HOLD)


def commonest(failed: "pd.DataFrame") -> str:
    """The first thing that is wrong with most of the points, with how many, and the first of them, in whose words it is
    told: points differ in the line that is at fault and in numbers."""
    said = failed.error.str.replace(PLACE, "", regex=True).str.split("; ").str[0]
    alike = said.str.replace(NUMBER, "#", regex=True)
    counts = alike.value_counts(sort=False)
    most = alike == counts.idxmax()  # the first to come, of as many
    number = "all" if most.all() else f"{most.sum():,} of {len(failed):,}"
    return f"{number} with: {said[most].iloc[0]} (first: point {failed.point[most].iloc[0]})"


def _shown(table: "pd.DataFrame", keys: list[str]) -> Table:
    """The first points side by side: what was varied, and what most people look at."""
    shown = Table("point", *dict.fromkeys(keys), *FIGURES)
    for row in table.head(MOST_SHOWN).to_dict("records"):
        varied = ["" if _missing(row[key]) else str(row[key]) for key in dict.fromkeys(keys)]
        figures = [write(None if _missing(row.get(name)) else row[name]) for name, write in FIGURES.values()]
        shown.add_row(str(row["point"]), *varied, *figures)
    return shown


def _missing(value: object) -> bool:
    """Whether a cell is empty: None, or not a number."""
    return value is None or (isinstance(value, float) and isnan(value))

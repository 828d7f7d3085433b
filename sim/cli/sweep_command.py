"""`tokenworks sweep`: many points of one scenario."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.files import prepare, print_json
from sim.cli.terminal import DID_NOT_HOLD, Screen, show_error


def sweep(
    file: Annotated[
        Path, typer.Argument(help="base, grid and cases, YAML", metavar="SWEEP.yaml", show_default=False)
    ],
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
    from sim.planner.points import load_sweep
    from sim.planner.sweep import TABLE, run_sweep

    screen = Screen(as_json, quiet)
    plan = load_sweep(file)
    if dry_run:
        for point in plan.points:
            screen.out.print(
                f"{point.number}: " + ", ".join(f"{key}={value}" for key, value in point.values.items())
            )
        return
    prepare(out)
    with screen.progress(file.stem) as tick:
        table = run_sweep(plan, out, seed, workers or os.cpu_count() or 1, ray, tick)
    failed = table[table.error.notna()]
    for point in failed.itertuples():
        screen.note(f"point {point.point}: {point.error}")
    screen.out.print(f"{len(table):,} points, {len(failed):,} failed: {out / TABLE}")
    if as_json:
        print_json({"points": len(table), "failed": len(failed), "table": str(out / TABLE)})
    if len(failed) == len(table):
        show_error("every point failed")
        raise typer.Exit(DID_NOT_HOLD)

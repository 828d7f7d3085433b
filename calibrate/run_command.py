"""`tokenworks calibrate run`: measure the kernels of this machine, resumably, into one records file."""

import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from calibrate.coverage import lacks
from calibrate.records import Measurement, RecordsError
from sim.catalog import UnknownName
from sim.scenario.errors import brief

if TYPE_CHECKING:
    from calibrate.measure import Bench, Refusal
    from calibrate.session import Session

# ruff: noqa: PLC0415 (torch is optional: everything that needs it is imported once the command runs)

STOPPED: Final = 130
"""Exit code of a run that Ctrl-C ended, by convention 128 + SIGINT."""


def run(
    model: Annotated[str, typer.Option(help="Catalog model whose shapes are measured.")] = "deepseek-v3.2",
    out: Annotated[Path, typer.Option(help="Folder of records.jsonl; an existing file is continued.")] = Path(
        "out/calibration"
    ),
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Time budget, the most valuable points first; default 10, or 2.5 with --quick."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the corners of every grid.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: a summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no tables.")] = False,
) -> None:
    """Measure kernels on this machine: correct first, then timed. Stop it whenever you like and run it again."""
    console = Console(stderr=True, quiet=quiet)
    begin = monotonic()
    try:
        import torch  # noqa: F401 (fails here, before anything is written, where the extra is missing)

        from calibrate import runner

        session, bench, refusals, environment = runner.prepare(model, out, quick, device)
    except (RecordsError, UnknownName, ValueError, ImportError) as error:
        _refuse(console, error)
    if bench.device.kind == "cpu":
        console.print(f"Measuring [bold]this CPU[/] ({bench.device.name}), one thread, on a reduced {model}.")
    _show_refusals(console, refusals)
    budget_minutes = runner.MINUTES["quick" if quick else "full"] if minutes is None else minutes
    try:
        ahead_begin = monotonic()
        done, kernels = runner.compile_ahead(session, bench, 60 * budget_minutes * runner.GRACE)
        if kernels:
            console.print(f"Compiled and compared {done} of {kernels} kernels ahead.")
        bench.start()
        begin += monotonic() - ahead_begin  # not counted, and a tenth of the minutes at most
        interrupted = _measure_all(console, session, bench, begin, 60 * budget_minutes)
    finally:
        bench.close()
        session.records.__exit__()
        session.note_coverage()
    records = session.records.records
    _show_summary(console, records, session)
    summary = summarize(records) | {
        "records": str(session.records.path),
        "left": len(session.pending),
        "environment": environment,
        "wall_s": monotonic() - begin,
    }
    if as_json:
        print(json.dumps(summary))
    if interrupted:
        raise typer.Exit(STOPPED)
    raise typer.Exit(0 if summary["ok"] else 1)


def _refuse(console: Console, error: Exception) -> Any:
    """Say what is wrong with the input and exit with 2."""
    if isinstance(error, ImportError):
        console.quiet = False
        console.print(
            f"`calibrate run` needs torch ({error}). Install the extra: pip install 'tokenworks\\[calibrate]'",
            style="red",
        )
    else:
        console.quiet = False
        console.print(brief(str(error)), style="red", markup=False)
    raise typer.Exit(2) from error


def _measure_all(console: Console, session: "Session", bench: "Bench", begin: float, seconds: float) -> bool:
    """Measure until done, interrupted, or so many seconds after `begin`; returns whether it was interrupted."""
    from calibrate.runner import GRACE, label

    bench.until = begin + seconds * (1 + GRACE)
    left = begin + seconds - monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bench.watch, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=len(session.pending))
        try:
            for record in session.run(bench.measure, bench.give_up, left):
                progress.update(
                    task, advance=1, description=f"{record.operation} {record.dtype} {record.backend}"
                )
                if not record.ok:
                    progress.console.print(f"{label(record)}: {record.error}", style="yellow", markup=False)
        except KeyboardInterrupt:
            return True
    return False


def summarize(records: Sequence[Measurement]) -> dict[str, Any]:
    """Counts of a records file: points, correct ones, operations that have at least one."""
    correct = [record for record in records if record.ok]
    return {
        "points": len(records),
        "ok": len(correct),
        "failed": len(records) - len(correct),
        "operations": sorted({record.operation for record in correct}),
        "unstable": sum("unstable" in record.flags for record in correct),
        "throttled": sum("throttled" in record.flags for record in correct),
    }


def _show_refusals(console: Console, refusals: Sequence["Refusal"]) -> None:
    """Backends that do not run here, each once with its reason."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        families = grouped.setdefault((refusal.backend, refusal.reason), [])
        if refusal.kernel not in families:
            families.append(refusal.kernel)
    if not grouped:
        return
    table = Table(
        "backend", "not used because it", "for", title="Backends that this machine lacks or cannot use"
    )
    for (backend, reason), families in sorted(grouped.items()):
        table.add_row(backend, reason, ", ".join(families))
    console.print(table)


def _show_summary(console: Console, records: Sequence[Measurement], session: "Session") -> None:
    table = Table("operation", "backend", "points", "median us", "of ceiling", title="Measured so far")
    for operation, backend in sorted({(r.operation, r.backend) for r in records}):
        mine = [r for r in records if (r.operation, r.backend) == (operation, backend)]
        times = [r.us_median for r in mine if r.us_median is not None]
        shares = [r.fraction_of_ceiling for r in mine if r.fraction_of_ceiling is not None]
        table.add_row(
            operation,
            backend,
            f"{len(times)} of {len(mine)} ok" if len(times) < len(mine) else str(len(mine)),
            f"{min(times):,.1f} to {max(times):,.1f}" if times else "-",
            f"{min(shares):.0%} to {max(shares):.0%}" if shares else "-",
        )
    console.print(table)
    if session.pending:
        console.print(f"{len(session.pending)} points left: run the same command again to go on.")
    if lacking := lacks(session.coverage()):
        console.print(f"Not measured yet: {', '.join(lacking)}.", markup=False)
    console.print(f"Records: {session.records.path}", markup=False, soft_wrap=True)

"""`tokenworks validate`: published measurements against the simulation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.files import prepare, print_json, save, writer
from sim.cli.terminal import BAD_INPUT, DID_NOT_HOLD, Screen, show_error

if TYPE_CHECKING:
    from sim.validation.table import Validation


def validate(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            help="ids or files of published cases, or all of a kind: wide-ep, drafts, curves, services, published; "
            "default: all",
            metavar="[CASE ...]",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="ROWS.csv", help="rows with the columns of inferencex_r1.csv (CSV or Parquet)"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="one row of every GPU, engine, format and kind of service")
    ] = False,
    max_prompts: Annotated[int, typer.Option(min=1, help="prompts that a row simulates at most")] = 2000,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="all chance is drawn from it")] = 0,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="folder for validation.json")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object as the last line of stdout; the rest to stderr")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, no notes")] = False,
) -> None:
    """Published measurements against simulated: error per metric, and the operations behind the largest."""
    from sim.cli.validation_tables import validation

    screen = Screen(as_json, quiet)
    if out:
        prepare(out)
    found = _validated(cases or [], table, quick, max_prompts, workers, seed, screen)
    screen.show(validation(found))
    data = found.json()
    if out:
        save(out, writer("validation.json", data))
    if as_json:
        print_json(data)
    if any(not case.holds for case in found.cases):
        raise typer.Exit(DID_NOT_HOLD)


def _validated(
    cases: Sequence[str],
    table: Path | None,
    quick: bool,
    max_prompts: int,
    workers: int,
    seed: int,
    screen: Screen,
) -> "Validation":
    from sim.validation import table as tables
    from sim.validation.cells import TableError

    options: dict[str, Any] = {"quick": quick, "max_prompts": max_prompts, "workers": workers, "seed": seed}
    try:
        with screen.progress("validate") as tick:
            return tables.validate(
                table or tables.SHIPPED, cases, published=table is None, progress=tick, **options
            )
    except (TableError, tables.UnknownCase) as error:
        show_error(str(error))
        raise typer.Exit(BAD_INPUT) from None

"""`tokenworks validate`: published measurements against the simulation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.files import prepare, print_json, save, writer
from sim.cli.terminal import BAD_INPUT, DID_NOT_HOLD, Screen, show_error
from sim.scenario.errors import brief

if TYPE_CHECKING:
    from sim.validation.table import Validation


def validate(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            help="ids or files of published cases, or all of a kind: wide-ep, drafts, curves, services, reports, "
            "published, v4; default: all",
            metavar="[CASE ...]",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="ROWS.csv", help="rows with the columns of inferencex_r1.csv (CSV or Parquet)"),
    ] = None,
    bench: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="your own benchmark: a result of vllm bench serve, SGLang's bench_serving, genai-perf, AIPerf or "
            "InferenceX; again for more points",
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="S.yaml|COMMAND", help="with --bench: what it measured, or its launch command"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="with --scenario: override a key of it, such as gpu=b200"
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="with a launch command: the GPU it runs on, such as h200"),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.json", help="with --bench: write factors that a scenario of this deployment can name"
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="of published rows one of every GPU, engine, format and kind of service"
        ),
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
    """Published measurements, or your own benchmark, against simulated: error per metric, and whose the largest is."""
    screen = Screen(as_json, quiet)
    if bench:
        from sim.cli.bench_command import validate_bench

        if cases or table or quick:
            raise typer.BadParameter(
                "cases, --table and --quick are of published measurements; leave --bench out"
            )
        if sets and not scenario:
            raise typer.BadParameter("--set needs --scenario: it overrides a key of that")
        validate_bench(
            bench, scenario, sets or (), gpu, anchor, max_prompts, workers, seed, out, screen, as_json
        )
        return
    if scenario or sets or gpu or anchor:
        raise typer.BadParameter("--scenario, --set, --gpu and --anchor need --bench FILE")
    from sim.cli.validation_tables import validation

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
        show_error(brief(str(error)))
        raise typer.Exit(BAD_INPUT) from None

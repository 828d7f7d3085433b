"""`tokenworks calibrate blind`: does a profile tell shapes that it has not seen? Predicted first, then measured."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sim.cost.fits import ProfileError
from sim.saving import write_whole

if TYPE_CHECKING:
    from calibrate.blind import Measured

# ruff: noqa: PLC0415 (torch is optional: everything that needs it is imported once the command runs)


def blind(
    profile: Annotated[str, typer.Argument(help="Folder of a profile that was measured on this device.")],
    out: Annotated[Path, typer.Option(help="Folder of blind.json, which must not hold one yet.")],
    shapes: Annotated[int, typer.Option(min=1, help="How many, all tables in turns.")] = 40,
    minutes: Annotated[float, typer.Option(min=0.0, help="Time budget.")] = 2.0,
    model: Annotated[str, typer.Option(help="Catalog model whose shapes were measured.")] = "deepseek-v3.2",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: the errors.")] = False,
) -> None:
    """Predict shapes between those that were measured, write that down, measure them, and compare. Exit code 1 where
    the error exceeds its bars, which are told beside it."""
    console = Console(stderr=as_json)
    file = out / "blind.json"
    try:
        from calibrate.blind import bars, check, chosen_of, measure
        from calibrate.environment import find_device
        from calibrate.tables import known_as
        from sim import catalog
        from sim.cost.profile import load_profile

        if file.exists():
            raise ValueError(f"{file}: there already; what was predicted there stays")
        loaded, here = load_profile(profile), find_device(device)
        if known_as(here.name) != loaded.gpu:
            raise ValueError(f"{profile}: measured on {loaded.gpu}, and this is {known_as(here.name)}")
        chosen = chosen_of(loaded, catalog.model(model), here, shapes)
        if not chosen:
            raise ValueError(f"{profile}: encloses no shape between those of the plan")
        out.mkdir(parents=True, exist_ok=True)
        told: dict[str, Any] = {"predicted": [one.json() for one in chosen]}
        write_whole(file, json.dumps(told, indent=1) + "\n")
    except (ProfileError, LookupError, ValueError, ImportError, OSError) as error:
        _refuse(error)
    measured = measure(chosen, here, 60 * minutes)
    summary = check(measured)
    told["measured"] = [{**one.json(), "measured_us": us} for one, us in measured]
    write_whole(file, json.dumps(told | summary, indent=1) + "\n")
    _show(console, measured, summary, bars())
    console.print(
        f"{len(measured)} of {len(chosen)} shapes were measured: {file}", markup=False, soft_wrap=True
    )
    if as_json:
        print(json.dumps(summary))
    raise typer.Exit(0 if summary["ok"] else 1)


def _show(console: Console, measured: "Measured", summary: dict[str, Any], bars: Mapping[str, float]) -> None:
    table = Table("kernel", "shapes", "median", "largest", title="Blind shapes: |predicted / measured - 1|")
    found: dict[str, list[float]] = defaultdict(list)
    for one, us in measured:
        found[one.case.operation.kernel].append(abs(one.predicted_us / us - 1))
    for kernel, off in sorted(found.items()):
        table.add_row(kernel, str(len(off)), f"{median(off):.1%}", f"{max(off):.1%}")
    console.print(table)
    if measured:
        told = (f"{name} {summary[name]:.1%} ({bar:.0%} at most)" for name, bar in bars.items())
        console.print(f"All: {', '.join(told)}.")


def _refuse(error: Exception) -> NoReturn:
    Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2) from error

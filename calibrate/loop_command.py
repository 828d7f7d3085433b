"""`tokenworks calibrate loop`: measure this device, predict a service, serve it for real, compare."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sim.saving import write_whole
from sim.scenario.errors import brief

if TYPE_CHECKING:
    from calibrate.loop.closing import Closed

# ruff: noqa: PLC0415 (torch is optional: everything that needs it is imported once the command runs)

NOTED: Final = 0.05
"""Share of time that other programs had from which on it is said."""


def loop(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    requests: Annotated[
        int | None, typer.Option(min=2, help="Requests of each load, instead of 30 to 50.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Instead of five.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="After so many (4), effects are not told again. The repeats are all made."
        ),
    ] = None,
    wall: Annotated[
        bool, typer.Option("--wall", help="Count also the time that the core gave to other programs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of loop.json and loop.html, with timelines.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: all figures.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no tables.")] = False,
) -> None:
    """Close the loop: measured steps of a small engine, simulated, against the engine serving for real. Exit code 1
    where an error exceeds its band."""
    told_to = Console(stderr=True, quiet=quiet)
    try:
        import torch

        from calibrate.environment import describe, find_device
        from calibrate.loop.clock import Clock
        from calibrate.loop.closing import close
        from calibrate.loop.settings import settings
        from calibrate.show import wide_console

        found = find_device(device)
        if out:
            out.mkdir(parents=True, exist_ok=True)
    except (ValueError, ImportError, OSError) as error:
        _refuse(error)
    torch.set_num_threads(1)  # of a model this small more threads cost more than they save
    told = settings().with_counts(requests, repeats, minutes)
    clock = Clock(wall or found.kind != "cpu")
    closed = close(told, torch.device(found.kind), clock, lambda text: told_to.print(text, style="dim"))
    console = wide_console(stderr=as_json)
    console.quiet = quiet
    _show(console, closed, found.name)
    if found.kind == "cpu" and closed.elsewhere > NOTED:
        counted = "not counted" if clock.own else "counted"
        console.print(
            f"Other programs had the core for {closed.elsewhere:.0%} of the time, which is {counted}."
        )
    summary = {**closed.json(), "clock": "own" if clock.own else "wall", "environment": describe(found)}
    if out:
        from calibrate.loop.page import page

        write_whole(out / "loop.html", page(closed, found.name, list(told.loads)))
        write_whole(out / "loop.json", json.dumps(summary, indent=2) + "\n")
        console.print(f"Timelines: {out / 'loop.html'}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(summary))
    raise typer.Exit(0 if closed.ok else 1)


def _show(console: Console, closed: "Closed", device: str) -> None:
    table = Table(title=f"Predicted against served on {device}, one thread", title_justify="left")
    for column in ("load", "figure", "measured", "spread", "predicted", "error", "band", ""):
        table.add_column(column, justify="left" if column in ("load", "figure", "") else "right")
    for one in closed.cases:
        numbers = f"{one.measured:.4g}", f"{one.spread:.1%}", f"{one.predicted:.4g}"
        table.add_row(one.load, one.metric, *numbers, f"{one.error:+.1%}", f"{one.band:.1%}", _word(one.ok))
    console.print(table)
    effects = Table(title="Effects: with over without", title_justify="left")
    for column in ("of", "load", "figure", "measured", "spread", "predicted", ""):
        effects.add_column(column, justify="left" if column in ("of", "load", "figure", "") else "right")
    for two in closed.effects:
        ratios = f"x{two.measured:.2f}", f"{two.spread:.1%}", f"x{two.predicted:.2f}"
        effects.add_row(two.name, two.load, two.metric, *ratios, _word(two.ok))
    console.print(effects)


def _word(ok: bool | None) -> str:
    return "cannot be told" if ok is None else "ok" if ok else "[red]missed[/]"


def _refuse(error: Exception) -> NoReturn:
    Console(stderr=True).print(brief(str(error)), style="red", markup=False)
    raise typer.Exit(2) from error

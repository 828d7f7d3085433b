"""`tokenworks calibrate show`: what a profile's fits are worth, as a table and as plots."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calibrate.show import error_table, family_errors, plot_page
from sim.cost.profile import ProfileError, load_profile


def show(
    profile: Annotated[str, typer.Argument(help="Shipped name such as h200_sxm/vllm, or a profile's path.")],
    html: Annotated[
        Path | None, typer.Option(help="Also write plots of measured and fitted to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: errors by family.")] = False,
) -> None:
    """Print the held-out error of every table of a profile."""
    console = Console(stderr=as_json)
    try:
        found = load_profile(profile)
        console.print(error_table(found.name, found.fits))
        if html:
            html.write_text(plot_page(found), encoding="utf-8")
            console.print(f"Plots: {html}", markup=False, soft_wrap=True)
    except (ProfileError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps({"profile": found.name, "families": family_errors(found.fits)}))

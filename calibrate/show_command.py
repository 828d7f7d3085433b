"""`tokenworks calibrate show`: what a profile's fits are worth, as a table and as plots."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from calibrate import step_command
from calibrate.show import error_table, family_errors, overview, overview_table, plot_page, wide_console
from sim.catalog.profiles import models_of_their_own, profiles_of, shipped_profiles
from sim.cost.checked import checked_profile
from sim.cost.fits import ProfileError
from sim.cost.profile import Profile, load_profile
from sim.cost.whole_steps import whole_steps_of
from sim.saving import write_whole
from sim.scenario.errors import brief


def show(
    profile: Annotated[
        str | None,
        typer.Argument(help="Shipped name such as h200_sxm/vllm, or a profile's path. Default: all shipped."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write plots of measured and fitted to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: errors by family.")] = False,
) -> None:
    """Print the held-out error of every table of a profile, or of every family on every shipped GPU. V4's kernels (of
    b200_sxm/vllm/deepseek-v4-pro and the like) have tables of their own."""
    console = wide_console(stderr=as_json)
    try:
        told = _one(console, checked_profile(profile), html) if profile else _all(console, html)
    except (ProfileError, OSError, typer.BadParameter) as error:
        Console(stderr=True).print(brief(str(error)), style="red", markup=False)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(told))


def _one(console: Console, profile: Profile, html: Path | None) -> dict[str, Any]:
    if steps := whole_steps_of(profile):
        for table in step_command.tables(steps):
            console.print(table)
        return {"profile": profile.name, "steps": steps.json()}
    console.print(error_table(profile, profile.fits))
    if html:
        write_whole(html, plot_page(profile))
        console.print(f"Plots: {html}", markup=False, soft_wrap=True)
    return {"profile": profile.name, "families": family_errors(profile.fits.items())}


def _all(console: Console, html: Path | None) -> dict[str, Any]:
    if html:
        raise typer.BadParameter("--html plots one profile: name it")
    errors = _overview(shipped_profiles())
    console.print(overview_table(errors))
    models = {model: _overview(profiles_of(model)) for model in sorted(models_of_their_own())}
    for model, of_model in models.items():
        console.print(overview_table(of_model, model))
    return {"gpus": errors, "models": models}


def _overview(names: Iterable[str]) -> dict[str, dict[str, dict[str, float]]]:
    return overview([load_profile(name) for name in names])

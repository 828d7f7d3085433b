"""`tokenworks calibrate diff`: one's own profile against a shipped one, and what the difference does to a step."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from calibrate import diff as difference
from calibrate.show import wide_console
from sim.cost.checked import checked_profile
from sim.cost.fits import ProfileError
from sim.saving import write_whole
from sim.scenario.errors import DeploymentError, ScenarioError, brief
from sim.scenario.loading import load


def diff(
    own: Annotated[str, typer.Argument(help="A profile's path, or a shipped name such as h200_sxm/vllm.")],
    shipped: Annotated[str, typer.Argument(help="The profile to hold it against, likewise.")],
    scenario: Annotated[
        Path | None,
        typer.Option(help="Whose steps both price; default: V3.2 on eight of the second profile's GPUs."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --scenario: override a key of it."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write plots of the ratios to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: ratios and steps.")] = False,
) -> None:
    """Hold a profile against another: ratios by table and shape, and a step priced by each."""
    console = wide_console(stderr=as_json)
    if sets and scenario is None:
        raise typer.BadParameter("--set needs --scenario: it overrides a key of that")
    try:
        mine, other = checked_profile(own), checked_profile(shipped)
        compared = difference.compare(mine, other)
        loaded = load(scenario, sets or ()) if scenario else difference.step_scenario(other)
        with loaded.locating():
            effect = difference.step_effect(loaded, mine, other)
    except (ProfileError, ScenarioError, DeploymentError, OSError) as error:
        Console(stderr=True).print(brief(str(error)), style="red", markup=False)
        raise typer.Exit(2) from error
    console.print(difference.ratio_table(compared, mine, other))
    only = {"own": difference.alone(mine, other), "other": difference.alone(other, mine)}
    for name, profile in (("own", mine), ("other", other)):
        if only[name]:
            console.print(f"Only in {profile.name}: {', '.join(only[name])}", markup=False, soft_wrap=True)
    for one in (one for one in compared if one.beside):
        alone = mine if one.against.includes else other
        console.print(
            f"{one.table.key}: {alone.name} measured {', '.join(one.beside)} apart; it is added to compare.",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    console.print(difference.step_table(effect))
    if html:
        write_whole(html, difference.ratio_page(compared, mine, other))
        console.print(f"Plots: {html}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"tables": {c.table.key: _told(c) for c in compared}, "only": only, "step": effect}))


def _told(compared: difference.Compared) -> dict[str, Any]:
    shape, ratio = compared.farthest or ({}, None)
    quantiles = {
        name: compared.quantile(share) for name, share in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
    }
    common = {"shapes": len(compared.ratio), "common": len(compared.known)}
    return {
        "against": compared.against.key,
        **({"beside": list(compared.beside)} if compared.beside else {}),
        **common,
        **quantiles,
        "farthest": {"shape": shape, "ratio": ratio},
    }

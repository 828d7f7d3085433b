"""`tokenworks calibrate import`: foreign tables -> a profile."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from calibrate.importers import aiconfigurator, v4
from calibrate.importers.mending import LIST, Mending, write_list
from calibrate.importers.source import ENGINES, MissingTable
from calibrate.store import save_fits, save_profile, whole_profile
from sim.catalog import UnknownName, efficiency, gpu, model
from sim.cost.latency import AnalyticCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import MEASURED_MODEL, Profile, Table, read_profile
from sim.scenario.errors import brief


def import_tables(
    folder: Annotated[
        Path, typer.Option("--from", help="Folder with the aiconfigurator slices (*.parquet).")
    ],
    gpus: Annotated[
        list[str] | None, typer.Option("--gpu", help="Catalog name; repeatable. Default: every measured GPU.")
    ] = None,
    engines: Annotated[
        list[str] | None, typer.Option("--engine", help="sglang, trtllm or vllm; repeatable. Default: all.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="deepseek-v3.2 (V3's kernels too), deepseek-v4-flash or deepseek-v4-pro; repeatable. Default: all.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Profiles are written to OUT/GPU/ENGINE; V4's to its folder in there."),
    ] = Path("profiles"),
) -> None:
    """Read measured tables, leave out what is known to be wrong, and write fitted profiles."""
    console = Console(stderr=True)
    try:
        devices = [gpu(name).name for name in gpus or aiconfigurator.GPUS]
        chosen = engines or list(ENGINES)
        of = [model(name).name for name in models or (MEASURED_MODEL, *v4.MODELS)]
        for device, engine, name in itertools.product(devices, chosen, of):
            if name in v4.MODELS:
                _import_v4(console, folder, device, engine, name, out / device / engine / name)
            else:
                _import(console, folder, device, engine, out / device / engine)
    except (MissingTable, UnknownName, ValueError) as error:
        console.print(brief(str(error)), style="red", markup=False)
        raise typer.Exit(2) from error


def _import_v4(console: Console, folder: Path, device: str, engine: str, name: str, out: Path) -> None:
    """The blocks of these tables stand as they were timed; where an engine has none, nothing is written."""
    if tables := v4.read_tables(folder, device, engine, name):
        header = aiconfigurator.header(device, engine)
        header |= {"model": name, "attribution": {**header["attribution"], "changes": v4.CHANGES}}
        with whole_profile(out) as made:
            _fitted(made, header, tables, device)
        _show(console, out, tables)


def _show(console: Console, out: Path, tables: Sequence[Table]) -> None:
    shapes = sum(len(table.seconds) for table in tables)
    console.print(f"{out}: {len(tables)} tables, {shapes:,} shapes", markup=False)


def _fitted(folder: Path, header: dict[str, Any], tables: Sequence[Table], device: str) -> Profile:
    """The profile of some tables, written and fitted."""
    from calibrate.fit import fit_profile  # noqa: PLC0415 (scipy takes half a second to import)

    save_profile(folder, header, tables)
    save_fits(folder, fit_profile(read_profile(folder), gpu(device)))
    return read_profile(folder)


def _import(console: Console, folder: Path, device: str, engine: str, out: Path) -> None:
    from calibrate.fit import fit_again  # noqa: PLC0415 (scipy takes half a second to import)

    tables = aiconfigurator.read_tables(folder, device, engine)
    if not tables:
        raise ValueError(f"the tables hold no rows for {device} with {engine}")
    header: dict[str, Any] = aiconfigurator.header(device, engine)
    with whole_profile(out) as made:
        profile = _fitted(made, header, tables, device)
        fits = dict(profile.fits)
        cost = ProfileCost(profile, AnalyticCost(gpu(device), efficiency()), gpu(device))
        mended, found = Mending(folder, gpu(device), engine, cost).mended(tables)
        if found:
            changed = [table for table, before in zip(mended, tables, strict=True) if table is not before]
            fits |= {t.key: fit_again(fits[t.key], t, profile.dims, gpu(device)) for t in changed}
            save_profile(made, header, mended)
            save_fits(made, fits)
    _show(console, out, tables)
    write_list(out.parent.parent / LIST, device, engine, found)
    for finding in found:
        console.print(f"  {finding.table}: {finding.kind}, {finding.floor_us:g} us; {finding.instead}")

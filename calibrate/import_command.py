"""`tokenworks calibrate import`: foreign tables -> a profile."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from calibrate.importers import aiconfigurator
from calibrate.importers.source import MissingTable
from calibrate.store import save_fits, save_profile
from sim.catalog import UnknownName, gpu
from sim.cost.profile import read_profile


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
    out: Annotated[Path, typer.Option(help="Profiles are written to OUT/GPU/ENGINE.")] = Path("profiles"),
) -> None:
    """Read measured tables, leave out what is known to be wrong, and write fitted profiles."""
    console = Console(stderr=True)
    try:
        devices = [gpu(name).name for name in gpus or aiconfigurator.GPUS]
        chosen = engines or list(aiconfigurator.ENGINES)
        for device in devices:
            for engine in chosen:
                _import(console, folder, device, engine, out / device / engine)
    except (MissingTable, UnknownName, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error


def _import(console: Console, folder: Path, device: str, engine: str, out: Path) -> None:
    from calibrate.fit import fit_profile  # noqa: PLC0415 (scipy takes half a second to import)

    tables = aiconfigurator.read_tables(folder, device, engine)
    if not tables:
        raise ValueError(f"the tables hold no rows for {device} with {engine}")
    header: dict[str, Any] = aiconfigurator.header(device, engine)
    save_profile(out, header, tables)
    console.print(f"{out}: {len(tables)} tables, {sum(len(t.seconds) for t in tables):,} shapes; fitting")
    save_fits(out, fit_profile(read_profile(out), gpu(device)))

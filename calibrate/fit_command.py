"""`tokenworks calibrate fit`: a profile, or the records of `calibrate run`, -> fitted parameters and their error."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrate.coverage import lacks
from calibrate.coverage import read as read_coverage
from calibrate.one_device import environment_of
from calibrate.show import error_table, family_errors, wide_console
from calibrate.store import save_fits, save_profile, whole_profile
from calibrate.tables import NoRecords, device_ceilings, device_name, tables_from_records
from sim.catalog import gpu_names
from sim.catalog.profiles import HEADER
from sim.cost.checked import checked_work
from sim.cost.fits import Fit, ProfileError
from sim.cost.profile import Profile, device_gpu, read_profile
from sim.cost.record import CALIBRATION, BadRecord, read_records
from sim.scenario.errors import brief


def fit(
    source: Annotated[Path, typer.Argument(help="records.jsonl of `calibrate run`, or a profile's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the profile; default: beside the records.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that the records stand for.")] = "sglang",
    as_json: Annotated[bool, typer.Option("--json", help="Last line of stdout: errors by family.")] = False,
) -> None:
    """Fit every table, measure the error on left-out axis values, and write both beside the profile."""
    console = wide_console(stderr=True)
    try:
        if (source / HEADER).is_file() or source.name == HEADER:
            directory = source if source.is_dir() else source.parent
            profile, fits = _fitted(directory)
            save_fits(directory, fits)
        else:
            file = source / "records.jsonl" if source.is_dir() else source
            directory = out or file.parent / "profile"
            # Whole or not at all: a fit that fails leaves the earlier one.
            with whole_profile(directory) as folder:
                _profile_of(file, folder, engine)
                profile, fits = _fitted_of(file, folder)
                save_fits(folder, fits)
    except (ProfileError, BadRecord, NoRecords, OSError) as error:
        console.print(brief(str(error)), style="red", markup=False)
        raise typer.Exit(2) from error
    console.print(error_table(profile, fits))
    for key, found in sorted(fits.items()):
        if found.prior is not None:
            few = f"Few points: {key} is priced by {found.prior.words}."
            console.print(few, markup=False, soft_wrap=True)
    if lacking := profile.header.get("lacks"):
        console.print(
            f"The plan was cut short. Incomplete: {', '.join(lacking)}.", markup=False, soft_wrap=True
        )
    console.print(f"Profile: {directory / HEADER}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"profile": str(directory / HEADER), "families": family_errors(fits.items())}))


def _fitted(directory: Path) -> tuple[Profile, dict[str, Fit]]:
    """The profile of a folder, read into memory, and its fits. Raises ProfileError where they cannot be made."""
    from calibrate.fit import fit_profile  # noqa: PLC0415 (scipy takes half a second to import)
    from calibrate.prior import with_priors  # noqa: PLC0415 (likewise)

    profile = read_profile(directory, fitted=False)
    try:
        gpu = device_gpu(profile)
        for kernel in profile.kernels:
            for table in profile.tables(kernel):
                checked_work(profile, table)
        return profile, with_priors(profile, gpu, fit_profile(profile, gpu))
    except (ArithmeticError, ValueError, LookupError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(f"no fit can be made of these times ({error})") from error


def _fitted_of(file: Path, folder: Path) -> tuple[Profile, dict[str, Fit]]:
    """`_fitted` of a profile that was made of records. Raises BadRecord, as its folder is gone then."""
    try:
        return _fitted(folder)
    except ProfileError as error:
        told = str(error).replace(f"{folder}{os.sep}", "")
        raise BadRecord(f"{file}: no profile can be made of these records: {told}") from error


def _profile_of(file: Path, directory: Path, engine: str) -> None:
    """Write the profile of a file of records."""
    records = list(read_records(file))
    environment, device = environment_of(records), device_name(records)
    header: dict[str, Any] = {
        "gpu": device,
        "engine": engine,
        "attribution": {"source": CALIBRATION, "records": len(records)},
        "environment": dict(environment),
    }
    if name := header["environment"].get("model"):
        header["model"] = name
    coverage = read_coverage(file.parent)
    if lacking := lacks(coverage):
        header |= {"lacks": lacking, "coverage": {table: list(told) for table, told in coverage.items()}}
    if device not in gpu_names():
        header["device"] = {"name": device, **device_ceilings(records)}
    save_profile(directory, header, tables_from_records(records))

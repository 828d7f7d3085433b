"""Profiles that anybody may have written: everything that prices a run is checked before it does."""

import numpy as np

from sim.catalog import ConfigError, UnknownName
from sim.catalog.profiles import HEADER, is_shipped
from sim.cost.fits import FIT, ProfileError
from sim.cost.profile import MEASURED_MODEL, Profile, Table, device_gpu, load_profile, of_rows, prior_table
from sim.cost.sound import check_form, check_work
from sim.kernels import FAMILIES
from sim.kernels.family import Stage


def check_profile(profile: Profile) -> None:
    """Raises ProfileError where anything of a profile that prices a run is missing or cannot be."""
    device_gpu(profile)
    for table in (table for kernel in profile.kernels for table in profile.tables(kernel)):
        if table.fit is None:
            raise ProfileError(
                f"{profile.path / FIT}: no fit of {table.key}: run `tokenworks calibrate fit {profile.path}`"
            )
        stages = checked_work(profile, table)
        if len(table.fit.form.flop_per_s) != len(stages):
            raise ProfileError(
                f"{profile.path / FIT}: {table.key}: expected the rates of {len(stages)} stages"
            )
        if table.fit.prior and prior_table(table.fit.prior)[0].kernel != table.kernel:
            raise ProfileError(
                f"{profile.path / FIT}: {table.key}: prior: expected a table of {table.kernel}"
            )
        form_seconds = table.fit.form.seconds_each(stages, len(table.seconds))
        with of_rows(profile, table):
            check_form(form_seconds, table.columns, table.seconds)


def checked_profile(name: str) -> Profile:
    """`load_profile`, and `check_profile` of one that is not shipped."""
    profile = load_profile(name)
    if not is_shipped(name):
        check_profile(profile)
    return profile


def checked_work(profile: Profile, table: Table) -> list[Stage]:
    """The stages of a table's rows. Raises ProfileError, with the row, where no kernel can have such work."""
    try:
        dims = profile.dims
    except (UnknownName, ConfigError) as error:
        raise ProfileError(f"{profile.path / HEADER}: model: {error}") from error
    with of_rows(profile, table):
        try:
            with np.errstate(all="ignore"):
                stages = FAMILIES[table.kernel].work(table.shape, table.variant, dims)
            check_work(stages, table.columns, table.seconds)
        except (ArithmeticError, ValueError) as error:
            widths = f"counted by the widths of {profile.header.get('model', MEASURED_MODEL)}"
            raise ValueError(f"{error}, {widths}") from None
    return stages

"""Measured kernels: profiles, their fits, and records that users bring."""

import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import streamlit as st

from dashboard.data.problems import BadInput, harmless, said
from sim.catalog.profiles import models_of_their_own, profiles_of, shipped_profiles
from sim.cost.profile import Profile, Table, device_gpu, load_profile
from sim.cost.record import Record, read_records
from sim.kernels import FAMILIES
from sim.report import calibration
from sim.report.look import Chart

LARGEST_BYTES: Final = 8 * 1024 * 1024
"""Of a records file on a page: some 20,000 records."""
MOST_RECORDS: Final = 20_000


@st.cache_resource(show_spinner=False)
def profiles() -> list[str]:
    """Names of the shipped profiles, those of a model's own kernels last."""
    models = sorted(models_of_their_own())
    return [*shipped_profiles(), *(name for model in models for name in profiles_of(model))]


@said
def _profile(name: str) -> Profile:
    if name not in profiles():
        raise BadInput(f"no profile {name}")
    return load_profile(name)


@st.cache_resource(max_entries=32, show_spinner="Reading")
@said
def tables(name: str) -> Mapping[str, Table]:
    """The measured tables of a profile by their key."""
    profile = _profile(name)
    return {table.key: table for kernel in profile.kernels for table in profile.tables(kernel)}


@st.cache_resource(max_entries=64, show_spinner="Computing")
@said
def fit(name: str, key: str) -> tuple[Chart, Chart]:
    """The charts of one table: fitted form against measurement, and the roofline or the bandwidth reached."""
    profile, table = _profile(name), tables(name)[key]
    measured = calibration.points_table(table, profile)
    if FAMILIES[table.kernel].arithmetic:
        second = calibration.roofline_chart(measured, device_gpu(profile), table.variant.dtype)
    else:
        second = calibration.bandwidth_chart(measured)
    return calibration.fit_chart(measured), second


@st.cache_resource(max_entries=32, show_spinner="Computing")
@said
def held_out(name: str) -> Chart:
    """Held-out error of every table of a profile."""
    return calibration.held_out_chart(calibration.held_out_table(_profile(name)))


def about(name: str) -> dict[str, str]:
    """Where a profile comes from: source, licence, changes."""
    said_so = _profile(name).header.get("attribution", {})
    return {str(key): str(value) for key, value in said_so.items()}


@said
def compare(name: str, raw: bytes) -> Chart:
    """Uploaded records against a profile.

    Raises BadInput for what is too large, no text, or no records, with the line.
    """
    if len(raw) > LARGEST_BYTES:
        raise BadInput(f"larger than {LARGEST_BYTES // 2**20} MB")
    if b"\0" in raw:
        raise BadInput("a binary file; expected JSON lines, as `tokenworks calibrate run` writes them")
    records = _records(raw)
    if not records:
        raise BadInput("the file holds no record")
    compared = harmless(calibration.records_table(records, _profile(name)))
    return calibration.fit_chart(compared, calibration.PROFILE, uploaded=True)


def _records(raw: bytes) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.jsonl"
        file.write_bytes(raw)
        try:
            return list(itertools.islice(read_records(file), MOST_RECORDS))
        except ValueError as error:
            raise BadInput(str(error).replace(f"{file}:", "line ")) from None

"""The GPU of a scenario: one of the catalog, one in a file, or the device that its fitted profile describes."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sim import catalog
from sim.catalog import Gpu
from sim.catalog.profile_header import read_header
from sim.catalog.profiles import HEADER
from sim.scenario.gpu_file import is_gpu_file, read_gpu
from sim.scenario.schema import Scenario


def gpu_of(scenario: Scenario) -> Gpu:
    """The catalog's GPU of that name, the one of a file, or that in the header of the profile that the scenario names.

    Raises UnknownName, which names the profile's device beside the catalog's where there is one, and ScenarioError
    where the GPU's file is not one.
    """
    if is_gpu_file(scenario.gpu):
        return read_gpu(scenario.gpu)
    try:
        return catalog.gpu(scenario.gpu)
    except catalog.UnknownName as unknown:
        described = _described(scenario.profile) if scenario.profile else None
        if described is None:
            raise
        if described.name == scenario.gpu:
            return described
        raise catalog.UnknownName("gpu", scenario.gpu, (described.name, *unknown.nearest)) from unknown


@dataclass(frozen=True, slots=True)
class Measured:
    """What a profile was measured on, and with whose kernels."""

    gpu: str
    engine: str


def measured_by(profile: str) -> Measured | None:
    """The device and the engine of a profile: as its header says, or as a shipped name (`gpu/engine`) does.

    None where there is neither, as for `analytic`.
    """
    if header := _header(profile):
        return Measured(str(header.get("gpu")), str(header.get("engine")))
    gpu, slash, engine = profile.partition("/")
    return Measured(gpu, engine) if slash and gpu in catalog.gpu_names() else None


def _described(profile: str) -> Gpu | None:
    """The device in the header of a profile's folder; None where there is none to read."""
    header = _header(profile)
    if header is None or not isinstance(header.get("device"), dict):
        return None
    measured = {key: value for key, value in header["device"].items() if isinstance(value, float | int)}
    try:
        return catalog.described_gpu(str(header.get("gpu")), measured)
    except ValueError:
        return None  # likewise


@lru_cache(maxsize=8)
def _header(profile: str) -> dict[str, Any] | None:
    """The header in a profile's folder; None where there is none, or nothing that can be read as one."""
    folder = next((p for p in (Path(profile), Path(profile).parent) if (p / HEADER).is_file()), None)
    if folder is None:
        return None
    try:
        return read_header(folder)
    except (OSError, ValueError):
        return None  # whoever needs the tables says what is wrong with it


def has_header(profile: Path) -> bool:
    """Whether this is the folder of a profile, or a file in one."""
    return any((folder / HEADER).is_file() for folder in (profile, profile.parent))

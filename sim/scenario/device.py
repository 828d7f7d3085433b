"""The GPU of a scenario: one of the catalog, or the device that its fitted profile describes."""

from functools import lru_cache
from pathlib import Path

import yaml

from sim import catalog
from sim.catalog import Gpu
from sim.scenario.schema import Scenario

HEADER = "profile.yaml"


def gpu_of(scenario: Scenario) -> Gpu:
    """The catalog's GPU of that name, or the one in the header of the profile that the scenario names.

    Raises UnknownName, which names the profile's device beside the catalog's where there is one.
    """
    try:
        return catalog.gpu(scenario.gpu)
    except catalog.UnknownName as unknown:
        described = _described(scenario.profile) if scenario.profile else None
        if described is None:
            raise
        if described.name == scenario.gpu:
            return described
        raise catalog.UnknownName("gpu", scenario.gpu, (described.name, *unknown.nearest)) from unknown


@lru_cache(maxsize=8)
def _described(profile: str) -> Gpu | None:
    """The device in the header of a profile's folder; None where there is none to read."""
    path = next((p / HEADER for p in (Path(profile), Path(profile).parent) if (p / HEADER).is_file()), None)
    if path is None:
        return None
    header = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(header, dict) or not isinstance(header.get("device"), dict):
        return None
    measured = {key: value for key, value in header["device"].items() if isinstance(value, float | int)}
    return catalog.described_gpu(str(header.get("gpu")), measured)


def has_header(profile: Path) -> bool:
    """Whether this is the folder of a profile, or a file in one."""
    return any((folder / HEADER).is_file() for folder in (profile, profile.parent))

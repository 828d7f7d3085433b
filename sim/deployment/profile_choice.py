"""Whose measurements price a scenario: those of its own GPU, or, where it says so, of another device."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from sim import catalog
from sim.catalog.profiles import is_shipped
from sim.deployment.device import gpu_of, has_header, measured_by
from sim.scenario.errors import Problem
from sim.scenario.schema import Scenario

ANALYTIC: Final = "analytic"
"""The profile that is none: everything is priced by the roofline."""


def profile_of(scenario: Scenario) -> str | None:
    """The profile that prices the scenario: as given, or the shipped one of its GPU (the nearest measured) and engine.

    None where there is none, or the scenario asks for `analytic`. DeepSeek's own engine takes SGLang's, whose
    kernels (FlashMLA, DeepGEMM, DeepEP) are DeepSeek's.
    """
    if scenario.profile is not None:
        return None if scenario.profile == ANALYTIC else scenario.profile
    name = f"{gpu_of(scenario).nearest_measured}/{_kernels(scenario)}"
    return name if is_shipped(name) else None


def profile_problems(scenario: Scenario, profiles: Collection[str] | None = None) -> Iterator[Problem]:
    """A profile that does not exist, or that of another device which the scenario does not allow.

    `profiles`: shipped names (None: whether the name exists is not checked). The scenario's GPU must be known.
    """
    name = scenario.profile
    if name is None or name == ANALYTIC:
        return
    if profiles is not None and name not in profiles and not has_header(Path(name)):
        known = (*profiles, ANALYTIC)
        yield Problem(
            ("profile",), str(catalog.UnknownName("profile", name, catalog.nearest_names(name, known)))
        )
    elif (device := _foreign(scenario)) and not scenario.allow_foreign_profile:
        gpu = gpu_of(scenario)
        own = [p for p in profiles or () if p.split("/")[0] == gpu.nearest_measured]
        expected = ", ".join(own) or "none (leave `profile` out)"
        yield Problem(
            ("profile",),
            f"measured on {device}, but gpu is {gpu.name}; profiles of {gpu.name}: {expected}; to scale "
            f"{device}'s measurements all the same: allow_foreign_profile: true",
        )


def profile_notes(scenario: Scenario) -> Iterator[str]:
    """Says so where another device's or another engine's profile was asked for."""
    if scenario.profile is None or (measured := measured_by(scenario.profile)) is None:
        return
    gpu = gpu_of(scenario).name
    if device := _foreign(scenario):
        yield (
            f"priced by a profile of another device, {device}, scaled to {gpu} by datasheet; nobody measured how far "
            "off that is"
        )
    if measured.engine != _kernels(scenario):
        yield f"priced by the kernels of {measured.engine}, scheduled as {scenario.engine}"


def _kernels(scenario: Scenario) -> str:
    """The engine whose kernels the scenario's engine runs."""
    return "sglang" if scenario.engine == "deepseek" else scenario.engine


def _foreign(scenario: Scenario) -> str | None:
    """The device that the scenario's profile was measured on, where it is not the scenario's (or the one that its
    kernels are scaled from by design, as those of H800 and H20 are)."""
    measured = measured_by(scenario.profile) if scenario.profile else None
    gpu = gpu_of(scenario)
    return measured.gpu if measured and measured.gpu not in (gpu.name, gpu.nearest_measured) else None

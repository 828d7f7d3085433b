"""Which cost model prices a GPU and an engine: a named profile, the shipped one, a scaled one, or the roofline."""

from typing import Final

from sim.catalog import Gpu
from sim.cost.latency import CostModel
from sim.cost.measured import ProfileCost
from sim.cost.profile import load_profile, shipped_profiles

ANALYTIC: Final = "analytic"
SAME_KERNELS: Final = {"deepseek": "sglang"}
"""Engines without tables of their own -> the engine whose profile they take."""


def profile_name(priced: Gpu, engine: str) -> str:
    """The shipped profile for a GPU and engine: its own, or the nearest measured GPU's; `analytic` without one."""
    tables = SAME_KERNELS.get(engine, engine)
    for device in (priced.name, priced.nearest_measured):
        if f"{device}/{tables}" in shipped_profiles():
            return f"{device}/{tables}"
    return ANALYTIC


def profile_cost(priced: Gpu, engine: str, fallback: CostModel, profile: str | None = None) -> CostModel:
    """The cost model for a GPU and engine.

    profile: a shipped name, the path of a fitted profile, `analytic`, or None for the default. A profile of
    another GPU is scaled to this one.

    Raises:
        ProfileError: there is no such profile.
    """
    name = profile or profile_name(priced, engine)
    if name == ANALYTIC:
        return fallback
    return ProfileCost(load_profile(name), fallback, priced)

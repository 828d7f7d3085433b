"""The measured profiles that come with the package, by name; `sim.cost.profile` reads them."""

from functools import cache
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parents[1] / "cost" / "profiles"
HEADER: Final = "profile.yaml"
"""The file of a profile's folder that says what was measured."""


@cache
def shipped_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with the package, such as `h200_sxm/vllm`."""
    return tuple(sorted(p.parent.relative_to(SHIPPED).as_posix() for p in SHIPPED.glob(f"*/*/{HEADER}")))


@cache
def models_of_their_own() -> frozenset[str]:
    """Models whose kernels have profiles of their own, in a folder of their name in the engine's."""
    return frozenset(p.parent.name for p in SHIPPED.glob(f"*/*/*/{HEADER}"))


def profiles_of(model: str) -> tuple[str, ...]:
    """Names of the profiles of such a model, such as `h200_sxm/vllm/deepseek-v4-pro`."""
    return tuple(
        sorted(p.parent.relative_to(SHIPPED).as_posix() for p in SHIPPED.glob(f"*/*/{model}/{HEADER}"))
    )


def is_shipped(name: str) -> bool:
    """Whether a profile of that name comes with the package; a path names one of somebody's own."""
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    return inside and (SHIPPED / name / HEADER).is_file()

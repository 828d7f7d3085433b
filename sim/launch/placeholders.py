"""What no launch command says, so that a scenario is whole: requests, price, GPU. All of it is named as such."""

from collections.abc import Mapping
from typing import Any, Final

from sim import catalog
from sim.catalog import Gpu
from sim.launch.command import Command
from sim.launch.derived import Noted
from sim.scenario.errors import KeyPath, Place

PLACEHOLDER: Final = "PLACEHOLDER: a launch command does not say it"
GPU: Final = "h200_sxm"
IN_FLIGHT: Final = 64
ROUNDS: Final = 10
"""Requests for each that is in flight."""
INPUT: Final = (800, 1000)
OUTPUT: Final = (160, 200)
LONGEST: Final = INPUT[1] + OUTPUT[1]
TIER: Final = "rent_3yr"
USD_PER_GPU_HOUR: Final = 1.0
"""Where the catalog has no price of the GPU."""


def placeholders(gpu: Gpu, room: int | None, place: Place) -> dict[KeyPath, Noted]:
    """A small closed loop whose requests have at most `room` tokens, and the usual price of the GPU."""
    values: dict[KeyPath, Any] = {
        ("workload", "arrivals", "closed_loop", "concurrency"): IN_FLIGHT,
        **_lengths(room or LONGEST),
        ("workload", "requests"): IN_FLIGHT * ROUNDS,
    }
    tiers = catalog.price_tiers(gpu.name)
    if tiers:
        values[("price", "tier")] = TIER if TIER in tiers else next(iter(tiers))
    else:
        values[("price", "usd_per_gpu_hour")] = USD_PER_GPU_HOUR
    return {path: Noted(value, PLACEHOLDER, place) for path, value in values.items()}


def _lengths(room: int) -> dict[KeyPath, Any]:
    """Prompts and answers in the same ratio, both smaller where there is no room."""
    return {
        ("workload", "lengths", side, "uniform"): [max(1, min(n, n * room // LONGEST)) for n in bounds]
        for side, bounds in (("input", INPUT), ("output", OUTPUT))
    }


def shorter(keys: Mapping[KeyPath, Noted], room: int) -> dict[KeyPath, Noted]:
    """The keys with lengths that fit `room` tokens."""
    place = keys[("model",)].place
    return {**keys, **{path: Noted(value, PLACEHOLDER, place) for path, value in _lengths(room).items()}}


def longest_request(command: Command) -> int | None:
    """The longest request that the command allows, tokens; None where it says nothing that can be read."""
    asked = command.value("context")
    text = str(asked).lower()
    scale = {"k": 1024}.get(text[-1:], 1)
    digits = text.rstrip("k")
    return int(digits) * scale if asked is not None and digits.isdigit() else None

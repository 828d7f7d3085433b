"""What the loop serves, as `loop.yaml` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True)
class Load:
    """Requests, and how fast they come."""

    rate: float
    """Over what the device serves when all requests come at once."""
    requests: int


@dataclass(frozen=True)
class Calibration:
    """Batches whose steps are measured."""

    sequences: Sequence[int]
    prompts: Sequence[int]
    """Tokens."""
    late: Sequence[int]
    """Tokens of the prompt that comes while the others decode, by those of the others."""
    answer: int


@dataclass(frozen=True)
class Settings:
    """Model, engine, service and bounds."""

    model: Mapping[str, Any]
    engine: Mapping[str, int]
    workload: Mapping[str, Sequence[int]]
    loads: Mapping[str, Load]
    repeats: int
    minutes: float
    """On the wall, after which effects are not told again; at least once."""
    pooled: int
    """Calibrations that count in a prediction, the last ones."""
    calibration: Calibration
    effect_repeats: int
    """In how many repeats the effects are told at most, the first ones."""
    effects: Mapping[str, Sequence[str]]
    """Load -> figures on which the effects of mechanisms are told."""
    bounds: Mapping[str, float]

    def with_counts(
        self, requests: int | None, repeats: int | None, minutes: float | None = None
    ) -> "Settings":
        """The same with so many requests of each load, repeats and minutes; None: as they are."""
        loads = {name: replace(load, requests=requests or load.requests) for name, load in self.loads.items()}
        return replace(self, loads=loads, repeats=repeats or self.repeats, minutes=minutes or self.minutes)


def settings() -> Settings:
    """Those of `loop.yaml`."""
    told = yaml.safe_load(resources.files(__package__).joinpath("loop.yaml").read_text(encoding="utf-8"))
    told["calibration"] = Calibration(**told["calibration"])
    loads = {name: Load(**load) for name, load in told.pop("loads").items()}
    return Settings(**told, loads=loads)

"""Calibrate, predict, serve, again and again: every prediction is made before the service that it is held against.

Each repeat measures the steps anew, right before it serves: a device is not as fast in one minute as in the next.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from calibrate.loop import prediction
from calibrate.loop.clock import Clock
from calibrate.loop.judgement import Case, Effect, case, effect, spread
from calibrate.loop.served import METRICS, Served
from calibrate.loop.service import BASE, DENSE, DRAFTING, Calibrated, Service
from calibrate.loop.settings import Settings
from sim.scenario.schema import Scenario

Repeat = tuple[Served, Served]
"""(predicted, measured)"""
Repeats = Mapping[tuple[str, str], Sequence[Repeat]]
"""(`AS_IS` or an effect, load) -> the repeats."""
AS_IS: Final = "as is"
"""With DSA, without drafts."""
DSA, WRONG, RIGHT = "DSA", "MTP, drafts wrong", "MTP, drafts right"
"""Mechanisms; random weights draft nothing right, so drafts are also told to be (see `Agreeing`)."""


@dataclass(frozen=True)
class Closed:
    """What came of it."""

    cases: list[Case]
    effects: list[Effect]
    repeats: Repeats
    rates: Mapping[str, float]
    """Requests per second of each load."""
    elsewhere: float
    """See `Clock`."""

    @property
    def ok(self) -> bool:
        """Whether every error lies in its band and no effect has the wrong direction."""
        return all(one.ok for one in self.cases) and all(one.ok is not False for one in self.effects)

    def json(self) -> dict[str, Any]:
        """As documented."""
        return {
            "cases": [one.json() for one in self.cases],
            "effects": [one.json() for one in self.effects],
            "ok": self.ok,
            "requests_per_s": dict(self.rates),
            "elsewhere": self.elsewhere,
            "repeats": [
                {"of": name, "load": load, "predicted": predicted.figures(), "measured": measured.figures()}
                for (name, load), repeats in self.repeats.items()
                for predicted, measured in repeats
            ],
        }


def close(told: Settings, device: torch.device, clock: Clock, say: Callable[[str], None]) -> Closed:
    """Close the loop on a device; `say` is told what is going on."""
    begin_s = time.perf_counter()
    say("Warming up, and seeing how fast the device serves.")
    base, dense, drafting = (Service(variant, told, device, clock) for variant in (BASE, DENSE, DRAFTING))
    for service in (drafting, dense, base):
        service.warm_up()
    capacity_per_s = prediction.capacity_per_s(told, base.calibrate()[0])
    asked = {name: prediction.at_rate(told, load, capacity_per_s) for name, load in told.loads.items()}
    others = ((DSA, dense, False), (WRONG, drafting, False), (RIGHT, drafting, True))
    repeats: dict[tuple[str, str], list[Repeat]] = defaultdict(list)
    for number in range(told.repeats):
        say(f"Repeat {number + 1} of {told.repeats}.")
        for load, scenario in asked.items():
            repeats[AS_IS, load].append(_repeat(told, base, base.calibrate(), scenario))
        late = time.perf_counter() - begin_s > told.minutes * 60
        if number >= told.effect_repeats or (number and late):
            continue
        calibrated = {id(service): service.calibrate() for service in (dense, drafting)}
        for name, service, agrees in others:
            for load in told.effects:
                repeats[name, load].append(
                    _repeat(told, service, calibrated[id(service)], asked[load], agrees)
                )
    return Closed(
        cases=[_case(told, repeats, load, metric) for load in told.loads for metric in METRICS],
        effects=[
            _effect(repeats, name, load, metric)
            for name, *_ in others
            for load, metrics in told.effects.items()
            for metric in metrics
        ],
        repeats=repeats,
        rates={name: load.rate * capacity_per_s for name, load in told.loads.items()},
        elsewhere=clock.elsewhere,
    )


def _repeat(
    told: Settings, service: Service, calibrated: Calibrated, asked: Scenario, agrees: bool = False
) -> Repeat:
    """Predict, then serve. `agrees`: every draft is right; otherwise as many as the calibration saw."""
    cost, acceptance = calibrated
    predicted = prediction.predict(told, asked, cost, [1.0] * len(acceptance) if agrees else acceptance)
    return predicted, service.serve(prediction.stream_of(asked), agrees)


def _values(repeats: Repeats, name: str, load: str, metric: str) -> tuple[list[float], list[float]]:
    """Predicted and measured ones."""
    sides = zip(*repeats[name, load], strict=True)
    predicted, measured = ([one.figures()[metric] for one in side] for side in sides)
    return predicted, measured


def _case(told: Settings, repeats: Repeats, load: str, metric: str) -> Case:
    predicted, measured = _values(repeats, AS_IS, load, metric)
    return case(load, metric, measured, predicted, told.bounds[metric])


def _effect(repeats: Repeats, name: str, load: str, metric: str) -> Effect:
    """With over without, in each of the first repeats that told it: what is served as it is has DSA, and no MTP."""
    with_it, without = (name, AS_IS) if name != DSA else (AS_IS, name)
    pairs = zip(_values(repeats, with_it, load, metric), _values(repeats, without, load, metric), strict=True)
    predicted, measured = ([a / b for a, b in zip(*pair, strict=False)] for pair in pairs)
    return effect(name, load, metric, measured, predicted, spread(_values(repeats, AS_IS, load, metric)[1]))

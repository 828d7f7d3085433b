"""Timed steps -> the factors of whole steps.

Non-negative least squares on relative errors, of the median step of each load. Which parts have a factor at all is
chosen one by one: each that lets loads that were left out be predicted clearly better. Steps of two depths are fitted
together, a part's factor being that of the step plus that of a layer times the layers behind the dense ones: the
difference between the depths is a layer, and all that does not grow with them the step's own. So the model's own depth
follows.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from calibrate.step.timed import NoSteps, TimedStep
from sim.catalog import Model
from sim.cost.whole_steps import PARTS, PHASES, PhaseFit, attention_of, rest_of
from sim.model.layout import Phase

Floats = NDArray[np.float64]

FOLDS: Final = 10
"""Of loads that are left out together, at most."""
LEAST: Final = 3
"""Loads from which each can be predicted from the others."""
BASE: Final = ("step", "tokens", "keys")
"""Parts that any fit has."""
EXACT: Final = 1e-3
"""Mean error of left-out loads below which nothing is left to explain."""
CLEARLY: Final = 0.9
"""Of the error of left-out loads without a part, with which it is taken."""
ROUNDED: Final = 2
"""Significant digits of contexts, pairs and held tokens that tell loads apart: they grow with every step."""


def typical(steps: Sequence[TimedStep]) -> list[TimedStep]:
    """A step per load, with the median time, contexts and kernels of those that there are."""
    groups: dict[tuple[float, ...], list[TimedStep]] = defaultdict(list)
    for step in steps:
        groups[
            tuple(
                float(f"{each:.{ROUNDED}g}") if i in (2, 4, 5) else each for i, each in enumerate(step.load)
            )
        ] += [step]
    return [_median(found) for _, found in sorted(groups.items())]


def _median(steps: Sequence[TimedStep]) -> TimedStep:
    def middle(told: Callable[[TimedStep], float]) -> float:
        return float(np.median([told(step) for step in steps]))

    names = sorted({name for step in steps for name in step.families})
    families = {name: middle(lambda step, name=name: step.families.get(name, 0.0)) for name in names}  # type: ignore[misc]
    return replace(
        steps[0],
        seconds=middle(lambda step: step.seconds),
        context=middle(lambda step: step.context),
        pairs=middle(lambda step: step.pairs),
        held=middle(lambda step: step.held),
        families=families,
    )


def fit_steps(
    steps: Sequence[TimedStep], model: Model, ranks: int, tokens_per_sequence: int, layers: int
) -> dict[Phase, PhaseFit]:
    """Factors of each phase that there are steps of; decode first, as prompts run beside decoding sequences.

    `layers`: that they are to be for. Where the steps' own are of two depths, each must exceed the dense layers.
    Raises NoSteps where a phase has steps of one depth alone, and that is another one.
    """
    fits: dict[Phase, PhaseFit] = {}
    for phase in reversed(PHASES):
        mine = [step for step in steps if step.phase == phase]
        decode = fits.get("decode")
        if phase == "prefill":
            mine = [step for step in mine if decode or not step.sequences]
        if mine:
            fits[phase] = _Phase(phase, model, ranks, tokens_per_sequence, layers, decode).fit(mine)
    return fits


class _Phase:
    """The fit of one phase."""

    def __init__(
        self, phase: Phase, model: Model, ranks: int, per_sequence: int, layers: int, decode: PhaseFit | None
    ) -> None:
        self._phase, self._model, self._ranks, self._per_sequence = phase, model, ranks, per_sequence
        self._layers, self._decode = layers, decode

    def fit(self, steps: Sequence[TimedStep]) -> PhaseFit:
        """Factors, and the error of each load from the others."""
        loads = typical([self._without_decode(step) for step in steps])
        depths = {step.layers for step in loads}
        deep = len(depths) > 1
        if not deep and depths != {self._layers}:
            raise NoSteps(
                f"{self._phase} steps of {loads[0].layers} layers alone: expected some of another depth too"
            )
        own = np.array([[self._amounts(step)[part] for part in PARTS] for step in loads])
        depth = np.array([[step.layers - self._model.dense_layers] for step in loads])
        seconds = np.array([step.seconds for step in loads])
        chosen = _chosen(own, depth if deep else None, seconds)
        rows = _rows(own, depth if deep else None, chosen)
        factors = _solve(rows, seconds)
        if deep:
            here, more = np.split(factors, 2)
            factors = here + more * (self._layers - self._model.dense_layers)
        tokens = [self._tokens(step) for step in loads]
        contexts = [self._context(step) for step in loads]
        return PhaseFit(
            dict(zip((PARTS[i] for i in chosen), factors.tolist(), strict=True)),
            (float(min(tokens)), float(max(tokens))),
            (float(min(contexts)), float(max(contexts))),
            len(steps),
            len(loads),
            _summary(_errors(rows, seconds)),
        )

    def _tokens(self, step: TimedStep) -> int:
        return step.tokens + step.sequences * self._per_sequence

    def _context(self, step: TimedStep) -> float:
        return step.context if self._phase == "decode" else step.pairs / step.tokens

    def _amounts(self, step: TimedStep) -> Mapping[str, float]:
        tokens = self._tokens(step)
        mine = tokens if self._phase == "decode" else step.tokens
        attention = attention_of(self._model, mine, self._context(step), step.held)
        return {**rest_of(self._model, tokens, self._ranks), **attention}

    def _without_decode(self, step: TimedStep) -> TimedStep:
        """A step with prompts without the attention of sequences that decode in it, as a simulated step has it."""
        if self._phase == "decode" or not step.sequences or self._decode is None:
            return step
        tokens = step.sequences * self._per_sequence
        attention_s = self._decode.of(attention_of(self._model, tokens, step.context, 0.0))
        return replace(step, seconds=max(step.seconds - attention_s, 0.1 * step.seconds), context=0.0)


def _solve(rows: Floats, seconds: Floats) -> Floats:
    """Factors, none negative, whose relative errors are the least in all."""
    scaled = rows / seconds[:, None]
    size = np.maximum(np.abs(scaled).max(axis=0), np.finfo(float).tiny)
    factors, _ = nnls(scaled / size, np.ones(len(seconds)))
    return np.asarray(factors / size)


def _rows(own: Floats, depth: Floats | None, chosen: Sequence[int]) -> Floats:
    """Columns of the chosen parts; with `depth` once for the step and once for its layers."""
    mine = own[:, list(chosen)]
    return mine if depth is None else np.hstack([mine, mine * depth])


def _chosen(own: Floats, depth: Floats | None, seconds: Floats) -> list[int]:
    """Places of the parts that a fit has, in the order of PARTS."""
    chosen = [PARTS.index(part) for part in BASE]
    left = [i for i in range(len(PARTS)) if i not in chosen and own[:, i].any()]
    room = len(own) // (1 if depth is None else 2)  # more factors than loads could be anything
    error = _errors(_rows(own, depth, chosen), seconds).mean() if len(own) >= LEAST else 0.0
    while left and error > EXACT and len(chosen) + 1 < room:
        tried = {i: _errors(_rows(own, depth, [*chosen, i]), seconds).mean() for i in left}
        best = min(tried, key=lambda i: tried[i])
        if tried[best] > CLEARLY * error:
            break
        error = tried[best]
        chosen.append(best)
        left.remove(best)
    return sorted(chosen)


def _errors(rows: Floats, seconds: Floats) -> Floats:
    """|predicted / measured - 1| of each load, from the others; in at most FOLDS lots. Empty where they are too few."""
    if len(rows) < LEAST:
        return np.empty(0)
    lots, errors = np.arange(len(rows)) % min(FOLDS, len(rows)), np.empty(len(rows))
    for lot in range(lots.max() + 1):
        out = lots == lot
        errors[out] = np.abs(rows[out] @ _solve(rows[~out], seconds[~out]) / seconds[out] - 1)
    return errors


def _summary(errors: Floats) -> dict[str, float]:
    if not len(errors):
        return {}
    return {"median": float(np.median(errors)), "p90": float(np.quantile(errors, 0.9))}


def families_of(steps: Sequence[TimedStep]) -> dict[Phase, dict[str, float]]:
    """Seconds of a step's kernels by family, the mean over each phase's loads at the greatest depth; largest first."""
    found: dict[Phase, dict[str, float]] = {}
    deepest = max(step.layers for step in steps)
    for phase in PHASES:
        mine = [s for s in typical(steps) if s.phase == phase and s.families and s.layers == deepest]
        names = {name for step in mine for name in step.families}
        mean = {name: sum(step.families.get(name, 0.0) for step in mine) / len(mine) for name in names}
        if mean:
            found[phase] = dict(sorted(mean.items(), key=lambda item: (-item[1], item[0])))
    return found

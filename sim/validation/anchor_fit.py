"""The factors of an anchor from simulated and measured figures of its points.

    TPOT(x, y, c) = T + J_x x + J_y y + J_c c          T, F and the slopes by four simulations of each point
    TTFT(y, a) = F + K_y y + a                         F with steps that take x, y and c of TPOT alone
    x, y, c, a minimise  sum ((TPOT - M) / (scatter M))^2 + ... + (x / width_x)^2 + (y / width_y)^2 + ...

M is what was measured, 1 + x the factor and c the constant of a step, 1 + y what steps with prompts take on top, a the
fixed part of TTFT. A few short answers follow no line: while a point is off by more than its scatter, or than without
an anchor, T and F are simulated again with what was found, a few times, and the factors with the least sum stay.
One point cannot tell them all apart: the widths (`anchors.yaml`) share its difference out, and keep a point that
contradicts others from having it all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

FILE: Final = Path(__file__).with_name("anchors.yaml")

Figures = Mapping[str, float]
"""TPOT and TTFT in seconds, throughput in tokens/s and GPU, by `METRICS`."""
METRICS: Final = ("tpot", "ttft", "throughput")
LATENCIES: Final = ("tpot", "ttft")
"""What an anchor is fitted to."""
SIMULATED: Final = ("step_factor", "prompt_factor", "step_constant_s")
"""Of `FACTORS` those whose slopes are simulated."""
FACTORS: Final = (*SIMULATED, "ttft_added_s")
"""x, y, c and a of the docstring."""
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "step_factor": ("tpot",), "prompt_factor": ("tpot", "ttft"), "step_constant_s": ("tpot",), "ttft_added_s": ("ttft",)
}  # fmt: skip
"""Factor -> the latencies without which it is not told: steps with prompts are in both."""
LEAST: Final = 0.05
"""No factor is smaller."""


@dataclass(frozen=True, slots=True)
class Factors:
    """What an anchor changes; nothing, unless said."""

    step_factor: float = 1.0
    step_constant_s: float = 0.0
    ttft_added_s: float = 0.0
    prompt_factor: float = 1.0


Simulate = Callable[[Sequence[tuple[int, Factors]]], Sequence[Figures]]
"""Points with the factors that each is simulated with -> their figures."""


@cache
def rules() -> Mapping[str, Mapping[str, float]]:
    """`anchors.yaml`, the values."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {part: {name: fact["value"] for name, fact in facts.items()} for part, facts in content.items()}


@dataclass
class AnchorFit:
    """The factors of some of the points."""

    kept: tuple[int, ...]
    """The points that they are made from."""
    made: Factors = Factors()
    found: Mapping[int, Figures] = field(default_factory=dict)
    """The figures of these points with `made`."""
    least: float = float("inf")
    tried: Factors | None = None
    """What is simulated next; None: nothing more."""


class Lines:
    """TPOT and TTFT as lines over what an anchor changes, at every point.

    fixed_s: the engine's own fixed part of TTFT, seconds; shared: whether one pool does prompts and answers.
    """

    def __init__(self, measured: Sequence[Figures], simulate: Simulate, fixed_s: float, shared: bool) -> None:
        self._measured, self._simulate, self._fixed_s = measured, simulate, fixed_s
        width, self._scatter, self._step = rules()["width"], rules()["scatter"], rules()["difference"]
        self._widths = np.array([width[name] for name in FACTORS])
        points = range(len(measured))
        self.base = simulate([(i, Factors()) for i in points])
        self._times = [
            rules()["queued"]["scatter_times"] if shared and _queued(told, base) else 1.0
            for told, base in zip(measured, self.base, strict=True)
        ]
        changed = [
            simulate([(i, _factors(at)) for i in points])
            for at in np.diag([self._step[name] for name in SIMULATED] + [0.0])[:-1]
        ]
        self._slopes = [
            {name: self._slope(name, base, each) for name in LATENCIES if name in base}
            for base, *each in zip(self.base, *changed, strict=True)
        ]

    def fitted(self, sets: Iterable[Sequence[int]], parts: Sequence[str] = LATENCIES) -> list[AnchorFit]:
        """The factors of every set of points, whose rounds are simulated together. `parts`: latencies; a
        factor that needs another one does not change."""
        fits = [AnchorFit(tuple(kept)) for kept in sets]
        for fit in fits:
            base = {i: self.base[i] for i in fit.kept}
            fit.found, fit.least = base, self._off(base, Factors())
            fit.tried = self._solved(base, Factors(), parts, ("tpot",))
        for fit, found in self._round(fits):  # what TTFT tells, of steps that are right already
            assert fit.tried is not None
            fit.tried = self._solved(found, fit.tried, parts)
        for _ in range(int(self._step["rounds"])):
            for fit, found in self._round(fits):
                assert fit.tried is not None
                if (off := self._off(found, fit.tried)) < fit.least:
                    fit.made, fit.found, fit.least = fit.tried, found, off
                fit.tried = None if self._explained(found) else self._solved(found, fit.tried, parts)
        return fits

    def _round(self, fits: Sequence[AnchorFit]) -> list[tuple[AnchorFit, dict[int, Figures]]]:
        """The sets that are not done, with the figures of what they try."""
        open_fits = [(fit, fit.tried) for fit in fits if fit.tried is not None]
        figures = iter(self._simulate([(i, tried) for fit, tried in open_fits for i in fit.kept]))
        return [(fit, {i: next(figures) for i in fit.kept}) for fit, _ in open_fits]

    def _slope(self, name: str, base: Figures, changed: Sequence[Figures]) -> Any:
        """Of a latency of a point, over `FACTORS`."""
        slopes = [
            (one[name] - base[name]) / self._step[by] for by, one in zip(SIMULATED, changed, strict=True)
        ]
        # What steps take in TTFT is simulated, not solved for: queues and answers beside it would tell their factor.
        return np.array([*slopes, 0.0] if name == "tpot" else [0.0, slopes[1], 0.0, 1.0])

    def _solved(
        self,
        found: Mapping[int, Figures],
        used: Factors,
        parts: Sequence[str],
        names: Sequence[str] = LATENCIES,
    ) -> Factors:
        """The factors of the least sum, going on from the figures `found` with those that were used. TTFT never loses
        more than the engine's own fixed part."""
        at = _as_array(used)
        free = [i for i, name in enumerate(FACTORS) if set(NEEDED[name]) <= set(parts)]
        rows, target = [*np.diag(1 / self._widths)], [0.0] * len(at)
        for i, here in found.items():
            told = self._measured[i]
            for name in names:
                if name in told and name in here:
                    slope, weight = self._slopes[i][name], 1 / self._scale(name, i, here)
                    rows.append(weight * slope)
                    target.append(weight * (told[name] - here[name] + float(np.dot(slope, at))))
        best = np.zeros(len(at))
        best[free] = np.linalg.lstsq(np.array(rows)[:, free], np.array(target), rcond=None)[0]
        x, y, c, a = best.tolist()
        return _factors([max(LEAST - 1, x), max(LEAST - 1, y), c, max(-self._fixed_s, a)])

    def _off(self, found: Mapping[int, Figures], used: Factors) -> float:
        """The sum that is to be least, of these figures."""
        total = float(np.sum((_as_array(used) / self._widths) ** 2))
        for i, here in found.items():
            told = self._measured[i]
            for name in LATENCIES:
                if name in told and name in here:
                    total += ((here[name] - told[name]) / self._scale(name, i, here)) ** 2
        return total

    def _explained(self, found: Mapping[int, Figures]) -> bool:
        """Whether nothing is further off than what no factor explains, nor than without an anchor."""
        return all(
            abs(here[name] - self._measured[i][name])
            <= min(self._scale(name, i, here), abs(self.base[i][name] - self._measured[i][name]))
            for i, here in found.items()
            for name in LATENCIES
            if name in self._measured[i] and name in here
        )

    def _scale(self, name: str, i: int, here: Figures) -> float:
        """Seconds of a point that no factor explains; of a TTFT that is simulated too long, as a share of that."""
        told = self._measured[i][name]
        seconds = max(told, here[name]) if name == "ttft" else told
        return self._times[i] * self._scatter[name] * seconds


def _queued(told: Figures, base: Figures) -> bool:
    """Whether prompts waited that do not in the simulation: what else is measured then is of other steps, too."""
    both = "ttft" in told and "ttft" in base
    return both and told["ttft"] > rules()["queued"]["ttft_ratio"] * base["ttft"]


def folds(count: int) -> list[list[int]]:
    """The points in groups that are left out in turns: every point alone, or `folds` groups where there are more."""
    groups = min(count, int(rules()["left_out"]["folds"]))
    return [list(range(first, count, groups)) for first in range(groups)]


def _as_array(factors: Factors) -> Any:
    """x, y, c and a of the module's docstring."""
    return np.array(
        [factors.step_factor - 1, factors.prompt_factor - 1, factors.step_constant_s, factors.ttft_added_s]
    )


def _factors(values: Any) -> Factors:
    """Of x, y, c and a."""
    x, y, c, a = (float(value) for value in values)
    return Factors(1 + x, c, a, 1 + y)

"""Published accept lengths -> the chance that each draft is accepted: how `sim/catalog/acceptance.yaml` came about.

    python -m calibrate.acceptance      # fits every row of the catalog again and prints it beside what is stored

With p_i the chance that draft i is accepted given that all before it were, k drafts make

    A_k = 1 + sum_{i <= k} prod_{j <= i} p_j

tokens per step. Lengths of one row may come from several sources and workloads; the fit minimises

    sum over figures of log(A_k / published)^2 + SMOOTHNESS x sum of (p_{i+1} - 2 p_i + p_{i-1})^2

over 1 >= p_1 >= p_2 >= ... >= 0: later drafts are guessed from guesses, so that none is likelier than the one before.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, brentq, minimize

from sim.catalog import accept_length
from sim.catalog.facts import read, values

Floats = NDArray[np.float64]
Figures = Mapping[int, Sequence[float]]
"""Drafts -> published accept lengths."""

SMOOTHNESS: Final = 1e-3
"""Small enough to move no length by 1%; it decides where the figures leave positions open."""


def fit_chances(figures: Figures) -> tuple[float, ...]:
    """p_1 .. p_K for the longest draft K of the figures."""
    longest = max(figures)
    count = sum(len(lengths) for lengths in figures.values())

    def loss(p: Floats) -> float:
        lengths = 1 + np.cumsum(np.cumprod(p))
        errors = [np.log(lengths[k - 1] / a) ** 2 for k, given in figures.items() for a in given]
        bend = np.diff(p, 2) if len(p) > 2 else np.zeros(1)
        return float(sum(errors) / count + SMOOTHNESS * (bend**2).sum())

    falling = LinearConstraint(np.eye(longest)[:-1] - np.eye(longest)[1:], 0.0, np.inf)
    found = minimize(
        loss,
        np.linspace(0.9, 0.5, longest),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * longest,
        constraints=[falling] if longest > 1 else (),
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    return tuple(float(p) for p in found.x)


def scale_chances(shape: Sequence[float], drafts: int, length: float) -> tuple[float, ...]:
    """Another row's chances times one factor, such that `drafts` of them make `length` tokens per step."""

    def scaled(factor: float) -> list[float]:
        return [min(1.0, factor * p) for p in shape]

    factor = brentq(lambda f: accept_length(scaled(f)[:drafts]) - length, 0.0, 1 / min(shape))
    return tuple(scaled(float(factor)))


def main() -> None:
    """Print each row's stored chances beside what its lengths fit to, and the lengths that they make."""
    for model, rows in read("acceptance.yaml").items():
        for row in rows if isinstance(rows, list) else ():
            lengths = {k: np.atleast_1d(a).tolist() for k, a in values(row["lengths"]).items()}
            stored = list(values(row["chances"]))
            made = {k: round(accept_length((stored + stored[-1:] * k)[:k]), 3) for k in lengths}
            fitted = [round(p, 3) for p in fit_chances(lengths)]
            mode = {None: "", True: " thinking", False: " not thinking"}[row.get("thinking")]
            print(f"{model} {row['task']}{mode}: {lengths} -> fitted {fitted}, stored {stored} makes {made}")


if __name__ == "__main__":
    main()

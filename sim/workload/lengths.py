"""Prompt and answer lengths drawn from a distribution."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.scenario.errors import KeyPath
from sim.scenario.schema import Length, Lengths
from sim.workload.prompts import Ints, Prompts
from sim.workload.randomness import generator
from sim.workload.reading import locate, read
from sim.workload.table import at_least, fault, real

Draw = Callable[[int], Ints]
"""The next n token counts. Draws continue one another: n then m gives the same as n + m."""


class Source:
    """An endless source of prompts with lengths of their own distributions."""

    def __init__(self, lengths: Lengths, seed: int, base_folder: Path | None = None) -> None:
        """Raises DeploymentError or ScenarioError if a histogram's file is missing or broken."""
        key: KeyPath = ("workload", "lengths")
        self._input = draw(lengths.input, generator(seed, "input lengths"), base_folder, (*key, "input"))
        self._output = draw(lengths.output, generator(seed, "output lengths"), base_folder, (*key, "output"))

    def next(self, count: int) -> Prompts:
        """The next `count` prompts."""
        return Prompts.of(self._input(count), self._output(count))


def draw(length: Length, rng: np.random.Generator, base_folder: Path | None, key: KeyPath) -> Draw:
    """The draws of one distribution. Every length is whole and at least 1.

    Lognormal with the mean m and coefficient of variation c of the distribution itself:
    sigma^2 = ln(1 + c^2), mu = ln m - sigma^2 / 2; rounded to the nearest token, so that the mean stays m but for
    what is lifted to 1.
    """
    if length.constant is not None:
        constant = length.constant
        return lambda count: np.full(count, constant, dtype=np.int64)
    if length.uniform is not None:
        low, high = length.uniform
        return lambda count: rng.integers(low, high, size=count, endpoint=True)
    if length.lognormal is not None:
        variance = math.log1p(length.lognormal.cv**2)
        mu = math.log(length.lognormal.mean) - variance / 2
        sigma = math.sqrt(variance)
        return lambda count: np.maximum(np.rint(rng.lognormal(mu, sigma, count)), 1).astype(np.int64)
    assert length.histogram is not None
    return _histogram(length.histogram, rng, base_folder, (*key, "histogram"))


def least(length: Length) -> int:
    """Tokens that no draw of a distribution falls below."""
    if length.uniform is not None:
        return length.uniform[0]
    return length.constant or 1


class Weighted:
    """Token counts, each with a chance proportional to its weight; at least one weight is above 0."""

    def __init__(self, tokens: Ints, weights: NDArray[np.float64]) -> None:
        self._tokens, self._total = tokens, np.cumsum(weights)
        self._last = np.flatnonzero(weights)[-1]

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Independent draws."""
        # The row whose share of the total the random number falls into; rows of weight 0 have no share.
        rows = np.searchsorted(self._total, rng.random(count) * self._total[-1], side="right")
        lengths: Ints = self._tokens[np.minimum(rows, self._last)]  # a product may round up to the total
        return lengths


def _histogram(name: str, rng: np.random.Generator, base_folder: Path | None, key: KeyPath) -> Draw:
    """A CSV file with columns tokens,weight: each row's tokens with a chance proportional to its weight."""
    table = read(locate(name, base_folder, (), key))
    if not {"tokens", "weight"} <= table.columns.keys():
        got = ", ".join(table.columns)
        raise fault(table.file, table.source, 1, 1, f"expected columns tokens, weight; got {got}")
    tokens, weights = table.convert({"tokens": at_least(1), "weight": real})
    table.refuse((row, "weight", "weight: expected at least 0") for row, w in enumerate(weights) if w < 0)
    if not any(weights):
        raise fault(table.file, (), None, None, "all weights are zero")
    weighted = Weighted(np.array(tokens, dtype=np.int64), np.array(weights))
    return lambda count: weighted.draw(rng, count)

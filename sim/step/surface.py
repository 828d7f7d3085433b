"""Step costs on a grid, built once per pool: the simulation looks a step up in microseconds.

Attention is a table over (tokens or sequences on the rank, mean context), everything else curves over tokens per
rank. Between grid points all is linear.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY, CostModel, price_all
from sim.model.operations import Operation
from sim.step.operations import Overlap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SOURCES: Final = len(PRICED_BY)


def grid(low: float, high: float, per_octave: int, extra: Sequence[float] = ()) -> Floats:
    """Increasing points from `low` to `high`, geometric with `per_octave` points per doubling, `extra` among them."""
    octaves = max(1, int(np.ceil(np.log2(max(high / low, 2.0)) * per_octave)))
    points = [*np.geomspace(low, high, octaves + 1), *(x for x in extra if low < x < high)]
    return np.unique(np.round(np.array(points, dtype=float)))


def seconds_by_source(operations: list[Operation], cost: CostModel) -> Floats:
    """Seconds of one step's operations by the source that priced them; shape (len(PRICED_BY),)."""
    seconds = np.zeros(SOURCES)
    for priced in price_all(operations, cost):
        seconds[PRICED_BY.index(priced.latency.priced_by)] += priced.total_s
    return seconds


class Surface:
    """Seconds of one phase on a grid of x (tokens or sequences per rank) and context.

    A step lasts max(core + inline, beside) + serial: the slowest rank's attention `core` with the rest of the
    layers, the exchange that runs `beside` them when two half batches take turns (else it is part of `serial`),
    and what happens once per step. `attention(x, context)` and `rest(x)` give the operations; they are priced
    once per grid point, here. With `overlap.two_batch` both halves are priced at x / 2 from x = 2 on.
    """

    def __init__(
        self,
        x: Floats,
        context: Floats,
        attention: Callable[[float, float], list[Operation]],
        rest: Callable[[float], list[Operation]],
        cost: CostModel,
        overlap: Overlap,
    ) -> None:
        self.context = context
        # Point 0 is a rank without tokens: no attention, but the other ranks' tokens keep it in step.
        self.x = np.concatenate(([0.0], x))
        self._core = np.zeros((len(self.x), len(context), SOURCES))
        streams = {
            name: np.zeros((len(self.x), SOURCES))
            for name in ("layers", "experts", "shared", "exchange", "once")
        }
        for i, whole in enumerate(x, start=1):
            halves = overlap.parts(whole)
            for operation in rest(whole / halves):
                stream = operation.stream
                times = 1 if stream == "once" else halves * overlap.stretch(stream, halves)
                streams[stream][i] += times * seconds_by_source([operation], cost)
            times = halves * overlap.stretch("layers", halves)
            for j, length in enumerate(context):
                self._core[i, j] = times * seconds_by_source(attention(whole / halves, length), cost)
        for curve in streams.values():
            curve[0] = curve[1]
        self._sources = sum(streams.values(), np.zeros_like(streams["once"]))
        self._visits = np.zeros(self._core.shape[:2])
        seconds = {name: curve.sum(axis=1) for name, curve in streams.items()}
        inline, beside, serial = timeline(seconds, overlap)
        # Looked up many times per simulated request: spelled out for every whole number of tokens or sequences.
        below, u = locate(self.x, np.arange(self.x[-1] + 1))
        core = self._core.sum(axis=2)
        self._rows = core[below] + (core[below + 1] - core[below]) * u[:, None]
        curves = (inline, beside, serial, seconds["experts"])
        self._inline, self._beside, self._serial, self._experts = (
            (curve[below] + (curve[below + 1] - curve[below]) * u).tolist() for curve in curves
        )

    def rows(self, x: Floats) -> Floats:
        """Attention seconds over all contexts for each rank's x (whole numbers on the grid); shape (ranks, contexts).

        Raises IndexError beyond the largest x that the surface was built for.
        """
        return np.asarray(self._rows[x.astype(np.intp)])

    def core_s(self, x: Floats, context: Floats) -> Floats:
        """Attention seconds of each rank; shape (ranks,)."""
        return interpolate(self.context, self.rows(x), context[:, None])[:, 0]

    def rest_s(self, x: Floats) -> tuple[float, float, float]:
        """(inline, beside, serial) seconds with `x` tokens per rank.

        The routed experts see every rank's tokens, hence the mean; all else waits for the fullest rank.
        """
        fullest, mean = int(x.max()), float(x.sum()) / len(x)
        low = int(mean)
        experts = self._experts[low]
        if mean > low:
            experts += (self._experts[low + 1] - experts) * (mean - low)
        return self._inline[fullest] + experts, self._beside[fullest], self._serial[fullest]

    def step_s(self, core: Floats, x: Floats) -> float:
        """Seconds of a step of `x` tokens per rank whose ranks spend `core` on attention."""
        inline, beside, serial = self.rest_s(x)
        return max(float(core.max()) + inline, beside) + serial

    def charge(self, x: float, context: float, seconds: float) -> None:
        """Book `seconds` of simulated time at the nearest grid point, for the provenance of the run."""
        i = min(int(self.x.searchsorted(x)), len(self.x) - 1)
        j = min(int(self.context.searchsorted(context)), len(self.context) - 1)
        self._visits[i, j] += seconds

    def provenance_s(self) -> Floats:
        """Booked seconds by the source that priced the step's operations; shape (len(PRICED_BY),)."""
        sources = self._core + self._sources[:, None, :]
        shares = sources / sources.sum(axis=2, keepdims=True)
        return np.asarray((self._visits[:, :, None] * shares).sum(axis=(0, 1)))


def timeline(seconds: Mapping[str, Floats], overlap: Overlap) -> tuple[Floats, Floats, Floats]:
    """Seconds by stream -> (inline, beside, serial): a step lasts max(attention + experts + inline, beside) + serial.

    Two half batches exchange beside everything else of the layers; the shared expert runs beside the exchange and,
    where they leave room, the routed experts. These are in none of the three.
    """
    layers, shared, exchange, once = (seconds[name] for name in ("layers", "shared", "exchange", "once"))
    if overlap.two_batch:
        return layers + shared, exchange, once
    if overlap.shared_expert:
        room = exchange + seconds["experts"] if overlap.beside_experts else exchange
        shared = shared - np.minimum(shared, room)
    return layers, np.zeros_like(layers), once + shared + exchange


def locate(knots: Floats, at: Floats) -> tuple[Ints, Floats]:
    """Segment of `knots` that holds each value, and the position inside it; the last segment goes on for ever."""
    i = np.minimum(np.maximum(knots.searchsorted(at, side="right") - 1, 0), len(knots) - 2)
    return i, np.maximum((at - knots[i]) / (knots[i + 1] - knots[i]), 0.0)


def interpolate(knots: Floats, rows: Floats, at: Floats) -> Floats:
    """Row r of `rows` (ranks, knots) at the positions of row r of `at` (ranks, points)."""
    i, u = locate(knots, at)
    i += (np.arange(len(rows)) * rows.shape[1])[:, None]
    low, high = rows.take(i), rows.take(i + 1)
    return np.asarray(low + (high - low) * u)

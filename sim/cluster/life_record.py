"""What remains of the lives of workers: the spans that each spent in each state, from which all GPU time follows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

State = Literal["starting", "up", "draining", "failed", "waiting", "restarting", "spare"]
SERVING: Final[tuple[State, ...]] = ("up", "draining")


class Span(NamedTuple):
    """A worker, or a spare node, in one state."""

    role: str
    """Of its pool; `spare` for nodes that stand by."""
    worker: int
    state: State
    start_s: float
    end_s: float
    gpus: int
    """Held, and so paid for: a node that is away for repair is not."""


@dataclass
class LifeRecord:
    """The lives of all workers of a run, until its end."""

    retries: NDArray[np.int64]
    """Of each request."""
    retried_s: list[float] = field(default_factory=list)
    """When a request was asked again, once for each time."""
    failed_s: list[float] = field(default_factory=list)
    """When a worker failed."""
    spans: list[Span] = field(default_factory=list)

    def paid(self, role: str | None = None, unit: int = 1, above: float = 0) -> "Level":
        """GPUs that are paid for, of one pool or of all with the spares, in whole multiples of `unit`; those `above` a
        number of them."""
        among = [span for span in self.spans if role in (None, span.role)]
        return Level(among, [span.gpus for span in among], unit, above)

    def serving(self, role: str) -> "Level":
        """Workers of a pool that serve."""
        among = [span for span in self.spans if span.role == role and span.state in SERVING]
        return Level(among, [1] * len(among))


class Level:
    """A number that changes in steps over time: how many are there, summed up over any interval."""

    def __init__(self, spans: Iterable[Span], weights: list[int], unit: int = 1, above: float = 0) -> None:
        """Each span counts with its weight from start to end; the sum is rounded up to whole multiples of `unit`, and
        counts as far as it is `above` a number."""
        edges = np.array([(span.start_s, span.end_s) for span in spans]).reshape(-1, 2)
        self._at_s, where = np.unique(edges, return_inverse=True)
        changes = np.zeros(len(self._at_s), dtype=np.int64)
        signed = np.column_stack((weights, np.negative(weights))).astype(np.int64)
        np.add.at(changes, where.ravel(), signed.ravel())
        levels = np.maximum(0, -(-np.cumsum(changes)[:-1] // unit) * unit - above)
        self.highest = int(levels.max(initial=0))
        self._summed = np.append(0.0, np.cumsum(levels * np.diff(self._at_s)))

    def between(self, start_s: float, end_s: float) -> float:
        """The integral from `start_s` to `end_s`: worker or GPU seconds."""
        if len(self._at_s) == 0:
            return 0.0
        ends = np.interp([start_s, end_s], self._at_s, self._summed)
        return float(ends[1] - ends[0])

    def mean(self, start_s: float, end_s: float) -> float:
        """Over that interval; 0 where it is empty."""
        return self.between(start_s, end_s) / (end_s - start_s) if end_s > start_s else 0.0

"""Clients of a service, each with its own rate, burstiness and lengths over the day, instead of single requests.

The form of ServeGen (Xiang and others, "ServeGen: Workload characterization and generation of large language model
serving in production", NSDI 2026): in every window a client sends with its own mean rate and with gaps of its own
Gamma or Weibull shape; prompt and answer lengths have a distribution of their own for every few hours.

A window's arrivals are a stationary renewal process: its clock does not start when the window does, so the first one
comes after the rest of a gap that is under way. With a unit mean and U uniform on (0, 1),

    Gamma    gap = Gamma(k) / k                               rest = U Gamma(k + 1) / k
    Weibull  gap = E^(1/k) / G(1 + 1/k), E exponential        rest = U Gamma(1 + 1/k)^(1/k) / G(1 + 1/k)

where k is the shape, Gamma(k) a random number of that distribution and G the gamma function (D. R. Cox, "Renewal
theory", 1962, section 5.2). The mean number of arrivals is then exactly rate x window, however bursty.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.workload.arrivals import feasible
from sim.workload.lengths import Weighted
from sim.workload.prompts import Ints, Prompts
from sim.workload.randomness import generator
from sim.workload.table import LARGEST_COUNT, FileTable, at_least, fault, real, whole

Floats = NDArray[np.float64]

KEYS: Final = frozenset({"client", "window_s", "windows", "lengths"})

LEAST_SHAPE: Final = 0.01
"""Below, nearly all gaps are too small for floating point, and the mean is made by ones that never come."""

LEAST_WINDOW_S: Final = 1e-3
"""Of what is minutes, so that gaps of many requests in it can still be told from none."""


@dataclass(frozen=True)
class ClientWindow:
    """Arrivals of a client from `start_s` on."""

    start_s: float
    requests: float
    """Mean number."""
    kind: str
    """gamma | weibull."""
    shape: float

    def times(self, length_s: float, rng: np.random.Generator) -> Floats:
        """Times of arrival after the window's start, ascending, below `length_s`."""
        mean_s, reached = length_s / self.requests, 0.0
        drawn = [rng.random(1) * self._gaps(rng, 1, rest=True) * mean_s]
        while (reached := reached + float(drawn[-1].sum())) < length_s:
            expected = (length_s - reached) / mean_s
            drawn.append(self._gaps(rng, int(expected + 4 * math.sqrt(expected)) + 8) * mean_s)
        times = np.cumsum(np.concatenate(drawn))
        return times[times < length_s]

    def _gaps(self, rng: np.random.Generator, count: int, rest: bool = False) -> Floats:
        """Gaps of unit mean; `rest`: as long as those that an arbitrary moment falls into."""
        k = self.shape
        if self.kind == "gamma":
            return rng.standard_gamma(k + rest, count) / k
        base = rng.standard_gamma(1 + rest / k, count)
        return np.asarray(base ** (1 / k) / math.gamma(1 + 1 / k))


@dataclass(frozen=True)
class ClientLengths:
    """Token counts of prompts and answers from `from_s` on."""

    from_s: float
    input: Weighted
    output: Weighted


@dataclass(frozen=True)
class Client:
    """One client: windows of `window_s` seconds, and lengths by the time of day."""

    number: int
    window_s: float
    windows: tuple[ClientWindow, ...]
    lengths: tuple[ClientLengths, ...]

    def draw(self, seed: int, until_s: float) -> tuple[Floats, Ints, Ints]:
        """Times, prompt and answer lengths of all its requests before `until_s`."""
        rng = generator(seed, f"client {self.number}")
        times, inputs, outputs = [], [], []
        for window in self.windows:
            if window.start_s >= until_s:
                break
            arrivals = window.start_s + window.times(self.window_s, rng)
            now = max(
                (part for part in self.lengths if part.from_s <= window.start_s), key=lambda p: p.from_s
            )
            times.append(arrivals)
            inputs.append(now.input.draw(rng, len(arrivals)))
            outputs.append(now.output.draw(rng, len(arrivals)))
        if not times:
            return np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return np.concatenate(times), np.concatenate(inputs), np.concatenate(outputs)


@dataclass(frozen=True)
class Clients:
    """All clients of a service."""

    name: str
    clients: tuple[Client, ...]

    def draw(self, seed: int, until_s: float = math.inf) -> tuple[Prompts, Floats]:
        """Their requests before `until_s` in order of arrival, and the times. Clients do not depend on one another.

        Raises DeploymentError if so many requests would not fit in memory.
        """
        feasible(sum(w.requests for c in self.clients for w in c.windows if w.start_s < until_s))
        parts = [client.draw(seed, until_s) for client in self.clients]
        times, inputs, outputs = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(times, kind="stable")
        order = order[times[order] < until_s]
        return Prompts.of(inputs[order], outputs[order]), times[order]


def parse(name: str, table: FileTable) -> Clients:
    """Clients from rows {"client": N, "window_s": S, "windows": [[start_s, requests, "gamma" | "weibull", shape], ...],
    "lengths": [{"from_s": S, "input": [[tokens, ...], [weights, ...]], "output": [[...], [...]]}, ...]}.

    Windows ascend. Raises ScenarioError with the place of what is wrong.
    """
    readings = {"client": at_least(0), "window_s": _window_s, "windows": _windows, "lengths": _lengths}
    clients = tuple(Client(*row) for row in zip(*table.convert(readings), strict=True))
    table.refuse(
        (row, "lengths", f"lengths: none from {sends[0].start_s:g} s, where requests begin")
        for row, client in enumerate(clients)
        if (sends := client.windows) and not any(part.from_s <= sends[0].start_s for part in client.lengths)
    )
    if not any(client.windows for client in clients):
        raise fault(table.file, (), None, None, "no client sends anything")
    return Clients(name, clients)


def _windows(cell: object) -> tuple[ClientWindow, ...]:
    found = []
    for row in _list(cell):
        start, requests, kind, shape = _list(row, 4)
        if kind not in ("gamma", "weibull"):
            raise ValueError(f"expected gamma or weibull, got {str(kind)[:40]!r}")
        if _positive(shape) < LEAST_SHAPE:
            raise ValueError(f"expected a shape of at least {LEAST_SHAPE:g}, got {shape}")
        found.append(ClientWindow(real(start), _positive(requests), str(kind), real(shape)))
    starts = [window.start_s for window in found]
    if starts != sorted(set(starts)) or (starts and starts[0] < 0):
        raise ValueError("expected ascending starts from 0 s on")
    return tuple(found)


def _lengths(cell: object) -> tuple[ClientLengths, ...]:
    found = []
    for part in _list(cell):
        if not isinstance(part, dict) or set(part) != {"from_s", "input", "output"}:
            raise ValueError("expected objects with from_s, input and output")
        found.append(ClientLengths(real(part["from_s"]), _weighted(part["input"]), _weighted(part["output"])))
    return tuple(found)


def _weighted(cell: object) -> Weighted:
    values, weights = (_list(part) for part in _list(cell, 2))
    if not values or len(values) != len(weights):
        raise ValueError("expected as many weights as token counts, and at least one")
    tokens = np.array([whole(value, 1) for value in values], dtype=np.int64)
    return Weighted(tokens, np.array([_positive(weight) for weight in weights]))


def _positive(cell: object) -> float:
    number = real(cell)
    if not 0 < number <= LARGEST_COUNT:
        raise ValueError(f"expected a number above 0, got {number:g}")
    return number


def _window_s(cell: object) -> float:
    if (seconds := _positive(cell)) < LEAST_WINDOW_S:
        raise ValueError(f"expected at least {LEAST_WINDOW_S:g} s, got {seconds:g}")
    return seconds


def _list(cell: object, length: int | None = None) -> list[Any]:
    if not isinstance(cell, list) or (length is not None and len(cell) != length):
        wanted = "a list" if length is None else f"a list of {length}"
        raise ValueError(f"expected {wanted}, got {str(cell)[:40]!r}")
    return cell

"""Stability: overload is found, and a stable queue is hardly ever called overloaded.

M/M/1 by Lindley's recursion: the first token of a request is its departure. Seeds are fixed; bounds on rates are at
least three standard errors away from the rates measured with other seeds (see the module's docstring).
"""

import numpy as np
import pytest

from sim.result import Queue, backlog_grows
from sim.result.stability import QueueOverTime
from sim.workload import trace


def departures(arrival_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """One server, first come first served: departure_i = max(arrival_i, departure_{i-1}) + service_i."""
    worked = np.cumsum(service_s)
    return worked + np.maximum.accumulate(arrival_s - np.concatenate([[0.0], worked[:-1]]))


def found(load: float, requests: int, runs: int, cv: float = 1.0, seed: int = 1000) -> float:
    """Share of runs of a G/M/1 queue that are called overloaded."""
    hits = 0
    for run in range(runs):
        rng = np.random.default_rng(seed + run)
        arrival_s = np.cumsum(rng.gamma(cv**-2, cv**2 / load, requests))
        left_s = departures(arrival_s, rng.exponential(1.0, requests))
        hits += backlog_grows(Queue(arrival_s, left_s), (0.0, float(arrival_s[-1])))
    return hits / runs


def test_lindley() -> None:
    left_s = departures(np.array([0.0, 1.0, 5.0, 5.5]), np.array([2.0, 2.0, 1.0, 1.0]))
    assert left_s.tolist() == [2.0, 4.0, 6.0, 7.0]


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("requests", [300, 1000, 10_000])
def test_stable_queues_pass(load: float, requests: int) -> None:
    assert found(load, requests, runs=150) <= 0.02


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("requests", [10, 30, 100])
def test_short_stable_runs_pass(load: float, requests: int) -> None:
    assert found(load, requests, runs=200) <= 0.05


def test_a_critical_queue_is_rarely_called_overloaded() -> None:
    assert found(1.0, 3000, runs=300) <= 0.04


@pytest.mark.parametrize(
    ("load", "requests", "at_least"),
    [
        (1.05, 100_000, 1.0),
        (1.05, 10_000, 0.5),
        (1.1, 10_000, 0.98),
        (1.2, 3_000, 0.98),
        (1.5, 300, 0.75),
        (1.5, 1_000, 1.0),
        (3.0, 100, 0.97),
        (20.0, 100, 1.0),
    ],
)
def test_overload_is_found(load: float, requests: int, at_least: float) -> None:
    assert found(load, requests, runs=20 if requests > 20_000 else 100) >= at_least


@pytest.mark.parametrize(("load", "cv"), [(0.5, 4.0), (0.7, 3.0), (0.9, 2.0)])
def test_bursty_but_stable_arrivals_pass(load: float, cv: float) -> None:
    assert found(load, 1000, runs=150, cv=cv) <= 0.02


@pytest.mark.parametrize(
    "name", ["azure-conversation", "azure-code", "mooncake-conversation", "mooncake-synthetic"]
)
@pytest.mark.parametrize(
    ("load", "expected"), [(0.5, False), (0.8, False), (1.1, True), (1.3, True), (2.0, True)]
)
def test_real_traces_with_one_server(name: str, load: float, expected: bool) -> None:
    """Work is proportional to the answer's length, and `load` of it arrives per second of the trace."""
    recorded = trace.load(name, seed=0)
    arrival_s, tokens = recorded.arrival_s, recorded.prompts.output_tokens
    assert arrival_s is not None
    service_s = tokens / tokens.sum() * arrival_s[-1] * load
    left_s = departures(arrival_s, service_s)
    assert backlog_grows(Queue(arrival_s, left_s), (0.0, float(arrival_s[-1]))) is expected


@pytest.mark.parametrize("delay", [0.02, 0.3, 1.0, 3.0])
def test_a_pipeline_that_fills_is_no_backlog(delay: float) -> None:
    """Every request takes `delay` windows, whatever the load: the number inside grows until the first ones leave."""
    rng = np.random.default_rng(1)
    arrival_s = np.sort(rng.random(2000)) * 100
    assert not backlog_grows(Queue(arrival_s, arrival_s + delay * 100), (0.0, 100.0))
    varied = arrival_s + delay * 100 * rng.lognormal(-0.35, 0.83, 2000)
    assert not backlog_grows(Queue(arrival_s, varied), (0.0, 100.0))


def test_a_burst_that_drains_is_no_overload() -> None:
    """1,000 requests in the first second, then a tenth of capacity: the backlog is gone by half time."""
    arrival_s = np.concatenate([np.linspace(0, 1, 1000), np.linspace(1, 3000, 300)])
    left_s = departures(arrival_s, np.ones(1300))
    assert not backlog_grows(Queue(arrival_s, left_s), (0.0, 3000.0))


def test_a_backlog_that_stands_without_growing_is_overload() -> None:
    """Twice the capacity until half time, then exactly the capacity: it never catches up."""
    arrival_s = np.concatenate([np.linspace(0, 500, 1000), np.linspace(500.5, 1000, 500)])
    left_s = departures(arrival_s, np.ones(1500))
    assert backlog_grows(Queue(arrival_s, left_s), (0.0, 1000.0))


def test_bursts_that_drain_in_between_are_no_overload() -> None:
    """300 requests arrive at once every 50 s, and are served within 30 s. At the ends of blocks, 300 wait."""
    arrival_s = np.repeat(np.arange(0.0, 1601.0, 50.0), 300)
    left_s = departures(arrival_s, np.full(len(arrival_s), 0.1))
    left_s[:900] = arrival_s[:900] + 0.1  # the first bursts find a faster service: waits do get longer
    assert not backlog_grows(Queue(arrival_s, left_s), (0.0, 1600.0))


def test_a_little_more_than_capacity_does_not_matter() -> None:
    """Half a percent too much, like clockwork: certain, but p99 hardly depends on how long it lasts."""
    arrival_s = np.arange(20_000.0)
    assert not backlog_grows(Queue(arrival_s, arrival_s * 1.005 + 1), (0.0, 19_999.0))
    assert backlog_grows(Queue(arrival_s, arrival_s * 1.02 + 1), (0.0, 19_999.0))


def test_a_small_backlog_that_stands_does_not_matter() -> None:
    """2% too much until half time, then exactly the capacity: 1,000 of 100,000 requests stay waiting."""
    arrival_s = np.concatenate([np.arange(51_000) / 1.02, 50_000 + np.arange(49_000.0)])
    left_s = departures(arrival_s, np.ones(100_000))
    assert not backlog_grows(Queue(arrival_s, left_s), (0.0, float(arrival_s[-1])))


def test_overload_that_begins_late_is_found() -> None:
    """Half of capacity until 60% of the window, then three times as much."""
    arrival_s = np.concatenate([np.linspace(0, 600, 300), np.linspace(600.3, 1000, 1200)])
    left_s = departures(arrival_s, np.ones(1500))
    assert backlog_grows(Queue(arrival_s, left_s), (0.0, 1000.0))


def test_requests_that_never_got_a_token_are_backlog() -> None:
    arrival_s = np.arange(1000.0)
    first_token_s = np.where(arrival_s < 300, arrival_s + 1, np.nan)
    assert backlog_grows(Queue(arrival_s, first_token_s), (0.0, 999.0))


@pytest.mark.parametrize("window_s", [(0.0, 0.0), (50.0, 10.0)])
def test_an_empty_window_says_nothing(window_s: tuple[float, float]) -> None:
    arrival_s = np.arange(100.0)
    assert not backlog_grows(Queue(arrival_s, arrival_s * 5), window_s)
    assert not backlog_grows(Queue(np.array([]), np.array([])), window_s)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outlasts", [1.0, 3.0, 1000.0, 1e6])
@pytest.mark.parametrize("load", [0.5, 2.0])
def test_parts_of_the_time_tell_as_much_as_requests_do(load: float, outlasts: float, seed: int) -> None:
    """One server for 600 s of arrivals; what would leave after 300 s does so up to a million times as late, as where
    a worker fails and is repaired. A summary hears of requests as they leave."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(0.5, 1200))
    left_s = departures(arrival_s, rng.exponential(0.5 * load, 1200))
    left_s = np.where(left_s > 300, 300 + (left_s - 300) * outlasts, left_s)
    left_s[(arrival_s > 400) & (rng.random(1200) < 0.01)] = np.nan
    queue, parts = Queue(arrival_s, left_s), QueueOverTime()
    for rows in np.array_split(np.argsort(left_s), 40):
        parts.add(arrival_s[rows], left_s[rows])
    end_s = float(arrival_s[-1])
    part_s = 2.0 ** (np.floor(np.log2(end_s)) + 1) / QueueOverTime.PARTS
    edges_s = part_s * np.arange(1, end_s // part_s + 2)
    assert (parts.waiting(edges_s - part_s / 2) == queue.waiting(np.nextafter(edges_s, 0))).all()
    assert parts.first_wait_s(1 / 16) == pytest.approx(queue.first_wait_s(1 / 16), rel=0.02)
    assert backlog_grows(parts, (0.0, end_s)) == backlog_grows(queue, (0.0, end_s))


def test_the_t_of_the_docstring() -> None:
    from scipy import stats  # noqa: PLC0415

    from sim.result import stability  # noqa: PLC0415

    assert abs(stats.t.ppf(0.99, stability.BLOCKS - 1) - stability.T_99) < 5e-4

"""How a kernel is timed: warm-up, cold L2, CUDA graph or events, every sample kept.

A call is timed over rotated copies of its inputs, together several times the size of the L2 cache, so that no
call finds its operands there; that is how weights and KV caches are met in serving. Where memory or `MAX_COPIES` allow
fewer copies, the timing says that it is warm. On a GPU the copies are captured into one CUDA graph (no launch overhead
between kernels), which is replayed several times between two events behind a kernel that spins until the host has
queued them all; where a kernel cannot be captured, events around every call, with the L2 overwritten before it. On a
CPU the monotonic clock, one thread.
"""

# ruff: noqa: PLC0415 (torch is optional: it is imported where it is used)

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median, quantiles
from typing import Any, Final, Literal

from calibrate.environment import Device

Call = Callable[[], Any]
Method = Literal["graph", "events", "clock"]

L2_MULTIPLE: Final = 3
"""Rotated inputs cover the L2 this many times (flashinfer's testing utilities use up to 5, for smaller caches)."""
MAX_COPIES: Final = 256
"""Copies of small inputs at most: a kernel that touches less than a 256th of the cache is timed warm."""
CALLS_PER_SAMPLE: Final = 16
"""Calls in one graph at least: the graph's own launch then adds under a tenth of a microsecond to each."""
SAMPLE_S: Final = 1e-3
"""Time between two events at least: their resolution is half a microsecond (CUDA runtime API,
`cudaEventElapsedTime`)."""
SPIN_S: Final = 20e-6
"""What the GPU spins for every replay that the host is to queue meanwhile: a launch takes the host 5 to 10 us."""
SPIN_CYCLES_PER_S: Final = 2e9
"""Cycles that `torch.cuda._sleep` counts in a second; the clock of an H200 rises to 1.98 GHz."""
MIN_SAMPLES: Final = 5
MAX_SAMPLES: Final = 100
WARM_UPS: Final = 2
WARM_UP_S: Final = 0.025
"""Replays before the first sample of a graph, so that clocks have risen (flashinfer's testing utilities: 25 ms)."""
MAX_WARM_UPS: Final = 1000
UNSTABLE_SPREAD: Final = 0.10
"""A point whose (p90 - p10) / median exceeds this is flagged: tables repeat within 2 to 7%."""


@dataclass(frozen=True, slots=True)
class Timing:
    """All samples of one point, microseconds per call."""

    samples_us: tuple[float, ...]
    method: Method
    warm: bool = False
    """Whether calls may have found their operands in the L2."""

    @property
    def median_us(self) -> float:
        """Median of the samples."""
        return median(self.samples_us)

    @property
    def p10_us(self) -> float:
        """10th percentile."""
        return percentile(self.samples_us, 10)

    @property
    def p90_us(self) -> float:
        """90th percentile."""
        return percentile(self.samples_us, 90)

    @property
    def unstable(self) -> bool:
        """Whether the middle 80% of the samples spread by more than `UNSTABLE_SPREAD` of the median."""
        return self.p90_us - self.p10_us > UNSTABLE_SPREAD * self.median_us


def percentile(samples: Sequence[float], percent: int) -> float:
    """Percentile by linear interpolation between the sorted samples (the inclusive definition)."""
    if len(samples) == 1:
        return samples[0]
    return quantiles(samples, n=100, method="inclusive")[percent - 1]


def copies_needed(touched_bytes: int, held_bytes: int, device: Device) -> int:
    """Copies of the inputs of which calls touch `L2_MULTIPLE` times the L2 cache, within a quarter of the memory.

    Touched is what one call reads, held what its inputs occupy: sparse attention reads 2,048 entries of a long cache,
    which two copies of that cache would leave in the L2.
    """
    wanted = -(-L2_MULTIPLE * device.l2_bytes // max(touched_bytes, 1))
    allowed = device.memory_bytes // 4 // max(held_bytes, 1)
    return int(max(1, min(wanted, allowed, MAX_COPIES)))


def still_warm(copies: int, touched_bytes: int, device: Device) -> bool:
    """Whether the copies together fit into the L2, so that each may find its operands there."""
    return copies * touched_bytes <= device.l2_bytes


def time_calls(calls: Iterable[Call], touched_bytes: int, device: Device, seconds: float) -> Timing:
    """Time the calls, one per copy of the inputs, of which each touches so many bytes, for about `seconds`."""
    calls = list(calls)
    warm = still_warm(len(calls), touched_bytes, device)
    if device.kind == "cpu":
        return replace(_time_on_clock(calls, seconds), warm=warm)
    import torch

    try:
        return replace(_time_graph(calls, seconds), warm=warm)
    except RuntimeError:
        # A kernel that synchronises with the host cannot be captured; its launches are then part of its time.
        torch.cuda.set_stream(
            torch.cuda.default_stream()
        )  # a capture that failed leaves its own stream current
        return _time_events(calls, device, seconds)


def _samples_within(seconds: float, sample_s: float) -> int:
    return max(MIN_SAMPLES, min(MAX_SAMPLES, int(seconds / max(sample_s, 1e-9))))


def _time_on_clock(calls: Sequence[Call], seconds: float) -> Timing:
    for index in range(WARM_UPS):
        begin = time.perf_counter()
        calls[index % len(calls)]()
        warm_s = time.perf_counter() - begin
    count = _samples_within(seconds, warm_s)
    samples = []
    for index in range(count):
        call = calls[index % len(calls)]
        begin = time.perf_counter()
        call()
        samples.append((time.perf_counter() - begin) * 1e6)
    return Timing(tuple(samples), "clock")


def _time_graph(calls: Sequence[Call], seconds: float) -> Timing:
    import torch

    repeats = -(-CALLS_PER_SAMPLE // len(calls))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            for call in calls:
                call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            for call in calls:
                call()
    per_replay = repeats * len(calls)

    def replay_s(replays: int) -> float:
        """Seconds of one replay, as a mean over so many in a row."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(spin_cycles(replays))
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3 / replays

    once_s = replay_s(1)
    for _ in range(min(MAX_WARM_UPS, int(WARM_UP_S / max(once_s, 1e-9)))):
        once_s = replay_s(1)
    replays = replays_needed(once_s)
    count = _samples_within(seconds, replays * once_s)
    samples = tuple(replay_s(replays) / per_replay * 1e6 for _ in range(count))
    graph.reset()
    return Timing(samples, "graph")


def replays_needed(once_s: float) -> int:
    """Replays between two events, so that these are `SAMPLE_S` apart."""
    return max(1, ceil(SAMPLE_S / max(once_s, 1e-9)))


def spin_cycles(replays: int) -> int:
    """Cycles that the GPU waits, so that the host has queued all replays when the first begins."""
    return int(SPIN_S * (replays + 1) * SPIN_CYCLES_PER_S)


def _time_events(calls: Sequence[Call], device: Device, seconds: float) -> Timing:
    import torch

    flush = torch.empty(max(2 * device.l2_bytes, 1), dtype=torch.uint8, device="cuda")
    for index in range(WARM_UPS):
        calls[index % len(calls)]()

    def call_s(call: Call) -> float:
        flush.random_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    count = _samples_within(seconds, call_s(calls[0]))
    return Timing(tuple(call_s(calls[index % len(calls)]) * 1e6 for index in range(count)), "events")

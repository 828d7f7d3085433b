"""How a kernel is timed: warm-up, cold L2, CUDA graph or events, every sample kept.

A call is timed over rotated copies of its inputs, together several times the size of the L2 cache, so that no
call finds its operands there; that is how weights and KV caches are met in serving. On a GPU the copies are
captured into one CUDA graph (no launch overhead between kernels); where a kernel cannot be captured, events
around every call, with the L2 overwritten before it. On a CPU the monotonic clock, one thread.
"""

# ruff: noqa: PLC0415 (torch is optional: it is imported where it is used)

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Final, Literal

from calibrate.environment import Device

Call = Callable[[], Any]
Method = Literal["graph", "events", "clock"]

L2_MULTIPLE: Final = 3
"""Rotated inputs cover the L2 this many times (flashinfer's testing utilities use up to 5, for smaller caches)."""
MAX_COPIES: Final = 64
CALLS_PER_SAMPLE: Final = 16
"""Calls in one graph at least: the graph's own launch then adds under a tenth of a microsecond to each."""
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


def time_calls(calls: Sequence[Call], device: Device, seconds: float) -> Timing:
    """Time the calls, one per copy of the inputs, for about `seconds`."""
    if device.kind == "cpu":
        return _time_on_clock(calls, seconds)
    import torch

    try:
        return _time_graph(calls, seconds)
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
    per_sample = repeats * len(calls)

    def replay_s() -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    sample_s = replay_s()
    for _ in range(min(MAX_WARM_UPS, int(WARM_UP_S / max(sample_s, 1e-9)))):
        sample_s = replay_s()
    count = _samples_within(seconds, sample_s)
    samples = tuple(replay_s() / per_sample * 1e6 for _ in range(count))
    graph.reset()
    return Timing(samples, "graph")


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

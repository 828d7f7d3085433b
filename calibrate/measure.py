"""One point: make inputs, compare with the reference, and only then time it."""

import contextlib
import gc
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import Any, Final

import torch

from calibrate.cases import Case
from calibrate.environment import Device, Watch
from calibrate.group import Group
from calibrate.kernels.backend import Backend, Call, Family, Tensors
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.library import describe_error
from calibrate.records import Key, Measurement, operation_key
from calibrate.timing import Timing, copies_needed, time_calls

SOURCE: Final = "tokenworks calibrate run"
SECONDS: Final = {"cpu": 0.05, "cuda": 0.1}
"""Timed seconds of one point, by device, after warm-up."""


class DeviceLost(Exception):
    """A kernel left the GPU's context unusable: nothing else can run in this process."""


@dataclass(frozen=True)
class Point:
    """A case and the backend to run it with."""

    case: Case
    backend: Backend

    @property
    def key(self) -> Key:
        """Identity of the point in a records file."""
        return operation_key(self.case.operation, self.backend.name)


@dataclass(frozen=True)
class Refusal:
    """A backend that cannot run a family here, and why."""

    kernel: str
    backend: str
    reason: str


@dataclass(frozen=True)
class Ceilings:
    """The fastest that this device was seen to be: FLOP/s by dtype, and bytes/s of a copy."""

    flop_per_s: Mapping[str, float]
    bytes_per_s: float | None

    def fraction(self, flop: float, moved_bytes: float, dtype: str, seconds: float) -> float | None:
        """Least time that the ceilings allow over the measured one; None where no ceiling applies.

        max(FLOP / FLOP_per_s, bytes / bytes_per_s) / seconds: the roofline with measured roofs.
        """
        least = []
        if flop and dtype in self.flop_per_s:
            least.append(flop / self.flop_per_s[dtype])
        if self.bytes_per_s:
            least.append(moved_bytes / self.bytes_per_s)
        return max(least) / seconds if least else None


def find_ceilings(records: Iterable[Measurement]) -> Ceilings:
    """Ceilings from what has been measured so far: the best GEMM of each dtype and the best copy.

    FP8 inputs can always be widened, so their ceiling is at least that of BF16.
    """
    flop_per_s: dict[str, float] = {}
    bytes_per_s: list[float] = []
    for record in records:
        if record.us_median is None:
            continue
        seconds = record.us_median * 1e-6
        if record.operation == "gemm":
            flop_per_s[record.dtype] = max(flop_per_s.get(record.dtype, 0.0), record.flop / seconds)
        if record.operation == "copy":
            bytes_per_s.append(record.bytes / seconds)
    if {"bf16", "fp8"} <= flop_per_s.keys():
        flop_per_s["fp8"] = max(flop_per_s["fp8"], flop_per_s["bf16"])
    return Ceilings(flop_per_s, max(bytes_per_s, default=None))


def find_points(cases: Sequence[Case], device: Device) -> tuple[list[Point], list[Refusal]]:
    """Points in order of value, and the backends that some family asked for in vain.

    First every case with its preferred backend that can run it, then the cases once more with the others.
    """
    first, others = [], []
    refusals: dict[tuple[str, str, str], Refusal] = {}
    for case in cases:
        family = FAMILIES[case.operation.kernel]
        usable = []
        for backend in family.backends:
            if case.operation.dtype not in backend.dtypes:
                continue
            if reason := backend.refuses(case, device):
                refusals.setdefault(
                    (family.kernel, backend.name, reason), Refusal(family.kernel, backend.name, reason)
                )
            else:
                usable.append(Point(case, backend))
        first += usable[:1]
        others += usable[1:]
    return first + others, list(refusals.values())


class Bench:
    """Measures points on one device; never raises for what a kernel does, but for a lost device."""

    def __init__(self, device: Device, environment: Mapping[str, Any], watch: Watch) -> None:
        self.device = device
        self.environment = environment
        self.watch = watch
        self._group: Group | None = None
        if device.kind == "cpu":
            torch.set_num_threads(1)

    def measure(self, point: Point, records: Iterable[Measurement]) -> Measurement:
        """The record of a point; `records` so far give the ceilings.

        Raises DeviceLost, with the point's failed record as its argument, when the GPU no longer answers.
        """
        begin = monotonic()
        try:
            deviation, timing = self._run(point)
        except Exception as error:
            record = self._record(point, error=describe_error(error))
            if self._lost():
                raise DeviceLost(record) from error
            return record
        finally:
            self._clean()
        if timing is None:
            wrong = f"disagrees with its reference: {deviation:.2e}, at most {tolerance(point):.0e} allowed"
            return self._record(point, error=wrong, deviation=deviation if isfinite(deviation) else None)
        return self._timed(point, deviation, timing, begin, find_ceilings(records))

    def close(self) -> None:
        """End the processes that communication ran in; they would outlive a process that replaces itself."""
        if self._group is not None:
            self._group.close()
            self._group = None

    def give_up(self, point: Point, reason: str) -> Measurement:
        """The failed record of a point that is not tried again."""
        return self._record(point, error=reason)

    def _run(self, point: Point) -> tuple[float, Timing | None]:
        """Error of the output, and its times if it is correct."""
        family = FAMILIES[point.case.operation.kernel]
        seconds = SECONDS[self.device.kind]
        if point.case.operation.group == "communication":
            return self._processes().run(point.case, point.backend.name, tolerance(point), seconds)
        generator = torch.Generator(self.device.kind)
        generator.manual_seed(zlib.crc32(repr(point.key).encode()))
        tensors = family.make(point.case, self.device, generator)
        with torch.inference_mode():
            call = point.backend.build(point.case, tensors)
            deviation = family.error(point.case, tensors, _output(call))
            if not deviation <= tolerance(point):  # NaN is wrong too
                return deviation, None
            calls = [call, *self._copies(point, family, tensors, generator)]
            return deviation, time_calls(calls, self.device, seconds)

    def _processes(self) -> Group:
        """The group that runs communication, started anew where it has ended."""
        if self._group is None or not self._group.alive:
            self._group = Group(self.device.count, self.device)
        return self._group

    def _copies(
        self, point: Point, family: Family, tensors: Tensors, generator: torch.Generator
    ) -> list[Call]:
        held = sum(tensor.nbytes for tensor in tensors.values())
        touched = min(held, max(1, round(point.case.operation.bytes)))
        wanted = copies_needed(touched, held, self.device)
        more = (family.make(point.case, self.device, generator) for _ in range(wanted - 1))
        return [point.backend.build(point.case, each) for each in more]

    def _record(self, point: Point, **fields: Any) -> Measurement:
        operation = point.case.operation
        return Measurement(
            operation=operation.kernel,
            shape={axis: float(value) for axis, value in operation.shape.items()},
            dtype=operation.dtype,
            options=dict(operation.options),
            backend=point.backend.name,
            flop=operation.flop,
            bytes=operation.bytes,
            source=SOURCE,
            environment=self.environment,
            **{"ok": False, "us_median": None, **fields},
        )

    def _timed(
        self, point: Point, deviation: float, timing: Timing, begin: float, ceilings: Ceilings
    ) -> Measurement:
        operation, seconds = point.case.operation, timing.median_us * 1e-6
        conditions = self.watch.conditions(begin)
        flags = [
            name
            for name, raised in (("unstable", timing.unstable), ("throttled", "throttled" in conditions))
            if raised
        ]
        return self._record(
            point,
            ok=True,
            us_median=timing.median_us,
            us_p10=timing.p10_us,
            us_p90=timing.p90_us,
            samples_us=timing.samples_us,
            method=timing.method,
            deviation=deviation,
            flags=tuple(flags),
            conditions=conditions,
            fraction_of_ceiling=ceilings.fraction(operation.flop, operation.bytes, operation.dtype, seconds),
        )

    def _lost(self) -> bool:
        """Whether the GPU's context is dead: an illegal access makes every later call fail."""
        if self.device.kind == "cpu":
            return False
        try:
            torch.cuda.synchronize()
            torch.zeros(1, device="cuda").add_(1).item()
        except torch.OutOfMemoryError:
            return False  # it answers; what fills its memory goes with the failed point
        except RuntimeError:
            return True
        return False

    def _clean(self) -> None:
        if self.device.kind == "cuda":
            gc.collect()
            with contextlib.suppress(
                RuntimeError
            ):  # a lost GPU frees nothing, and must not hide that it is lost
                torch.cuda.empty_cache()


def tolerance(point: Point) -> float:
    """Largest error of a correct kernel: the family's, and what the backend's own arithmetic may add."""
    return FAMILIES[point.case.operation.kernel].tolerance + point.backend.loses(point.case)


def _output(call: Call) -> Any:
    """Output of one call; see `Backend.build` for outputs that must be rearranged first."""
    output = call()
    return output() if callable(output) else output
